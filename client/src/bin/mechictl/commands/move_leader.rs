//! `move-leader`: hands the leadership to another member.

use crate::call::Call;
use crate::exit::{Exit, bad_args};
use crate::go::number::parse_uint;
use crate::printers::Reply;
use crate::session::Session;

/// Looks for the leader among the endpoints and asks it.
pub(super) async fn run(call: &mut Call) -> Result<(), Exit> {
    if call.args().len() != 1 {
        return Err(bad_args("move-leader command needs 1 argument"));
    }
    let target = parse_uint(&call.text(0), 16).map_err(bad_args)?;
    let session = Session::open(call).await?;
    let endpoints = session.client.endpoints().to_vec();
    for endpoint in &endpoints {
        let member = session.at(endpoint)?;
        let status = member.done(member.client.status()).await?;
        if status.header.is_some_and(|header| header.member_id == status.leader) {
            let response = member.done(member.client.move_leader(target)).await?;
            return session.print(&Reply::MoveLeader(status.leader, target, response));
        }
    }
    Err(bad_args(format!("no leader endpoint given at [{}]", endpoints.join(" "))))
}
