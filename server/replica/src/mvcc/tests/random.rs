//! Random histories, with compactions, sweeps, evictions and restarts between, compared with the model.

use super::super::key_index::Version;
use super::super::{HashJob, Mvcc, Totals};
use super::model::Model;
use crate::types::{Bound, KeyRange, Revision};
use bytes::Bytes;
use proptest::prelude::*;

#[derive(Clone, Debug)]
enum Step {
    Txn(Vec<(Vec<u8>, Option<Vec<u8>>)>),
    /// Compacts to this share of the revisions between the compact one and now.
    Compact(u8),
    /// Sweeps with this budget; holds the hash of the compaction back, computes it, or goes without.
    Sweep(usize, Hash),
    /// Opens a view at this share of the readable revisions, closing the one before.
    View(u8),
    Close,
    Flush(u8),
    Evict(usize),
    /// Rebuilds everything from the retained records, a share of them resident.
    Restart(u8),
    Hash(u8),
}

#[derive(Clone, Copy, Debug)]
enum Hash {
    Hold,
    Finish,
    Skip,
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let key = prop_oneof!["[ab]{1,3}", "p/[0-9]{2}"].prop_map(String::into_bytes);
    let value = prop::option::weighted(0.7, prop_oneof![Just(0usize), 1usize..40, 100usize..300]);
    let operation = (key, value).prop_map(|(key, len)| (key, len.map(|len| vec![b'v'; len])));
    let distinct = |operations: Vec<(Vec<u8>, _)>| {
        // As in etcd, one transaction changes a key once.
        let unique: std::collections::BTreeMap<_, _> = operations.into_iter().collect();
        Step::Txn(unique.into_iter().collect())
    };
    let hash = prop_oneof![Just(Hash::Hold), Just(Hash::Finish), Just(Hash::Skip)];
    let step = prop_oneof![
        12 => prop::collection::vec(operation, 0..5).prop_map(distinct),
        2 => any::<u8>().prop_map(Step::Compact),
        4 => (1usize..12, hash).prop_map(|(budget, hash)| Step::Sweep(budget, hash)),
        1 => any::<u8>().prop_map(Step::View),
        1 => Just(Step::Close),
        2 => any::<u8>().prop_map(Step::Flush),
        2 => (1usize..40).prop_map(Step::Evict),
        1 => any::<u8>().prop_map(Step::Restart),
        2 => any::<u8>().prop_map(Step::Hash),
    ];
    prop::collection::vec(step, 1..90)
}

/// The revision at `share` / 255 of the way.
fn between(low: i64, high: i64, share: u8) -> i64 {
    low + (high - low) * i64::from(share) / 255
}

#[derive(Default)]
struct Run {
    model: Model,
    mvcc: Mvcc,
    view: Option<i64>,
    held: Option<HashJob>,
}

impl Run {
    fn step(&mut self, step: Step) {
        let compact = self.model.compact_revision();
        let revision = self.model.revision();
        match step {
            Step::Txn(operations) => self.model.txn(&mut self.mvcc, &operations),
            Step::Compact(share) => {
                let at = between(compact.max(0) + 1, revision, share);
                assert_eq!(self.mvcc.compact(at).is_ok(), at > compact && at <= revision);
                if self.mvcc.compact_revision() > compact {
                    self.model.compactions.push(at);
                }
            }
            Step::Sweep(budget, hash) => self.sweep(budget, hash),
            Step::View(share) => self.view = Some(between(compact.max(1), revision, share)),
            Step::Close => self.view = None,
            Step::Flush(share) => self.mvcc.set_flushed(between(self.mvcc.flushed(), revision, share)),
            Step::Evict(budget) => {
                while !self.mvcc.evict(self.mvcc.flushed(), 0, budget) {}
                let flushed = self.mvcc.flushed();
                let big = |version: &Version| version.resident && !version.tombstone && version.wire_len > 120;
                let left = self.mvcc.keys.iter_from(&[]).flat_map(|entry| entry.versions());
                assert_eq!(left.filter(|version| big(version) && version.main <= flushed).count(), 0);
            }
            Step::Restart(share) => self.restart(share),
            Step::Hash(share) => self.hash(between(compact.max(1), revision, share)),
        }
    }

    fn sweep(&mut self, budget: usize, hash: Hash) {
        let before = self.mvcc.unreclaimed_bytes();
        let sweep = self.mvcc.sweep(self.view.unwrap_or(i64::MAX), budget);
        let removed: u64 = sweep.removed.iter().map(|at| self.size(*at)).sum();
        assert_eq!(self.mvcc.unreclaimed_bytes(), before - removed);
        assert!(sweep.removed.len() <= budget + 1);
        self.held = sweep.hash.or(self.held.take());
        match (hash, self.held.take()) {
            (Hash::Hold, held) => self.held = held,
            (Hash::Skip, _) | (Hash::Finish, None) => {}
            (Hash::Finish, Some(job)) => {
                let hash = self.finish(job);
                let model = self.model.hash(hash.compact_revision, hash.hash_revision, true);
                assert_eq!(hash.hash, model, "the hash of a compaction");
                self.mvcc.remember_hash(hash);
            }
        }
        if sweep.done {
            assert_eq!(self.mvcc.unreclaimed_bytes(), 0);
        }
    }

    fn finish(&self, mut job: HashJob) -> super::HashKv {
        while job.step(&self.mvcc).expect("the sweep honours the floor") {}
        job.finish(&self.model).expect("the model has every record")
    }

    fn size(&self, at: Revision) -> u64 {
        let event = self.model.history.iter().find(|event| event.at == at).expect("a change of the history");
        Model::bytes(&[event])
    }

    fn hash(&self, revision: i64) {
        let hash = self.finish(HashJob::new(&self.mvcc, revision).expect("readable"));
        let compact = self.model.compact_revision();
        let of_compaction = self.model.compactions.contains(&revision) && hash.compact_revision < revision;
        assert_eq!(hash.hash_revision, revision);
        if !of_compaction {
            assert_eq!(hash.compact_revision, compact);
        }
        assert_eq!(
            hash.hash,
            self.model.hash(hash.compact_revision, revision, of_compaction),
            "the hash at {revision}"
        );
    }

    fn restart(&mut self, share: u8) {
        let (revision, compact) = (self.model.revision(), self.model.compact_revision());
        let flushed = self.mvcc.flushed();
        // Some of the garbage, as a store may still hold it.
        let garbage_from = between(0, revision, share);
        let retained: Vec<Revision> = self.model.retained(compact).iter().map(|event| event.at).collect();
        let stored =
            self.model.history.iter().filter(|event| event.at.main >= garbage_from || retained.contains(&event.at));
        let records = stored.map(|event| {
            (event.at, event.tombstone, event.record.clone(), event.at.main > flushed || event.at.sub == 0)
        });
        self.mvcc = Mvcc::restore(revision, compact, records).expect("what the model holds is sound");
        self.mvcc.set_flushed(flushed);
        (self.view, self.held) = (None, None);
    }

    fn check(&self, ranges: &[KeyRange], share: u8) {
        let (mvcc, model) = (&self.mvcc, &self.model);
        let (revision, compact) = (model.revision(), model.compact_revision());
        assert_eq!((mvcc.revision(), mvcc.compact_revision()), (revision, compact));
        let mut reads = vec![revision, compact.max(1), between(compact.max(1), revision, share)];
        // A view that was open before a compaction still reads everything.
        reads.extend(self.view);
        for at in reads {
            for range in ranges {
                self.check_range(range, at);
            }
        }
        for range in ranges {
            assert_eq!(mvcc.totals(range), model.totals(range, revision));
        }
        self.check_changes(compact);
        self.check_counters(compact);
    }

    fn check_range(&self, range: &KeyRange, at: i64) {
        let (mvcc, model) = (&self.mvcc, &self.model);
        let want = model.list(range, at);
        let mut items = Vec::new();
        mvcc.scan(range, at, &mut |item| {
            items.push(item);
            true
        });
        assert_eq!(items.len(), want.len(), "{range:?} at {at}");
        for (item, event) in items.iter().zip(&want) {
            model.check_item(item, event);
            model.check_item(&mvcc.get(&event.key, at).expect("it is in the list"), event);
        }
        let (mut sliced, mut next) = (Vec::new(), Some(range.clone()));
        while let Some(range) = next {
            let more = mvcc.scan_slice(&range, at, 2, &mut |item| {
                sliced.push(item.mod_revision);
                true
            });
            next = more.map(|from| KeyRange { from, to: range.to });
        }
        assert_eq!(sliced, want.iter().map(|event| event.at).collect::<Vec<_>>());
        if at >= model.compact_revision() {
            assert_eq!(mvcc.totals_at(range, at), Some(model.totals(range, at)), "{range:?} at {at}");
        }
    }

    fn check_changes(&self, compact: i64) {
        let want: Vec<_> = self.model.history.iter().filter(|event| event.at.main >= compact).collect();
        let got: Vec<_> = self.mvcc.changes(compact).collect();
        assert_eq!(got.len(), want.len());
        for (change, event) in got.iter().zip(want) {
            self.model.check_change(change, event);
            assert!(self.mvcc.holds(&event.key, event.at));
        }
    }

    fn check_counters(&self, compact: i64) {
        let (mvcc, model) = (&self.mvcc, &self.model);
        assert_eq!(mvcc.live_bytes(), Model::bytes(&model.retained(compact)));
        assert_eq!(mvcc.content_sum(), mvcc.recompute_content_sum());
        assert_eq!(mvcc.live_keys(), model.list(&KeyRange::all(), model.revision()).len() as u64);
        let (mut all, mut count) = (Totals::default(), 0);
        let mut versions = 0;
        let next = mvcc.versions_slice(&[], usize::MAX, &mut |change| {
            versions += 1;
            all.framed_bytes += self.size(change.revision);
        });
        assert_eq!(next, None);
        assert_eq!(all.framed_bytes, mvcc.live_bytes() + mvcc.unreclaimed_bytes(), "live and unreclaimed are all");
        let mut record_bytes = 0;
        for entry in mvcc.keys.iter_from(&[]) {
            count += entry.older().count() as u64;
            record_bytes += entry.versions().map(Version::record_bytes).sum::<u64>();
        }
        assert_eq!((mvcc.older_versions, mvcc.record_bytes), (count, record_bytes));
        assert_eq!(versions, count + mvcc.keys.len() as u64);
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]

    #[test]
    fn every_read_equals_the_model(steps in steps(), share in any::<u8>(), from in "[ab]{0,2}", to in "[abp]{1,2}") {
        let bytes = |text: &String| Bytes::copy_from_slice(text.as_bytes());
        let ranges = [
            KeyRange::all(),
            KeyRange { from: bytes(&from), to: Bound::Before(bytes(&to)) },
            KeyRange { from: bytes(&from), to: Bound::Open },
            KeyRange::single(&bytes(&to)),
        ];
        let mut run = Run::default();
        for step in steps {
            run.step(step);
            run.check(&ranges, share);
        }
    }
}
