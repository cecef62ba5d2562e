//! Whole command lines, and what they ask for.

use super::*;

fn run(args: &[&str]) -> Action {
    action(&args.iter().map(ToString::to_string).collect::<Vec<_>>(), &[])
}

fn config(args: &[&str]) -> (Config, Vec<String>) {
    match run(args) {
        Action::Run(config, notices) => (*config, notices.iter().map(Notice::to_string).collect()),
        other => panic!("{args:?}: {other:?}"),
    }
}

fn texts(urls: &[Url]) -> Vec<String> {
    urls.iter().map(Url::to_string).collect()
}

#[test]
fn no_arguments_start_etcds_default_member() {
    let (config, notices) = config(&[]);
    assert_eq!(config.name, "default");
    assert_eq!(config.data_dir, Path::new("default.etcd"));
    assert_eq!(texts(&config.listen_client_urls), ["http://localhost:2379"]);
    assert_eq!(texts(&config.listen_peer_urls), ["http://localhost:2380"]);
    assert_eq!(config.initial_cluster.keys().collect::<Vec<_>>(), ["default"]);
    assert_eq!(config.heartbeat_interval, Duration::from_millis(100));
    assert_eq!(config.election_timeout, Duration::from_secs(1));
    assert_eq!(config.auto_compaction, None);
    assert_eq!(config.quota, Quota::FromDisk);
    assert_eq!(config.watch_progress_interval, Duration::from_secs(600));
    assert_eq!(config.cors, Allowed::All);
    assert!(config.memory_limit >= limits::MEMORY_LIMIT_MIN);
    assert_eq!(notices, [""; 0]);
}

#[test]
fn what_suites_and_kubeadm_pass_is_taken() {
    let (config, notices) = config(&[
        "--name=m1",
        "--listen-client-urls=http://localhost:0",
        "--advertise-client-urls=http://localhost:0",
        "--listen-peer-urls=http://localhost:0",
        "--initial-advertise-peer-urls=http://localhost:0",
        "--initial-cluster=m1=http://localhost:0",
        "--initial-cluster-state=new",
        "--initial-cluster-token=new",
        "--client-cert-auth=false",
        "--auto-tls=false",
        "--snapshot-count=10000",
        "--snapshot-count=100",
        "--experimental-initial-corrupt-check=true",
        "--experimental-watch-progress-notify-interval=5s",
        "--auto-compaction-retention=1",
        "--enable-v2=true",
        "--quota-backend-bytes=-1",
        "--log-outputs=stderr,default,stdout",
        "--memory-limit=512MiB",
        "--snapshot-log-bytes=8MiB",
    ]);
    assert_eq!(config.initial_cluster["m1"], config.advertise_peer_urls);
    assert_eq!(config.watch_progress_interval, Duration::from_secs(5));
    assert_eq!(config.auto_compaction, Some(AutoCompaction::Periodic(Duration::from_secs(3600))));
    assert_eq!(config.quota, Quota::Unlimited);
    assert_eq!(config.log.outputs, [LogOutput::Stderr, LogOutput::Stdout]);
    assert_eq!(config.memory_limit, 512 << 20);
    assert_eq!(config.snapshot_log_bytes, 8 << 20);
    assert!(config.features["InitialCorruptCheck"]);
    assert_eq!(
        notices,
        ["these flags are accepted but do not act here \
          flags=--enable-v2,--experimental-initial-corrupt-check,--snapshot-count"]
    );
}

#[test]
fn a_name_alone_moves_directory_and_cluster() {
    let (config, _) = config(&["--name", "n", "--initial-advertise-peer-urls=http://localhost:1"]);
    assert_eq!(config.data_dir, Path::new("n.etcd"));
    assert_eq!(texts(&config.initial_cluster["n"]), ["http://localhost:1"]);
}

#[test]
fn contradictions_and_dangers_end_the_start_with_a_sentence() {
    const LISTEN: &str = "--advertise-client-urls=http://localhost:1";
    for (args, wanted) in [
        (&["--heartbeat-interval=0"][..], "--heartbeat-interval must be >0 (set to 0ms)"),
        (&["--election-timeout=0"], "--election-timeout must be >0 (set to 0ms)"),
        (
            &["--election-timeout=200"],
            "--election-timeout[200ms] should be at least as 5 times as --heartbeat-interval[100ms]",
        ),
        (&["--election-timeout=60000"], "--election-timeout[60000ms] is too long, and should be set less than 50000ms"),
        (
            &["--listen-client-urls=http://127.0.0.1:1"],
            "--advertise-client-urls is required when --listen-client-urls is set explicitly",
        ),
        (
            &["--listen-client-urls=http://example.com:1", LISTEN],
            "expected IP in URL for binding (http://example.com:1)",
        ),
        (
            &["--listen-client-urls=http://0.0.0.0:1", LISTEN],
            "--listen-client-urls=http://0.0.0.0:1 is refused: TLS is not served yet, and without it only loopback \
             addresses and unix sockets are safe to listen on",
        ),
        (
            &["--listen-metrics-urls=http://10.0.0.1:1"],
            "--listen-metrics-urls=http://10.0.0.1:1 is refused: TLS is not served yet, and without it only loopback \
             addresses and unix sockets are safe to listen on",
        ),
        (
            &["--listen-peer-urls=https://127.0.0.1:1"],
            "--listen-peer-urls=https://127.0.0.1:1 is refused: TLS is not served yet",
        ),
        (
            &["--listen-client-urls=unixs://a:1", LISTEN],
            "--listen-client-urls=unixs://a:1 is refused: TLS is not served yet",
        ),
        (
            &["--advertise-client-urls=http://:1"],
            "--advertise-client-urls \"http://:1\" must be in the format \"host:port\", \"unix:/path/to/socket\" or \
             \"unixs:/path/to/socket\" (unexpected empty host (http://:1))",
        ),
        (&["--listen-client-urls=", LISTEN], "--listen-client-urls must name at least one URL"),
        (&["--auto-compaction-mode=x"], "unknown auto-compaction-mode \"x\""),
        (&["--auto-compaction-mode="], "undefined auto-compaction-mode"),
        (&["--auto-compaction-retention=abc"], "error parsing CompactionRetention: time: invalid duration \"abc\""),
        (&["--auto-compaction-retention=-1h"], "error parsing CompactionRetention: -1h is negative"),
        (
            &["--auto-compaction-mode=revision", "--auto-compaction-retention=1h"],
            "error parsing CompactionRetention: strconv.ParseInt: parsing \"1h\": invalid syntax",
        ),
        (&["--compact-hash-check-time=0"], "--compact-hash-check-time must be >0 (set to 0)"),
        (&["--raft-read-timeout=1s"], "--raft-read-timeout must be at least 5s (set to 1s)"),
        (&["--grpc-keepalive-interval=-1s"], "--grpc-keepalive-interval must not be negative (set to -1s)"),
        (
            &["--name=a", "--initial-cluster=b=http://localhost:1"],
            "couldn't find local name \"a\" in the initial cluster configuration",
        ),
        (
            &["--initial-cluster=x"],
            "error setting up initial cluster: URL scheme must be http, https, unix, or unixs: ",
        ),
        (
            &["--initial-cluster=default=http://localhost:1"],
            "--initial-cluster has default=http://localhost:1 but --initial-advertise-peer-urls=http://localhost:2380",
        ),
        (
            &["--initial-cluster=default=http://localhost:2380,b=http://localhost:2380"],
            "initial cluster b=http://localhost:2380,default=http://localhost:2380 has duplicate url",
        ),
        (
            &["--initial-cluster=default=http://localhost:2380,b=https://localhost:1"],
            "--initial-cluster=default=http://localhost:2380,b=https://localhost:1 is refused: TLS is not served yet \
             (https://localhost:1)",
        ),
        (
            &["--initial-cluster=default=http://localhost:2380,b=http://a:1,c=http://a:2,d=http://a:3,e=http://a:4,\
                 f=http://a:5,g=http://a:6,h=http://a:7"],
            "--initial-cluster=default=http://localhost:2380,b=http://a:1,c=http://a:2,d=http://a:3,e=http://a:4,\
             f=http://a:5,g=http://a:6,h=http://a:7 is refused: it names 8 members, and a cluster has at most 7, since \
             each write waits for more than half of them",
        ),
        (
            &["--initial-cluster-state=existing"],
            "--initial-cluster-state=existing is refused: a member cannot join a running cluster yet; the members of a \
             new one start together with 'new'",
        ),
        (
            &["--cert-file", "a"],
            "--cert-file=a is refused: TLS is not served yet, and serving without it would be unsafe",
        ),
        (
            &["--auth-token=jwt,pub-key=a"],
            "--auth-token=jwt,pub-key=a is refused: authentication is not served yet, and serving without it would \
             be unsafe",
        ),
        (
            &["--discovery-password=secret"],
            "--discovery-password is refused: discovery is not served yet, and starting without it would make a \
             different cluster",
        ),
        (
            &["--force-new-cluster"],
            "--force-new-cluster=true is refused: a forced new cluster is not served yet; a one-member data directory \
             starts without it",
        ),
        (&["--feature-gates=Foo=true"], "unrecognized feature gate: Foo"),
        (&["--feature-gates=Foo"], "missing bool value for feature gate Foo"),
        (
            &["--feature-gates=LeaseCheckpointPersist=true"],
            "enabling feature gate LeaseCheckpointPersist requires enabling feature gate LeaseCheckpoint",
        ),
        (&["--log-level=zzz"], "unrecognized level: \"zzz\""),
        (&["--log-outputs="], "--log-outputs must not name an empty output"),
        (&["--memory-limit=1MiB"], "--memory-limit must be at least 64MiB (set to 1048576 bytes)"),
        (&["--snapshot-log-bytes=1"], "--snapshot-log-bytes must be at least 1MiB (set to 1 bytes)"),
        (&["x"], "\"x\" is not a valid flag"),
        (
            &["gateway", "start"],
            "the sub-command gateway is not served: run it from an etcd release, it works with this server",
        ),
    ] {
        match run(args) {
            Action::Refuse(text, _) => assert_eq!(text, wanted, "{args:?}"),
            other => panic!("{args:?}: {other:?}"),
        }
    }
}

#[test]
fn version_has_etcds_four_lines() {
    let Action::Print(text) = run(&["--version"]) else { panic!("not printed") };
    let lines: Vec<_> = text.lines().collect();
    assert_eq!(lines[0], "etcd Version: 3.7.1");
    assert_eq!(lines[1], concat!("Git SHA: mechi-", env!("CARGO_PKG_VERSION")));
    assert!(lines[2].starts_with("Go Version: "));
    assert!(lines[3].starts_with("Go OS/Arch: linux/"));
    assert_eq!(lines.len(), 4);
}

#[test]
fn help_names_every_shown_flag_and_usage_follows_a_bad_one() {
    let Action::Print(text) = run(&["--help"]) else { panic!("not printed") };
    for flag in table::FLAGS.iter().filter(|flag| flag.group != table::Group::Hidden) {
        assert!(text.contains(&format!("  --{} '", flag.name)), "{}", flag.name);
    }
    let Action::Usage(text) = run(&["--foo"]) else { panic!("accepted") };
    assert!(text.starts_with("flag provided but not defined: -foo\nUsage:\n"));
}

#[test]
fn a_config_file_silences_flags_and_variables() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("conf.yml");
    std::fs::write(&path, "name: filed\nunheard-of: 1\n").unwrap();
    let path = path.display().to_string();
    let args = ["--name=typed".to_string(), format!("--config-file={path}")];
    let env = [("ETCD_NAME".to_string(), "varied".to_string()), ("ETCD_FOO".into(), "1".into())];
    for (args, env) in [(&args[..], &env[..]), (&args[..1], &[("ETCD_CONFIG_FILE".to_string(), path.clone())][..])] {
        let Action::Run(config, notices) = action(args, env) else { panic!("refused") };
        assert_eq!(config.name, "filed");
        assert_eq!(notices.len(), 2);
        assert_eq!(notices[0].to_string(), "ignored unknown keys of the config file keys=unheard-of");
    }
    let Action::Refuse(text, _) = action(&["--config-file=/nonexistent/x".into()], &[]) else { panic!("accepted") };
    assert_eq!(text, "open /nonexistent/x: no such file or directory");
}
