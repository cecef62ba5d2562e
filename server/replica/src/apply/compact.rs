//! Compaction: it takes effect for new reads here; what it removes goes later, in slices.

use super::Outcomes;
use super::state::State;
use crate::outcome::{Error, Response};
use mechi_proto::etcdserverpb as pb;

/// Compacts; the header shows the store's current revision.
///
/// - Errors: [`Error::Compacted`] at or below the last compaction, [`Error::FutureRevision`] above the store's
///   revision; compacting at the revision itself is allowed.
pub(super) fn compact(
    state: &mut State,
    request: &pb::CompactionRequest,
    out: &mut Outcomes,
) -> Result<Response, Error> {
    state.mvcc.compact(request.revision)?;
    out.compaction = Some(request.revision);
    Ok(Response::Compaction(pb::CompactionResponse { header: super::header(state.mvcc.revision()) }))
}
