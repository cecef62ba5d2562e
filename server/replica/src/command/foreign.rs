//! What a leader looks at before it appends another member's batch.
//!
//! An entry that one member cannot apply stops every member, and again after each restart. What a member's own clients
//! ask passes [`super::check`] on its way in; another member's batch has passed it there, in another process and perhaps
//! in another version, and comes over a network. So it is decoded once before it is in the log, by what will decode it
//! then, and must be what a front of this version lets through.

use super::{BatchId, RequestLimits, check, decode, peek};
use crate::limits::{ENTRY_BYTES_MAX, ENTRY_COMMANDS_MAX, PEER_MESSAGE_BYTES_MAX, RAFT_NUMBER_MAX};
use crate::outcome::{Error, Fatal};
use crate::types::MemberId;
use bytes::Bytes;
use thiserror::Error as ThisError;

/// What a batch has beside its commands at most: the version byte, three varints and the time, each behind a tag.
const HEADER_BYTES: usize = 1 + 4 * 11;

/// Flags are each member's own, so those of the author count; what is bounded without a flag is.
const ANY_FLAGS: RequestLimits = RequestLimits { txn_ops_max: usize::MAX, request_bytes_max: usize::MAX };

/// Why a batch is not appended.
#[derive(Debug, ThisError)]
#[allow(missing_docs)]
pub enum Unfit {
    #[error("it does not begin as a batch does")]
    Nameless,
    #[error("member {author} made it")]
    NotItsOwn { author: MemberId },
    #[error("boot {boot} and number {number} are none")]
    Number { boot: u64, number: u64 },
    #[error("{0}")]
    Malformed(Fatal),
    #[error("it says twice whose it is")]
    TwoNames,
    #[error("{commands} commands in {bytes} bytes are more than an entry holds")]
    TooLarge { commands: usize, bytes: usize },
    #[error("command {id} is unknown to this version")]
    UnknownCommand { id: u64 },
    #[error("command {id}: {why}")]
    Refused { id: u64, why: Error },
}

/// Checks a batch that `from` wants appended; what passes can be applied by every member of this version.
pub fn check_foreign(data: &Bytes, from: MemberId) -> Result<(), Unfit> {
    let id = peek(data).ok_or(Unfit::Nameless)?;
    let BatchId { member, boot, number } = id;
    if member != from.0 {
        return Err(Unfit::NotItsOwn { author: MemberId(member) });
    }
    if ![boot, number].iter().all(|count| (1..=RAFT_NUMBER_MAX).contains(count)) {
        return Err(Unfit::Number { boot, number });
    }
    if data.len() > PEER_MESSAGE_BYTES_MAX {
        return Err(Unfit::TooLarge { commands: 0, bytes: data.len() });
    }
    let batch = decode(data).map_err(Unfit::Malformed)?;
    // Of a field that comes twice the first is peeked at and the last is applied.
    if (BatchId { member: batch.member, boot: batch.boot, number: batch.number }) != id {
        return Err(Unfit::TwoNames);
    }
    let (commands, bytes) = (batch.commands.len(), data.len());
    if commands > ENTRY_COMMANDS_MAX || commands > 1 && bytes > ENTRY_BYTES_MAX + HEADER_BYTES {
        return Err(Unfit::TooLarge { commands, bytes });
    }
    for command in &batch.commands {
        let id = command.id;
        let request = command.request.as_ref().ok_or(Unfit::UnknownCommand { id })?;
        check(request, &ANY_FLAGS).map_err(|why| Unfit::Refused { id, why })?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::super::encode;
    use super::*;
    use mechi_proto::etcdserverpb as pb;
    use mechi_proto::mechipb::{Batch, Command, command::Request};

    const AUTHOR: MemberId = MemberId(2);

    fn put(key: &'static str, bytes: usize) -> Command {
        let put = pb::PutRequest { key: key.into(), value: vec![0; bytes].into(), ..Default::default() };
        Command { id: 7, request: Some(Request::Put(put)), ..Default::default() }
    }

    fn batch(commands: Vec<Command>) -> Vec<u8> {
        encode(&Batch { member: 2, boot: 3, number: 4, wall_ms: i64::MAX, commands }).to_vec()
    }

    fn why(data: Vec<u8>) -> String {
        check_foreign(&data.into(), AUTHOR).map_or_else(|unfit| unfit.to_string(), |()| "fit".to_owned())
    }

    #[test]
    fn what_an_honest_author_makes_is_fit() {
        assert_eq!(why(batch(vec![put("a", 1), put("b", 2)])), "fit");
        // The largest that it makes of several, and one that is larger alone.
        let one = super::super::entry_bytes(&put("a", ENTRY_BYTES_MAX / 2));
        assert_eq!(why(batch(vec![put("a", ENTRY_BYTES_MAX / 2), put("b", ENTRY_BYTES_MAX - one - 16)])), "fit");
        assert_eq!(why(batch(vec![put("a", 2 * ENTRY_BYTES_MAX)])), "fit");
        assert_eq!(why(batch(vec![put("a", 1); ENTRY_COMMANDS_MAX])), "fit");
    }

    #[test]
    fn what_could_not_be_applied_or_is_not_what_it_seems_is_not() {
        let whole = batch(vec![put("a", 100)]);
        let with = |more: &[u8]| [&whole[..], more].concat();
        let named = |member, boot, number| {
            encode(&Batch { member, boot, number, commands: vec![put("a", 1)], ..Default::default() }).to_vec()
        };
        let unknown = [put("a", 1), Command { id: 9, request: None, ..Default::default() }];
        let double = pb::TxnRequest {
            success: ["a", "a"].map(|key| op(pb::PutRequest { key: key.into(), ..Default::default() })).into(),
            ..Default::default()
        };
        let double = Command { id: 7, request: Some(Request::Txn(double)), ..Default::default() };
        let too_large = ENTRY_BYTES_MAX / 2 + 100;
        let rows = [
            (Vec::new(), "it does not begin as a batch does"),
            (vec![2, 8, 2, 16, 3, 24, 4], "it does not begin as a batch does"),
            (named(1, 3, 4), "member 1 made it"),
            (named(2, u64::MAX, 4), "boot 18446744073709551615 and number 4 are none"),
            (vec![1, 8, 2, 16, 3, 24, 0], "boot 3 and number 0 are none"),
            (whole[..whole.len() - 1].to_vec(), "bug: entry holds no batch: "),
            (with(&[0xff]), "bug: entry holds no batch: "),
            // The number once more: what is peeked at and what is applied would be two.
            (with(&[24, 5]), "it says twice whose it is"),
            (batch(unknown.into()), "command 9 is unknown to this version"),
            (batch(vec![put("", 1)]), "command 7: etcdserver: key is not provided"),
            (batch(vec![double]), "command 7: etcdserver: duplicate key given in txn request"),
            (batch(vec![put("a", 1); ENTRY_COMMANDS_MAX + 1]), "4097 commands in "),
            (batch(vec![put("a", too_large); 2]), "2 commands in "),
        ];
        for (data, wanted) in rows {
            let why = why(data);
            assert!(why.starts_with(wanted), "{why}, wanted {wanted}");
        }
    }

    fn op(put: pb::PutRequest) -> pb::RequestOp {
        pb::RequestOp { request: Some(pb::request_op::Request::RequestPut(put)) }
    }
}
