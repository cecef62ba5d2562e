//! A model that is as plain as can be: all changes ever, never removed, searched from end to end.

use super::super::{Change, Item, Mvcc, Totals};
use crate::outcome::Fatal;
use crate::record::{Fields, Record};
use crate::store::Values;
use crate::types::{KeyRange, Revision};
use std::collections::{BTreeMap, BTreeSet};

/// A change as the model knows it.
#[derive(Clone, Debug)]
pub(super) struct Event {
    pub(super) at: Revision,
    pub(super) key: Vec<u8>,
    pub(super) tombstone: bool,
    pub(super) record: Record,
}

#[derive(Default)]
pub(super) struct Model {
    pub(super) history: Vec<Event>,
    /// Past compactions, ascending.
    pub(super) compactions: Vec<i64>,
}

impl Values for Model {
    fn load(&self, revision: Revision) -> Result<Record, Fatal> {
        let event = self.history.iter().find(|event| event.at == revision);
        event.map(|event| event.record.clone()).ok_or_else(|| Fatal::EngineLost(format!("no record {revision}")))
    }
}

impl Model {
    pub(super) fn revision(&self) -> i64 {
        self.history.last().map_or(1, |event| event.at.main)
    }

    pub(super) fn compact_revision(&self) -> i64 {
        self.compactions.last().copied().unwrap_or(-1)
    }

    /// Does the operations (a value: put, none: delete) as one transaction, here and in `mvcc`.
    pub(super) fn txn(&mut self, mvcc: &mut Mvcc, operations: &[(Vec<u8>, Option<Vec<u8>>)]) {
        let main = self.revision() + 1;
        let (mut write, mut sub) = (mvcc.write(), 0);
        for (key, value) in operations {
            let previous = self.history.iter().rev().find(|event| event.key == *key && !event.tombstone);
            let lives = self.history.iter().rev().find(|event| event.key == *key).is_some_and(|event| !event.tombstone);
            let record = match value {
                Some(value) => {
                    write.put(key, value, 0);
                    let previous = previous.filter(|_| lives).and_then(|event| event.record.fields());
                    let (create_revision, version) =
                        previous.map_or((main, 1), |fields| (fields.create_revision, fields.version + 1));
                    Record::encode(&Fields { key, create_revision, mod_revision: main, version, value, lease: 0 })
                }
                None => {
                    assert_eq!(write.delete(key), lives);
                    if !lives {
                        continue;
                    }
                    Record::key_only(key)
                }
            };
            let at = Revision::new(main, sub);
            self.history.push(Event { at, key: key.clone(), tombstone: value.is_none(), record });
            sub += 1;
        }
        assert_eq!(write.changes(), sub);
    }

    /// The newest change of every key at or below `at`.
    pub(super) fn newest(&self, at: i64) -> BTreeMap<&[u8], &Event> {
        let seen = self.history.iter().filter(|event| event.at.main <= at);
        seen.map(|event| (&event.key[..], event)).collect()
    }

    /// What a reader of `range` at `at` sees.
    pub(super) fn list(&self, range: &KeyRange, at: i64) -> Vec<&Event> {
        let live = self.newest(at).into_values().filter(|event| !event.tombstone);
        live.filter(|event| range.contains(&event.key)).collect()
    }

    pub(super) fn totals(&self, range: &KeyRange, at: i64) -> Totals {
        let framed = |event: &&Event| {
            let len = event.record.wire().len() as u64;
            let len_bytes = (1..).find(|bytes| len >> (7 * bytes) == 0).expect("64 bits end");
            Totals { keys: 1, framed_bytes: 1 + len_bytes + len }
        };
        self.list(range, at).iter().map(framed).fold(Totals::default(), |sum, totals| sum + totals)
    }

    /// What is in etcd's bucket after a finished compaction to `compact`.
    pub(super) fn retained(&self, compact: i64) -> Vec<&Event> {
        let newest: BTreeSet<Revision> =
            self.newest(compact).values().filter(|event| !event.tombstone).map(|event| event.at).collect();
        let stays = |event: &&Event| {
            event.at.main > compact || newest.contains(&event.at) || event.tombstone && event.at.main == compact
        };
        self.history.iter().filter(stays).collect()
    }

    pub(super) fn bytes(events: &[&Event]) -> u64 {
        events.iter().map(|event| event.record.wire().len() as u64 + 17 + u64::from(event.tombstone)).sum()
    }

    /// `HashKV` word by word: generations, walk, keep, and one pass over the bucket in revision order.
    pub(super) fn hash(&self, compact: i64, revision: i64, keeps_tombstones: bool) -> u32 {
        let mut keys: BTreeMap<&[u8], Vec<Vec<&Event>>> = BTreeMap::new();
        for event in &self.history {
            let generations = keys.entry(&event.key).or_insert_with(|| vec![vec![]]);
            generations.last_mut().expect("never empty").push(event);
            if event.tombstone {
                generations.push(vec![]);
            }
        }
        let mut keep = BTreeSet::new();
        for generations in keys.values() {
            let last = generations.len() - 1;
            let covers = |generation: &Vec<&Event>| generation.last().is_some_and(|event| event.at.main >= revision);
            let at = generations[..last].iter().position(covers).unwrap_or(last);
            let Some(found) = generations[at].iter().rposition(|event| event.at.main <= revision) else { continue };
            let is_border = found == generations[at].len() - 1 && at != last;
            if !is_border || keeps_tombstones && generations[at][found].at.main == revision {
                keep.insert(generations[at][found].at);
            }
        }
        let mut hash = crc32c::crc32c(b"key");
        for event in self.retained(compact) {
            let skip = event.at.main > revision
                || event.at.main <= compact && !keep.is_empty() && !keep.contains(&event.at)
                || event.at.main == compact && event.tombstone;
            if skip {
                continue;
            }
            let mut key = event.at.main.to_be_bytes().to_vec();
            key.push(b'_');
            key.extend(i64::from(event.at.sub).to_be_bytes());
            key.extend(event.tombstone.then_some(b't'));
            hash = crc32c::crc32c_append(crc32c::crc32c_append(hash, &key), event.record.wire());
        }
        hash
    }

    pub(super) fn check_item(&self, item: &Item, event: &Event) {
        assert_eq!(item.mod_revision, event.at);
        assert_eq!(item.key(), event.key);
        let record = item.record(self).expect("the model has every record");
        assert_eq!(record, event.record);
        let fields = event.record.fields().expect("encoded above");
        assert_eq!((item.create_revision, item.version), (fields.create_revision, fields.version));
        assert_eq!((item.crc, item.wire_len as usize), (crc32c::crc32c(record.wire()), record.wire().len()));
    }

    pub(super) fn check_change(&self, change: &Change, event: &Event) {
        assert_eq!((change.revision, change.tombstone), (event.at, event.tombstone));
        assert_eq!(change.key(), event.key);
        assert_eq!(change.record(self).expect("the model has every record"), event.record);
        assert_eq!(change.crc, crc32c::crc32c(event.record.wire()));
    }
}
