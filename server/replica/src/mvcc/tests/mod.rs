//! What cannot be shown by a script or by comparing with the model: etcd's own sums, bounds, and refusals.

mod model;
mod random;
mod script;

use super::*;
use crate::limits::{COMPACTION_HASHES_MAX, COUNT_CORRECTION_MAX};
use crate::outcome::Error;
use crate::store::AllInMemory;
use crate::types::KeyRange;
use model::Model;

/// Runs the sweep to its end, without any open view, hashes included.
fn sweep_all(mvcc: &mut Mvcc) -> Vec<Revision> {
    let mut removed = Vec::new();
    loop {
        let sweep = mvcc.sweep(i64::MAX, 3);
        removed.extend(sweep.removed);
        if let Some(job) = sweep.hash {
            let hash = finish(mvcc, job);
            mvcc.remember_hash(hash);
        }
        if sweep.done {
            return removed;
        }
    }
}

fn finish(mvcc: &Mvcc, mut job: HashJob) -> HashKv {
    while job.step(mvcc).expect("the sweep honours the floor") {}
    job.finish(&AllInMemory).expect("all in memory")
}

fn hash(mvcc: &Mvcc, revision: i64) -> (u32, i64, i64) {
    let hash = finish(mvcc, HashJob::new(mvcc, revision).unwrap());
    (hash.hash, hash.compact_revision, hash.hash_revision)
}

fn put(mvcc: &mut Mvcc, key: &str, value: &str) {
    mvcc.write().put(key.as_bytes(), value.as_bytes(), 0);
}

/// A history whose sums were computed by etcd 3.4.23 itself.
fn etcd_history() -> Mvcc {
    let mut mvcc = Mvcc::new();
    put(&mut mvcc, "a", "1");
    put(&mut mvcc, "b", "2");
    put(&mut mvcc, "a", "3");
    assert!(mvcc.write().delete(b"b"));
    mvcc.write().put(b"c", b"x", 0x2935_a1ff_f3ce_9e09);
    put(&mut mvcc, "b", "again");
    let mut write = mvcc.write();
    write.put(b"d", b"1", 0);
    write.put(b"e", b"2", 0);
    assert!(write.delete(b"c"));
    for (key, value) in [("empty", ""), ("k1", "v1"), ("k2", "v2"), ("k3", "v3")] {
        put(&mut mvcc, key, value);
    }
    mvcc
}

#[test]
fn hash_kv_equals_etcds_on_a_store_that_was_never_compacted() {
    let mvcc = etcd_history();
    assert_eq!(hash(&mvcc, 0), (1_357_683_545, -1, 12));
    assert_eq!(hash(&mvcc, 12), (1_357_683_545, -1, 12));
    assert_eq!(hash(&mvcc, 5), (1_125_682_900, -1, 5));
    assert_eq!(hash(&mvcc, 8), (32_998_150, -1, 8));
    assert_eq!(hash(&mvcc, 9), (1_310_345_634, -1, 9));
}

#[test]
fn hash_kv_equals_etcds_after_a_compaction_swept_or_not() {
    let mut mvcc = etcd_history();
    mvcc.compact(6).unwrap();
    for _ in 0..2 {
        assert_eq!(hash(&mvcc, 0), (3_139_595_673, 6, 12));
        assert_eq!(hash(&mvcc, 9), (2_951_543_827, 6, 9));
        sweep_all(&mut mvcc);
    }
}

#[test]
fn hash_kv_at_a_compaction_keeps_the_sum_from_before_it() {
    let mut mvcc = etcd_history();
    let before = hash(&mvcc, 8);
    mvcc.compact(8).unwrap();
    assert_eq!(hash(&mvcc, 8), before);
    sweep_all(&mut mvcc);
    assert_eq!(hash(&mvcc, 8), before);
    assert_eq!(hash(&mvcc, 0).1, 8);
    mvcc.compact(9).unwrap();
    sweep_all(&mut mvcc);
    assert_eq!(hash(&mvcc, 8), before, "an older compaction's hash is still known");
    assert_eq!(hash(&mvcc, 9).1, 8);
}

#[test]
fn hash_kv_of_now_stays_that_of_now_after_a_compaction_to_0() {
    let mut mvcc = etcd_history();
    mvcc.compact(0).unwrap();
    assert_eq!(hash(&mvcc, 0), (1_357_683_545, 0, 12));
    sweep_all(&mut mvcc);
    assert_eq!(hash(&mvcc, 0), (1_357_683_545, 0, 12));
}

#[test]
fn hash_kv_refuses_what_it_cannot_read() {
    let mut mvcc = etcd_history();
    mvcc.compact(6).unwrap();
    assert_eq!(HashJob::new(&mvcc, 5).err(), Some(Error::Compacted));
    assert_eq!(HashJob::new(&mvcc, 13).err(), Some(Error::FutureRevision));
    assert!(HashJob::new(&mvcc, 0).unwrap().finish(&AllInMemory).is_err(), "steps are missing");
}

#[test]
fn hash_kv_of_a_store_without_keys_counts_what_the_bucket_still_has() {
    // etcd filters by the kept revisions only if there are any; a compaction also keeps a tombstone at its revision.
    let (mut model, mut mvcc) = (Model::default(), Mvcc::new());
    model.txn(&mut mvcc, &[(b"a".to_vec(), Some(b"1".to_vec()))]);
    mvcc.compact(2).unwrap();
    sweep_all(&mut mvcc);
    model.txn(&mut mvcc, &[(b"a".to_vec(), None)]);
    let (all, filtered) = (model.hash(2, 3, false), model.hash(2, 3, true));
    assert_ne!(all, filtered);
    assert_eq!(hash(&mvcc, 3), (all, 2, 3));
    mvcc.compact(3).unwrap();
    assert_eq!(hash(&mvcc, 3), (filtered, 2, 3));
    sweep_all(&mut mvcc);
    assert_eq!(hash(&mvcc, 3), (filtered, 2, 3));
}

#[test]
fn a_dropped_compaction_hash_lets_the_sweep_go_on() {
    let mut mvcc = etcd_history();
    mvcc.compact(8).unwrap();
    let sweep = mvcc.sweep(i64::MAX, 100);
    let job = sweep.hash.expect("the compaction wants its hash");
    assert!(!sweep.done && sweep.removed.is_empty());
    assert!(!mvcc.sweep(i64::MAX, 100).done, "while the job lives nothing that it needs goes");
    drop(job);
    assert!(mvcc.sweep(i64::MAX, 100).done);
    assert_eq!(mvcc.unreclaimed_bytes(), 0);
    assert_eq!(hash(&mvcc, 8).1, 8, "no hash was kept, so it is computed anew");
}

#[test]
fn hash_kv_notices_a_sweep_that_went_too_far() {
    let mut mvcc = etcd_history();
    let mut job = HashJob::new(&mvcc, 12).unwrap();
    assert_eq!(job.floor(), -1);
    mvcc.compact(8).unwrap();
    sweep_all(&mut mvcc);
    assert_eq!(job.step(&mvcc), Err(Error::Compacted));
}

#[test]
fn a_hash_keeps_its_floor_until_it_has_read_its_last_value() {
    let mvcc = etcd_history();
    let mut job = HashJob::new(&mvcc, 12).unwrap();
    while job.step(&mvcc).unwrap() {}
    assert_eq!(job.floor(), -1, "values that left memory are read by finish");
}

#[test]
fn a_compaction_to_revision_0_does_not_answer_for_now() {
    let (mut compacted, whole) = (etcd_history(), etcd_history());
    compacted.compact(0).unwrap();
    assert_eq!(hash(&compacted, 0).0, hash(&whole, 0).0, "its hash is wanted");
    sweep_all(&mut compacted);
    assert_eq!(hash(&compacted, 0).0, hash(&whole, 0).0, "its hash is remembered");
    assert_eq!(hash(&compacted, 0).2, compacted.revision());
}

#[test]
fn only_the_newest_compaction_hashes_are_remembered() {
    let mut mvcc = Mvcc::new();
    for n in 0..COMPACTION_HASHES_MAX as i64 + 2 {
        put(&mut mvcc, "k", &n.to_string());
        mvcc.compact(n + 2).unwrap();
        sweep_all(&mut mvcc);
    }
    assert_eq!(HashJob::new(&mvcc, 3).err(), Some(Error::Compacted));
    assert_eq!(hash(&mvcc, 4).1, 3);
}

#[test]
fn compaction_refuses_the_past_and_the_future() {
    let mut mvcc = etcd_history();
    assert_eq!(mvcc.compact(13), Err(Error::FutureRevision));
    assert_eq!(mvcc.compact(12), Ok(()));
    assert_eq!(mvcc.compact(12), Err(Error::Compacted));
    assert_eq!(mvcc.readable(12), Ok(12), "the compact revision itself can be read");
    assert_eq!(mvcc.readable(0), Ok(12));
    assert_eq!(mvcc.readable(11), Err(Error::Compacted));
    assert_eq!(mvcc.readable(13), Err(Error::FutureRevision));
}

#[test]
fn a_delete_of_nothing_takes_no_revision() {
    let mut mvcc = Mvcc::new();
    assert_eq!((mvcc.revision(), mvcc.compact_revision()), (1, -1));
    let mut write = mvcc.write();
    assert!(!write.delete(b"nothing"));
    assert!(!write.changed());
    assert_eq!(write.revision(), 1);
    write.put(b"k", b"v", 0);
    assert!(write.changed());
    assert_eq!(write.revision(), 2);
    assert_eq!(write.mvcc().get(b"k", 2).unwrap().version, 1);
    assert!(write.delete(b"k"));
    assert_eq!(write.revision(), 2);
    assert!(write.mvcc().get(b"k", 2).is_none());
}

#[test]
fn a_count_gives_up_when_too_much_has_changed_since() {
    let mut mvcc = Mvcc::new();
    for n in 0..COUNT_CORRECTION_MAX {
        put(&mut mvcc, &format!("{n:05}"), "v");
    }
    assert_eq!(mvcc.totals_at(&KeyRange::all(), 1).map(|totals| totals.keys), Some(0));
    put(&mut mvcc, "x", "v");
    assert_eq!(mvcc.totals_at(&KeyRange::all(), 1), None);
    assert_eq!(mvcc.totals(&KeyRange::all()).keys, COUNT_CORRECTION_MAX as u64 + 1);
}

#[test]
fn the_log_keeps_what_is_not_yet_flushed_or_swept() {
    let mut mvcc = Mvcc::new();
    mvcc.set_flushed(1);
    for n in 0..5_000 {
        put(&mut mvcc, "k", &n.to_string());
    }
    mvcc.compact(4_000).unwrap();
    while !mvcc.sweep(i64::MAX, 1_000).done {}
    assert_eq!(mvcc.changes(0).next().unwrap().revision.main, 2, "the store has nothing yet");
    assert!(!mvcc.holds(b"k", Revision::new(2, 0)));
    assert!(mvcc.holds(b"k", Revision::new(4_000, 0)));
    mvcc.set_flushed(3_000);
    while !mvcc.sweep(i64::MAX, 1_000).done {}
    assert_eq!(mvcc.changes(0).next().unwrap().revision.main, 3_001);
    mvcc.set_flushed(5_001);
    while !mvcc.sweep(i64::MAX, 1_000).done {}
    assert_eq!(mvcc.changes(0).next().unwrap().revision.main, 4_000, "a watch may begin at the compact revision");
    assert_eq!(mvcc.log.len(), 1_002);
}

#[test]
fn without_a_store_the_log_keeps_what_is_not_yet_swept() {
    let mut mvcc = Mvcc::new();
    for n in 0..5_000 {
        put(&mut mvcc, "k", &n.to_string());
    }
    mvcc.compact(4_000).unwrap();
    while !mvcc.sweep(i64::MAX, 1_000).done {}
    assert_eq!(mvcc.changes(0).next().unwrap().revision.main, 4_000);
}

/// The versions that a compaction has left, swept or not, in the order of their revisions.
fn retained(mvcc: &Mvcc) -> Vec<Revision> {
    let compacted = mvcc.compact_revision();
    let mut found = Vec::new();
    for entry in mvcc.keys.iter_from(&[]) {
        let versions: Vec<_> = entry.versions().collect();
        let kept = |n: &usize| !versions[*n].is_garbage(versions.get(n + 1).copied(), compacted);
        found.extend((0..versions.len()).filter(kept).map(|n| versions[n].revision()));
    }
    found.sort_unstable();
    found
}

/// Many slices and passes, between which the state is written, compacted and swept.
#[test]
fn an_export_is_what_was_retained_at_its_beginning_in_the_order_of_revisions() {
    let mut mvcc = Mvcc::new();
    for n in 0..20_000u32 {
        let key = format!("k{}", n * 7_919 % 6_000);
        if n % 5 == 0 {
            mvcc.write().delete(key.as_bytes());
        } else {
            put(&mut mvcc, &key, &n.to_string());
        }
    }
    for (rows_max, compact) in [(1_000, 9_000), (700, 15_000), (1 << 20, 15_500)] {
        mvcc.compact(compact).unwrap();
        mvcc.sweep(i64::MAX, 500);
        let (wanted, revision) = (retained(&mvcc), mvcc.revision());
        let mut export = Export::of_retained(&mvcc).in_passes_of(rows_max);
        let (mut found, mut n) = (Vec::new(), 0);
        while let Some(entries) = export.slice(&mvcc).unwrap() {
            found.extend(entries.into_iter().map(|entry| (entry.revision, entry.tombstone, entry.record, true)));
            n += 1;
            put(&mut mvcc, &format!("k{n}"), "later");
            mvcc.sweep(export.floor(), 300);
        }
        assert!(found.iter().map(|row| &row.0).eq(&wanted), "{rows_max} versions a pass");
        let restored = Mvcc::restore(revision, compact, found).unwrap();
        assert!(retained(&restored) == wanted);
    }
}

#[test]
fn an_export_stops_at_a_value_that_is_not_what_was_written() {
    let mut mvcc = Mvcc::new();
    put(&mut mvcc, "a", "1");
    put(&mut mvcc, "b", "2");
    mvcc.keys.update(b"b", |entry| entry.latest.crc ^= 1);
    let mut export = Export::of_retained(&mvcc);
    assert!(export.slice(&mvcc).unwrap().is_some_and(|entries| entries.is_empty()), "gathers");
    let error = export.slice(&mvcc).unwrap_err().to_string();
    assert!(error.contains("the record of revision 3.0 has another CRC"), "{error}");
}

#[test]
fn eviction_takes_only_what_is_flushed_and_keeps_the_keys() {
    let mut model = Model::default();
    let mut mvcc = Mvcc::new();
    for n in 0..200 {
        let (key, value) = (format!("key-{n:03}"), "x".repeat(500));
        model.txn(&mut mvcc, &[(key.into_bytes(), Some(value.into_bytes()))]);
    }
    let full = mvcc.resident_bytes();
    assert!(!mvcc.evict(101, 0, 50), "the budget was too small for a round");
    while !mvcc.evict(101, 0, 50) {}
    assert!(mvcc.resident_bytes() < full - 100 * 400);
    for n in 0..200 {
        let item = mvcc.get(format!("key-{n:03}").as_bytes(), 0x7fff).unwrap();
        assert_eq!(item.resident, n >= 100, "{n}");
        assert_eq!(item.record(&model).unwrap().fields().unwrap().value.len(), 500);
    }
    assert_eq!(mvcc.changes(0).filter(|change| !change.resident).count(), 100, "the log lets go, too");
    let target = mvcc.resident_bytes() - 10_000;
    assert!(mvcc.evict(201, target, 200));
    assert!(mvcc.resident_bytes() <= target);
    assert!(mvcc.get(b"key-199", 300).unwrap().resident, "no more than the target asks for");
}

#[test]
fn small_records_cost_less_than_twice_their_payload() {
    let mut mvcc = Mvcc::new();
    let payload = 20_000 * (37 + 256);
    for n in 0..20_000u32 {
        let key = format!("/registry/pods/default/pod-{:010}", n.wrapping_mul(2_654_435_761));
        assert_eq!(key.len(), 37);
        mvcc.write().put(key.as_bytes(), &[7; 256], 0);
    }
    // Leaves are at least half full: the index may take twice what is counted.
    let index = 20_000 * size_of::<KeyEntry>() as u64;
    assert!(mvcc.resident_bytes() + index < 2 * payload, "{} for {payload}", mvcc.resident_bytes());
}

#[test]
fn restore_refuses_records_that_no_store_can_have_held() {
    let first = |key: &[u8], main| {
        let fields =
            crate::record::Fields { key, create_revision: main, mod_revision: main, version: 1, value: b"v", lease: 0 };
        Record::encode(&fields)
    };
    let at = Revision::new;
    let restore = |compact, records: Vec<(Revision, bool, Record)>| {
        let records = records.into_iter().map(|(at, tombstone, record)| (at, tombstone, record, true));
        Mvcc::restore(9, compact, records).map(|mvcc| mvcc.live_keys())
    };
    let cases = [
        ("descending", -1, vec![(at(3, 0), false, first(b"a", 3)), (at(2, 0), false, first(b"b", 2))]),
        ("twice", -1, vec![(at(3, 0), false, first(b"a", 3)), (at(3, 0), false, first(b"b", 3))]),
        ("beyond the revision", -1, vec![(at(10, 0), false, first(b"a", 10))]),
        ("another revision inside", -1, vec![(at(3, 0), false, first(b"a", 4))]),
        ("no KeyValue", -1, vec![(at(3, 0), false, Record::from_wire(b"\x99"))]),
        ("a value in a tombstone", -1, vec![(at(3, 0), true, first(b"a", 3))]),
        ("a version missing", -1, vec![(at(3, 0), false, first(b"a", 3)), (at(4, 0), false, first(b"a", 4))]),
        ("a tombstone of nothing", -1, vec![(at(3, 0), true, Record::key_only(b"a"))]),
        ("compacted beyond the revision", 10, vec![]),
    ];
    for (name, compact, records) in cases {
        assert!(matches!(restore(compact, records), Err(Fatal::EngineLost(_))), "{name}");
    }
    assert_eq!(restore(3, vec![(at(3, 0), true, Record::key_only(b"a"))]).unwrap(), 0);
    assert_eq!(restore(-1, vec![(at(3, 0), false, first(b"a", 3))]).unwrap(), 1);
    assert_eq!(restore(9, vec![(at(9, 0), false, Record::from_wire(b""))]).unwrap(), 1, "left by etcd's restore");
}

#[test]
fn restore_hands_out_the_leases_of_live_keys() {
    let mvcc = etcd_history();
    let records = |upto: i64| {
        let changes: Vec<_> = mvcc.changes(0).filter(|change| change.revision.main <= upto).cloned().collect();
        changes.into_iter().map(|change| (change.revision, change.tombstone, change.head, true))
    };
    let leases = |upto| Mvcc::restore_with_leases(upto, -1, records(upto)).unwrap().1;
    assert_eq!(leases(7), [("c".into(), crate::types::LeaseId(0x2935_a1ff_f3ce_9e09))]);
    assert_eq!(leases(12), [], "the key with the lease was deleted");
}

/// Small slices over one key with many versions: each costs what it removes, or this test takes minutes.
#[test]
fn a_key_with_many_versions_is_swept_in_small_slices() {
    const VERSIONS: i64 = 300_000;
    let mut mvcc = Mvcc::new();
    (0..VERSIONS).for_each(|_| put(&mut mvcc, "hot", "x"));
    mvcc.compact(mvcc.revision()).unwrap();
    let mut removed = 0;
    loop {
        let sweep = mvcc.sweep(i64::MAX, 16);
        assert!(sweep.removed.len() <= 16);
        removed += sweep.removed.len() as i64;
        if sweep.done {
            break;
        }
    }
    assert_eq!(removed, VERSIONS - 1);
}
