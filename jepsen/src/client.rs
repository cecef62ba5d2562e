//! One request, one answer: a short timeout, no retry, and an outcome that is called unknown unless it is known.
//!
//! - Source: Jepsen's jetcd analysis: a client that sends a write again by itself loses updates and reads aborted ones,
//!   so what tests a store must never do it.

use crate::cluster::Member;
use crate::recorder::{Done, Level, Recorder};
use anyhow::{Context, Result};
use mechi_checker::history::Kind;
use mechi_checker::history::store::{Request, Response};
use mechi_checker::history::value::Value;
use mechi_proto::etcdserverpb as pb;
use mechi_tests::rng::Rng;
use pb::kv_client::KvClient;
use pb::lease_client::LeaseClient;
use std::error::Error;
use std::sync::Arc;
use std::time::Duration;
use tonic::transport::{Channel, Endpoint};
use tonic::{Code, Status};

/// How long a request may take: as short as etcd's own robustness tests have it.
pub const TIMEOUT: Duration = Duration::from_millis(200);

/// Requests in a row without an answer after which a connection is given up: behind a cut link it may never end.
const SILENT_MAX: u32 = 5;

/// What a request came to.
#[derive(Clone, Debug)]
pub enum Outcome<T> {
    /// It was answered.
    Ok(T),
    /// It was not done and never will be.
    Fail(String),
    /// Nobody knows.
    Info(String),
}

impl<T> Outcome<T> {
    /// The kind and the reason, for a completion.
    pub fn split(self) -> (Kind, Result<T, String>) {
        match self {
            Self::Ok(it) => (Kind::Ok, Ok(it)),
            Self::Fail(why) => (Kind::Fail, Err(why)),
            Self::Info(why) => (Kind::Info, Err(why)),
        }
    }

    /// Turns the answer into another one; one that does not fit makes the outcome unknown.
    pub fn and_then<U>(self, change: impl FnOnce(T) -> Option<U>) -> Outcome<U> {
        match self {
            Self::Ok(it) => change(it).map_or_else(|| Outcome::Info("an answer of another kind".into()), Outcome::Ok),
            Self::Fail(why) => Outcome::Fail(why),
            Self::Info(why) => Outcome::Info(why),
        }
    }

    /// The answer.
    pub fn ok(self) -> Option<T> {
        match self {
            Self::Ok(it) => Some(it),
            _ => None,
        }
    }

    /// For something that only read: what is not known has had no effect.
    pub fn of_read(self) -> Self {
        match self {
            Self::Info(why) => Self::Fail(why),
            other => other,
        }
    }
}

/// A thread's client: of one member, or of all.
pub struct Client {
    thread: u64,
    recorder: Arc<Recorder>,
    links: Vec<Link>,
    pinned: Option<usize>,
    timeout: Duration,
    rng: Rng,
    /// The member of the last request.
    at: usize,
}

struct Link {
    name: String,
    endpoint: Endpoint,
    channel: Channel,
    silent: u32,
}

impl Link {
    fn new(member: &Member, timeout: Duration) -> Result<Self> {
        let endpoint = Endpoint::from_shared(member.endpoint.clone())
            .with_context(|| format!("{} is no address", member.endpoint))?
            .connect_timeout(timeout);
        let channel = endpoint.connect_lazy();
        Ok(Self { name: member.name.clone(), endpoint, channel, silent: 0 })
    }
}

impl Client {
    /// A client of the member `pinned`, or of any; the first request connects.
    ///
    /// - Shape: `thread` names who acts in the histories, and is nobody else's.
    pub fn new(
        thread: u64,
        members: &[Member],
        pinned: Option<usize>,
        recorder: &Arc<Recorder>,
        seed: u64,
    ) -> Result<Self> {
        let links = members.iter().map(|member| Link::new(member, TIMEOUT)).collect::<Result<_>>()?;
        let (recorder, at) = (recorder.clone(), pinned.unwrap_or(0));
        Ok(Self { thread, recorder, links, pinned, timeout: TIMEOUT, rng: Rng::new(seed), at })
    }

    /// Waits longer for answers.
    pub fn with_timeout(mut self, timeout: Duration) -> Self {
        self.timeout = timeout;
        self
    }

    /// Its random numbers.
    pub fn rng(&mut self) -> &mut Rng {
        &mut self.rng
    }

    /// Who writes down what it does.
    pub fn recorder(&self) -> &Arc<Recorder> {
        &self.recorder
    }

    /// Its thread.
    pub fn thread(&self) -> u64 {
        self.thread
    }

    /// The member that was asked last.
    pub fn node(&self) -> &str {
        &self.links[self.at].name
    }

    /// Begins an operation of several requests; returns when.
    pub fn begin(&self, value: Value) -> u64 {
        self.recorder.invoke(Level::Operation, self.thread, value, None)
    }

    /// Ends it.
    pub fn end(&self, done: Done) {
        let node = Some(self.node().to_owned());
        self.recorder.complete(Level::Operation, self.thread, Done { node: done.node.or(node), ..done });
    }

    /// Sends one request, once, and writes down what came of it.
    pub async fn ask(&mut self, request: Request) -> Outcome<Response> {
        self.at = match self.pinned {
            Some(member) => member,
            None => self.rng.below(self.links.len() as u64) as usize,
        };
        self.recorder.invoke(Level::Request, self.thread, Value::Ask(request.clone()), Some(&self.links[self.at].name));
        let reads = request.is_read();
        let outcome = self.send(request.clone()).await;
        let outcome = if reads { outcome.of_read() } else { outcome };
        let done = match &outcome {
            Outcome::Ok(response) => {
                let header = header(response);
                self.recorder.watchers.heard(header.map_or(0, |header| header.revision));
                Done {
                    revision: header.map(|header| header.revision),
                    raft_term: header.map(|header| header.raft_term),
                    ..Done::new(Kind::Ok, Value::Answer(response.clone()))
                }
            }
            Outcome::Fail(why) => Done::because(Kind::Fail, Value::Ask(request), why),
            Outcome::Info(why) => Done::because(Kind::Info, Value::Ask(request), why),
        };
        self.recorder.complete(Level::Request, self.thread, done);
        outcome
    }

    async fn send(&mut self, request: Request) -> Outcome<Response> {
        let link = &mut self.links[self.at];
        let answer = tokio::time::timeout(self.timeout, call(link.channel.clone(), request)).await;
        let silent = match &answer {
            Err(_) => true,
            Ok(Err(status)) => matches!(status.code(), Code::DeadlineExceeded | Code::Cancelled),
            Ok(Ok(_)) => false,
        };
        link.silent = if silent { link.silent + 1 } else { 0 };
        if link.silent >= SILENT_MAX {
            (link.channel, link.silent) = (link.endpoint.connect_lazy(), 0);
        }
        match answer {
            Ok(Ok(response)) => Outcome::Ok(response),
            Ok(Err(status)) => failed(&status),
            Err(_) => Outcome::Info(format!("no answer in {} ms", self.timeout.as_millis())),
        }
    }
}

/// Sends a request over a connection.
async fn call(channel: Channel, request: Request) -> Result<Response, Status> {
    let max = usize::MAX;
    let kv = || KvClient::new(channel.clone()).max_decoding_message_size(max).max_encoding_message_size(max);
    let lease = || LeaseClient::new(channel.clone()).max_decoding_message_size(max);
    Ok(match request {
        Request::Range(it) => Response::Range(kv().range(it).await?.into_inner()),
        Request::Put(it) => Response::Put(kv().put(it).await?.into_inner()),
        Request::DeleteRange(it) => Response::DeleteRange(kv().delete_range(it).await?.into_inner()),
        Request::Txn(it) => Response::Txn(kv().txn(it).await?.into_inner()),
        Request::Compaction(it) => Response::Compaction(kv().compact(it).await?.into_inner()),
        Request::LeaseGrant(it) => Response::LeaseGrant(lease().lease_grant(it).await?.into_inner()),
        Request::LeaseRevoke(it) => Response::LeaseRevoke(lease().lease_revoke(it).await?.into_inner()),
        Request::LeaseTimeToLive(it) => Response::LeaseTimeToLive(lease().lease_time_to_live(it).await?.into_inner()),
        Request::LeaseKeepAlive(it) => {
            // The stream stays open on this side until the answer is there: who closes it takes the request back.
            let (tx, rx) = tokio::sync::mpsc::channel(1);
            tx.try_send(it).map_err(|_| Status::internal("an empty channel is full"))?;
            let asks = tokio_stream::wrappers::ReceiverStream::new(rx);
            let mut answers = lease().lease_keep_alive(asks).await?.into_inner();
            let answer = answers.message().await?;
            drop(tx);
            Response::LeaseKeepAlive(answer.ok_or_else(|| Status::unavailable("the stream ended"))?)
        }
    })
}

/// What an error says of a write; a read that failed had no effect in any case.
pub fn failed(status: &Status) -> Outcome<Response> {
    let text = format!("{:?}: {}", status.code(), status.message());
    let refused = matches!(
        status.code(),
        Code::InvalidArgument
            | Code::FailedPrecondition
            | Code::OutOfRange
            | Code::NotFound
            | Code::PermissionDenied
            | Code::Unauthenticated
            | Code::Unimplemented
            | Code::ResourceExhausted
    );
    if refused || unsent(status) { Outcome::Fail(text) } else { Outcome::Info(text) }
}

/// Whether there was no connection over which anything could have been sent.
fn unsent(status: &Status) -> bool {
    if status.message().starts_with("Service was not ready") {
        return true;
    }
    let mut cause = status.source();
    while let Some(error) = cause {
        if error.is::<tonic::ConnectError>() {
            return true;
        }
        cause = error.source();
    }
    false
}

/// The header of an answer.
pub fn header(response: &Response) -> Option<&pb::ResponseHeader> {
    match response {
        Response::Range(it) => it.header.as_ref(),
        Response::Put(it) => it.header.as_ref(),
        Response::DeleteRange(it) => it.header.as_ref(),
        Response::Txn(it) => it.header.as_ref(),
        Response::Compaction(it) => it.header.as_ref(),
        Response::LeaseGrant(it) => it.header.as_ref(),
        Response::LeaseRevoke(it) => it.header.as_ref(),
        Response::LeaseKeepAlive(it) => it.header.as_ref(),
        Response::LeaseTimeToLive(it) => it.header.as_ref(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_surely_was_not_done_is_called_failed() {
        let kind = |code, text: &str| failed(&Status::new(code, text)).split().0;
        for code in [Code::InvalidArgument, Code::FailedPrecondition, Code::OutOfRange, Code::NotFound] {
            assert_eq!(kind(code, "etcdserver: no"), Kind::Fail);
        }
        assert_eq!(kind(Code::ResourceExhausted, "etcdserver: too many requests"), Kind::Fail);
        for code in [Code::Unavailable, Code::DeadlineExceeded, Code::Cancelled, Code::Unknown, Code::Internal] {
            assert_eq!(kind(code, "etcdserver: request timed out"), Kind::Info, "{code:?}");
        }
    }

    #[tokio::test]
    async fn what_nobody_listens_to_was_not_done() {
        let home = tempfile::tempdir().expect("a folder");
        let recorder = Recorder::create(home.path()).expect("begins");
        // A port that was ours a moment ago: nobody listens there.
        let port = std::net::TcpListener::bind("127.0.0.1:0").and_then(|it| it.local_addr()).expect("binds").port();
        let members = [Member { name: "n1".into(), endpoint: format!("http://127.0.0.1:{port}") }];
        let mut client = Client::new(0, &members, Some(0), &recorder, 1).expect("an address");
        let put = pb::PutRequest { key: "k".into(), ..Default::default() };
        let outcome = client.ask(Request::Put(put)).await;
        assert!(matches!(outcome, Outcome::Fail(_)), "{outcome:?}");
    }
}
