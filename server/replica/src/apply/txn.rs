//! Transactions: compares choose the branches first, all of them; then the chosen steps are checked; then they run.

use super::check::Before;
use super::kv;
use super::lease::Leases;
use super::state::State;
use super::{Answered, header};
use crate::mvcc::{Mvcc, Write};
use crate::outcome::Fatal;
use crate::store::Values;
use mechi_proto::etcdserverpb as pb;
use pb::request_op::Request as Op;
use pb::response_op::Response as Done;

/// A txn with its branches chosen.
pub(super) struct Plan<'a> {
    succeeded: bool,
    pub(super) steps: Vec<Step<'a>>,
}

/// One operation of a chosen branch.
pub(super) enum Step<'a> {
    Range(&'a pb::RangeRequest),
    Put(&'a pb::PutRequest),
    Delete(&'a pb::DeleteRangeRequest),
    Txn(Plan<'a>),
    /// An operation without a request, which `command::check_txn` refuses; it answers an empty operation.
    Nothing,
}

impl<'a> Plan<'a> {
    /// Chooses the branches: every compare, of nested txns too, sees the state before the whole txn.
    ///
    /// - Source: etcd `txn/txn.go`, `compareToPath`.
    fn new(txn: &'a pb::TxnRequest, before: Before<'_>) -> Result<Self, Fatal> {
        let succeeded = before.holds(&txn.compare)?;
        let branch = if succeeded { &txn.success } else { &txn.failure };
        let step = |op: &'a pb::RequestOp| {
            Ok(match &op.request {
                Some(Op::RequestRange(range)) => Step::Range(range),
                Some(Op::RequestPut(put)) => Step::Put(put),
                Some(Op::RequestDeleteRange(delete)) => Step::Delete(delete),
                Some(Op::RequestTxn(nested)) => Step::Txn(Plan::new(nested, before)?),
                None => Step::Nothing,
            })
        };
        Ok(Self { succeeded, steps: branch.iter().map(step).collect::<Result<_, Fatal>>()? })
    }
}

/// Runs a txn; all its changes share one revision, which it takes with the first.
///
/// The outer header shows the revision after the txn, those of ranges, puts and deletes what they saw or made, and
/// those of nested txns none at all, as in etcd. Ranges and `prev_kv`s are read only if somebody waits for them.
///
/// - Errors: those of `Before::plan`, before anything is written.
pub(super) fn txn(
    state: &mut State,
    request: &pb::TxnRequest,
    awaited: bool,
    values: &dyn Values,
) -> Answered<pb::TxnResponse> {
    let before = Before { mvcc: &state.mvcc, leases: &state.leases, values };
    let plan = Plan::new(request, before)?;
    if let Err(error) = before.plan(&plan) {
        return Ok(Err(error));
    }
    let mut run = Run { write: state.mvcc.write(), leases: &mut state.leases, awaited, values };
    let mut response = run.plan(&plan)?;
    response.header = header(run.write.revision());
    Ok(Ok(response))
}

/// Serves a txn for which `command::is_read_only` holds, on the view that the caller has waited for.
///
/// - Errors: as [`txn`], and [`Fatal::Bug`] if the txn writes.
pub fn read(state: &State, request: &pb::TxnRequest, values: &dyn Values) -> Answered<pb::TxnResponse> {
    let before = Before { mvcc: &state.mvcc, leases: &state.leases, values };
    let plan = Plan::new(request, before)?;
    if let Err(error) = before.plan(&plan) {
        return Ok(Err(error));
    }
    let revision = state.mvcc.revision();
    let mut responses = Vec::with_capacity(plan.steps.len());
    for step in &plan.steps {
        let Step::Range(range) = step else { return Err(Fatal::Bug("a read-only txn writes".into())) };
        responses.push(done(Done::ResponseRange(read_range(&state.mvcc, range, revision, values)?)));
    }
    Ok(Ok(pb::TxnResponse { header: header(revision), succeeded: plan.succeeded, responses }))
}

fn done(response: Done) -> pb::ResponseOp {
    pb::ResponseOp { response: Some(response) }
}

fn read_range(
    mvcc: &Mvcc,
    range: &pb::RangeRequest,
    now: i64,
    values: &dyn Values,
) -> Result<pb::RangeResponse, Fatal> {
    kv::range(mvcc, range, now, values)?
        .map_err(|error| Fatal::Bug(format!("a range of a checked txn cannot be read: {error}")))
}

/// A txn while it runs.
struct Run<'a> {
    write: Write<'a>,
    leases: &'a mut Leases,
    awaited: bool,
    values: &'a dyn Values,
}

impl Run<'_> {
    fn plan(&mut self, plan: &Plan<'_>) -> Result<pb::TxnResponse, Fatal> {
        let responses = plan.steps.iter().map(|step| self.step(step)).collect::<Result<_, _>>()?;
        Ok(pb::TxnResponse { header: header(0), succeeded: plan.succeeded, responses })
    }

    fn step(&mut self, step: &Step<'_>) -> Result<pb::ResponseOp, Fatal> {
        let Self { write, leases, awaited, values } = self;
        Ok(done(match step {
            Step::Range(range) if *awaited => {
                Done::ResponseRange(read_range(write.mvcc(), range, write.revision(), *values)?)
            }
            Step::Range(_) => {
                Done::ResponseRange(pb::RangeResponse { header: header(write.revision()), ..Default::default() })
            }
            Step::Put(put) => Done::ResponsePut(kv::put(write, leases, put, *awaited, *values)?),
            Step::Delete(delete) => {
                Done::ResponseDeleteRange(kv::delete_range(write, leases, delete, *awaited, *values)?)
            }
            Step::Txn(nested) => Done::ResponseTxn(self.plan(nested)?),
            Step::Nothing => return Ok(pb::ResponseOp { response: None }),
        }))
    }
}
