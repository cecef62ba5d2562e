//! `get`: reads a key or a range.

use crate::call::Call;
use crate::cli::flags::Flags;
use crate::exit::{BAD_FEATURE, Exit, bad_args};
use crate::go::quote::quote;
use crate::printers::{Format, Reply};
use crate::session::Session;
use mechi_client::pb::RangeRequest;
use mechi_client::pb::range_request::{SortOrder, SortTarget};
use mechi_client::{FROM_KEY, prefix_end};

pub(super) async fn run(call: &mut Call) -> Result<(), Exit> {
    let request = request(&call.flags)?;
    let mut session = Session::open(call).await?;
    let response = session.done(session.client.get_with(request.into())).await?;
    let flags = &call.flags;
    if flags.on("count-only") && session.printer.format != Format::Fields {
        return Err(bad_args("--count-only is only for `--write-out=fields`"));
    }
    if flags.on("print-value-only") {
        if session.printer.format != Format::Simple {
            return Err(bad_args("print-value-only is only for `--write-out=simple`"));
        }
        session.printer.value_only = true;
    }
    session.print(&Reply::Get(response))
}

/// The request that the flags and the words make; a line of a transaction makes one too.
pub(super) fn request(flags: &Flags) -> Result<RangeRequest, Exit> {
    let (prefix, from_key) = (flags.on("prefix"), flags.on("from-key"));
    let args = &flags.args;
    let Some(key) = args.first() else {
        return Err(bad_args("get command needs one argument as key and an optional argument as range_end"));
    };
    if prefix && from_key {
        return Err(bad_args("`--prefix` and `--from-key` cannot be set at the same time, choose one"));
    }
    if flags.on("keys-only") && flags.on("count-only") {
        return Err(bad_args("`--keys-only` and `--count-only` cannot be set at the same time, choose one"));
    }
    let mut request = RangeRequest {
        serializable: match flags.text("consistency") {
            "s" => true,
            "l" => false,
            other => {
                return Err(Exit::new(BAD_FEATURE, format!("unknown consistency flag {}", quote(other.as_bytes()))));
            }
        },
        limit: flags.number("limit"),
        revision: flags.number("rev").max(0),
        keys_only: flags.on("keys-only"),
        count_only: flags.on("count-only"),
        ..RangeRequest::default()
    };
    if args.len() > 1 && (prefix || from_key) {
        return Err(bad_args("too many arguments, only accept one argument when `--prefix` or `--from-key` is set"));
    }
    (request.sort_target, request.sort_order) = sort(flags)?;
    let (key, end) = range(key, args.get(1).map(Vec::as_slice), prefix, from_key);
    (request.key, request.range_end) = (key.into(), end.into());
    Ok(request)
}

fn sort(flags: &Flags) -> Result<(i32, i32), Exit> {
    let order = match flags.text("order").to_uppercase().as_str() {
        "ASCEND" => SortOrder::Ascend,
        "DESCEND" => SortOrder::Descend,
        "" => SortOrder::None,
        _ => return Err(Exit::new(BAD_FEATURE, format!("bad sort order {}", flags.text("order")))),
    };
    let target = match flags.text("sort-by").to_uppercase().as_str() {
        "CREATE" => SortTarget::Create,
        "KEY" | "" => SortTarget::Key,
        "MODIFY" => SortTarget::Mod,
        "VALUE" => SortTarget::Value,
        "VERSION" => SortTarget::Version,
        _ => return Err(Exit::new(BAD_FEATURE, format!("bad sort target {}", flags.text("sort-by")))),
    };
    // Keys are in ascending order by themselves, and a server that is asked to sort reads the whole range.
    let order = if target == SortTarget::Key && order == SortOrder::Ascend { SortOrder::None } else { order };
    Ok((target.into(), order.into()))
}

/// The key and the range's end, as etcd's API writes prefixes and open ends.
pub(super) fn range(key: &[u8], end: Option<&[u8]>, prefix: bool, from_key: bool) -> (Vec<u8>, Vec<u8>) {
    match end {
        _ if key.is_empty() && (prefix || from_key) => (b"\0".to_vec(), FROM_KEY.to_vec()),
        _ if from_key => (key.to_vec(), FROM_KEY.to_vec()),
        _ if prefix => (key.to_vec(), prefix_end(key).to_vec()),
        Some(end) => (key.to_vec(), end.to_vec()),
        None => (key.to_vec(), Vec::new()),
    }
}
