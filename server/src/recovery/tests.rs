//! Opening a data directory: a first start, a clean stop, and the store folders that must not be used.

use super::*;
use mechi_proto::etcdserverpb as pb;
use mechi_proto::mechipb::{self, command::Request};
use mechi_replica::command;
use mechi_replica::conf::Configuration;
use mechi_replica::effect::{Entry, EntryKind, HardState};

use mechi_replica::limits::SLICE_KEYS_MAX;
use mechi_replica::snapshot::build;
use mechi_replica::store::Blocks;
use mechi_replica::wal::record::Record;
use std::fs;
use std::os::unix::fs::PermissionsExt;

fn settings(dir: &Path, machine_boot: &str) -> Settings {
    Settings {
        data_dir: dir.join("data"),
        identity: Identity { cluster_id: 1, member_id: 2, token: "t".into(), voters: vec![2] },
        wal: WalOptions { segment_bytes: 64 << 10, reserve_segments: 1 },
        cache_bytes: 16 << 20,
        resident_bytes: 1 << 20,
        expects_store: true,
        machine_boot: machine_boot.into(),
    }
}

/// Acknowledges puts of the numbers: logged, synced and applied, as a member of one does.
fn put(opened: &mut Opened, numbers: std::ops::Range<u32>) {
    for number in numbers {
        let index = opened.state.applied_index + 1;
        let request = Request::Put(pb::PutRequest {
            key: format!("key-{number}").into(),
            value: vec![number as u8; 300].into(),
            ..Default::default()
        });
        let command = mechipb::Command { id: 1, request: Some(request), ..Default::default() };
        let batch = mechipb::Batch { member: 2, boot: opened.boot, number: index, wall_ms: 0, commands: vec![command] };
        let data = command::encode(&batch);
        let entry = Entry { index, term: 1, kind: EntryKind::Normal, data };
        let hard_state = HardState { term: 1, vote: 2, commit: index };
        opened.wal.append(&[Record::Entry(entry.clone()), Record::HardState(hard_state)]).unwrap();
        opened.wal.sync().unwrap();
        let nobody = mechi_replica::apply::Answer { member: 0, boot: 0 };
        let values = Blocks(&*opened.store);
        mechi_replica::apply::apply(&mut opened.state, &entry, nobody, &values, &mut Default::default()).unwrap();
    }
}

fn flush(opened: &mut Opened) {
    let state = &opened.state;
    opened.flusher.flush_all(&*opened.store, &state.mvcc, state.to_meta()).unwrap();
    opened.state.mvcc.set_flushed(opened.flusher.flushed());
}

fn snapshot(opened: &mut Opened) {
    flush(opened);
    let applied = *opened.flusher.applied().unwrap();
    let meta = applied.state(&*opened.store).unwrap();
    let made = build::build(&opened.disk, SNAP_DIR, 2, &*opened.store, meta, &applied, opened.snapshots.last());
    let made = made.unwrap();
    opened.wal.append(&[Record::Snapshot { index: made.index(), term: made.term() }]).unwrap();
    opened.wal.sync().unwrap();
    opened.wal.trim(made.index()).unwrap();
    opened.snapshots.push(made);
}

fn assert_holds(opened: &Opened, count: u32) {
    assert_eq!(opened.state.mvcc.live_keys(), u64::from(count));
    for number in 0..count {
        let item = opened.state.mvcc.get(format!("key-{number}").as_bytes(), opened.state.mvcc.revision()).unwrap();
        let record = item.record(&Blocks(&*opened.store)).unwrap();
        assert_eq!(record.fields().unwrap().value, vec![number as u8; 300]);
    }
    assert!(opened.state.applied_index <= opened.tail.hard_state.commit);
}

/// Runs a member to where a store, two snapshots and a log above them hold 60 keys between them.
fn run(dir: &Path) -> Opened {
    let mut opened = open(&settings(dir, "boot-1")).unwrap();
    assert!(opened.is_first_start && opened.boot == 1);
    assert_eq!(opened.state.conf, Configuration::founding([MemberId(2)]));
    put(&mut opened, 0..20);
    snapshot(&mut opened);
    put(&mut opened, 20..40);
    snapshot(&mut opened);
    put(&mut opened, 40..50);
    flush(&mut opened);
    while !opened.state.mvcc.evict(opened.flusher.flushed(), 0, SLICE_KEYS_MAX) {}
    put(&mut opened, 50..60);
    opened
}

/// Ends a member without closing anything, as a kill does. Unlike a kill, dropping leaves sled's own threads behind,
/// which let go of its files in their own time.
fn kill(opened: Opened) {
    let folder = opened.store.folder().to_owned();
    drop(opened);
    crate::store::sled::released(&folder).unwrap();
}

#[test]
fn a_killed_process_finds_its_store_and_replays_the_rest() {
    let dir = tempfile::tempdir().unwrap();
    kill(run(dir.path()));
    let opened = open(&settings(dir.path(), "boot-1")).unwrap();
    assert_eq!((opened.rebuilt.as_ref(), opened.boot, opened.is_first_start), (None, 2, false));
    assert_eq!(opened.flusher.applied().unwrap().index, 50);
    assert_holds(&opened, 60);
}

#[test]
fn after_a_restart_of_the_machine_the_store_is_rebuilt() {
    let dir = tempfile::tempdir().unwrap();
    drop(run(dir.path()));
    let opened = open(&settings(dir.path(), "boot-2")).unwrap();
    assert_eq!(opened.rebuilt, Some(Unusable::OtherBoot));
    assert!(opened.flusher.applied().is_none(), "the snapshot's data fits into memory");
    assert_holds(&opened, 60);
    assert!(space::tidy(&settings(dir.path(), "").data_dir).unwrap() > 0);
}

#[test]
fn a_cleanly_closed_store_is_used_after_a_restart_of_the_machine_but_once() {
    let dir = tempfile::tempdir().unwrap();
    let mut opened = run(dir.path());
    flush(&mut opened);
    close(&opened.store, &opened.flusher, &mut opened.wal).unwrap();
    drop(opened);
    let opened = open(&settings(dir.path(), "boot-2")).unwrap();
    assert_eq!(opened.rebuilt, None);
    assert_holds(&opened, 60);
    drop(opened);
    // Not closed this time: what the power cut leaves is not trusted.
    let opened = open(&settings(dir.path(), "boot-3")).unwrap();
    assert_eq!(opened.rebuilt, Some(Unusable::OtherBoot));
    assert_holds(&opened, 60);
}

#[test]
fn a_damaged_store_is_rebuilt() {
    type Damage = fn(&Path);
    let damages: [(&str, Damage); 4] = [
        ("deleted", |store| fs::remove_dir_all(store).unwrap()),
        ("truncated", |store| fs::File::options().write(true).open(store.join("db")).unwrap().set_len(4096).unwrap()),
        ("emptied", |store| {
            fs::remove_dir_all(store).unwrap();
            fs::create_dir(store).unwrap();
        }),
        ("garbage", |store| {
            let db = store.join("db");
            let mut bytes = fs::read(&db).unwrap();
            bytes.iter_mut().skip(100).step_by(97).for_each(|byte| *byte ^= 0x55);
            fs::write(&db, bytes).unwrap();
        }),
    ];
    for (name, damage) in damages {
        let dir = tempfile::tempdir().unwrap();
        let mut opened = run(dir.path());
        flush(&mut opened);
        opened.store.close().unwrap();
        let store = opened.store.folder().to_owned();
        drop(opened);
        damage(&store);
        let opened = open(&settings(dir.path(), "boot-1")).unwrap();
        assert!(opened.rebuilt.is_some(), "{name}");
        assert_holds(&opened, 60);
    }
}

#[test]
fn a_second_process_is_kept_out() {
    let dir = tempfile::tempdir().unwrap();
    let _first = open(&settings(dir.path(), "b")).unwrap();
    let error = open(&settings(dir.path(), "b")).err().unwrap();
    assert!(error.to_string().contains("in use by another process"), "{error}");
}

#[test]
fn a_directory_of_somebody_else_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let own = settings(dir.path(), "b");
    drop(open(&own).unwrap());
    let refused = |settings: &Settings| format!("{:#}", open(settings).err().unwrap());
    let mut other = own.clone();
    other.identity.cluster_id = 9;
    assert!(refused(&other).contains("belongs to cluster 1"));
    fs::set_permissions(&own.data_dir, fs::Permissions::from_mode(0o750)).unwrap();
    assert!(refused(&own).contains("chmod 700"));
    fs::set_permissions(&own.data_dir, fs::Permissions::from_mode(0o700)).unwrap();
    fs::remove_dir_all(own.data_dir.join("member/wal")).unwrap();
    assert!(refused(&own).contains("log"));
    fs::remove_file(own.data_dir.join("member/identity")).unwrap();
    fs::write(own.data_dir.join("member/snap/db"), b"bbolt").unwrap();
    assert!(refused(&own).contains("etcd's own database"));
}

#[test]
fn room_is_made_in_the_order_of_the_list() {
    let dir = tempfile::tempdir().unwrap();
    drop(run(dir.path()));
    let opened = open(&settings(dir.path(), "boot-2")).unwrap();
    assert!(space::hold_ballast(&opened.disk, 1 << 20).unwrap());
    let free = || Some(space::free_space(&opened.disk, SNAP_DIR).unwrap());
    let freed: Vec<_> = std::iter::from_fn(|| free().filter(|freed| *freed != space::Freed::Nothing)).collect();
    assert!(matches!(freed[0], space::Freed::Aside(1..)), "{freed:?}");
    assert!(freed[1..freed.len() - 1].iter().all(|freed| matches!(freed, space::Freed::Older { trim: 40, .. })));
    assert_eq!(freed.last(), Some(&space::Freed::Ballast(1 << 20)), "with the bytes that it held");
    drop(opened);
    assert_holds(&open(&settings(dir.path(), "boot-3")).unwrap(), 60);
}
