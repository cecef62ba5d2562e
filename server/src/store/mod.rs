//! The working store of a running member: sled behind a watchdog, and the thread that keeps it.

pub mod budget;
pub mod keeper;
pub mod sled;

#[cfg(test)]
mod tests {
    //! One suite for both stores: sled and its twin in memory answer alike.

    use super::sled::SledStore;
    use mechi_replica::store::block::{Builder, Entry};
    use mechi_replica::store::mem::MemStore;
    use mechi_replica::store::{Batch, Blocks, Store, Values};
    use proptest::prelude::*;
    use std::time::Duration;

    fn sled(folder: &std::path::Path) -> SledStore {
        SledStore::open(folder, 16 << 20, Duration::from_secs(60)).unwrap()
    }

    fn all(store: &impl Store) -> Vec<(Vec<u8>, Vec<u8>)> {
        let mut pairs = Vec::new();
        store
            .scan(b"", b"\xff", &mut |key, value| {
                pairs.push((key.to_vec(), value.to_vec()));
                true
            })
            .unwrap();
        pairs
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(24))]
        #[test]
        fn both_stores_answer_alike(
            batches in prop::collection::vec(prop::collection::btree_map(
                prop::collection::vec(97u8..100, 1..4), prop::option::of(prop::collection::vec(any::<u8>(), 0..600)), 0..20,
            ), 1..12),
            ranges in prop::collection::vec((prop::collection::vec(97u8..100, 0..4), prop::collection::vec(97u8..100, 0..4)), 10),
        ) {
            let dir = tempfile::tempdir().unwrap();
            let (sled, mem) = (sled(dir.path()), MemStore::default());
            for changes in batches {
                let mut batch = Batch::default();
                for (key, value) in changes {
                    match value {
                        Some(value) => batch.puts.push((key, value)),
                        None => batch.removes.push(key),
                    }
                }
                sled.commit(batch.clone()).unwrap();
                mem.commit(batch).unwrap();
            }
            prop_assert_eq!(all(&sled), all(&mem));
            for (from, to) in ranges {
                prop_assert_eq!(sled.get(&from).unwrap(), mem.get(&from).unwrap());
                prop_assert_eq!(sled.last(&from, &to).unwrap(), mem.last(&from, &to).unwrap());
                let first = |store: &dyn Store| {
                    let mut first = None;
                    store.scan(&from, &to, &mut |key, _| { first = Some(key.to_vec()); false }).unwrap();
                    first
                };
                prop_assert_eq!(first(&sled), first(&mem));
            }
        }
    }

    #[test]
    fn large_and_small_records_come_back_after_closing() {
        let dir = tempfile::tempdir().unwrap();
        let entries: Vec<Entry> = [10usize, 5_000, 1_572_864, 300, 300, 4_080]
            .iter()
            .enumerate()
            .map(|(n, bytes)| {
                let value = vec![n as u8; *bytes];
                let fields = mechi_replica::record::Fields { key: b"k", value: &value, ..Default::default() };
                let record = mechi_replica::record::Record::encode(&fields);
                Entry { revision: mechi_replica::types::Revision::new(n as i64 + 2, 0), tombstone: false, record }
            })
            .collect();
        let store = sled(dir.path());
        let (mut builder, mut batch) = (Builder::default(), Batch::default());
        entries.iter().for_each(|entry| builder.push(entry, &mut batch.puts));
        builder.finish(&mut batch.puts);
        store.commit(batch).unwrap();
        store.close().unwrap();
        assert!(store.get(b"k").is_err(), "a closed store answers nothing");
        let store = sled(dir.path());
        for entry in &entries {
            assert_eq!(Blocks(&store).load(entry.revision).unwrap(), entry.record);
        }
    }

    #[test]
    fn a_closed_store_can_be_opened_again_at_once() {
        // Several at a time, so that sled's own threads are often still at work when the last handle goes.
        let rounds = |number: u8| {
            let dir = tempfile::tempdir().unwrap();
            for round in 0..60u8 {
                let store = sled(dir.path());
                let puts = (0..200u8).map(|n| (vec![n, number], vec![round; 2_000])).collect();
                store.commit(Batch { puts, ..Batch::default() }).unwrap();
                store.close().unwrap();
            }
        };
        std::thread::scope(|scope| (0..4).for_each(|number| drop(scope.spawn(move || rounds(number)))));
    }
}
