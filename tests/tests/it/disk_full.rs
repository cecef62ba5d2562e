//! A full disk, freed again: nothing acknowledged is lost, reads and deletes go on, growth returns with the room.
//!
//! The disk is a small tmpfs in a mount namespace of its own; no root needed.

use mechi_proto::etcdserverpb as pb;
use mechi_tests::client::Client;
use mechi_tests::process::{Kind, Server};
use mechi_tests::small_disk::{DISK_MIB, SmallDisk};
use std::collections::BTreeMap;
use std::time::{Duration, Instant};

#[tokio::test(flavor = "multi_thread")]
async fn a_full_disk_refuses_growth_and_recovers() {
    let home = tempfile::tempdir().expect("a folder");
    let disk = SmallDisk::mount(&home.path().join("disk"), DISK_MIB);
    // The server's data directory is home/data; here it is a link to the small disk.
    std::os::unix::fs::symlink(home.path().join("disk"), home.path().join("data")).expect("a link");
    let mut server = Server::at(Kind::Mechi, home.path(), &["--quota-backend-bytes=-1"]);
    server.wrapper = disk.enter();
    server.spawn().expect("mechi starts on a small disk");

    let mut acknowledged = BTreeMap::new();
    let refused = fill(&server.endpoint(), &mut acknowledged, 20_000).await;
    assert!(refused > 0, "the disk of {DISK_MIB} MiB took everything");
    let full = acknowledged.len();

    // Reads go on, and what was acknowledged is all there.
    check(&server.endpoint(), &acknowledged).await;

    // Another program frees nothing; deleting and compacting does, through the reserve that is kept for it.
    let mut client = Client::connect(&server.endpoint()).await.expect("answers");
    let half: Vec<u64> = acknowledged.keys().copied().filter(|n| n % 2 == 0).collect();
    for n in &half {
        let delete = pb::DeleteRangeRequest { key: key(*n).into(), ..Default::default() };
        let deadline = Instant::now() + Duration::from_secs(60);
        while let Err(error) = client.kv.delete_range(delete.clone()).await {
            assert!(Instant::now() < deadline, "a full disk must take deletes: {error}");
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
        acknowledged.remove(n);
    }
    let revision = client.all().await.expect("reads").header.expect("a header").revision;
    client
        .kv
        .compact(pb::CompactionRequest { revision, physical: true })
        .await
        .expect("a full disk must take compaction");

    // Growth returns by itself as soon as there is room.
    let deadline = Instant::now() + Duration::from_secs(120);
    while client.put("again", "grown").await.is_err() {
        assert!(Instant::now() < deadline, "growth did not return; log:\n{}", server.log());
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
    check(&server.endpoint(), &acknowledged).await;

    // The alarm stays listed until it is disarmed, though growth goes on; until then `/health` says no.
    let get = pb::AlarmRequest { action: pb::alarm_request::AlarmAction::Get as i32, ..Default::default() };
    let listed = client.maintenance.alarm(get).await.expect("lists").into_inner().alarms;
    assert_eq!(listed.len(), 1);
    let disarm = pb::AlarmRequest {
        action: pb::alarm_request::AlarmAction::Deactivate as i32,
        member_id: listed[0].member_id,
        alarm: pb::AlarmType::Nospace as i32,
    };
    client.maintenance.alarm(disarm).await.expect("disarms");

    // And a kill on top of it loses nothing.
    server.kill().expect("runs");
    server.spawn().expect("mechi starts again");
    check(&server.endpoint(), &acknowledged).await;
    let data = disk.path();
    println!(
        "disk full: {full} writes acknowledged on {DISK_MIB} MiB, {refused} refused, {} left, {}",
        acknowledged.len(),
        data.display()
    );
}

fn key(n: u64) -> String {
    format!("full/{n:06}")
}

/// Puts 32 KiB values until ten in a row are refused, or `max` were written; returns how many were refused.
async fn fill(endpoint: &str, acknowledged: &mut BTreeMap<u64, ()>, max: u64) -> u64 {
    let mut client = Client::connect(endpoint).await.expect("answers");
    let mut refused = 0;
    for n in 0..max {
        let mut value = vec![0u8; 32 * 1024];
        let mut rng = mechi_tests::rng::Rng::new(n);
        value.chunks_mut(8).for_each(|chunk| chunk.copy_from_slice(&rng.next_u64().to_le_bytes()[..chunk.len()]));
        match tokio::time::timeout(Duration::from_secs(20), client.put(key(n), value)).await {
            Ok(Ok(_)) => {
                acknowledged.insert(n, ());
            }
            Ok(Err(status)) => {
                assert!(
                    matches!(status.code(), tonic::Code::ResourceExhausted | tonic::Code::Unavailable),
                    "put {n}: {status}"
                );
                refused += 1;
            }
            Err(_) => refused += 1,
        }
        if refused >= 10 {
            break;
        }
    }
    refused
}

async fn check(endpoint: &str, acknowledged: &BTreeMap<u64, ()>) {
    let mut client = Client::connect(endpoint).await.expect("answers");
    let request =
        pb::RangeRequest { key: "full/".into(), range_end: "full0".into(), keys_only: true, ..Default::default() };
    let found = client.kv.range(request).await.expect("reads").into_inner();
    let keys: std::collections::BTreeSet<_> = found.kvs.iter().map(|kv| kv.key.clone()).collect();
    for n in acknowledged.keys() {
        assert!(keys.contains(key(*n).as_bytes()), "{} was acknowledged and is gone", key(*n));
    }
}
