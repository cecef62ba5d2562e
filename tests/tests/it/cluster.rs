//! Three members as processes: any one serves any request, and what was acknowledged survives kills of any of them.

use mechi_proto::etcdserverpb as pb;
use mechi_tests::client::Client;
use mechi_tests::cluster::{Cluster, NO_ELECTIONS};
use mechi_tests::oracle;
use mechi_tests::process::{Kind, http_get};
use mechi_tests::rng::Rng;
use std::collections::BTreeMap;
use std::process::Command;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};
use tokio::task::JoinHandle;

const WRITERS: u64 = 12;

/// How long one request of a writer may take: longer than an election, shorter than a test.
const PUT_MAX: Duration = Duration::from_secs(10);

/// How long anything may take that must happen, on a busy machine.
const SOON: Duration = Duration::from_secs(90);

fn three(flags: &[&str]) -> Cluster {
    Cluster::start(Kind::Mechi, 3, flags).expect("three members start")
}

async fn connect(cluster: &Cluster, n: usize) -> Client {
    Client::connect(&cluster.members[n].endpoint()).await.expect("the member answers")
}

fn no_panics(cluster: &Cluster) {
    assert!(!cluster.logs().contains("panicked"), "{}", cluster.logs());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn any_member_serves_any_request() {
    let cluster = three(&NO_ELECTIONS);
    let leader = cluster.leader().await.expect("a leader");
    let mut ids = Vec::new();
    for n in 0..3 {
        let mut client = connect(&cluster, n).await;
        let listed = client.cluster.member_list(pb::MemberListRequest { linearizable: true }).await;
        let mut members = listed.expect("lists").into_inner().members;
        members.sort_by(|a, b| a.name.cmp(&b.name));
        let names: Vec<&str> = members.iter().map(|member| member.name.as_str()).collect();
        assert_eq!(names, ["m1", "m2", "m3"]);
        assert!(members.iter().all(|member| member.client_ur_ls.len() == 1 && member.peer_ur_ls.len() == 1));
        ids = members.iter().map(|member| member.id).collect();

        // Writes through each are read through each other, at once.
        let revision = client.put(format!("from/{n}"), format!("{n}")).await.expect("puts");
        for other in 0..3 {
            let got = connect(&cluster, other).await.get(format!("from/{n}")).await.expect("gets");
            assert_eq!((got.kvs[0].value.as_ref(), got.kvs[0].mod_revision), (format!("{n}").as_bytes(), revision));
        }

        // A lease granted by one is renewed and asked for through every member.
        let grant = pb::LeaseGrantRequest { ttl: 60, id: 100 + n as i64 };
        let lease = client.lease.lease_grant(grant).await.expect("grants").into_inner();
        for other in 0..3 {
            let mut client = connect(&cluster, other).await;
            let renewed = Instant::now();
            let renew = tokio_stream::once(pb::LeaseKeepAliveRequest { id: lease.id });
            let mut answers = client.lease.lease_keep_alive(renew).await.expect("a stream").into_inner();
            let answer = answers.message().await.expect("an answer").expect("one answer");
            assert_eq!((answer.id, answer.ttl), (lease.id, 60), "through member {other}");
            let left = pb::LeaseTimeToLiveRequest { id: lease.id, keys: false };
            let left = client.lease.lease_time_to_live(left).await.expect("tells").into_inner();
            // What is left is told in whole seconds.
            let passed = i64::try_from(renewed.elapsed().as_secs()).expect("a short time");
            assert!((59 - passed..=60).contains(&left.ttl), "{left:?} at most {passed} s after the renewal");
            let leases = client.lease.lease_leases(pb::LeaseLeasesRequest {}).await.expect("lists").into_inner().leases;
            assert!(leases.iter().any(|found| found.id == lease.id));
        }
        let unknown = tokio_stream::once(pb::LeaseKeepAliveRequest { id: 4711 });
        let mut answers = client.lease.lease_keep_alive(unknown).await.expect("a stream").into_inner();
        assert_eq!(answers.message().await.expect("an answer").expect("one answer").ttl, 0);

        let (code, body) = http_get(&cluster.members[n].endpoint(), "/health").expect("answers");
        assert_eq!((code, body.as_str()), (200, r#"{"health":"true","reason":""}"#));
        let status = cluster.status(n).await.expect("tells");
        assert_eq!(status.leader, ids[leader]);
        assert!(status.errors.is_empty(), "{status:?}");
    }

    // Only the leader hands over, and only to a member.
    let follower = (leader + 1) % 3;
    let mut client = connect(&cluster, follower).await;
    let to_follower = pb::MoveLeaderRequest { target_id: ids[follower] };
    let refused = client.maintenance.move_leader(to_follower).await.expect_err("it does not lead");
    assert_eq!(refused.message(), "etcdserver: not leader");
    let mut client = connect(&cluster, leader).await;
    let refused = client.maintenance.move_leader(pb::MoveLeaderRequest { target_id: 1 }).await.expect_err("nobody");
    assert_eq!(refused.message(), "etcdserver: bad leader transferee");
    client.maintenance.move_leader(to_follower).await.expect("hands over");
    assert_eq!(cluster.leader().await.expect("a leader"), follower);
    connect(&cluster, leader).await.put("after", "move").await.expect("puts");
    cluster.wait_until_equal().await.expect("equal members");
    no_panics(&cluster);
}

#[test]
fn etcdctl_uses_each_member_and_all() {
    let cluster = three(&NO_ELECTIONS);
    for (etcdctl, name) in [(oracle::etcdctl_3_4(), "3.4"), (oracle::etcdctl_3_5(), "3.5")] {
        let run = |endpoints: &str, args: &[&str]| {
            let mut command = Command::new(&etcdctl);
            command.env_clear().env("ETCDCTL_API", "3").arg(format!("--endpoints={endpoints}")).args(args);
            let done = command.output().expect("etcdctl runs");
            let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
            assert!(done.status.success(), "{name} {args:?}: {}{}", text(&done.stdout), text(&done.stderr));
            text(&done.stdout) + &text(&done.stderr)
        };
        for member in &cluster.members {
            let endpoint = member.endpoint();
            assert_eq!(run(&endpoint, &["put", "through", &endpoint]), "OK\n");
            for other in &cluster.members {
                assert_eq!(run(&other.endpoint(), &["get", "through", "--print-value-only"]), format!("{endpoint}\n"));
            }
            assert!(run(&endpoint, &["endpoint", "health"]).contains("is healthy"));
            assert_eq!(run(&endpoint, &["member", "list"]).matches(", started, m").count(), 3);
        }
        let all = cluster.endpoints();
        assert_eq!(run(&all, &["endpoint", "health"]).matches("is healthy").count(), 3);
        assert_eq!(run(&all, &["endpoint", "status"]).matches(", true, false, ").count(), 1, "one leader");
        let hashes = run(&all, &["endpoint", "hashkv"]);
        let mut sums: Vec<&str> = hashes.lines().filter_map(|line| line.split(", ").nth(1)).collect();
        sums.dedup();
        assert_eq!((hashes.lines().count(), sums.len()), (3, 1), "{hashes}");
        let granted = run(&all, &["lease", "grant", "300"]);
        let id = granted.split(' ').nth(1).expect("lease ID granted");
        for member in &cluster.members {
            let renewed = run(&member.endpoint(), &["lease", "keep-alive", "--once", id]);
            assert_eq!(renewed, format!("lease {id} keepalived with TTL(300)\n"));
        }
    }
    no_panics(&cluster);
}

/// What one writer knows of its key: the last acknowledged counter and revision, and the last one attempted.
#[derive(Clone, Copy, Debug, Default)]
struct Written {
    acknowledged: u64,
    revision: i64,
    attempted: u64,
}

/// Writers that put ever higher counters, each through one member until it fails, then through the next.
struct Writers {
    ledger: Arc<Mutex<BTreeMap<u64, Written>>>,
    acknowledged: Arc<AtomicU64>,
    stop: Arc<AtomicBool>,
    tasks: Vec<JoinHandle<()>>,
}

impl Writers {
    fn start(cluster: &Cluster) -> Self {
        let (ledger, acknowledged, stop) = <(Arc<Mutex<BTreeMap<_, _>>>, Arc<AtomicU64>, Arc<AtomicBool>)>::default();
        let endpoints: Vec<String> = cluster.members.iter().map(|member| member.endpoint()).collect();
        let tasks = (0..WRITERS).map(|writer| {
            let (ledger, acknowledged, stop) = (ledger.clone(), acknowledged.clone(), stop.clone());
            let endpoints = endpoints.clone();
            tokio::spawn(async move {
                let mut turn = writer as usize;
                while !stop.load(Ordering::Relaxed) {
                    turn += 1;
                    let endpoint = &endpoints[turn % endpoints.len()];
                    let Ok(Ok(mut client)) = tokio::time::timeout(PUT_MAX, Client::connect(endpoint)).await else {
                        tokio::time::sleep(Duration::from_millis(20)).await;
                        continue;
                    };
                    while !stop.load(Ordering::Relaxed) {
                        let counter = {
                            let mut ledger = ledger.lock().expect("no writer panics");
                            let written: &mut Written = ledger.entry(writer).or_default();
                            written.attempted += 1;
                            written.attempted
                        };
                        let put = client.put(format!("writer/{writer:03}"), counter.to_string());
                        let Ok(Ok(revision)) = tokio::time::timeout(PUT_MAX, put).await else { break };
                        let mut ledger = ledger.lock().expect("no writer panics");
                        let written = ledger.entry(writer).or_default();
                        assert!(revision > written.revision, "revision {revision} after {}", written.revision);
                        (written.acknowledged, written.revision) = (counter, revision);
                        acknowledged.fetch_add(1, Ordering::Relaxed);
                    }
                }
            })
        });
        let tasks = tasks.collect();
        Self { ledger, acknowledged, stop, tasks }
    }

    fn count(&self) -> u64 {
        self.acknowledged.load(Ordering::Relaxed)
    }

    /// Waits until `more` writes were acknowledged; returns how long it took.
    async fn progress(&self, cluster: &Cluster, more: u64) -> Duration {
        let (began, from) = (Instant::now(), self.count());
        while self.count() < from + more {
            assert!(began.elapsed() < SOON, "no progress:\n{}", cluster.logs());
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        began.elapsed()
    }

    async fn finish(self) -> BTreeMap<u64, Written> {
        self.stop.store(true, Ordering::Relaxed);
        for task in self.tasks {
            task.await.expect("no writer panics");
        }
        self.ledger.lock().expect("no writer panics").clone()
    }
}

/// Every member holds every acknowledged put, and nothing that was not attempted.
async fn check(cluster: &Cluster, ledger: &BTreeMap<u64, Written>) {
    let newest = ledger.values().map(|written| written.revision).max().unwrap_or_default();
    for n in 0..cluster.members.len() {
        let all = connect(cluster, n).await.all().await.expect("reads");
        assert!(all.header.expect("a header").revision >= newest);
        for (writer, written) in ledger {
            let key = format!("writer/{writer:03}");
            let found = all.kvs.iter().find(|kv| kv.key == key.as_bytes());
            let counter: u64 = found.map_or(0, |kv| String::from_utf8_lossy(&kv.value).parse().expect("a counter"));
            let at = found.map_or(0, |kv| kv.mod_revision);
            assert!(
                counter >= written.acknowledged && counter <= written.attempted && at >= written.revision,
                "member {n}: {key} holds {counter} of revision {at}, but {written:?}\n{}",
                cluster.logs()
            );
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn kill_9_of_any_loses_nothing() {
    let rounds: usize = std::env::var("MECHI_CLUSTER_ROUNDS").ok().and_then(|n| n.parse().ok()).unwrap_or(3);
    let mut cluster = three(&["--store-flush-interval=200ms"]);
    let mut rng = Rng::new(3);
    let writers = Writers::start(&cluster);
    let mut gaps = Vec::new();
    for round in 0..rounds {
        for victims in ["leader", "follower", "all"] {
            writers.progress(&cluster, 200).await;
            let leader = cluster.leader().await.expect("a leader");
            let killed = match victims {
                "leader" => vec![leader],
                "follower" => vec![(leader + 1 + rng.below(2) as usize) % 3],
                _ => vec![0, 1, 2],
            };
            for n in &killed {
                cluster.kill(*n).expect("it runs");
            }
            if killed.len() == 1 {
                gaps.push((victims, writers.progress(&cluster, 100).await));
            }
            for n in &killed {
                cluster.spawn_only(*n).expect("it starts");
            }
            for n in &killed {
                cluster.members[*n].wait_ready().unwrap_or_else(|error| panic!("round {round}, {victims}: {error}"));
            }
        }
    }
    writers.progress(&cluster, 200).await;
    let acknowledged = writers.count();
    let ledger = writers.finish().await;
    check(&cluster, &ledger).await;
    let revision = cluster.wait_until_equal().await.expect("equal members");
    no_panics(&cluster);
    println!(
        "kill -9 of leader, follower, all: {rounds} rounds each, {acknowledged} acknowledged writes, revision {revision}, 100 writes after a kill took {gaps:.1?}"
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn sigterm_hands_leadership_over() {
    let mut cluster = three(&[]);
    let leader = cluster.leader().await.expect("a leader");
    let term = cluster.status(leader).await.expect("tells").raft_term;
    assert!(cluster.stop(leader).expect("stops").success(), "{}", cluster.members[leader].log());
    let rest: Vec<usize> = (0..3).filter(|n| *n != leader).collect();
    let next = cluster.wait_for_leader(&rest).await.expect("a leader");
    let after = cluster.status(next).await.expect("tells").raft_term;
    // It rises by one; the machine may be so busy that there are elections besides.
    assert!(after > term, "{}", cluster.logs());
    println!("SIGTERM: the term went from {term} to {after}");
    connect(&cluster, next).await.put("after", "the stop").await.expect("puts");
    cluster.spawn(leader).expect("it starts again");
    cluster.wait_until_equal().await.expect("equal members");
    no_panics(&cluster);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn without_a_quorum_a_member_waits_and_can_still_be_stopped() {
    let mut cluster = Cluster::describe(Kind::Mechi, 3, &[]).expect("described");
    cluster.spawn_only(0).expect("it starts");
    let deadline = Instant::now() + SOON;
    while !cluster.members[0].log().contains("a quorum to elect a leader") {
        assert!(Instant::now() < deadline, "{}", cluster.members[0].log());
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    assert!(!cluster.members[0].log().contains("ready to serve"));
    assert!(cluster.stop(0).expect("stops").success());
    no_panics(&cluster);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_wiped_member_is_refused_while_a_peer_remembers_it() {
    let mut cluster = three(&[]);
    connect(&cluster, 2).await.put("key", "value").await.expect("puts");
    cluster.kill(2).expect("it runs");
    let aside = cluster.home().join("aside");
    std::fs::rename(cluster.members[2].data_dir(), &aside).expect("moves");
    cluster.spawn_only(2).expect("it starts");
    let status = cluster.members[2].wait_exit(SOON).expect("it ends");
    assert!(!status.success());
    let log = cluster.members[2].log();
    assert!(log.contains("has already been bootstrapped"), "{log}");
    assert!(!cluster.members[2].data_dir().join("member").exists(), "nothing is made in the empty directory");
    let _ = std::fs::remove_dir_all(cluster.members[2].data_dir());
    std::fs::rename(&aside, cluster.members[2].data_dir()).expect("moves back");
    cluster.spawn(2).expect("with its data it starts");
    cluster.wait_until_equal().await.expect("equal members");
    no_panics(&cluster);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_leader_that_is_cut_off_is_replaced_and_comes_back() {
    let cluster = three(&[]);
    let writers = Writers::start(&cluster);
    writers.progress(&cluster, 100).await;
    let old = cluster.leader().await.expect("a leader");
    let rest: Vec<usize> = (0..3).filter(|n| *n != old).collect();
    cluster.isolate(old);
    let next = cluster.wait_for_leader(&rest).await.expect("another leader");
    assert_ne!(next, old);
    connect(&cluster, next).await.put("while", "cut off").await.expect("puts");
    cluster.heal();
    writers.progress(&cluster, 100).await;
    let ledger = writers.finish().await;
    check(&cluster, &ledger).await;
    cluster.wait_until_equal().await.expect("equal members");
    no_panics(&cluster);
}

/// Overwrites 64 keys with `mib` MiB of incompressible values, through one member.
async fn write_mib(endpoint: &str, mib: u64, seed: u64) {
    const VALUE_BYTES: u64 = 128 << 10;
    let writers = (0..4).map(|writer| {
        let endpoint = endpoint.to_owned();
        tokio::spawn(async move {
            let mut client = Client::connect(&endpoint).await.expect("answers");
            for n in (writer..(mib << 20) / VALUE_BYTES).step_by(4) {
                let mut rng = Rng::new(seed << 32 | n);
                let value: Vec<u8> = (0..VALUE_BYTES / 8).flat_map(|_| rng.next_u64().to_le_bytes()).collect();
                client.put(format!("churn/{:02}", n % 64), value).await.expect("puts");
            }
        })
    });
    for writer in writers.collect::<Vec<_>>() {
        writer.await.expect("no panic");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_member_beyond_the_log_fetches_a_snapshot_and_opens_again() {
    // The one that makes the snapshots goes on to lead.
    let mut cluster = three(&[&["--store-flush-interval=200ms"], &NO_ELECTIONS[..]].concat());
    let leader = cluster.leader().await.expect("a leader");
    let lagging = (leader + 1) % 3;
    connect(&cluster, lagging).await.put("before", "the lag").await.expect("puts");
    cluster.kill(lagging).expect("it runs");
    let snapshots = |cluster: &Cluster| cluster.members[leader].log().matches("saved snapshot").count();
    // Until the log that the lagging member needs is gone: the older of two snapshots lies beyond it. Nothing is
    // compacted: a follower that compacts while it makes a snapshot was seen to stop with "engine lost".
    // One is due behind the first 64 MiB of log, the next one behind as much again as then half the data; how fast they
    // are made is the machine's business.
    for (wanted, mib) in [(1, 96), (2, 144)] {
        write_mib(&cluster.members[leader].endpoint(), mib, wanted).await;
        let deadline = Instant::now() + SOON;
        while snapshots(&cluster) < wanted as usize {
            let log = cluster.members[leader].log();
            assert!(Instant::now() < deadline, "{} of {wanted} snapshots:\n{log}", snapshots(&cluster));
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }
    let began = Instant::now();
    cluster.spawn(lagging).expect("it starts");
    let deadline = Instant::now() + SOON;
    while !cluster.members[lagging].log().contains("the member is stopped and opened again") {
        assert!(Instant::now() < deadline, "no snapshot came:\n{}", cluster.logs());
        connect(&cluster, leader).await.put("while", "it fetches").await.expect("writes go on");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    let revision = cluster.wait_until_equal().await.expect("equal members");
    for line in
        cluster.members[lagging].log().lines().filter(|line| line.contains("snapshot") || line.contains("opened"))
    {
        println!("lag: {line}");
    }
    println!(
        "lag: {} snapshots at the leader, equal at revision {revision} after {:.1?}",
        snapshots(&cluster),
        began.elapsed()
    );
    let mut client = connect(&cluster, lagging).await;
    assert_eq!(client.get("before").await.expect("gets").kvs[0].value.as_ref(), b"the lag");
    client.put("after", "the lag").await.expect("puts through it");
    // The same process serves on, and what it shows is whole.
    let (code, body) = http_get(&cluster.members[lagging].endpoint(), "/metrics").expect("answers");
    assert!(code == 200 && body.contains("etcd_server_has_leader 1"), "{body}");
    no_panics(&cluster);
}
