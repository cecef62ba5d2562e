//! `mechi dump`: what a stopped member's files hold, also where they are damaged, without a byte being changed.

use mechi_client::{Compare, Put, Txn};
use mechi_tests::grounds::client;
use mechi_tests::oracle;
use mechi_tests::process::{Kind, Server};
use mechi_tests::wire::until;
use serde_json::Value;
use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::SystemTime;

/// What one dump printed.
struct Dumped {
    code: i32,
    out: String,
    err: String,
}

fn dump(server: &Server, args: &[&str]) -> Dumped {
    let data_dir = format!("--data-dir={}", server.data_dir().display());
    let ran = Command::new(oracle::mechi()).arg("dump").arg(data_dir).args(args).output().expect("runs");
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).expect("is text");
    Dumped { code: ran.status.code().expect("ends by itself"), out: text(ran.stdout), err: text(ran.stderr) }
}

impl Dumped {
    /// The facts of one kind, of a dump in JSON.
    fn facts(&self, kind: &str) -> Vec<Value> {
        let all = self.out.lines().map(|line| serde_json::from_str::<Value>(line).expect("each line is an object"));
        all.filter(|fact| fact["kind"] == kind).collect()
    }
}

/// Every file below a folder: its bytes, and when it and its folder were changed.
fn state(folder: &Path) -> BTreeMap<PathBuf, (Vec<u8>, SystemTime, u64)> {
    let mut found = BTreeMap::new();
    let mut folders = vec![folder.to_owned()];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(&folder).expect("lists") {
            let (path, is_dir) = entry.map(|entry| (entry.path(), entry.path().is_dir())).expect("lists");
            let about = fs::metadata(&path).expect("is there");
            let bytes = if is_dir { Vec::new() } else { fs::read(&path).expect("reads") };
            found.insert(path.clone(), (bytes, about.modified().expect("is known"), about.ino()));
            if is_dir {
                folders.push(path);
            }
        }
    }
    found
}

/// Changes one byte of a file.
fn damage(path: &Path, offset: u64) {
    let file = fs::OpenOptions::new().read(true).write(true).open(path).expect("opens");
    let mut byte = [0];
    file.read_exact_at(&mut byte, offset).expect("reads");
    file.write_all_at(&[byte[0] ^ 0xff], offset).expect("writes");
}

/// A stopped member with some of everything in its log.
async fn filled(flags: &[&str]) -> Server {
    // So that there is a store, although everything fits into memory.
    let flags: Vec<&str> = ["--store-flush-interval=1m"].iter().chain(flags).copied().collect();
    let mut server = Server::start(Kind::Mechi, &flags).expect("starts");
    let client = client(&server).await;
    client.lease_grant(600, 0xabc).await.expect("grants");
    client.put_with(Put::new("a\n", "with a lease").lease(0xabc)).await.expect("writes");
    client.put("large", vec![b'x'; 100_000]).await.expect("writes");
    client.put("b", "1").await.expect("writes");
    client.put("b", "2").await.expect("writes");
    let txn = Txn::new().when(Compare::version("b").equal(2)).and_then(Put::new("c", "1")).or_else(Put::new("d", "1"));
    client.txn(txn).await.expect("runs");
    client.put("gone", "1").await.expect("writes");
    client.delete("gone").await.expect("deletes");
    client.compact(3).await.expect("compacts");
    server.stop().expect("stops");
    server
}

#[tokio::test(flavor = "multi_thread")]
async fn a_whole_member_is_shown_and_left_as_it_was() {
    let server = filled(&[]).await;
    let before = state(&server.data_dir());
    let shown = dump(&server, &["-w", "json", "--keys"]);
    assert_eq!((shown.code, shown.err.as_str()), (0, ""), "{}", shown.out);
    assert!(state(&server.data_dir()) == before, "a dump changes nothing");

    let log = shown.facts("log").remove(0);
    assert_eq!((&log["verdict"], &log["boots"]), (&"whole".into(), &1.into()), "{log}");
    assert!(log["closed_cleanly_at"].is_u64(), "{log}");
    let does: Vec<_> =
        shown.facts("command").iter().map(|fact| fact["does"].as_str().expect("text").to_owned()).collect();
    let wanted = [
        "grant lease 0000000000000abc for 600 s",
        r#"put "a\n" = "with a lease" lease 0000000000000abc"#,
        &format!("put \"large\" = \"{}\"… (100000 bytes)", "x".repeat(64)),
        r#"put "b" = "1""#,
        r#"put "b" = "2""#,
        r#"txn if [version of "b" = 2] then [put "c" = "1"] else [put "d" = "1"]"#,
        r#"put "gone" = "1""#,
        r#"delete "gone""#,
        "compact to 3",
    ];
    let first = does.iter().position(|does| does.starts_with("grant")).expect("the first of them");
    assert!(does[..first].iter().any(|does| does.starts_with("cluster ")), "{does:?}");
    assert_eq!(does[first..first + wanted.len()], wanted);
    // What the line cuts is whole in the message: the large value as its digits.
    let large = &shown.facts("command")[first + 2];
    assert!(large["message"].as_str().expect("text").contains(&"78".repeat(100_000)), "{}", large["does"]);
    let indexes: Vec<u64> = shown.facts("entry").iter().map(|fact| fact["index"].as_u64().expect("a number")).collect();
    assert_eq!(indexes, (1..=indexes.len() as u64).collect::<Vec<_>>());

    // The store was flushed when the member closed, so its keys are those of the member.
    let keys: Vec<_> = shown.facts("key").iter().map(|fact| fact["key"].as_str().expect("text").to_owned()).collect();
    assert_eq!(keys, [r#""a\n""#, r#""b""#, r#""c""#, r#""large""#]);
    assert_eq!(shown.facts("found")[0]["sum"], "right");

    let some = dump(&server, &["--wal", "-w", "json", "--from-index", "4", "--limit", "2"]);
    assert_eq!(some.facts("entry").iter().map(|fact| fact["index"].as_u64()).collect::<Vec<_>>(), [Some(4), Some(5)]);
    assert!(some.facts("store").is_empty() && some.facts("snapshot").iter().all(|fact| fact.get("file").is_none()));
    let lines = dump(&server, &["--wal"]);
    assert!(
        lines.out.contains(r#"    command  index "#) && lines.out.contains(r#"does put "b" = "1""#),
        "{}",
        lines.out
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_running_member_is_left_alone() {
    let server = Server::start(Kind::Mechi, &[]).expect("starts");
    let refused = dump(&server, &[]);
    assert_eq!((refused.code, refused.out.as_str()), (1, ""));
    let pid = server.pid().expect("runs");
    assert!(refused.err.contains(&format!("a member runs on {}", server.data_dir().display())), "{}", refused.err);
    assert!(refused.err.contains(&format!("process {pid} holds its lock")), "{}", refused.err);
    client(&server).await.put("k", "v").await.expect("still writes");
}

#[tokio::test(flavor = "multi_thread")]
async fn damage_is_told_with_its_place() {
    let server = filled(&[]).await;
    let wal = server.data_dir().join("member/wal");
    let segment = |name: &str| wal.join(Path::new(name).file_name().expect("a file"));
    // The batch that brought `large`, which is in the middle of what was promised.
    let whole = dump(&server, &["--wal", "-w", "json"]);
    assert_eq!(whole.code, 0, "{}", whole.out);
    let file = whole.facts("segment")[0]["file"].as_str().expect("text").to_owned();
    let batches = whole.facts("batch");
    let large = batches.iter().find(|fact| fact["bytes"].as_u64() > Some(100_000)).expect("is there");
    let offset = large["offset"].as_u64().expect("a number");
    damage(&segment(&file), offset + 5_000);
    let before = state(&server.data_dir());

    let shown = dump(&server, &["--wal", "-w", "json"]);
    assert_eq!(shown.code, 1);
    let told: Vec<_> =
        shown.facts("damage").iter().map(|fact| (fact["file"].clone(), fact["offset"].clone())).collect();
    assert!(!told.is_empty() && told.iter().all(|told| *told == (file.as_str().into(), offset.into())), "{told:?}");
    assert!(
        shown.facts("command").len() >= whole.facts("command").len() - 2,
        "what is whole is shown, before and behind"
    );
    assert_eq!(shown.facts("log")[0]["verdict"], "damaged, a member would not start on it");

    // The header as well: then nobody knows how long it was, and the next intact one is found.
    damage(&segment(&file), offset + 8);
    let shown = dump(&server, &["--wal", "-w", "json"]);
    let next = offset + large["bytes"].as_u64().expect("a number");
    let what = format!("no intact batch header up to byte {next}");
    let gap = shown.facts("damage").into_iter().find(|fact| fact["what"] == what.as_str());
    assert_eq!(gap.unwrap_or_else(|| panic!("{}", shown.out))["offset"], offset);
    assert!(state(&server.data_dir()).len() == before.len(), "nothing came and nothing went");
    assert_eq!(dump(&server, &["--store"]).code, 0, "the store is whole");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_snapshot_is_shown_chunk_by_chunk() {
    let mut server =
        Server::start(Kind::Mechi, &["--snapshot-log-bytes=1MiB", "--store-flush-interval=200ms"]).expect("starts");
    let client = client(&server).await;
    until("a snapshot is saved", async || {
        client.put("k", vec![b'x'; 100_000]).await.expect("writes");
        client
            .put(format!("key/{}", client.get("k").await.expect("reads").expect("is there").version), "v")
            .await
            .expect("writes");
        server.log().contains("saved snapshot").then_some(())
    })
    .await;
    server.stop().expect("stops");
    let shown = dump(&server, &["--snapshots", "--keys", "-w", "json"]);
    assert_eq!((shown.code, shown.err.as_str()), (0, ""), "{}", shown.out);
    let chunks = shown.facts("chunk");
    assert!(!chunks.is_empty() && chunks.iter().all(|chunk| chunk["sum"] == "right"), "{}", shown.out);
    assert!(shown.facts("key").iter().any(|key| key["key"] == "\"k\""), "{}", shown.out);
    assert!(shown.facts("state")[0]["revision"].as_i64() > Some(1));

    let file = chunks.last().expect("is not empty")["file"].as_str().expect("text").to_owned();
    damage(&server.data_dir().join("member").join(&file), 40);
    let shown = dump(&server, &["--snapshots", "-w", "json"]);
    assert_eq!(shown.code, 1);
    let told = shown.facts("damage");
    assert!(!told.is_empty() && told.iter().all(|told| told["file"] == file.as_str()), "{}", shown.out);
    assert!(shown.facts("chunk").iter().any(|chunk| chunk["file"] == file.as_str() && chunk["sum"] == "WRONG"));
}

#[test]
fn what_is_no_data_directory_is_named() {
    let home = tempfile::tempdir().expect("a folder");
    let ran = Command::new(oracle::mechi()).args(["dump", "--data-dir"]).arg(home.path()).output().expect("runs");
    let text = String::from_utf8_lossy(&ran.stderr).into_owned();
    assert!(ran.status.code() == Some(1) && text.contains("is no data directory of a member"), "{text}");
}
