//! What the flags mean together: values become types, and what must not go together is refused.

use super::notice::Notice;
use super::table::{Effect, GATES};
use super::urls::{self, Url};
use super::value::{self, parse_bool, parse_int, parse_uint};
use super::{Allowed, AutoCompaction, Config, Keepalive, Log, LogOutput, Quota, SocketOptions};
use super::{flags::Flags, limits, memory};
use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;
use tracing::level_filters::LevelFilter;

/// etcd's bound below which `--raft-read-timeout` and `--raft-write-timeout` are raised.
const RAFT_TIMEOUT_MIN: Duration = Duration::from_secs(5);

/// Reads the configuration out of checked flags.
///
/// - Errors: a sentence that names the flag; etcd's own where etcd refuses too.
/// - Source: etcd `server/embed/config.go`, `Validate`.
pub fn config(flags: &Flags, notices: &mut Vec<Notice>) -> Result<Config, String> {
    effects(flags, notices)?;
    let list = |name| urls::parse_list(flags.get(name));
    let listen_peer_urls = list("listen-peer-urls")?;
    let listen_client_urls = list("listen-client-urls")?;
    let listen_client_http_urls = list("listen-client-http-urls")?;
    let listen_metrics_urls = list("listen-metrics-urls")?;
    for (flag, urls) in [
        ("listen-peer-urls", &listen_peer_urls),
        ("listen-client-urls", &listen_client_urls),
        ("listen-client-http-urls", &listen_client_http_urls),
        ("listen-metrics-urls", &listen_metrics_urls),
    ] {
        urls.iter().try_for_each(|url| listenable(flag, url))?;
    }
    let advertise_peer_urls = advertised(flags, "initial-advertise-peer-urls", "\"host:port\"")?;
    let form = "in the format \"host:port\", \"unix:/path/to/socket\" or \"unixs:/path/to/socket\"";
    let advertise_client_urls = advertised(flags, "advertise-client-urls", form)?;
    let (heartbeat_interval, election_timeout) = timing(flags)?;
    if flags.is_set("listen-client-urls") && !flags.is_set("advertise-client-urls") {
        return Err("--advertise-client-urls is required when --listen-client-urls is set explicitly".into());
    }
    if listen_client_urls.is_empty() {
        return Err("--listen-client-urls must name at least one URL".into());
    }
    if advertise_peer_urls.is_empty() {
        return Err("--initial-advertise-peer-urls must name at least one URL".into());
    }
    let name = flags.get("name").to_string();
    let data_dir = match flags.get("data-dir") {
        "" => format!("{name}.etcd"),
        path => path.into(),
    };
    let compact_hash_check = flags.get("compact-hash-check-time");
    if value::parse_duration(compact_hash_check).is_none_or(|nanos| nanos <= 0) {
        return Err(format!("--compact-hash-check-time must be >0 (set to {compact_hash_check})"));
    }
    for name in ["raft-read-timeout", "raft-write-timeout"] {
        let timeout = value::duration(name, flags.get(name))?;
        if timeout < RAFT_TIMEOUT_MIN {
            return Err(format!("--{name} must be at least 5s (set to {timeout:?})"));
        }
    }
    Ok(Config {
        initial_cluster: initial_cluster(flags, &name, &advertise_peer_urls)?,
        name,
        data_dir: data_dir.into(),
        wal_dir: Some(flags.get("wal-dir")).filter(|path| !path.is_empty()).map(Into::into),
        heartbeat_interval,
        election_timeout,
        pre_vote: boolean(flags, "pre-vote"),
        listen_peer_urls,
        listen_client_urls,
        listen_client_http_urls,
        listen_metrics_urls,
        advertise_peer_urls,
        advertise_client_urls,
        cluster_token: flags.get("initial-cluster-token").into(),
        quota: match parse_int(flags.get("quota-backend-bytes"))? {
            0 => Quota::FromDisk,
            bytes if bytes < 0 => Quota::Unlimited,
            bytes => Quota::Bytes(bytes),
        },
        max_txn_ops: size(flags, "max-txn-ops")?,
        max_request_bytes: size(flags, "max-request-bytes")?,
        max_concurrent_streams: u32::try_from(parse_uint(flags.get("max-concurrent-streams"))?)
            .map_err(|_| "--max-concurrent-streams is out of range".to_string())?,
        keepalive: keepalive(flags)?,
        socket: SocketOptions {
            reuse_port: boolean(flags, "socket-reuse-port"),
            reuse_address: boolean(flags, "socket-reuse-address"),
        },
        auto_compaction: auto_compaction(flags)?,
        auto_compaction_revision_interval: positive(flags, "auto-compaction-revision-interval")?,
        lease_checkpoint_interval: positive(flags, "lease-checkpoint-interval")?,
        watch_progress_interval: match value::duration(
            "watch-progress-notify-interval",
            flags.get("watch-progress-notify-interval"),
        )? {
            Duration::ZERO => Duration::from_secs(600),
            interval => interval,
        },
        cors: allowed(flags.get("cors")),
        host_whitelist: allowed(flags.get("host-whitelist")),
        log: log(flags)?,
        metrics_extensive: flags.get("metrics") == "extensive",
        memory_limit: memory_limit(flags)?,
        store_flush_interval: value::duration("store-flush-interval", flags.get("store-flush-interval"))?,
        snapshot_log_bytes: snapshot_log_bytes(flags)?,
        features: features(flags)?,
    })
}

/// A duration of at least a millisecond.
fn positive(flags: &Flags, name: &str) -> Result<Duration, String> {
    let duration = value::duration(name, flags.get(name))?;
    if duration < Duration::from_millis(1) {
        return Err(format!("--{name} must be at least 1ms (set to {duration:?})"));
    }
    Ok(duration)
}

/// Refuses what must not be neglected, and gathers what is neglected harmlessly into one warning.
fn effects(flags: &Flags, notices: &mut Vec<Notice>) -> Result<(), String> {
    let mut inert = Vec::new();
    for (flag, typed_as, value) in flags.changed() {
        match flag.effect {
            Effect::Refused(reason) if flag.name.contains("password") => {
                return Err(format!("--{typed_as} is refused: {reason}"));
            }
            Effect::Refused(reason) => return Err(format!("--{typed_as}={value} is refused: {reason}")),
            Effect::Inert | Effect::Ignored | Effect::Gate(_) => inert.push(format!("--{typed_as}")),
            Effect::Acts | Effect::Alias(_) => {}
        }
        if flag.name == "v2-deprecation" {
            notices.push(Notice::warn(
                "--v2-deprecation is deprecated and scheduled for removal in v3.8. The default value is enforced, \
                 ignoring user input",
            ));
        }
        if flag.name == "max-snapshots" {
            notices.push(Notice::warn("--max-snapshots is deprecated in 3.6 and will be decommissioned in 3.8"));
        }
    }
    if !inert.is_empty() {
        notices.push(Notice::warn("these flags are accepted but do not act here").with("flags", inert.join(",")));
    }
    Ok(())
}

fn listenable(flag: &str, url: &Url) -> Result<(), String> {
    url.bind_ip()?;
    if url.is_secure() {
        return Err(format!("--{flag}={url} is refused: TLS is not served yet"));
    }
    if !url.is_local() {
        return Err(format!(
            "--{flag}={url} is refused: TLS is not served yet, and without it only loopback addresses and unix \
             sockets are safe to listen on"
        ));
    }
    Ok(())
}

fn advertised(flags: &Flags, name: &str, form: &str) -> Result<Vec<Url>, String> {
    let urls = urls::parse_list(flags.get(name))?;
    for url in &urls {
        if url.socket_path().is_none() && url.host().is_empty() {
            return Err(format!("--{name} {:?} must be {form} (unexpected empty host ({url}))", flags.get(name)));
        }
        if url.is_secure() {
            return Err(format!("--{name}={url} is refused: TLS is not served yet"));
        }
    }
    Ok(urls)
}

fn timing(flags: &Flags) -> Result<(Duration, Duration), String> {
    let tick = parse_uint(flags.get("heartbeat-interval"))?;
    let election = parse_uint(flags.get("election-timeout"))?;
    if tick == 0 {
        return Err(format!("--heartbeat-interval must be >0 (set to {tick}ms)"));
    }
    if election == 0 {
        return Err(format!("--election-timeout must be >0 (set to {election}ms)"));
    }
    if tick.saturating_mul(5) > election {
        return Err(format!(
            "--election-timeout[{election}ms] should be at least as 5 times as --heartbeat-interval[{tick}ms]"
        ));
    }
    if election > limits::ELECTION_MS_MAX {
        return Err(format!(
            "--election-timeout[{election}ms] is too long, and should be set less than {}ms",
            limits::ELECTION_MS_MAX
        ));
    }
    Ok((Duration::from_millis(tick), Duration::from_millis(election)))
}

/// Reads `name=url,name=url`; a name may come more than once.
fn initial_cluster(flags: &Flags, name: &str, own: &[Url]) -> Result<BTreeMap<String, Vec<Url>>, String> {
    let text = flags.get("initial-cluster");
    let mut cluster: BTreeMap<String, Vec<Url>> = BTreeMap::new();
    if text.is_empty() || !flags.changed().any(|(flag, _, _)| flag.name == "initial-cluster") {
        cluster.insert(name.into(), own.to_vec());
        return Ok(cluster);
    }
    for pair in text.split(',') {
        let (member, url) = pair.split_once('=').unwrap_or((pair, ""));
        let url = Url::parse(url).map_err(|reason| format!("error setting up initial cluster: {reason}"))?;
        cluster.entry(member.trim().into()).or_default().push(url);
    }
    cluster.values_mut().for_each(|urls| urls.sort());
    let Some(listed) = cluster.get(name) else {
        return Err(format!("couldn't find local name {name:?} in the initial cluster configuration"));
    };
    if listed != own {
        let join = |urls: &[Url]| urls.iter().map(Url::to_string).collect::<Vec<_>>().join(",");
        return Err(format!(
            "--initial-cluster has {name}={} but --initial-advertise-peer-urls={}",
            join(listed),
            join(own)
        ));
    }
    if let Some(url) = cluster.values().flatten().find(|url| url.is_secure()) {
        return Err(format!("--initial-cluster={text} is refused: TLS is not served yet ({url})"));
    }
    let mut seen = BTreeSet::new();
    if !cluster.values().flatten().all(|url| seen.insert(url)) {
        let pairs = cluster.iter().flat_map(|(name, urls)| urls.iter().map(move |url| format!("{name}={url}")));
        return Err(format!("initial cluster {} has duplicate url", pairs.collect::<Vec<_>>().join(",")));
    }
    if cluster.len() > limits::MEMBERS_MAX {
        return Err(format!(
            "--initial-cluster={text} is refused: it names {} members, and a cluster has at most {}, since each write \
             waits for more than half of them",
            cluster.len(),
            limits::MEMBERS_MAX
        ));
    }
    Ok(cluster)
}

fn keepalive(flags: &Flags) -> Result<Keepalive, String> {
    let interval = value::duration("grpc-keepalive-interval", flags.get("grpc-keepalive-interval"))?;
    let timeout = value::duration("grpc-keepalive-timeout", flags.get("grpc-keepalive-timeout"))?;
    // etcd sets its pings up only if both are positive.
    let on = !interval.is_zero() && !timeout.is_zero();
    Ok(Keepalive { interval: on.then_some(interval), timeout })
}

fn auto_compaction(flags: &Flags) -> Result<Option<AutoCompaction>, String> {
    let retention = flags.get("auto-compaction-retention");
    let wrong = |reason: String| format!("error parsing CompactionRetention: {reason}");
    match flags.get("auto-compaction-mode") {
        "revision" => match parse_int(retention)
            .map_err(|_| wrong(format!("strconv.ParseInt: parsing {retention:?}: invalid syntax")))?
        {
            0 => Ok(None),
            revisions if revisions < 0 => Err(wrong(format!("{retention} is negative"))),
            revisions => Ok(Some(AutoCompaction::Revision(revisions))),
        },
        "periodic" => {
            let hours = retention.parse::<u64>().ok().and_then(|hours| hours.checked_mul(3600));
            let period = match hours {
                Some(seconds) => Duration::from_secs(seconds),
                None => {
                    let nanos = value::parse_duration(retention)
                        .ok_or_else(|| wrong(format!("time: invalid duration {retention:?}")))?;
                    let nanos = u64::try_from(nanos).map_err(|_| wrong(format!("{retention} is negative")))?;
                    Duration::from_nanos(nanos)
                }
            };
            Ok((!period.is_zero()).then_some(AutoCompaction::Periodic(period)))
        }
        "" => Err("undefined auto-compaction-mode".into()),
        mode => Err(format!("unknown auto-compaction-mode {mode:?}")),
    }
}

fn log(flags: &Flags) -> Result<Log, String> {
    let level = match flags.get("log-level") {
        "debug" => LevelFilter::DEBUG,
        "info" => LevelFilter::INFO,
        "warn" => LevelFilter::WARN,
        "error" | "dpanic" | "panic" | "fatal" => LevelFilter::ERROR,
        level => return Err(format!("unrecognized level: {level:?}")),
    };
    let mut outputs = Vec::new();
    for output in flags.get("log-outputs").split(',') {
        let output = match output {
            "default" | "stderr" | "/dev/stderr" => LogOutput::Stderr,
            "stdout" | "/dev/stdout" => LogOutput::Stdout,
            "" => return Err("--log-outputs must not name an empty output".into()),
            "systemd/journal" => {
                return Err(
                    "--log-outputs=systemd/journal is refused: log to stderr, which systemd takes to the journal"
                        .into(),
                );
            }
            path => LogOutput::File(path.into()),
        };
        if !outputs.contains(&output) {
            outputs.push(output);
        }
    }
    Ok(Log { level, console: flags.get("log-format") == "console", outputs })
}

fn memory_limit(flags: &Flags) -> Result<u64, String> {
    let limit = match flags.get("memory-limit") {
        "" => return Ok(memory::default_limit()),
        text => value::parse_bytes(text)?,
    };
    if limit < limits::MEMORY_LIMIT_MIN {
        return Err(format!(
            "--memory-limit must be at least {}MiB (set to {limit} bytes)",
            limits::MEMORY_LIMIT_MIN >> 20
        ));
    }
    Ok(limit)
}

fn snapshot_log_bytes(flags: &Flags) -> Result<u64, String> {
    let bytes =
        value::parse_bytes(flags.get("snapshot-log-bytes")).map_err(|error| format!("--snapshot-log-bytes {error}"))?;
    if bytes < limits::SNAPSHOT_LOG_BYTES_LEAST {
        return Err(format!(
            "--snapshot-log-bytes must be at least {}MiB (set to {bytes} bytes)",
            limits::SNAPSHOT_LOG_BYTES_LEAST >> 20
        ));
    }
    Ok(bytes)
}

fn features(flags: &Flags) -> Result<BTreeMap<&'static str, bool>, String> {
    let mut features: BTreeMap<_, _> = GATES.iter().map(|(name, _, default)| (*name, *default)).collect();
    for (flag, _, value) in flags.changed() {
        if let Effect::Gate(gate) = flag.effect {
            features.insert(gate, parse_bool(value) == Some(true));
        }
    }
    let mut chosen = Vec::new();
    for pair in flags.get("feature-gates").split(',').map(str::trim).filter(|pair| !pair.is_empty()) {
        let (name, value) =
            pair.split_once('=').ok_or_else(|| format!("missing bool value for feature gate {pair}"))?;
        let (name, value) = (name.trim(), value.trim());
        let known = GATES.iter().find(|(known, _, _)| *known == name);
        let (name, _, _) = known.ok_or_else(|| format!("unrecognized feature gate: {name}"))?;
        let on = parse_bool(value).ok_or_else(|| {
            format!("invalid value of {name}={value}, err: strconv.ParseBool: parsing {value:?}: invalid syntax")
        })?;
        chosen.push((*name, on));
    }
    // The two that stand for many come first, so that a gate named by itself has the last word.
    for (all, stage) in [("AllAlpha", "ALPHA"), ("AllBeta", "BETA")] {
        if let Some((_, on)) = chosen.iter().find(|(name, _)| *name == all) {
            let of_stage = GATES.iter().filter(|(_, its, _)| *its == stage);
            features.extend(of_stage.map(|(name, _, _)| (*name, *on)));
        }
    }
    features.extend(chosen);
    if features["LeaseCheckpointPersist"] && !features["LeaseCheckpoint"] {
        return Err(
            "enabling feature gate LeaseCheckpointPersist requires enabling feature gate LeaseCheckpoint".into()
        );
    }
    Ok(features)
}

fn boolean(flags: &Flags, name: &str) -> bool {
    parse_bool(flags.get(name)) == Some(true)
}

fn size(flags: &Flags, name: &str) -> Result<usize, String> {
    let number = parse_uint(flags.get(name))?;
    usize::try_from(number).map_err(|_| format!("--{name} is out of range"))
}

fn allowed(text: &str) -> Allowed {
    let items: Vec<String> =
        text.split(',').map(|item| item.trim().to_string()).filter(|item| !item.is_empty()).collect();
    match items.is_empty() || items.iter().any(|item| item == "*") {
        true => Allowed::All,
        false => Allowed::Only(items),
    }
}
