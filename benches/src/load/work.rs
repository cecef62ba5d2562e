//! What is asked: each kind of work prepares its request once, and changes only digits, revisions and values in it.

use super::connection::{Method, frame};
use super::wire::{PADDED_BYTES, number, revision, write_padded};
use anyhow::{Result, ensure};
use bytes::{Bytes, BytesMut};
use mechi_proto::etcdserverpb as pb;
use mechi_tests::rng::Rng;
use pb::{compare, request_op};
use std::cell::RefCell;
use std::rc::Rc;

/// Bytes of a value, where nothing else is said.
pub const VALUE_BYTES: usize = 256;

/// Bytes of a key.
pub const KEY_BYTES: usize = 37;

/// Keys of one client that writes guarded transactions.
const GUARDED_KEYS: usize = 4;

/// The prefix of all keys.
pub const PREFIX: &str = "/registry/pods/";

/// A source of requests, and the judge of their answers.
pub trait Work {
    /// The method of all its requests.
    fn method(&self) -> Method;

    /// The next request of client `client`, with its frame header.
    fn next(&mut self, client: usize) -> Bytes;

    /// Judges the answer to the last request of `client`; an error ends the run.
    fn answered(&mut self, client: usize, answer: &[u8]) -> Result<()>;
}

/// Key number `number`: 37 bytes, shaped like those of Kubernetes, and in the order of their numbers.
pub fn key(number: u64) -> String {
    let mut key = vec![0; KEY_BYTES];
    write_key(&mut key, number);
    String::from_utf8(key).expect("digits and letters")
}

fn write_key(place: &mut [u8], number: u64) {
    place.copy_from_slice(b"/registry/pods/ns-0000/pod-0000000000");
    digits(&mut place[18..22], number / 1_000 % 10_000);
    digits(&mut place[27..37], number);
}

fn digits(place: &mut [u8], mut number: u64) {
    for byte in place.iter_mut().rev() {
        *byte = b'0' + (number % 10) as u8;
        number /= 10;
    }
}

/// The end of the range of all keys.
pub fn prefix_end() -> Bytes {
    let mut end = PREFIX.as_bytes().to_vec();
    *end.last_mut().expect("the prefix is not empty") += 1;
    end.into()
}

/// A request as bytes, and where in it keys, the value and a revision stand.
struct Template {
    frame: Bytes,
    keys: Vec<usize>,
    value: Option<usize>,
    revision: Option<usize>,
}

/// What stands where a request's revision will: a number that takes [`PADDED_BYTES`] and is nowhere else.
const REVISION_MARK: i64 = 0x5_1234_5679;

impl Template {
    fn new(message: &impl prost::Message, value: &[u8]) -> Self {
        let frame = frame(message);
        let places = |part: &[u8]| -> Vec<usize> {
            let windows = frame.windows(part.len().max(1)).enumerate();
            windows.filter(|(_, window)| *window == part).map(|(at, _)| at).collect()
        };
        let keys = places(key(0).as_bytes());
        assert!(!keys.is_empty(), "the prepared request holds key 0");
        let mut mark = [0; PADDED_BYTES];
        write_padded(&mut mark, REVISION_MARK as u64);
        let (value, revision) = (places(value), places(&mark));
        assert!(value.len() <= 1 && revision.len() <= 1, "values and revisions stand once");
        Self { keys, value: value.first().copied(), revision: revision.first().copied(), frame }
    }

    fn fill(&self, number: u64, value: Option<(&mut Rng, usize)>, revision: u64) -> Bytes {
        let mut frame = BytesMut::from(&self.frame[..]);
        for at in &self.keys {
            write_key(&mut frame[*at..at + KEY_BYTES], number);
        }
        if let (Some(at), Some((rng, len))) = (self.value, value) {
            fill_random(&mut frame[at..at + len], rng);
        }
        if let Some(at) = self.revision {
            write_padded(&mut frame[at..at + PADDED_BYTES], revision);
        }
        frame.freeze()
    }
}

/// Bytes that do not compress.
fn fill_random(place: &mut [u8], rng: &mut Rng) {
    for chunk in place.chunks_mut(8) {
        let len = chunk.len();
        chunk.copy_from_slice(&rng.next_u64().to_le_bytes()[..len]);
    }
}

fn random_value(bytes: usize) -> Vec<u8> {
    let mut value = vec![0; bytes];
    fill_random(&mut value, &mut Rng::new(1));
    value
}

/// Which keys are written or read.
#[derive(Clone, Copy, Debug)]
pub enum Keys {
    /// Key 0.
    One,
    /// Each key once, from this number on.
    New(u64),
    /// Keys drawn from the first so many.
    Random(u64),
}

/// Plain puts.
pub struct Puts {
    template: Template,
    keys: Keys,
    value_bytes: usize,
    rng: Rng,
}

impl Puts {
    /// Puts of values of `value_bytes` random bytes; a value of one key is always the same.
    pub fn new(keys: Keys, value_bytes: usize) -> Self {
        let value = random_value(value_bytes);
        let request = pb::PutRequest { key: key(0).into(), value: value.clone().into(), ..Default::default() };
        Self { template: Template::new(&request, &value), keys, value_bytes, rng: Rng::new(2) }
    }
}

impl Work for Puts {
    fn method(&self) -> Method {
        Method::Put
    }

    fn next(&mut self, _client: usize) -> Bytes {
        let number = match &mut self.keys {
            Keys::One => return self.template.frame.clone(),
            Keys::New(next) => {
                *next += 1;
                *next - 1
            }
            Keys::Random(keys) => self.rng.below(*keys),
        };
        self.template.fill(number, Some((&mut self.rng, self.value_bytes)), 0)
    }

    fn answered(&mut self, _client: usize, answer: &[u8]) -> Result<()> {
        ensure!(revision(answer)? > 1, "a put without a revision");
        Ok(())
    }
}

/// Kubernetes' guarded writes, `if mod_revision(key) = seen then put else get`, and the revision that each key has.
pub struct GuardedKeys {
    template: Template,
    first: u64,
    value_bytes: usize,
    seen: Vec<u64>,
    rng: Rng,
}

impl GuardedKeys {
    /// Writes of `keys` keys from number `first` on, which nobody else may have written.
    pub fn new(first: u64, keys: usize, value_bytes: usize) -> Self {
        let value = random_value(value_bytes);
        let guard = pb::Compare {
            key: key(0).into(),
            target: compare::CompareTarget::Mod as i32,
            result: compare::CompareResult::Equal as i32,
            target_union: Some(compare::TargetUnion::ModRevision(REVISION_MARK)),
            ..Default::default()
        };
        let put = pb::PutRequest { key: key(0).into(), value: value.clone().into(), ..Default::default() };
        let get = pb::RangeRequest { key: key(0).into(), ..Default::default() };
        let op = |request| vec![pb::RequestOp { request: Some(request) }];
        let request = pb::TxnRequest {
            compare: vec![guard],
            success: op(request_op::Request::RequestPut(put)),
            failure: op(request_op::Request::RequestRange(get)),
        };
        let template = Template::new(&request, &value);
        assert_eq!((template.keys.len(), template.revision.is_some()), (3, true), "guard, put and get name the key");
        Self { template, first, value_bytes, seen: vec![0; keys], rng: Rng::new(3) }
    }

    /// The request to write the key of place `key` with a new value.
    pub fn request(&mut self, key: usize) -> Bytes {
        self.template.fill(self.first + key as u64, Some((&mut self.rng, self.value_bytes)), self.seen[key])
    }

    /// Judges the answer to the last request of that key.
    pub fn answered(&mut self, key: usize, answer: &[u8]) -> Result<()> {
        ensure!(number(answer, 2)? == 1, "a guard did not hold although nobody else writes key {key}");
        self.seen[key] = revision(answer)?;
        Ok(())
    }
}

/// Guarded writes of clients that have a few keys each, so that every guard holds.
pub struct GuardedTxns {
    requests: GuardedKeys,
    turn: Vec<usize>,
}

impl GuardedTxns {
    /// Work for `clients` clients on keys from number `first` on.
    pub fn new(first: u64, clients: usize, value_bytes: usize) -> Self {
        Self { requests: GuardedKeys::new(first, clients * GUARDED_KEYS, value_bytes), turn: vec![0; clients] }
    }

    fn place(&self, client: usize) -> usize {
        client * GUARDED_KEYS + self.turn[client] % GUARDED_KEYS
    }
}

impl Work for GuardedTxns {
    fn method(&self) -> Method {
        Method::Txn
    }

    fn next(&mut self, client: usize) -> Bytes {
        self.requests.request(self.place(client))
    }

    fn answered(&mut self, client: usize, answer: &[u8]) -> Result<()> {
        self.requests.answered(self.place(client), answer)?;
        self.turn[client] += 1;
        Ok(())
    }
}

impl<W: Work> Work for Rc<RefCell<W>> {
    fn method(&self) -> Method {
        self.borrow().method()
    }

    fn next(&mut self, client: usize) -> Bytes {
        self.borrow_mut().next(client)
    }

    fn answered(&mut self, client: usize, answer: &[u8]) -> Result<()> {
        self.borrow_mut().answered(client, answer)
    }
}

/// Gets of single keys that exist.
pub struct Gets {
    template: Template,
    keys: Keys,
    rng: Rng,
}

impl Gets {
    /// Linearizable or serializable gets.
    pub fn new(keys: Keys, serializable: bool) -> Self {
        let request = pb::RangeRequest { key: key(0).into(), serializable, ..Default::default() };
        Self { template: Template::new(&request, b"\0\0\0\0\0\0\0\0\0\0"), keys, rng: Rng::new(4) }
    }
}

impl Work for Gets {
    fn method(&self) -> Method {
        Method::Range
    }

    fn next(&mut self, _client: usize) -> Bytes {
        let number = match &mut self.keys {
            Keys::One => return self.template.frame.clone(),
            Keys::New(next) => {
                *next += 1;
                *next - 1
            }
            Keys::Random(keys) => self.rng.below(*keys),
        };
        self.template.fill(number, None, 0)
    }

    fn answered(&mut self, _client: usize, answer: &[u8]) -> Result<()> {
        ensure!(number(answer, 4)? == 1, "a get found nothing");
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use prost::Message;

    #[test]
    fn keys_have_one_length_and_the_order_of_their_numbers() {
        let keys: Vec<String> = [0, 9, 10, 999, 1_000, 1_001, 99_999, 1_000_000].map(key).into();
        assert!(keys.iter().all(|key| key.len() == KEY_BYTES));
        assert!(keys.is_sorted());
        assert_eq!(keys[5], "/registry/pods/ns-0001/pod-0000001001");
        assert!(prefix_end() > keys[7].as_bytes() && *PREFIX < *keys[0]);
    }

    #[test]
    fn a_filled_request_is_what_prost_would_have_written() {
        let mut puts = Puts::new(Keys::New(41), 16);
        puts.next(0);
        let put = pb::PutRequest::decode(&puts.next(0)[5..]).expect("a request");
        assert_eq!((put.key, put.value.len()), (key(42).into(), 16));

        let mut txns = GuardedTxns::new(0, 2, 16);
        let header = Some(pb::ResponseHeader { revision: 1 << 34, ..Default::default() });
        let held = pb::TxnResponse { header, succeeded: true, ..Default::default() };
        for _ in 0..GUARDED_KEYS {
            let fresh = pb::TxnRequest::decode(&txns.next(1)[5..]).expect("a request");
            assert_eq!(fresh.compare[0].target_union, Some(compare::TargetUnion::ModRevision(0)));
            txns.answered(1, &held.encode_to_vec()).expect("the guard held");
        }
        let again = pb::TxnRequest::decode(&txns.next(1)[5..]).expect("a request");
        assert_eq!(again.compare[0].target_union, Some(compare::TargetUnion::ModRevision(1 << 34)));
        assert_eq!(again.compare[0].key, key(GUARDED_KEYS as u64));
        let missed = pb::TxnResponse { succeeded: false, ..held };
        txns.answered(1, &missed.encode_to_vec()).expect_err("a guard that fails is an error");

        let get = Gets::new(Keys::Random(10), true).next(0);
        let get = pb::RangeRequest::decode(&get[5..]).expect("a request");
        assert!(get.serializable && get.key.len() == KEY_BYTES);
    }
}
