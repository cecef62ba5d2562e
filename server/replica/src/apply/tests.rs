//! Scripts of transactions and leases, and the applier's rules about entries.

use super::*;
use crate::command::{RequestLimits, check, encode, is_read_only};
use crate::conf::{Author, Configuration, Step};
use crate::lease::lessor::{Lessor, Renewal};
use crate::store::AllInMemory;
use crate::types::{MemberId, MonoMillis};
use goldenscript::{Argument, Command, Context as Line, Runner};
use mechi_proto::mechipb::{Batch, ClusterInit, Command as Cmd, LeaseExpire, MemberPublish};
use mechi_proto::mvccpb::KeyValue;
use pb::compare::TargetUnion;
use pb::request_op::Request as Op;
use pb::response_op::Response as Done;
use std::collections::BTreeMap;
use std::error::Error as StdError;
use std::fmt::Write as _;

const ME: Answer = Answer { member: 1, boot: 1 };

/// One member, its lessor, and the txns that a script has named.
#[derive(Default)]
struct Script {
    state: State,
    lessor: Lessor,
    term: u64,
    now: MonoMillis,
    named: BTreeMap<String, pb::TxnRequest>,
}

type Parsed<T> = Result<T, Box<dyn StdError>>;

impl Script {
    fn entry(&self, data: bytes::Bytes) -> Entry {
        Entry { index: self.state.applied_index + 1, term: self.term.max(1), data, ..Default::default() }
    }

    /// Checks, applies, and says what came of it.
    fn propose(&mut self, request: Request) -> String {
        if let Err(error) = check(&request, &RequestLimits::default()) {
            return format!("refused: {error}\n");
        }
        let number = self.state.applied_index + 1;
        let command = Cmd { id: number, request: Some(request), ..Default::default() };
        let batch = Batch { member: 1, boot: 1, number, wall_ms: 0, commands: vec![command] };
        let mut out = Outcomes::default();
        let entry = self.entry(encode(&batch));
        apply(&mut self.state, &entry, ME, &AllInMemory, &mut out).unwrap();
        let mut text = match &out.answers[0].1 {
            Ok(response) => show(response),
            Err(error) => format!("error: {error}\n"),
        };
        for event in &out.lease_events {
            self.lessor.applied(event, self.now);
            let _ = writeln!(text, "event {event:?}");
        }
        text
    }

    fn txn(&self, command: &Command) -> Parsed<pb::TxnRequest> {
        let mut txn = pb::TxnRequest::default();
        for arg in &command.args {
            let Argument::KeyValue(key, value) = arg else { continue };
            let parts = || value.split(';').map(str::trim).filter(|part| !part.is_empty());
            match key.as_str() {
                "if" => txn.compare = parts().map(compare).collect::<Parsed<_>>()?,
                "then" => txn.success = parts().map(|part| self.op(part)).collect::<Parsed<_>>()?,
                "else" => txn.failure = parts().map(|part| self.op(part)).collect::<Parsed<_>>()?,
                _ => return Err(format!("unknown part {key}").into()),
            }
        }
        Ok(txn)
    }

    fn op(&self, text: &str) -> Parsed<pb::RequestOp> {
        let words: Vec<_> = text.split_whitespace().collect();
        let request = match words[0] {
            "put" => Some(Op::RequestPut(put(&words[1..])?)),
            "get" => Some(Op::RequestRange(get(&words[1..])?)),
            "del" => Some(Op::RequestDeleteRange(del(&words[1..])?)),
            "txn" => Some(Op::RequestTxn(self.named.get(words[1]).ok_or("no such txn")?.clone())),
            "none" => None,
            other => return Err(format!("unknown operation {other}").into()),
        };
        Ok(pb::RequestOp { request })
    }
}

fn bytes_of(word: &str) -> bytes::Bytes {
    bytes::Bytes::copy_from_slice(if word == "\"\"" { b"" } else { word.as_bytes() })
}

/// `a` is one key, `a..c` a range, `a..` all keys from `a` on.
fn keys(word: &str) -> (bytes::Bytes, bytes::Bytes) {
    match word.split_once("..") {
        None => (bytes_of(word), bytes::Bytes::new()),
        Some((from, "")) => (bytes_of(from), bytes::Bytes::from_static(b"\0")),
        Some((from, to)) => (bytes_of(from), bytes_of(to)),
    }
}

fn put(words: &[&str]) -> Parsed<pb::PutRequest> {
    let mut request = pb::PutRequest { key: bytes_of(words.first().unwrap_or(&"\"\"")), ..Default::default() };
    for word in &words[1.min(words.len())..] {
        match word.split_once('=') {
            Some(("lease", id)) => request.lease = id.parse()?,
            _ if *word == "prev" => request.prev_kv = true,
            _ if *word == "ignore_value" => request.ignore_value = true,
            _ if *word == "ignore_lease" => request.ignore_lease = true,
            _ => request.value = bytes_of(word),
        }
    }
    Ok(request)
}

fn get(words: &[&str]) -> Parsed<pb::RangeRequest> {
    let (key, range_end) = keys(words.first().unwrap_or(&"\"\""));
    let mut request = pb::RangeRequest { key, range_end, ..Default::default() };
    for word in &words[1.min(words.len())..] {
        match word.split_once('=') {
            Some(("rev", n)) => request.revision = n.parse()?,
            Some(("limit", n)) => request.limit = n.parse()?,
            Some(("min_mod", n)) => request.min_mod_revision = n.parse()?,
            Some(("max_mod", n)) => request.max_mod_revision = n.parse()?,
            Some(("min_create", n)) => request.min_create_revision = n.parse()?,
            Some(("max_create", n)) => request.max_create_revision = n.parse()?,
            Some(("sort", target)) => {
                request.sort_target = ["key", "version", "create", "mod", "value"]
                    .iter()
                    .position(|name| *name == target)
                    .map_or_else(|| target.parse(), |at| Ok(at as i32))?;
            }
            Some(("order", order)) => {
                request.sort_order = ["none", "asc", "desc"].iter().position(|name| *name == order).unwrap_or(9) as i32;
            }
            _ if *word == "keys" => request.keys_only = true,
            _ if *word == "count" => request.count_only = true,
            _ => return Err(format!("unknown option {word}").into()),
        }
    }
    Ok(request)
}

fn del(words: &[&str]) -> Parsed<pb::DeleteRangeRequest> {
    let (key, range_end) = keys(words.first().unwrap_or(&"\"\""));
    Ok(pb::DeleteRangeRequest { key, range_end, prev_kv: words.contains(&"prev") })
}

/// `version a = 1`, `value a..c != x`.
fn compare(text: &str) -> Parsed<pb::Compare> {
    let words: Vec<_> = text.split_whitespace().collect();
    let [target, range, result, wanted] = words[..] else { return Err(format!("compare {text}").into()) };
    let (key, range_end) = keys(range);
    let (target, union) = match target {
        "version" => (0, TargetUnion::Version(wanted.parse()?)),
        "create" => (1, TargetUnion::CreateRevision(wanted.parse()?)),
        "mod" => (2, TargetUnion::ModRevision(wanted.parse()?)),
        "value" => (3, TargetUnion::Value(bytes_of(wanted))),
        "lease" => (4, TargetUnion::Lease(wanted.parse()?)),
        other => return Err(format!("unknown target {other}").into()),
    };
    let result = ["=", ">", "<", "!="].iter().position(|sign| *sign == result).ok_or("unknown sign")? as i32;
    Ok(pb::Compare { result, target, key, range_end, target_union: Some(union) })
}

fn show(response: &Response) -> String {
    let mut text = String::new();
    match response {
        Response::Put(response) => show_op(&Done::ResponsePut(response.clone()), 0, &mut text),
        Response::DeleteRange(response) => show_op(&Done::ResponseDeleteRange(response.clone()), 0, &mut text),
        Response::Txn(response) => show_op(&Done::ResponseTxn(response.clone()), 0, &mut text),
        Response::Compaction(response) => text = format!("compacted, {}\n", rev(&response.header)),
        Response::LeaseGrant(response) => {
            text = format!("granted {} for {} s, {}\n", response.id, response.ttl, rev(&response.header));
        }
        Response::LeaseRevoke(response) => text = format!("revoked, {}\n", rev(&response.header)),
        Response::Alarm(response) => text = format!("alarms {:?}\n", response.alarms),
        Response::Internal => text.push_str("done\n"),
    }
    text
}

fn rev(header: &Option<pb::ResponseHeader>) -> String {
    format!("revision {}", header.as_ref().unwrap().revision)
}

fn show_kv(kv: &KeyValue) -> String {
    let text = |bytes: &bytes::Bytes| String::from_utf8_lossy(bytes).into_owned();
    let lease = if kv.lease == 0 { String::new() } else { format!(" lease {}", kv.lease) };
    format!(
        "{}={} (create {} mod {} version {}{lease})",
        text(&kv.key),
        text(&kv.value),
        kv.create_revision,
        kv.mod_revision,
        kv.version
    )
}

fn show_op(done: &Done, depth: usize, text: &mut String) {
    let pad = "  ".repeat(depth);
    let _ = match done {
        Done::ResponsePut(put) => {
            let prev = put.prev_kv.iter().map(|kv| format!(", was {}", show_kv(kv))).collect::<String>();
            writeln!(text, "{pad}put, {}{prev}", rev(&put.header))
        }
        Done::ResponseDeleteRange(delete) => {
            let prev = delete.prev_kvs.iter().map(|kv| format!(", was {}", show_kv(kv))).collect::<String>();
            writeln!(text, "{pad}deleted {}, {}{prev}", delete.deleted, rev(&delete.header))
        }
        Done::ResponseRange(range) => {
            let more = if range.more { ", more" } else { "" };
            let _ = writeln!(text, "{pad}{} of {}, {}{more}", range.kvs.len(), range.count, rev(&range.header));
            range.kvs.iter().try_for_each(|kv| writeln!(text, "{pad}  {}", show_kv(kv)))
        }
        Done::ResponseTxn(txn) => {
            let branch = if txn.succeeded { "then" } else { "else" };
            let _ = writeln!(text, "{pad}{branch}, {}", rev(&txn.header));
            for op in &txn.responses {
                match &op.response {
                    Some(done) => show_op(done, depth + 1, text),
                    None => text.push_str("  nothing\n"),
                }
            }
            Ok(())
        }
    };
}

impl Runner for Script {
    type Command = Command;

    fn run(&mut self, command: &Command, _: &Line) -> Parsed<String> {
        let words: Vec<String> = command
            .args
            .iter()
            .map(|arg| match arg {
                Argument::KeyValue(key, value) => format!("{key}={value}"),
                Argument::Positional(value) if value.is_empty() => "\"\"".into(),
                Argument::Positional(value) => value.clone(),
                _ => unreachable!("there are two kinds of arguments"),
            })
            .collect();
        let words: Vec<&str> = words.iter().map(String::as_str).collect();
        let number = |name: &str| -> Parsed<i64> {
            Ok(command.consume_args().take_key(name).ok_or("a number is missing")?.parse()?)
        };
        Ok(match command.name.as_str() {
            "put" => self.propose(Request::Put(put(&words)?)),
            "del" => self.propose(Request::DeleteRange(del(&words)?)),
            "get" => {
                let request = get(&words)?;
                if let Err(error) = crate::command::check_range(&request) {
                    return Ok(format!("refused: {error}\n"));
                }
                match kv::range(&self.state.mvcc, &request, self.state.mvcc.revision(), &AllInMemory)? {
                    Ok(response) => {
                        let mut text = String::new();
                        show_op(&Done::ResponseRange(response), 0, &mut text);
                        text
                    }
                    Err(error) => format!("error: {error}\n"),
                }
            }
            "let" => {
                let name = words[0].to_string();
                let txn = self.txn(command)?;
                self.named.insert(name, txn);
                String::new()
            }
            "txn" => {
                let txn = self.txn(command)?;
                if is_read_only(&txn) {
                    let served = txn::read(&self.state, &txn, &AllInMemory)?.map(Response::Txn);
                    let applied = self.propose(Request::Txn(txn));
                    let served = served.map_or_else(|error| format!("error: {error}\n"), |answer| show(&answer));
                    assert!(applied == served || applied.starts_with("refused"), "{applied}{served}");
                    applied
                } else {
                    self.propose(Request::Txn(txn))
                }
            }
            "compact" => {
                let revision = words[0].parse()?;
                self.propose(Request::Compaction(pb::CompactionRequest { revision, physical: false }))
            }
            "corrupt" => {
                let action = if words == ["off"] { 2 } else { 1 };
                self.propose(Request::Alarm(pb::AlarmRequest { action, member_id: 1, alarm: 2 }))
            }
            "grant" => {
                let (id, ttl) = (number("id")?, number("ttl")?);
                self.propose(Request::LeaseGrant(pb::LeaseGrantRequest { id, ttl }))
            }
            "revoke" => self.propose(Request::LeaseRevoke(pb::LeaseRevokeRequest { id: words[0].parse()? })),
            "expire" => {
                let (id, grant_index, term) = (number("id")?, number("grant")? as u64, number("term")? as u64);
                self.propose(Request::LeaseExpire(LeaseExpire { id, grant_index, term }))
            }
            "checkpoint" => {
                let checkpoint = pb::LeaseCheckpoint { id: number("id")?, remaining_ttl: number("left")? };
                self.propose(Request::LeaseCheckpoint(pb::LeaseCheckpointRequest { checkpoints: vec![checkpoint] }))
            }
            "leases" => self.state.leases.iter().fold(String::new(), |mut text, (id, lease)| {
                let keys: Vec<_> = lease.keys().map(|key| String::from_utf8_lossy(key)).collect();
                let left = lease.remaining_ttl;
                let _ =
                    writeln!(text, "{}: {} s, {left} noted, entry {}, {keys:?}", id.0, lease.ttl, lease.grant_index);
                text
            }),
            "term" => {
                self.term = words[0].parse()?;
                String::new()
            }
            "lead" => {
                self.lessor.promote(self.term.max(1), self.now, &self.state.leases, 1_000);
                String::new()
            }
            "after" => {
                self.now.0 += words[0].parse::<u64>()? * 1_000;
                String::new()
            }
            "keepalive" => {
                let id = LeaseId(words[0].parse()?);
                match self.lessor.renew(id, self.now) {
                    Renewal::Ok(ttl) => format!("ttl {ttl}\n"),
                    Renewal::Gone => "ttl 0\n".into(),
                    Renewal::NeedsClear(checkpoint) => {
                        let checkpoints = vec![checkpoint];
                        let clear = Request::LeaseCheckpoint(pb::LeaseCheckpointRequest { checkpoints });
                        let cleared = self.propose(clear);
                        format!("clear first: {cleared}{:?}\n", self.lessor.renew(id, self.now))
                    }
                }
            }
            "expiries" => {
                let wishes = self.lessor.expired(self.now, 9);
                wishes.into_iter().map(|wish| self.propose(Request::LeaseExpire(wish))).collect()
            }
            "notes" => {
                let checkpoints = self.lessor.checkpoints(self.now, 9);
                self.propose(Request::LeaseCheckpoint(pb::LeaseCheckpointRequest { checkpoints }))
            }
            "left" => match self.lessor.remaining(LeaseId(words[0].parse()?), self.now) {
                Some(left) => format!("{} of {} s\n", left.ttl, left.granted_ttl),
                None => "no lease\n".into(),
            },
            other => return Err(format!("unknown command {other}").into()),
        })
    }
}

fn run_scripts(folder: &str) {
    let folder = format!("{}/testscripts/{folder}", env!("CARGO_MANIFEST_DIR"));
    let mut scripts: Vec<_> = std::fs::read_dir(&folder).unwrap().map(|entry| entry.unwrap().path()).collect();
    scripts.sort();
    assert!(!scripts.is_empty(), "no scripts in {folder}");
    for script in scripts {
        goldenscript::run(&mut Script::default(), &script).unwrap_or_else(|error| panic!("{script:?}: {error}"));
    }
}

#[test]
fn txn_scripts() {
    run_scripts("txn");
}

#[test]
fn lease_scripts() {
    run_scripts("lease");
}

#[test]
fn reg_lease_old_leader_revoke() {
    let script = format!("{}/testscripts/lease/reg_lease_old_leader_revoke", env!("CARGO_MANIFEST_DIR"));
    goldenscript::run(&mut Script::default(), script).unwrap();
}

fn batch(boot: u64, number: u64, request: Request) -> Batch {
    let command = Cmd { id: 40 + number, request: Some(request), ..Default::default() };
    Batch { member: 1, boot, number, wall_ms: 0, commands: vec![command] }
}

fn put_a() -> Request {
    Request::Put(pb::PutRequest { key: "a".into(), value: "1".into(), ..Default::default() })
}

fn applied(script: &mut Script, batch: &Batch, answer: Answer) -> Outcomes {
    let mut out = Outcomes::default();
    let entry = script.entry(encode(batch));
    apply(&mut script.state, &entry, answer, &AllInMemory, &mut out).unwrap();
    out
}

#[test]
fn a_batch_that_comes_twice_is_applied_once_and_answered_once() {
    let mut script = Script::default();
    let first = applied(&mut script, &batch(1, 1, put_a()), ME);
    assert_eq!((first.answers.len(), first.answers[0].0, first.revisions), (1, 41, Some(2..=2)));
    let again = applied(&mut script, &batch(1, 1, put_a()), ME);
    assert_eq!(again, Outcomes::default());
    assert_eq!((script.state.mvcc.revision(), script.state.applied_index), (2, 2));
    let next_boot = applied(&mut script, &batch(2, 1, put_a()), ME);
    assert_eq!((next_boot.answers.len(), next_boot.revisions), (0, Some(3..=3)), "nobody of this boot waits for it");
    assert_eq!(applied(&mut script, &batch(1, 2, put_a()), ME), Outcomes::default(), "a boot that is gone");
}

#[test]
fn the_digest_depends_on_entries_and_not_on_who_answers() {
    let run = |answer: Answer, requests: &[Request]| {
        let mut script = Script::default();
        for (number, request) in (1..).zip(requests) {
            applied(&mut script, &batch(1, number, request.clone()), answer);
        }
        (script.state.chain_digest, script.state.mvcc.content_sum())
    };
    let delete = Request::DeleteRange(pb::DeleteRangeRequest { key: "a".into(), ..Default::default() });
    let requests = [put_a(), delete.clone(), put_a()];
    assert_eq!(run(ME, &requests), run(Answer { member: 2, boot: 1 }, &requests));
    assert_ne!(run(ME, &requests).0, run(ME, &[put_a(), put_a(), delete]).0);
}

#[test]
fn an_empty_entry_only_advances() {
    let mut script = Script::default();
    let entry = script.entry(bytes::Bytes::new());
    let mut out = Outcomes::default();
    apply(&mut script.state, &entry, ME, &AllInMemory, &mut out).unwrap();
    assert_eq!(out, Outcomes::default());
    assert_eq!((script.state.applied_index, script.state.applied_term, script.state.mvcc.revision()), (1, 1, 1));
}

/// Applies a membership change of `steps`, proposed as command `id` by `author`.
fn configured(script: &mut Script, steps: &[Step], author: Answer, id: u64) -> Outcomes {
    let Answer { member, boot } = author;
    let data = Move { author: Author { member, boot, id }, steps: steps.to_vec() }.encode(5);
    let entry = Entry { kind: EntryKind::ConfChangeV2, ..script.entry(data) };
    let mut out = Outcomes::default();
    apply(&mut script.state, &entry, ME, &AllInMemory, &mut out).unwrap();
    out
}

/// A membership change is state, and its author hears of it: nothing else says who is a member, neither a second store
/// (etcd 17450) nor the flags of a later start.
#[test]
fn reg_member_single_source() {
    let member = |id| pb::Member { id, ..Default::default() };
    let mut script = Script::default();
    script.state.found([1, 2, 3].map(MemberId));
    let init = ClusterInit { cluster_id: 7, members: vec![member(1), member(2), member(3)] };
    applied(&mut script, &batch(1, 1, Request::ClusterInit(init)), ME);
    let learners = |state: &State| -> Vec<u64> {
        state.members.values().filter(|member| member.is_learner).map(|member| member.id).collect()
    };

    let out = configured(&mut script, &[Step::Demote(MemberId(3))], ME, 9);
    assert_eq!((&out.answers[..], out.members_changed), (&[(9, Ok(Response::Internal))][..], true));
    assert_eq!(out.moved, [Moved { index: 2, steps: vec![Step::Demote(MemberId(3))], now: script.state.conf.clone() }]);
    assert_eq!(learners(&script.state), [3]);

    // What does not fit changes nothing, and says so; the author's clients of an earlier boot are gone.
    let digest = script.state.chain_digest;
    let out = configured(&mut script, &[Step::Promote(MemberId(8))], ME, 10);
    assert_eq!((out.answers, out.moved), (vec![(10, Err(Error::MemberNotFound))], Vec::new()));
    let stranger = Answer { boot: 0, ..ME };
    let swap = [Step::Promote(MemberId(3)), Step::Demote(MemberId(1))];
    assert_eq!(configured(&mut script, &swap, stranger, 11).answers, []);
    assert!(script.state.conf.is_joint() && learners(&script.state).is_empty());
    assert_eq!(configured(&mut script, &swap, ME, 12).answers, [(12, Err(Error::UnhealthyCluster))]);
    assert_ne!(script.state.chain_digest, digest);

    // It is stored and comes back, and the first members that a start names do not count any more.
    let meta = script.state.to_meta();
    let mut restored = State::from_meta(meta.clone(), std::mem::take(&mut script.state.mvcc)).unwrap();
    restored.found([MemberId(1)]);
    assert_eq!((restored.to_meta(), &restored.conf), (meta, &script.state.conf));

    script.state = restored;
    assert_eq!(configured(&mut script, &[], Answer { member: 0, boot: 0 }, 0).moved.len(), 1);
    assert_eq!(learners(&script.state), [1]);
}

/// A txn that reads a compacted revision is answered alike by a member that has swept it and by one that has not
/// (etcd 18667).
#[test]
fn reg_18667_txn_compacted_range() {
    let run = |swept: bool| {
        let mut script = Script::default();
        let put = |key: &'static str, value: &'static str| {
            Request::Put(pb::PutRequest { key: key.into(), value: value.into(), ..Default::default() })
        };
        let compact = |revision| Request::Compaction(pb::CompactionRequest { revision, physical: false });
        let requests = [put("a", "1"), put("a", "2"), put("a", "3"), compact(4)];
        for (number, request) in (1..).zip(requests) {
            applied(&mut script, &batch(1, number, request), ME);
        }
        if swept {
            while !script.state.mvcc.sweep(i64::MAX, 10).done {}
        }
        let op = |request| pb::RequestOp { request: Some(request) };
        let range = pb::RangeRequest { key: "a".into(), revision: 3, ..Default::default() };
        let first = pb::PutRequest { key: "b".into(), ..Default::default() };
        let success =
            vec![op(pb::request_op::Request::RequestPut(first)), op(pb::request_op::Request::RequestRange(range))];
        let txn = Request::Txn(pb::TxnRequest { success, ..Default::default() });
        let out = applied(&mut script, &batch(1, 5, txn), ME);
        let hash = (script.state.mvcc.content_sum(), script.state.mvcc.revision(), script.state.chain_digest);
        (out, hash)
    };
    let (kept, swept) = (run(false), run(true));
    assert_eq!(kept, swept);
    assert_eq!(kept.0.answers, [(45, Err(Error::Compacted))]);
    assert_eq!(kept.1.1, 4, "a txn that is refused changes nothing");
}

#[test]
fn members_that_come_to_different_configurations_differ_in_their_digests() {
    let after = |voters: &[u64]| {
        let mut script = Script::default();
        script.state.found(voters.iter().copied().map(MemberId));
        configured(&mut script, &[Step::Demote(MemberId(2))], ME, 1);
        script.state.chain_digest
    };
    assert_eq!(after(&[1, 2, 3]), after(&[1, 2, 3]));
    assert_ne!(after(&[1, 2, 3]), after(&[1, 2, 4]));
}

#[test]
fn a_membership_change_that_this_version_does_not_know_stops_the_member() {
    // Remove member 2: `changes { change_type: RemoveNode, node_id: 2 }`.
    let removal = bytes::Bytes::from_static(&[0x12, 4, 0x08, 1, 0x10, 2]);
    let kinds = [(EntryKind::ConfChangeV2, removal), (EntryKind::ConfChange, bytes::Bytes::new())];
    for (kind, data) in kinds {
        let mut script = Script::default();
        script.state.found([1, 2, 3].map(MemberId));
        let entry = Entry { kind, ..script.entry(data) };
        let fatal = apply(&mut script.state, &entry, ME, &AllInMemory, &mut Outcomes::default()).unwrap_err();
        assert!(fatal.to_string().contains("unknown to this version"), "{fatal}");
    }
}

#[test]
fn a_gap_an_unknown_format_and_an_unknown_command_stop_the_member() {
    let mut script = Script::default();
    let gap = Entry { index: 2, ..script.entry(bytes::Bytes::new()) };
    let format = script.entry(bytes::Bytes::from_static(&[9, 1, 2]));
    let no_batch = script.entry(bytes::Bytes::from_static(&[1, 0xff]));
    let unknown = Batch { member: 1, boot: 1, number: 1, wall_ms: 0, commands: vec![Cmd::default()] };
    let command = script.entry(encode(&unknown));
    for (entry, says) in [(gap, "follows"), (format, "newer mechi"), (no_batch, "no batch"), (command, "unknown")] {
        let fatal = apply(&mut script.state, &entry, ME, &AllInMemory, &mut Outcomes::default()).unwrap_err();
        assert!(fatal.to_string().contains(says), "{fatal}");
        assert_eq!(script.state.applied_index, 0);
    }
}

#[test]
fn the_first_cluster_entry_wins_and_members_publish_themselves() {
    let mut script = Script::default();
    let member = pb::Member { id: 5, is_learner: false, ..Default::default() };
    let init = |cluster_id| Request::ClusterInit(ClusterInit { cluster_id, members: vec![member.clone()] });
    assert!(applied(&mut script, &batch(1, 1, init(7)), ME).members_changed);
    assert!(!applied(&mut script, &batch(1, 2, init(8)), ME).members_changed);
    assert_eq!((script.state.cluster_id, &script.state.conf), (7, &Configuration::founding([MemberId(5)])));
    let publish = |member_id| {
        let client_urls = vec!["http://127.0.0.1:2379".into()];
        Request::MemberPublish(MemberPublish { member_id, name: "one".into(), client_urls })
    };
    assert!(applied(&mut script, &batch(1, 3, publish(5)), ME).members_changed);
    assert!(!applied(&mut script, &batch(1, 4, publish(5)), ME).members_changed, "nothing new");
    let stranger = applied(&mut script, &batch(1, 5, publish(6)), ME);
    assert_eq!(stranger.answers[0].1, Err(Error::MemberNotFound));
    assert_eq!(script.state.members[&5].name, "one");
    let meta = script.state.to_meta();
    let restored = State::from_meta(meta.clone(), std::mem::take(&mut script.state.mvcc)).unwrap();
    assert_eq!(restored.to_meta(), meta);
}

#[test]
fn a_state_is_refused_with_keys_that_it_was_not_stored_with() {
    let mut script = Script::default();
    applied(&mut script, &batch(1, 1, put_a()), ME);
    let meta = script.state.to_meta();
    let wrong = State::from_meta(meta, crate::mvcc::Mvcc::new());
    assert!(matches!(wrong, Err(Fatal::EngineLost(text)) if text.contains("content sum")));
}

#[test]
fn digests_are_taken_at_their_entries_also_in_the_middle_of_what_is_handed_over() {
    let every = crate::limits::DIGEST_EVERY;
    let (mut state, mut out) = (State::default(), Outcomes::default());
    let mut wanted = Vec::new();
    for index in 1..=2 * every + 5 {
        let entry = Entry { index, term: 1, ..Default::default() };
        apply(&mut state, &entry, ME, &AllInMemory, &mut out).unwrap();
        if index == every || index == 2 * every {
            wanted.push((index, state.chain_digest));
        }
    }
    assert_eq!(out.digests, wanted);
}
