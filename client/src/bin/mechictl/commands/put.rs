//! `put`: writes a key, its value from the words or from standard input.

use crate::call::Call;
use crate::cli::flags::Flags;
use crate::exit::{Exit, bad_args};
use crate::go::number::parse_int;
use crate::limits::VALUE_BYTES_MAX;
use crate::printers::Reply;
use crate::session::Session;
use mechi_client::Put;
use mechi_client::pb::PutRequest;
use std::io::Read;

pub(super) async fn run(call: &mut Call) -> Result<(), Exit> {
    let request = request(&call.flags, || {
        let mut value = Vec::new();
        // One byte more tells a value that is too long from one that just fits; no server takes either.
        let mut input = std::io::stdin().lock().take(VALUE_BYTES_MAX + 1);
        input.read_to_end(&mut value).ok().filter(|&read| read > 0).map(|_| value)
    })?;
    if request.value.len() as u64 > VALUE_BYTES_MAX {
        return Err(bad_args(format!("a value of more than {VALUE_BYTES_MAX} bytes")));
    }
    let session = Session::open(call).await?;
    let response = session.done(session.client.put_with(Put::from(request))).await?;
    session.print(&Reply::Put(response))
}

/// The request that the flags and the words make; `read` gives a value that is not among the words.
pub(super) fn request(flags: &Flags, read: impl FnOnce() -> Option<Vec<u8>>) -> Result<PutRequest, Exit> {
    let args = &flags.args;
    let missing = || bad_args("put command needs 1 argument and input from stdin or 2 arguments");
    let key = args.first().ok_or_else(missing)?;
    let ignore_value = flags.on("ignore-value");
    if ignore_value && args.len() > 1 {
        return Err(bad_args("put command needs only 1 argument when 'ignore-value' is set"));
    }
    let value = match args.get(1) {
        _ if ignore_value => Vec::new(),
        Some(value) => value.clone(),
        None => read().ok_or_else(missing)?,
    };
    let lease = parse_int(flags.text("lease"), 16)
        .map_err(|why| bad_args(format!("bad lease ID ({why}), expecting ID in Hex")))?;
    Ok(PutRequest {
        key: key.clone().into(),
        value: value.into(),
        lease,
        prev_kv: flags.on("prev-kv"),
        ignore_value,
        ignore_lease: flags.on("ignore-lease"),
    })
}
