//! Random commands into the applier and into the plain model: every answer, read and sum must agree.

#[allow(unreachable_pub, dead_code)]
#[path = "../../../tests/src/model.rs"]
mod model;

use bytes::Bytes;
use mechi_proto::etcdserverpb as pb;
use mechi_proto::mechipb::{Batch, Command, command::Request};
use mechi_replica::apply::state::State;
use mechi_replica::apply::{Answer, Outcomes, apply, kv, txn};
use mechi_replica::command::{RequestLimits, check, encode, is_read_only};
use mechi_replica::effect::Entry;
use mechi_replica::outcome::{Error, Fatal, Response};
use mechi_replica::record::Record;
use mechi_replica::store::Values;
use mechi_replica::types::{KeyRange, Revision};
use model::Model;
use pb::compare::TargetUnion as Union;
use pb::request_op::Request as Op;
use proptest::prelude::*;
use std::collections::BTreeMap;

/// Every record ever written: where values are found that have left memory.
#[derive(Default)]
struct AllRecords(BTreeMap<Revision, Record>);

impl Values for AllRecords {
    fn load(&self, revision: Revision) -> Result<Record, Fatal> {
        self.0.get(&revision).cloned().ok_or_else(|| Fatal::EngineLost(format!("no record of {revision}")))
    }
}

/// One member.
struct Member {
    state: State,
    values: AllRecords,
    answer: Answer,
}

const PROPOSER: Answer = Answer { member: 1, boot: 1 };

impl Member {
    fn new(answer: Answer) -> Self {
        Self { state: State::empty(), values: AllRecords::default(), answer }
    }

    fn apply(&mut self, request: &Request) -> Option<Result<Response, Error>> {
        let before = self.state.mvcc.revision();
        let index = self.state.applied_index + 1;
        let command = Command { id: index, request: Some(request.clone()), ..Default::default() };
        let batch = Batch { member: 1, boot: 1, number: index, wall_ms: 0, commands: vec![command] };
        let entry = Entry { index, term: 1, data: encode(&batch), ..Default::default() };
        let mut out = Outcomes::default();
        apply(&mut self.state, &entry, self.answer, &self.values, &mut out).expect("every entry here can be applied");
        for change in self.state.mvcc.changes(before + 1) {
            self.values.0.insert(change.revision, change.head.clone());
        }
        assert!(out.answers.iter().all(|(id, _)| *id == index));
        out.answers.pop().map(|(_, answer)| answer)
    }

    fn evict(&mut self) {
        let revision = self.state.mvcc.revision();
        self.state.mvcc.set_flushed(revision);
        self.state.mvcc.evict(revision, 0, usize::MAX);
    }
}

fn key() -> impl Strategy<Value = Bytes> {
    prop::sample::select(vec!["a", "aa", "b", "c", "d", "\0"]).prop_map(Bytes::from)
}

fn range_end() -> impl Strategy<Value = Bytes> {
    prop::sample::select(vec!["", "", "\0", "a", "b", "c", "zz"]).prop_map(Bytes::from)
}

fn revision() -> impl Strategy<Value = i64> {
    prop_oneof![3 => Just(0), 2 => 1..30i64, 1 => -3..60i64]
}

fn bound() -> impl Strategy<Value = i64> {
    prop_oneof![4 => Just(0), 1 => 1..25i64]
}

prop_compose! {
    fn range()(
        (key, range_end, limit, revision) in (key(), range_end(), prop_oneof![2 => Just(0), 1 => -1..4i64, 1 => Just(i64::MAX)], revision()),
        (sort_order, sort_target) in prop_oneof![1 => Just((0, 0)), 2 => (0..3, 0..5)],
        (keys_only, count_only, serializable) in (any::<bool>(), prop::bool::weighted(0.2), any::<bool>()),
        (min_mod_revision, max_mod_revision, min_create_revision, max_create_revision) in (bound(), bound(), bound(), bound()),
    ) -> pb::RangeRequest {
        pb::RangeRequest {
            key, range_end, limit, revision, sort_order, sort_target, serializable, keys_only, count_only,
            min_mod_revision, max_mod_revision, min_create_revision, max_create_revision,
        }
    }
}

prop_compose! {
    fn put()(
        key in key(),
        value in prop::sample::select(vec!["", "1", "2", "33"]),
        lease in prop_oneof![3 => Just(0), 2 => 1..5i64],
        (prev_kv, ignore_value, ignore_lease) in (any::<bool>(), prop::bool::weighted(0.2), prop::bool::weighted(0.2)),
    ) -> pb::PutRequest {
        let value = if ignore_value { Bytes::new() } else { Bytes::from(value) };
        let lease = if ignore_lease { 0 } else { lease };
        pb::PutRequest { key, value, lease, prev_kv, ignore_value, ignore_lease }
    }
}

prop_compose! {
    fn delete()(key in key(), range_end in range_end(), prev_kv in any::<bool>()) -> pb::DeleteRangeRequest {
        pb::DeleteRangeRequest { key, range_end, prev_kv }
    }
}

prop_compose! {
    fn compare()(
        (key, range_end, result, target) in (key(), range_end(), 0..5i32, 0..6i32),
        union in prop_oneof![
            1 => Just(None),
            2 => (0..4i64).prop_map(|n| Some(Union::Version(n))),
            2 => (0..20i64).prop_map(|n| Some(Union::CreateRevision(n))),
            2 => (0..20i64).prop_map(|n| Some(Union::ModRevision(n))),
            2 => prop::sample::select(vec!["", "1", "2"]).prop_map(|v| Some(Union::Value(v.into()))),
            2 => (0..4i64).prop_map(|n| Some(Union::Lease(n))),
        ],
        fits in prop::bool::weighted(0.8),
    ) -> pb::Compare {
        let own = match &union {
            Some(Union::Version(_)) => 0,
            Some(Union::CreateRevision(_)) => 1,
            Some(Union::ModRevision(_)) => 2,
            Some(Union::Value(_)) => 3,
            Some(Union::Lease(_)) => 4,
            None => target,
        };
        pb::Compare { result, target: if fits { own } else { target }, key, range_end, target_union: union }
    }
}

fn op(inner: impl Strategy<Value = pb::TxnRequest>) -> impl Strategy<Value = pb::RequestOp> {
    prop_oneof![
        3 => range().prop_map(Op::RequestRange),
        4 => put().prop_map(Op::RequestPut),
        2 => delete().prop_map(Op::RequestDeleteRange),
        1 => inner.prop_map(Op::RequestTxn),
    ]
    .prop_map(|request| pb::RequestOp { request: Some(request) })
}

fn txn_of(ops: impl Strategy<Value = pb::RequestOp> + Clone + 'static) -> BoxedStrategy<pb::TxnRequest> {
    let branch = prop::collection::vec(ops, 0..4);
    (prop::collection::vec(compare(), 0..3), branch.clone(), branch)
        .prop_map(|(compare, success, failure)| pb::TxnRequest { compare, success, failure })
        .boxed()
}

fn a_txn() -> BoxedStrategy<pb::TxnRequest> {
    let leaf = txn_of(op(Just(pb::TxnRequest::default())).boxed());
    let middle = txn_of(op(leaf).boxed());
    txn_of(op(middle).boxed())
}

fn request() -> impl Strategy<Value = Request> {
    prop_oneof![
        6 => put().prop_map(Request::Put),
        2 => delete().prop_map(Request::DeleteRange),
        5 => a_txn().prop_map(Request::Txn),
        1 => (-2..40i64).prop_map(|revision| Request::Compaction(pb::CompactionRequest { revision, physical: false })),
        3 => (0..5i64, prop_oneof![5 => 2..50i64, 1 => Just(9_000_000_001)])
            .prop_map(|(id, ttl)| Request::LeaseGrant(pb::LeaseGrantRequest { id, ttl })),
        1 => (0..5i64).prop_map(|id| Request::LeaseRevoke(pb::LeaseRevokeRequest { id })),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 384, ..ProptestConfig::default() })]

    #[test]
    fn applier_and_model_agree(
        steps in prop::collection::vec((request(), range(), prop::bool::weighted(0.1)), 1..60),
    ) {
        let mut model = Model::default();
        let mut proposer = Member::new(PROPOSER);
        let mut other = Member::new(Answer { member: 2, boot: 1 });
        for (request, read, evict) in steps {
            if evict {
                proposer.evict();
            }
            if check(&request, &RequestLimits::default()).is_ok() {
                if let Request::Txn(txn) = &request
                    && is_read_only(txn)
                {
                    let served = txn::read(&proposer.state, txn, &proposer.values).unwrap().map(Response::Txn);
                    prop_assert_eq!(served, model.clone().apply(&request), "read {:?}", request);
                }
                let wanted = model.apply(&request);
                prop_assert_eq!(proposer.apply(&request), Some(wanted), "{:?}", request);
                prop_assert_eq!(other.apply(&request), None);
                prop_assert_eq!(proposer.state.to_meta(), other.state.to_meta(), "{:?}", request);
            }
            let state = &proposer.state;
            prop_assert_eq!(state.mvcc.revision(), model.revision());
            prop_assert_eq!(state.mvcc.compact_revision(), model.compact_revision());
            let served = kv::range(&state.mvcc, &read, state.mvcc.revision(), &proposer.values).unwrap();
            prop_assert_eq!(served, model.range(&read), "{:?}", read);
        }
        let all = pb::RangeRequest { key: "\0".into(), range_end: "\0".into(), ..Default::default() };
        let leases = proposer.state.leases.clone();
        for kv in model.range(&all).unwrap().kvs {
            let attached = leases.of_key(&kv.key).map_or(0, |id| id.0);
            prop_assert_eq!(attached, kv.lease, "{:?}", kv);
        }
        let ids: Vec<_> = leases.iter().map(|(id, lease)| (id.0, lease.ttl)).collect();
        prop_assert_eq!(ids, model.leases().clone().into_iter().collect::<Vec<_>>());

        // What was stored comes back the same, attachments too.
        let meta = proposer.state.to_meta();
        let mut restored = State::from_meta(meta.clone(), proposer.state.mvcc).unwrap();
        restored.attach_from_mvcc(&proposer.values).unwrap();
        prop_assert_eq!(&restored.leases, &leases);
        prop_assert_eq!(restored.to_meta(), meta);
        let mut seen = 0;
        restored.mvcc.scan(&KeyRange::all(), restored.mvcc.revision(), &mut |_| { seen += 1; true });
        prop_assert_eq!(seen, restored.mvcc.live_keys());
    }
}
