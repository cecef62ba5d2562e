//! `compaction`: forgets old revisions.

use crate::call::Call;
use crate::exit::{ERROR, Exit, bad_args};
use crate::go::number::parse_int;
use crate::output::say;
use crate::session::Session;

pub(super) async fn run(call: &mut Call) -> Result<(), Exit> {
    if call.args().len() != 1 {
        return Err(bad_args("compaction command needs 1 argument"));
    }
    let revision = parse_int(&call.text(0), 10).map_err(|why| Exit::new(ERROR, why))?;
    let session = Session::open(call).await?;
    if call.flags.on("physical") {
        session.done(session.client.compact_physical(revision)).await?;
    } else {
        session.done(session.client.compact(revision)).await?;
    }
    say!("compacted revision {revision}");
    Ok(())
}
