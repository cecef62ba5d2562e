//! `defrag`: gives freed space back.

use super::endpoint::endpoints;
use crate::call::Call;
use crate::exit::{ERROR, Exit};
use crate::output::{complain, say};
use crate::session::Session;

pub(super) async fn run(call: &mut Call) -> Result<(), Exit> {
    if !call.flags.text("data-dir").is_empty() {
        return Err(Exit::new(ERROR, "--data-dir is not supported: a folder of Mechi needs no defragmentation"));
    }
    let session = Session::open(call).await?;
    let mut failed = false;
    for endpoint in endpoints(call, &session).await? {
        let member = session.at(&endpoint)?;
        match member.ask(member.client.defragment()).await {
            Ok(_) => say!("Finished defragmenting etcd member[{endpoint}]"),
            Err(why) => {
                complain(&format!("Failed to defragment etcd member[{endpoint}] ({why})"));
                failed = true;
            }
        }
    }
    if failed { Err(Exit::silent(ERROR)) } else { Ok(()) }
}
