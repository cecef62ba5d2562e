//! `del`: deletes a key or a range.

use super::get::range;
use crate::call::Call;
use crate::cli::flags::Flags;
use crate::exit::{Exit, bad_args};
use crate::printers::Reply;
use crate::session::Session;
use mechi_client::Delete;
use mechi_client::pb::DeleteRangeRequest;

pub(super) async fn run(call: &mut Call) -> Result<(), Exit> {
    let request = request(&call.flags)?;
    let session = Session::open(call).await?;
    let response = session.done(session.client.delete_with(Delete::from(request))).await?;
    session.print(&Reply::Del(response))
}

/// The request that the flags and the words make.
pub(super) fn request(flags: &Flags) -> Result<DeleteRangeRequest, Exit> {
    let (prefix, from_key) = (flags.on("prefix"), flags.on("from-key"));
    let (key, end) = match flags.args.as_slice() {
        [key] => (key, None),
        [key, end] => (key, Some(end.as_slice())),
        _ => return Err(bad_args("del command needs one argument as key and an optional argument as range_end")),
    };
    if prefix && from_key {
        return Err(bad_args("`--prefix` and `--from-key` cannot be set at the same time, choose one"));
    }
    if end.is_some() && (prefix || from_key) {
        return Err(bad_args("too many arguments, only accept one argument when `--prefix` or `--from-key` is set"));
    }
    let (key, end) = range(key, end, prefix, from_key);
    Ok(DeleteRangeRequest { key: key.into(), range_end: end.into(), prev_kv: flags.on("prev-kv") })
}
