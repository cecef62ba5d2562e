//! `txn`: three paragraphs of lines (compares, then, else), each ended by an empty line.

use super::{del, get, put};
use crate::call::Call;
use crate::cli::command::Command;
use crate::cli::flags::{Flags, Malformed};
use crate::cli::table::{DEL, GET, HELP_FLAG, PUT};
use crate::exit::{Exit, INVALID_INPUT, bad_args};
use crate::go::number::parse_int;
use crate::go::quote::quote;
use crate::go::scan::{comparison, words};
use crate::limits::LINE_BYTES_MAX;
use crate::output::say;
use crate::printers::Reply;
use crate::session::Session;
use mechi_client::Txn;
use mechi_client::pb::compare::{CompareResult, CompareTarget, TargetUnion};
use mechi_client::pb::request_op::Request;
use mechi_client::pb::{Compare, RequestOp, TxnRequest};
use std::io::{BufRead, Read};

pub(super) async fn run(call: &mut Call) -> Result<(), Exit> {
    if !call.args().is_empty() {
        return Err(bad_args("txn command does not accept argument"));
    }
    let interactive = call.flags.on("interactive");
    let session = Session::open(call).await?;
    let prompt = |text: &str| {
        if interactive {
            say!("{text}");
        }
    };
    let mut input = std::io::stdin().lock();
    prompt("compares:");
    let compare = paragraph(&mut input, parse_compare)?;
    prompt("success requests (get, put, del):");
    let success = paragraph(&mut input, parse_op)?;
    prompt("failure requests (get, put, del):");
    let failure = paragraph(&mut input, parse_op)?;
    drop(input);
    let request = TxnRequest { compare, success, failure };
    let response = session.done(session.patient().txn(Txn::from(request))).await?;
    session.print(&Reply::Txn(response))
}

fn paragraph<T>(input: &mut impl BufRead, parse: impl Fn(&str) -> Result<T, Exit>) -> Result<Vec<T>, Exit> {
    let mut parsed = Vec::new();
    loop {
        let mut line = Vec::new();
        let mut bounded = input.by_ref().take(LINE_BYTES_MAX);
        bounded.read_until(b'\n', &mut line).map_err(|error| Exit::new(INVALID_INPUT, error))?;
        if line.pop() != Some(b'\n') {
            return Err(Exit::new(INVALID_INPUT, "EOF"));
        }
        let line = String::from_utf8_lossy(&line);
        let line = line.trim();
        if line.is_empty() {
            return Ok(parsed);
        }
        parsed.push(parse(line)?);
    }
}

/// Reads `target("key") operator "value"`.
fn parse_compare(line: &str) -> Result<Compare, Exit> {
    let malformed = |why: String| Exit::new(INVALID_INPUT, format!("malformed comparison: {line}{why}"));
    let Some((target, rest)) = line.split_once('(') else { return Err(malformed(String::new())) };
    let found = comparison(rest);
    if found.read != 3 {
        let (key, operator, value) = (quote(&found.key), &found.operator, quote(&found.value));
        return Err(malformed(format!("; got {target}({key}) {operator} {value}")));
    }
    let value = String::from_utf8_lossy(&found.value);
    let number = |base| {
        parse_int(&value, base).map_err(|_| Exit::new(INVALID_INPUT, format!("invalid txn compare request: {line}")))
    };
    let (target, union) = match target {
        "ver" | "version" => (CompareTarget::Version, TargetUnion::Version(number(10)?)),
        "c" | "create" => (CompareTarget::Create, TargetUnion::CreateRevision(number(10)?)),
        "m" | "mod" => (CompareTarget::Mod, TargetUnion::ModRevision(number(10)?)),
        "val" | "value" => (CompareTarget::Value, TargetUnion::Value(found.value.clone().into())),
        "lease" => (CompareTarget::Lease, TargetUnion::Lease(number(16)?)),
        _ => return Err(malformed(format!(" (unknown target {target})"))),
    };
    let result = match found.operator.as_str() {
        "=" => CompareResult::Equal,
        "!=" => CompareResult::NotEqual,
        ">" => CompareResult::Greater,
        "<" => CompareResult::Less,
        other => return Err(malformed(format!(" (unknown operator {other})"))),
    };
    Ok(Compare {
        result: result.into(),
        target: target.into(),
        key: found.key.into(),
        target_union: Some(union),
        ..Compare::default()
    })
}

/// Reads a `get`, a `put` or a `del` as the command line would.
fn parse_op(line: &str) -> Result<RequestOp, Exit> {
    let invalid = |what: &str| Exit::new(INVALID_INPUT, format!("invalid txn {what}: {line}"));
    let words = words(line).map_err(|why| Exit::new(INVALID_INPUT, why))?;
    if words.len() < 2 {
        return Err(invalid("compare request"));
    }
    let (command, rest) = find(&words).ok_or_else(|| invalid("request"))?;
    let mut flags = Flags::new(command.flags.iter().copied().chain([HELP_FLAG]));
    flags.parse(&rest).map_err(|Malformed(_)| invalid("request"))?;
    if flags.on(HELP_FLAG.name) {
        return Err(invalid("request"));
    }
    let request = match command.name {
        "get" => Request::RequestRange(get::request(&flags)?),
        "put" => Request::RequestPut(put::request(&flags, || None)?),
        _ => Request::RequestDeleteRange(del::request(&flags)?),
    };
    Ok(RequestOp { request: Some(request) })
}

/// The command by its name or the beginning of it, and the words after it.
fn find(words: &[Vec<u8>]) -> Option<(&'static Command, Vec<Vec<u8>>)> {
    let at = words.iter().position(|word| !word.starts_with(b"-"))?;
    let command = [&PUT, &GET, &DEL].into_iter().find(|command| command.name.as_bytes().starts_with(&words[at]))?;
    let mut rest = words.to_vec();
    rest.remove(at);
    Some((command, rest))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn compares_are_read() {
        let compare = parse_compare(r#"mod("k") > "7""#).expect("well formed");
        assert_eq!((compare.result(), compare.target()), (CompareResult::Greater, CompareTarget::Mod));
        assert_eq!(compare.target_union, Some(TargetUnion::ModRevision(7)));
        let why = |line| parse_compare(line).expect_err("malformed").message.expect("says why");
        assert_eq!(why("broken"), "malformed comparison: broken");
        assert_eq!(why("mod(a) = \"1\""), "malformed comparison: mod(a) = \"1\"; got mod(\"\")  \"\"");
        assert_eq!(why("mod(\"a\") = \"x\""), "invalid txn compare request: mod(\"a\") = \"x\"");
        assert_eq!(why("x(\"a\") = \"x\""), "malformed comparison: x(\"a\") = \"x\" (unknown target x)");
    }

    #[test]
    fn operations_are_read() {
        let op = parse_op("put --prev-kv 'a b' -- -1").expect("well formed");
        let Some(Request::RequestPut(put)) = op.request else { panic!("no put: {op:?}") };
        assert_eq!((&put.key[..], &put.value[..], put.prev_kv), (&b"a b"[..], &b"-1"[..], true));
        let op = parse_op("g --prefix k").expect("well formed");
        let Some(Request::RequestRange(get)) = op.request else { panic!("no get: {op:?}") };
        assert_eq!((&get.key[..], &get.range_end[..]), (&b"k"[..], &b"l"[..]));
        for (line, why) in [
            ("put", "invalid txn compare request: put"),
            ("foo a", "invalid txn request: foo a"),
            ("get --bad a", "invalid txn request: get --bad a"),
        ] {
            assert_eq!(parse_op(line).expect_err("malformed"), Exit::new(INVALID_INPUT, why));
        }
    }
}
