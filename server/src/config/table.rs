//! Every flag that etcd knows, with its default, its kind, and whether it acts here yet.
//!
//! One table serves the command line, the environment, the config file and `--help`, so that no flag can be known
//! to one of them and unknown to another. Names and defaults are those of etcd 3.7.1; the `experimental-` spellings
//! are those of etcd 3.6.

use super::value::Kind;

/// One flag.
#[derive(Debug)]
pub struct Flag {
    /// Without dashes, as etcd spells it.
    pub name: &'static str,
    /// As a user would type it.
    pub default: &'static str,
    /// What a value must look like.
    pub kind: Kind,
    /// What setting it does.
    pub effect: Effect,
    /// Where `--help` shows it.
    pub group: Group,
    /// One sentence for `--help`.
    pub help: &'static str,
}

/// What setting a flag to something other than its default does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Effect {
    /// It does what etcd's flag does.
    Acts,
    /// It changes nothing here, and leaving it out harms nobody: one warning line names it.
    Inert,
    /// Going on without it would be unsafe or would change the cluster: the start ends with this reason.
    Refused(&'static str),
    /// An older spelling of the named flag.
    Alias(&'static str),
    /// An older spelling of the named feature gate.
    Gate(&'static str),
    /// etcd itself accepts it and does nothing with it.
    Ignored,
}

/// The headings of `--help`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Group {
    /// This member: names, directories, listeners, limits.
    Member,
    /// The cluster and its compaction.
    Clustering,
    /// TLS, origins and host names.
    Security,
    /// Tokens and passwords.
    Auth,
    /// Profiling and metrics.
    Profiling,
    /// Logs.
    Logging,
    /// OpenTelemetry.
    Tracing,
    /// Checks and tuning.
    Features,
    /// What Mechi adds.
    Mechi,
    /// What gives up safety.
    Unsafe,
    /// Config file and version.
    Misc,
    /// Older spellings and what etcd ignores: accepted, not shown.
    Hidden,
}

const NO_TLS: &str = "TLS is not served yet, and serving without it would be unsafe";
const NO_AUTH: &str = "authentication is not served yet, and serving without it would be unsafe";
const NO_DISCOVERY: &str = "discovery is not served yet, and starting without it would make a different cluster";
const NO_JOIN: &str = "a member cannot join a running cluster yet; the members of a new one start together with 'new'";
const NOT_FORCED: &str = "a forced new cluster is not served yet; a one-member data directory starts without it";

const fn flag(
    group: Group,
    name: &'static str,
    kind: Kind,
    default: &'static str,
    effect: Effect,
    help: &'static str,
) -> Flag {
    Flag { name, default, kind, effect, group, help }
}

const fn alias(name: &'static str, of: &'static str) -> Flag {
    flag(Group::Hidden, name, Kind::Text, "", Effect::Alias(of), "")
}

const fn gate(name: &'static str, gate: &'static str, default: &'static str) -> Flag {
    flag(Group::Hidden, name, Kind::Bool, default, Effect::Gate(gate), "")
}

const fn ignored(name: &'static str, kind: Kind, default: &'static str) -> Flag {
    flag(Group::Hidden, name, kind, default, Effect::Ignored, "")
}

use Effect::{Acts, Inert, Refused};
use Group::{Auth, Clustering, Features, Hidden, Logging, Mechi, Member, Misc, Profiling, Security, Tracing, Unsafe};
use Kind::{Bool, Bytes, Choice, Duration, Int, QuotedChoice, Strings, Text, Uint, Uint32, Urls, UrlsOrStar};

/// All flags, in the order of `--help`.
#[rustfmt::skip]
pub static FLAGS: &[Flag] = &[
    flag(Member, "name", Text, "default", Acts, "Human-readable name for this member."),
    flag(Member, "data-dir", Text, "", Acts, "Path to the data directory; '${name}.etcd' if empty."),
    flag(Member, "wal-dir", Text, "", Acts, "Path to a dedicated directory for the log."),
    flag(Member, "snapshot-count", Uint, "10000", Inert, "Committed transactions between snapshots; Mechi snapshots by log size."),
    flag(Member, "snapshot-catchup-entries", Uint, "5000", Inert, "Entries kept for slow followers after a snapshot."),
    flag(Member, "heartbeat-interval", Uint, "100", Acts, "Time (in milliseconds) of a heartbeat interval."),
    flag(Member, "election-timeout", Uint, "1000", Acts, "Time (in milliseconds) for an election to time out."),
    flag(Member, "initial-election-tick-advance", Bool, "true", Inert, "Fast-forward election ticks at start."),
    flag(Member, "listen-peer-urls", Urls, "http://localhost:2380", Acts, "URLs to listen on for peers."),
    flag(Member, "listen-client-urls", Urls, "http://localhost:2379", Acts, "URLs to listen on for clients, gRPC and HTTP."),
    flag(Member, "listen-client-http-urls", Urls, "", Acts, "URLs for HTTP only; the client URLs then serve gRPC only."),
    flag(Member, "listen-metrics-urls", Urls, "", Acts, "URLs for metrics and health checks only."),
    flag(Member, "max-snapshots", Uint, "5", Inert, "Snapshot files to retain (deprecated by etcd)."),
    flag(Member, "max-wals", Uint, "5", Inert, "Log files to retain; Mechi keeps what recovery needs."),
    flag(Member, "memory-mlock", Bool, "false", Inert, "Keep the store's pages in RAM."),
    flag(Member, "quota-backend-bytes", Int, "0", Acts, "Quota on live bytes; 0 takes it from the free disk, negative means none."),
    flag(Member, "backend-bbolt-freelist-type", Text, "map", Inert, "bbolt's freelist; Mechi has none."),
    flag(Member, "backend-batch-interval", Duration, "0s", Inert, "bbolt's commit interval; Mechi has none."),
    flag(Member, "backend-batch-limit", Int, "0", Inert, "bbolt's commit size; Mechi has none."),
    flag(Member, "max-txn-ops", Uint, "128", Acts, "Maximum number of operations permitted in a transaction."),
    flag(Member, "max-request-bytes", Uint, "1572864", Acts, "Maximum client request size in bytes the server will accept."),
    flag(Member, "max-concurrent-streams", Uint32, "4294967295", Acts, "Maximum concurrent streams that each client can open at a time."),
    flag(Member, "grpc-keepalive-min-time", Duration, "5s", Inert, "Minimum time between a client's pings."),
    flag(Member, "grpc-keepalive-interval", Duration, "2h", Acts, "Time between the server's pings to a client; 0 disables them."),
    flag(Member, "grpc-keepalive-timeout", Duration, "20s", Acts, "Time to wait for a ping's answer before closing the connection; 0 disables it."),
    flag(Member, "socket-reuse-port", Bool, "false", Acts, "Set SO_REUSEPORT on listeners."),
    flag(Member, "socket-reuse-address", Bool, "false", Acts, "Set SO_REUSEADDR on listeners."),
    flag(Member, "enable-grpc-gateway", Bool, "true", Inert, "Serve the JSON gateway; not served yet."),
    flag(Member, "raft-read-timeout", Duration, "5s", Inert, "Read timeout on each peer connection."),
    flag(Member, "raft-write-timeout", Duration, "5s", Inert, "Write timeout on each peer connection."),
    flag(Member, "feature-gates", Text, "", Inert, "A set of Name=bool pairs, separated by commas."),

    flag(Clustering, "initial-advertise-peer-urls", Urls, "http://localhost:2380", Acts, "This member's peer URLs, as the cluster is told."),
    flag(Clustering, "initial-cluster", Text, "default=http://localhost:2380", Acts, "Initial cluster configuration; '${name}=${initial-advertise-peer-urls}' if not set."),
    flag(Clustering, "initial-cluster-state", Choice(&["new", "existing"]), "new", Refused(NO_JOIN), "Initial cluster state ('new' or 'existing')."),
    flag(Clustering, "initial-cluster-token", Text, "etcd-cluster", Acts, "Token that tells clusters of the same URLs apart."),
    flag(Clustering, "advertise-client-urls", Urls, "http://localhost:2379", Acts, "This member's client URLs, as clients are told."),
    flag(Clustering, "discovery-token", Text, "", Refused(NO_DISCOVERY), "Token for discovery."),
    flag(Clustering, "discovery-endpoints", Text, "", Refused(NO_DISCOVERY), "Endpoints for discovery."),
    flag(Clustering, "discovery-dial-timeout", Duration, "2s", Inert, "Discovery's dial timeout."),
    flag(Clustering, "discovery-request-timeout", Duration, "5s", Inert, "Discovery's request timeout."),
    flag(Clustering, "discovery-keepalive-time", Duration, "2s", Inert, "Discovery's keepalive time."),
    flag(Clustering, "discovery-keepalive-timeout", Duration, "6s", Inert, "Discovery's keepalive timeout."),
    flag(Clustering, "discovery-insecure-transport", Bool, "true", Inert, "Discovery without transport security."),
    flag(Clustering, "discovery-insecure-skip-tls-verify", Bool, "false", Inert, "Discovery without certificate verification."),
    flag(Clustering, "discovery-cert", Text, "", Refused(NO_DISCOVERY), "Discovery's client certificate."),
    flag(Clustering, "discovery-key", Text, "", Refused(NO_DISCOVERY), "Discovery's client key."),
    flag(Clustering, "discovery-cacert", Text, "", Refused(NO_DISCOVERY), "Discovery's CA bundle."),
    flag(Clustering, "discovery-user", Text, "", Refused(NO_DISCOVERY), "Discovery's user."),
    flag(Clustering, "discovery-password", Text, "", Refused(NO_DISCOVERY), "Discovery's password."),
    flag(Clustering, "discovery-fallback", Choice(&["exit", "proxy"]), "exit", Inert, "What to do when discovery fails."),
    flag(Clustering, "discovery-srv", Text, "", Refused(NO_DISCOVERY), "DNS SRV domain for discovery."),
    flag(Clustering, "discovery-srv-name", Text, "", Refused(NO_DISCOVERY), "Suffix to the DNS SRV name."),
    flag(Clustering, "strict-reconfig-check", Bool, "true", Inert, "Reject reconfigurations that would lose quorum."),
    flag(Clustering, "pre-vote", Bool, "true", Acts, "Run an additional election phase before a real one."),
    flag(Clustering, "auto-compaction-retention", Text, "0", Acts, "Auto compaction retention: a duration, hours if bare, or revisions; 0 disables it."),
    flag(Clustering, "auto-compaction-mode", Text, "periodic", Acts, "What the retention counts: 'periodic' or 'revision'."),
    flag(Clustering, "v2-deprecation", QuotedChoice(&["write-only", "write-only-skip-check", "write-only-drop-data", "gone"]), "write-only", Inert, "etcd's v2 store; Mechi has none."),

    flag(Security, "cert-file", Text, "", Refused(NO_TLS), "Path to the client server TLS cert file."),
    flag(Security, "key-file", Text, "", Refused(NO_TLS), "Path to the client server TLS key file."),
    flag(Security, "trusted-ca-file", Text, "", Refused(NO_TLS), "Path to the client server TLS trusted CA file."),
    flag(Security, "client-cert-auth", Bool, "false", Refused(NO_TLS), "Require client certificates."),
    flag(Security, "client-cert-file", Text, "", Refused(NO_TLS), "Path to the client TLS cert file."),
    flag(Security, "client-key-file", Text, "", Refused(NO_TLS), "Path to the client TLS key file."),
    flag(Security, "client-crl-file", Text, "", Refused(NO_TLS), "Path to the client certificate revocation list."),
    flag(Security, "client-cert-allowed-hostname", Text, "", Refused(NO_TLS), "Host names allowed in client certificates."),
    flag(Security, "auto-tls", Bool, "false", Refused(NO_TLS), "Client TLS with generated certificates."),
    flag(Security, "peer-cert-file", Text, "", Refused(NO_TLS), "Path to the peer TLS cert file."),
    flag(Security, "peer-key-file", Text, "", Refused(NO_TLS), "Path to the peer TLS key file."),
    flag(Security, "peer-trusted-ca-file", Text, "", Refused(NO_TLS), "Path to the peer TLS trusted CA file."),
    flag(Security, "peer-client-cert-auth", Bool, "false", Refused(NO_TLS), "Require peer certificates."),
    flag(Security, "peer-client-cert-file", Text, "", Refused(NO_TLS), "Path to the peer client TLS cert file."),
    flag(Security, "peer-client-key-file", Text, "", Refused(NO_TLS), "Path to the peer client TLS key file."),
    flag(Security, "peer-cert-allowed-cn", Text, "", Refused(NO_TLS), "Common names allowed in peer certificates."),
    flag(Security, "peer-cert-allowed-hostname", Text, "", Refused(NO_TLS), "Host names allowed in peer certificates."),
    flag(Security, "peer-auto-tls", Bool, "false", Refused(NO_TLS), "Peer TLS with generated certificates."),
    flag(Security, "peer-crl-file", Text, "", Refused(NO_TLS), "Path to the peer certificate revocation list."),
    flag(Security, "peer-skip-client-san-verification", Bool, "false", Inert, "Skip the SAN check of peer certificates."),
    flag(Security, "self-signed-cert-validity", Uint, "1", Inert, "Validity of generated certificates, in years."),
    flag(Security, "cipher-suites", Strings, "", Refused(NO_TLS), "Supported TLS cipher suites."),
    flag(Security, "cors", UrlsOrStar, "*", Acts, "Comma-separated origins allowed for CORS ('*' or empty allows all)."),
    flag(Security, "host-whitelist", Strings, "*", Acts, "Comma-separated host names accepted from HTTP clients ('*' or empty allows all)."),
    flag(Security, "tls-min-version", Choice(&["", "TLS1.2", "TLS1.3"]), "TLS1.2", Refused(NO_TLS), "Minimum TLS version."),
    flag(Security, "tls-max-version", Choice(&["", "TLS1.2", "TLS1.3"]), "", Refused(NO_TLS), "Maximum TLS version."),

    flag(Auth, "auth-token", Text, "simple", Refused(NO_AUTH), "Auth token type and its options."),
    flag(Auth, "bcrypt-cost", Uint, "10", Inert, "Cost of password hashing."),
    flag(Auth, "auth-token-ttl", Uint, "300", Inert, "Lifetime of a simple token, in seconds."),

    flag(Profiling, "enable-pprof", Bool, "false", Inert, "Go's profiler; Mechi has none."),
    flag(Profiling, "metrics", Choice(&["basic", "extensive"]), "basic", Acts, "Level of detail for exported metrics; 'extensive' adds gRPC latencies."),

    flag(Logging, "logger", Choice(&["zap"]), "zap", Acts, "The log's shape; only 'zap'."),
    flag(Logging, "log-outputs", Strings, "default", Acts, "'stdout', 'stderr', file paths, separated by commas; 'default' is stderr."),
    flag(Logging, "log-level", Text, "info", Acts, "debug, info, warn, error, panic or fatal."),
    flag(Logging, "log-format", Choice(&["json", "console"]), "json", Acts, "Log line format."),
    flag(Logging, "enable-log-rotation", Bool, "false", Inert, "Rotate the log file; Mechi leaves this to logrotate."),
    flag(Logging, "log-rotation-config-json", Text, r#"{"maxsize": 100, "maxage": 0, "maxbackups": 0, "localtime": false, "compress": false}"#, Inert, "Options of the rotation."),
    flag(Logging, "disable-log-sampling", Bool, "false", Inert, "Write every log line; Mechi always does."),
    flag(Logging, "warning-unary-request-duration", Duration, "300ms", Inert, "Warn about unary requests that take longer."),
    flag(Logging, "warning-apply-duration", Duration, "100ms", Inert, "Warn about applies that take longer."),

    flag(Tracing, "enable-distributed-tracing", Bool, "false", Inert, "Export OpenTelemetry spans; not served."),
    flag(Tracing, "distributed-tracing-address", Text, "localhost:4317", Inert, "The collector's address."),
    flag(Tracing, "distributed-tracing-service-name", Text, "etcd", Inert, "The service's name."),
    flag(Tracing, "distributed-tracing-instance-id", Text, "", Inert, "The instance's id."),
    flag(Tracing, "distributed-tracing-sampling-rate", Int, "0", Inert, "Samples per million spans."),

    flag(Features, "corrupt-check-time", Duration, "0s", Inert, "Time between cluster corruption checks."),
    flag(Features, "compact-hash-check-time", Duration, "1m", Inert, "Time between checks of followers' compaction hashes."),
    flag(Features, "compaction-batch-limit", Int, "0", Inert, "Revisions deleted per compaction batch."),
    flag(Features, "compaction-sleep-interval", Duration, "0s", Inert, "Pause between compaction batches."),
    flag(Features, "watch-progress-notify-interval", Duration, "0s", Acts, "Time between watch progress notifications; 0 means 10m."),
    flag(Features, "downgrade-check-time", Duration, "5s", Inert, "Time between downgrade status checks."),
    flag(Features, "bootstrap-defrag-threshold-megabytes", Uint, "0", Inert, "Defragment at start; Mechi reuses freed space at once."),
    flag(Features, "max-learners", Int, "1", Inert, "Learners allowed in the cluster."),

    flag(Mechi, "memory-limit", Bytes, "", Acts, "Memory to stay within (bytes, 512MiB, 2GiB); half of the cgroup's or the machine's if not set."),
    flag(Mechi, "store-flush-interval", Duration, "0s", Acts, "How long a change may wait for the working store (no acknowledgement waits for it); 0s: the store is used only once the data does not fit into memory."),
    flag(Mechi, "snapshot-log-bytes", Bytes, "64MiB", Acts, "Log from which on a snapshot replaces it (bytes, 64MiB); a member that lags by more is sent a snapshot."),
    flag(Mechi, "auto-compaction-revision-interval", Duration, "5m0s", Acts, "Time between two looks of the auto compaction by revision."),
    flag(Mechi, "lease-checkpoint-interval", Duration, "5m0s", Acts, "Time between two notes of a lease's remaining time, which a restart starts from."),

    flag(Unsafe, "unsafe-no-fsync", Bool, "false", Inert, "Go without fsync; Mechi never does."),
    flag(Unsafe, "force-new-cluster", Bool, "false", Refused(NOT_FORCED), "Force to create a new one-member cluster."),

    flag(Misc, "config-file", Text, "", Acts, "Path to the configuration file (YAML or JSON); all other flags and variables are then ignored."),
    flag(Misc, "version", Bool, "false", Acts, "Print the version and exit."),

    flag(Hidden, "discovery", Text, "", Refused(NO_DISCOVERY), ""),
    flag(Hidden, "discovery-proxy", Text, "", Refused(NO_DISCOVERY), ""),
    alias("experimental-bootstrap-defrag-threshold-megabytes", "bootstrap-defrag-threshold-megabytes"),
    alias("experimental-compact-hash-check-time", "compact-hash-check-time"),
    alias("experimental-compaction-batch-limit", "compaction-batch-limit"),
    alias("experimental-compaction-sleep-interval", "compaction-sleep-interval"),
    alias("experimental-corrupt-check-time", "corrupt-check-time"),
    alias("experimental-distributed-tracing-address", "distributed-tracing-address"),
    alias("experimental-distributed-tracing-instance-id", "distributed-tracing-instance-id"),
    alias("experimental-distributed-tracing-sampling-rate", "distributed-tracing-sampling-rate"),
    alias("experimental-distributed-tracing-service-name", "distributed-tracing-service-name"),
    alias("experimental-downgrade-check-time", "downgrade-check-time"),
    alias("experimental-enable-distributed-tracing", "enable-distributed-tracing"),
    alias("experimental-max-learners", "max-learners"),
    alias("experimental-memory-mlock", "memory-mlock"),
    alias("experimental-peer-skip-client-san-verification", "peer-skip-client-san-verification"),
    alias("experimental-snapshot-catchup-entries", "snapshot-catchup-entries"),
    alias("experimental-warning-apply-duration", "warning-apply-duration"),
    alias("experimental-warning-unary-request-duration", "warning-unary-request-duration"),
    alias("experimental-watch-progress-notify-interval", "watch-progress-notify-interval"),
    gate("experimental-compact-hash-check-enabled", "CompactHashCheck", "false"),
    gate("experimental-enable-lease-checkpoint", "LeaseCheckpoint", "false"),
    gate("experimental-enable-lease-checkpoint-persist", "LeaseCheckpointPersist", "false"),
    gate("experimental-initial-corrupt-check", "InitialCorruptCheck", "false"),
    gate("experimental-stop-grpc-service-on-defrag", "StopGRPCServiceOnDefrag", "false"),
    gate("experimental-txn-mode-write-with-shared-buffer", "TxnModeWriteWithSharedBuffer", "true"),
    ignored("enable-v2", Bool, "false"),
    ignored("cluster-active-size", Text, ""),
    ignored("cluster-remove-delay", Text, ""),
    ignored("cluster-sync-interval", Text, ""),
    ignored("config", Text, ""),
    ignored("force", Bool, "false"),
    ignored("max-result-buffer", Text, ""),
    ignored("max-retry-attempts", Text, ""),
    ignored("peer-heartbeat-interval", Text, ""),
    ignored("peer-election-timeout", Text, ""),
    ignored("retry-interval", Text, ""),
    ignored("snapshot", Bool, "false"),
    ignored("v", Bool, "false"),
    ignored("vv", Bool, "false"),
    ignored("test.coverprofile", Text, ""),
    ignored("test.outputdir", Text, ""),
];

/// Finds a flag by its name.
pub fn find(name: &str) -> Option<&'static Flag> {
    FLAGS.iter().find(|flag| flag.name == name)
}

impl Flag {
    /// The flag that this one is an older spelling of, or itself.
    pub fn target(&'static self) -> &'static Flag {
        match self.effect {
            Effect::Alias(of) => find(of).expect("a test checks that every alias has its target in the table"),
            _ => self,
        }
    }
}

/// etcd's feature gates: name, stage, default.
pub static GATES: &[(&str, &str, bool)] = &[
    ("AllAlpha", "ALPHA", false),
    ("AllBeta", "BETA", false),
    ("CompactHashCheck", "ALPHA", false),
    ("FastLeaseKeepAlive", "BETA", true),
    ("InitialCorruptCheck", "ALPHA", false),
    ("LeaseCheckpoint", "ALPHA", false),
    ("LeaseCheckpointPersist", "ALPHA", false),
    ("PriorityRequest", "ALPHA", false),
    ("SetMemberLocalAddr", "ALPHA", false),
    ("StopGRPCServiceOnDefrag", "ALPHA", false),
    ("TxnModeWriteWithSharedBuffer", "BETA", true),
];

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    #[test]
    fn names_are_unique_and_aliases_resolve() {
        let names: BTreeSet<_> = FLAGS.iter().map(|flag| flag.name).collect();
        assert_eq!(names.len(), FLAGS.len());
        for flag in FLAGS {
            if let Effect::Gate(gate) = flag.effect {
                assert!(GATES.iter().any(|(name, _, _)| *name == gate), "{}", flag.name);
            }
            assert!(!matches!(flag.target().effect, Effect::Alias(_)), "{}", flag.name);
        }
    }

    #[test]
    fn every_default_is_a_value_of_its_own_kind() {
        for flag in FLAGS {
            assert_eq!(flag.kind.check(flag.default), Ok(()), "{}", flag.name);
        }
    }
}
