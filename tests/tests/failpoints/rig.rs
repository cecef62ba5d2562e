//! How a place is set, and how the end that it brings is awaited.

use anyhow::{Result, ensure};
use mechi_tests::cluster::Cluster;
use mechi_tests::fire::{Fire, SOON};
use mechi_tests::process::{Kind, Server, http};
use std::path::PathBuf;
use std::time::Duration;

/// The exit code of a member that can no longer be trusted.
pub(crate) const ENDED: i32 = 70;

/// The program with failpoints, built beside this test.
pub(crate) fn program() -> PathBuf {
    env!("CARGO_BIN_EXE_mechi-failpoints").into()
}

/// Starts members of that program and waits until they serve.
pub(crate) fn start(count: usize, flags: &[&str]) -> Cluster {
    let mut cluster = Cluster::describe(Kind::Mechi, count, flags).expect("described");
    cluster.members.iter_mut().for_each(|member| member.program = Some(program()));
    (0..count).for_each(|n| cluster.spawn_only(n).expect("it starts"));
    cluster.members.iter_mut().for_each(|member| member.wait_ready().expect("it serves"));
    cluster
}

/// Sets a place of a running member.
pub(crate) fn arm(server: &Server, site: &str, actions: &str) {
    // The process may end before it has answered, at the place that is set.
    if let Err(error) = put(&server.endpoint(), site, actions)
        && server.log().lines().all(|line| !line.contains("a failpoint is set"))
    {
        panic!("{site}: {error:#}");
    }
}

fn put(endpoint: &str, site: &str, actions: &str) -> Result<()> {
    let length = actions.len();
    let head = format!("PUT /failpoints/{site} HTTP/1.1\r\nHost: {endpoint}\r\nContent-Length: {length}");
    let (code, body) = http(endpoint, &format!("{head}\r\nConnection: close\r\n\r\n{actions}"))?;
    ensure!(code == 200, "{code}: {body}");
    Ok(())
}

/// Waits until member `n` has ended at `site`; returns whether it did before `max` was over.
pub(crate) async fn ends(fire: &mut Fire, n: usize, site: &str, max: Duration) -> bool {
    let ended = tokio::task::block_in_place(|| fire.cluster.members[n].wait_exit(max));
    let Ok(status) = ended else { return false };
    // Whoever routes to it must know.
    fire.cluster.kill(n).expect("it is gone already");
    let log = fire.cluster.members[n].log();
    assert_eq!(status.code(), Some(ENDED), "{site}: {log}");
    assert!(log.contains(&format!("failpoint {site} panic")), "it did not end at {site}: {log}");
    true
}

/// Waits until member `n` has ended at `site`.
pub(crate) async fn must_end(fire: &mut Fire, n: usize, site: &str) {
    assert!(ends(fire, n, site, SOON).await, "{site} was not reached in {SOON:?}:\n{}", fire.cluster.logs());
}

/// Starts member `n` with places set from its first moment on, without waiting.
pub(crate) fn spawn_with(fire: &mut Fire, n: usize, failpoints: String) {
    fire.cluster.members[n].env = vec![("FAILPOINTS".to_owned(), failpoints)];
    fire.cluster.spawn_only(n).expect("it starts");
    fire.cluster.members[n].env.clear();
}

/// Passes the working store off as another boot's, which is not used after a crash; returns how many there were.
pub(crate) fn stores_of_another_boot(server: &Server) -> usize {
    let member = server.data_dir().join("member");
    let stores = std::fs::read_dir(&member).expect("it is there").flatten().map(|entry| entry.path());
    let stores =
        stores.filter(|path| path.file_name().is_some_and(|name| name.to_string_lossy().starts_with("store-")));
    let mut renamed = 0;
    for store in stores {
        std::fs::rename(&store, store.with_file_name("store-another-boot")).expect("renamed");
        renamed += 1;
    }
    renamed
}
