//! A data directory that is not this member's to use: the start ends with a sentence, and not a byte in it changes.

use mechi_tests::client::Client;
use mechi_tests::process::{Kind, Server};
use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::time::Duration;

/// How long a refused start may take.
const REFUSED_MAX: Duration = Duration::from_secs(30);

/// Every file and directory below (and with) `dir`: mode, owner and content.
fn contents(dir: &Path) -> BTreeMap<PathBuf, (u32, u32, Vec<u8>)> {
    let found = fs::metadata(dir).expect("it is there");
    let bytes = if found.is_dir() { Vec::new() } else { fs::read(dir).expect("readable") };
    let mut all = BTreeMap::from([(dir.to_owned(), (found.mode(), found.uid(), bytes))]);
    if found.is_dir() {
        for entry in fs::read_dir(dir).expect("readable") {
            all.extend(contents(&entry.expect("readable").path()));
        }
    }
    all
}

/// Starts `server` and expects it to end with `sentence` and to leave its data directory as it was.
fn assert_refused(server: &mut Server, sentence: &str) {
    let before = contents(&server.data_dir());
    server.spawn_only().expect("the program starts");
    let status = server.wait_exit(REFUSED_MAX).unwrap_or_else(|error| panic!("{error}; log:\n{}", server.log()));
    let log = server.log();
    assert!(!status.success(), "the start succeeded; log:\n{log}");
    assert!(log.contains(sentence), "{sentence:?} is not in the log:\n{log}");
    assert!(!log.contains("panicked"), "{log}");
    let after = contents(&server.data_dir());
    let changed: Vec<_> =
        before.keys().chain(after.keys()).filter(|path| before.get(*path) != after.get(*path)).collect();
    assert!(changed.is_empty(), "{sentence:?}: these changed: {changed:?}");
}

/// A server that holds `key` = `value` and was stopped.
async fn stopped(kind: Kind) -> Server {
    let mut server = Server::start(kind, &[]).expect("it starts");
    Client::connect(&server.endpoint()).await.expect("answers").put("key", "value").await.expect("puts");
    assert!(server.stop().expect("stops").success() || kind == Kind::Etcd, "log:\n{}", server.log());
    server
}

/// Starts the server and finds what [`stopped`] put.
async fn assert_serves(server: &mut Server) {
    server.spawn().expect("it starts");
    let found = Client::connect(&server.endpoint()).await.expect("answers").get("key").await.expect("reads");
    assert_eq!(found.kvs.first().map(|kv| &kv.value[..]), Some(&b"value"[..]));
}

#[tokio::test(flavor = "multi_thread")]
async fn another_clusters_directory_is_refused() {
    let mut server = stopped(Kind::Mechi).await;
    server.flags = vec!["--initial-cluster-token=another".into()];
    assert_refused(&mut server, "belongs to cluster");
    server.flags.clear();
    assert_serves(&mut server).await;
    // Also after a kill, when there is a tail to recover.
    server.kill().expect("runs");
    server.flags = vec!["--initial-cluster-token=another".into()];
    assert_refused(&mut server, "belongs to cluster");
    server.flags.clear();
    assert_serves(&mut server).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn another_members_directory_is_refused() {
    let mut first = stopped(Kind::Mechi).await;
    // A copy of the directory under a member with other peer URLs: both would speak for the same votes.
    let home = tempfile::tempdir().expect("a folder");
    fs::rename(first.data_dir(), home.path().join("data")).expect("moves");
    let mut other = Server::at(Kind::Mechi, home.path(), &[]);
    assert_refused(&mut other, "belongs to");
    fs::rename(home.path().join("data"), first.data_dir()).expect("moves back");
    assert_serves(&mut first).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_directory_that_others_can_read_or_own_is_refused() {
    let mut server = stopped(Kind::Mechi).await;
    let data = server.data_dir();
    for mode in [0o755, 0o750, 0o701, 0o722] {
        fs::set_permissions(&data, fs::Permissions::from_mode(mode)).expect("ours");
        assert_refused(&mut server, &format!("has mode {mode:o}"));
    }
    fs::set_permissions(&data, fs::Permissions::from_mode(0o700)).expect("ours");
    let own = fs::metadata(&data).expect("there").uid();
    if own == 0 {
        // Only root can give a directory away, and only root could open it all the same.
        std::os::unix::fs::chown(&data, Some(12_345), None).expect("root may");
        assert_refused(&mut server, "belongs to user 12345");
        std::os::unix::fs::chown(&data, Some(own), None).expect("root may");
    }
    assert_serves(&mut server).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn etcds_own_directory_is_refused_and_still_etcds() {
    let mut etcd = stopped(Kind::Etcd).await;
    fs::set_permissions(etcd.data_dir(), fs::Permissions::from_mode(0o700)).expect("ours");
    let home = tempfile::tempdir().expect("a folder");
    std::os::unix::fs::symlink(etcd.data_dir(), home.path().join("data")).expect("a link");
    let mut server = Server::at(Kind::Mechi, home.path(), &[]);
    assert_refused(&mut server, "etcd's own database");
    assert_serves(&mut etcd).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_second_process_is_refused_and_the_first_goes_on() {
    let first = Server::start(Kind::Mechi, &[]).expect("it starts");
    let mut client = Client::connect(&first.endpoint()).await.expect("answers");
    client.put("key", "value").await.expect("puts");
    let home = tempfile::tempdir().expect("a folder");
    std::os::unix::fs::symlink(first.data_dir(), home.path().join("data")).expect("a link");
    let mut second = Server::at(Kind::Mechi, home.path(), &[]);
    second.spawn_only().expect("the program starts");
    assert!(!second.wait_exit(REFUSED_MAX).expect("it ends").success());
    assert!(second.log().contains("is in use by another process"), "{}", second.log());
    client.put("key", "again").await.expect("the first one still serves");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_directory_with_a_missing_part_is_refused() {
    let mut server = stopped(Kind::Mechi).await;
    let member = server.data_dir().join("member");
    for (part, sentence) in [("identity", "the file member/identity is missing"), ("wal", "is missing")] {
        let aside = server.home.join(part);
        fs::rename(member.join(part), &aside).expect("moves");
        assert_refused(&mut server, sentence);
        fs::rename(&aside, member.join(part)).expect("moves back");
    }
    // Damage to the identity is no reason to take a new one.
    let mut identity = fs::read(member.join("identity")).expect("readable");
    identity[20] ^= 1;
    fs::write(member.join("identity"), &identity).expect("writable");
    assert_refused(&mut server, "damaged, or not an identity file");
    identity[20] ^= 1;
    fs::write(member.join("identity"), &identity).expect("writable");
    assert_serves(&mut server).await;
}

#[test]
fn a_file_in_the_place_of_the_directory_is_refused() {
    let home = tempfile::tempdir().expect("a folder");
    fs::write(home.path().join("data"), "not a directory").expect("writable");
    let mut server = Server::at(Kind::Mechi, home.path(), &[]);
    assert_refused(&mut server, "is not a directory");
}
