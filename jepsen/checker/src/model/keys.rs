//! Every version of every key, by revision: what the model reads at any of them.

use bytes::Bytes;
use mechi_proto::mvccpb::KeyValue;
use std::collections::{BTreeMap, BTreeSet};
use std::ops::Bound;

/// One key as one revision left it; `None` if that deleted it.
#[derive(Clone, Debug, PartialEq)]
struct Version {
    revision: i64,
    kv: Option<KeyValue>,
}

/// One change of one key.
#[derive(Clone, Debug, PartialEq)]
pub struct Change {
    /// When.
    pub revision: i64,
    /// Which key.
    pub key: Bytes,
    /// What it then is; `None` if it was deleted.
    pub now: Option<KeyValue>,
    /// What it was before.
    pub before: Option<KeyValue>,
}

/// The keys with all their versions.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Keys {
    versions: BTreeMap<Bytes, Vec<Version>>,
    /// What each lease holds, by the newest versions.
    attached: BTreeMap<i64, BTreeSet<Bytes>>,
    /// The keys that each revision touched, in the order in which it did.
    touched: BTreeMap<i64, Vec<Bytes>>,
}

impl Keys {
    /// A key as it was at `revision`.
    pub(super) fn get(&self, key: &[u8], revision: i64) -> Option<&KeyValue> {
        at(self.versions.get(key)?, revision)
    }

    /// The keys of a range that were there at `revision`, in order.
    pub(super) fn range<'a>(
        &'a self,
        key: &'a [u8],
        end: &'a [u8],
        revision: i64,
    ) -> impl Iterator<Item = &'a KeyValue> {
        let last = match end {
            [] => Bound::Included(key),
            [0] => Bound::Unbounded,
            _ => Bound::Excluded(end),
        };
        // A range that ends before it begins holds nothing, and the map would panic.
        let empty = !end.is_empty() && end != [0] && end <= key;
        let bounds = if empty { (Bound::Included(key), Bound::Included(key)) } else { (Bound::Included(key), last) };
        let found = self.versions.range::<[u8], _>(bounds).filter(move |_| !empty);
        found.filter_map(move |(_, versions)| at(versions, revision))
    }

    /// The keys that hang on a lease now, in order.
    pub(super) fn attached(&self, lease: i64) -> Vec<Bytes> {
        self.attached.get(&lease).map_or_else(Vec::new, |keys| keys.iter().cloned().collect())
    }

    /// Sets or deletes a key at `revision`, which no version is newer than.
    pub(super) fn set(&mut self, revision: i64, key: Bytes, kv: Option<KeyValue>) {
        let versions = self.versions.entry(key.clone()).or_default();
        detach(&mut self.attached, &key, versions.last());
        let version = Version { revision, kv };
        attach(&mut self.attached, &key, Some(&version));
        match versions.last_mut() {
            Some(last) if last.revision == revision => *last = version,
            _ => {
                versions.push(version);
                self.touched.entry(revision).or_default().push(key);
            }
        }
    }

    /// Forgets what happened after `revision`.
    pub(super) fn rollback(&mut self, revision: i64) {
        while let Some(last) = self.touched.last_entry().filter(|last| *last.key() > revision) {
            for key in last.remove() {
                let versions = self.versions.get_mut(&key).expect("a key that was touched has versions");
                detach(&mut self.attached, &key, versions.last());
                versions.pop();
                attach(&mut self.attached, &key, versions.last());
                if versions.is_empty() {
                    self.versions.remove(&key);
                }
            }
        }
    }

    /// What one revision changed, in the order in which it did.
    pub(super) fn changes(&self, revision: i64) -> impl Iterator<Item = Change> {
        let change = move |key: &Bytes| Change {
            revision,
            key: key.clone(),
            now: self.get(key, revision).cloned(),
            before: self.get(key, revision - 1).cloned(),
        };
        self.touched.get(&revision).into_iter().flatten().map(change)
    }
}

fn at(versions: &[Version], revision: i64) -> Option<&KeyValue> {
    // Most reads are of the newest version.
    let place = match versions.last() {
        Some(last) if last.revision <= revision => versions.len(),
        _ => versions.partition_point(|version| version.revision <= revision),
    };
    versions[..place].last()?.kv.as_ref()
}

fn lease(version: Option<&Version>) -> Option<i64> {
    version?.kv.as_ref().map(|kv| kv.lease).filter(|lease| *lease != 0)
}

fn attach(attached: &mut BTreeMap<i64, BTreeSet<Bytes>>, key: &Bytes, version: Option<&Version>) {
    if let Some(lease) = lease(version) {
        attached.entry(lease).or_default().insert(key.clone());
    }
}

fn detach(attached: &mut BTreeMap<i64, BTreeSet<Bytes>>, key: &Bytes, version: Option<&Version>) {
    let Some(lease) = lease(version) else { return };
    if let Some(keys) = attached.get_mut(&lease) {
        keys.remove(key);
        if keys.is_empty() {
            attached.remove(&lease);
        }
    }
}
