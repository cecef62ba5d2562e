//! Calls against servers that are played here over plain HTTP/2, each answering as its script says.

use crate::{Client, Code, Config, Error, Get, Kind, Outcome, WatchOptions};
use bytes::Bytes;
use h2::Reason;
use std::collections::VecDeque;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;
use tokio::net::{TcpListener, TcpStream};

/// What a server does with one request.
#[derive(Clone, Copy, Debug)]
enum Reply {
    /// An empty message, which is a good answer to anything.
    Good,
    /// A status and its text.
    Refuse(Code, &'static str),
    /// The stream is reset.
    Reset(Reason),
    /// The connection is cut.
    Cut,
    /// Nothing, ever.
    Silence,
}

/// A server that follows a script, and then answers well.
struct Played {
    endpoint: String,
    requests: Arc<AtomicUsize>,
}

impl Played {
    async fn start(script: &[Reply]) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let endpoint = listener.local_addr().unwrap().to_string();
        let script = Arc::new(Mutex::new(script.iter().copied().collect::<VecDeque<_>>()));
        let requests = Arc::<AtomicUsize>::default();
        let counted = requests.clone();
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                tokio::spawn(serve(stream, script.clone(), counted.clone()));
            }
        });
        Self { endpoint, requests }
    }

    fn requests(&self) -> usize {
        self.requests.load(Ordering::SeqCst)
    }
}

async fn serve(stream: TcpStream, script: Arc<Mutex<VecDeque<Reply>>>, requests: Arc<AtomicUsize>) {
    let mut connection = h2::server::handshake(stream).await.unwrap();
    let mut silent = Vec::new();
    while let Some(Ok((_request, mut respond))) = connection.accept().await {
        requests.fetch_add(1, Ordering::SeqCst);
        let reply = script.lock().unwrap().pop_front().unwrap_or(Reply::Good);
        let head = http::Response::builder().header("content-type", "application/grpc");
        match reply {
            Reply::Good => {
                let mut body = respond.send_response(head.body(()).unwrap(), false).unwrap();
                body.send_data(Bytes::from_static(&[0; 5]), false).unwrap();
                let mut trailers = http::HeaderMap::new();
                trailers.insert("grpc-status", "0".parse().unwrap());
                body.send_trailers(trailers).unwrap();
            }
            Reply::Refuse(code, text) => {
                let head = head.header("grpc-status", code as i32).header("grpc-message", text);
                respond.send_response(head.body(()).unwrap(), true).unwrap();
            }
            Reply::Reset(reason) => respond.send_reset(reason),
            Reply::Cut => return,
            Reply::Silence => silent.push(respond),
        }
    }
}

/// A client that begins at the first of these.
fn client(servers: &[&Played]) -> Client {
    let endpoints = servers.iter().map(|server| server.endpoint.clone());
    Client::lazy(Config::new(endpoints).seed(1).request_timeout(Duration::from_secs(20))).unwrap()
}

/// What becomes of a put to a server that does this first, with a good one beside it: the outcome, and the requests
/// that both saw.
async fn put(first: &[Reply]) -> (Result<(), Error>, usize, usize) {
    let (one, other) = (Played::start(first).await, Played::start(&[]).await);
    let answer = client(&[&one, &other]).put("k", "v").await.map(|_| ());
    (answer, one.requests(), other.requests())
}

#[tokio::test]
async fn a_write_that_a_server_may_have_seen_is_sent_once() {
    let maybe = [
        Reply::Reset(Reason::CANCEL),
        Reply::Reset(Reason::INTERNAL_ERROR),
        Reply::Cut,
        Reply::Refuse(Code::Unavailable, "etcdserver: request timed out"),
        Reply::Refuse(Code::Unavailable, "etcdserver: leader changed"),
        Reply::Refuse(Code::Unavailable, "etcdserver: server stopped"),
        Reply::Refuse(Code::Unavailable, "the proxy's own words"),
        Reply::Refuse(Code::Unknown, "some text of Go's"),
        Reply::Refuse(Code::Cancelled, "context canceled"),
        Reply::Refuse(Code::DeadlineExceeded, "context deadline exceeded"),
        Reply::Refuse(Code::Internal, "panic"),
    ];
    for reply in maybe {
        let (answer, first, second) = put(&[reply]).await;
        assert!(matches!(answer, Err(Error::OutcomeUnknown { .. })), "{reply:?}: {answer:?}");
        assert_eq!((first, second), (1, 0), "{reply:?}");
    }
}

#[tokio::test]
async fn a_write_that_was_refused_is_an_error_and_sent_once() {
    let refusals = [
        (Code::InvalidArgument, "etcdserver: key is not provided", Kind::EmptyKey),
        (Code::Unavailable, "etcdserver: no leader", Kind::NoLeader),
        (Code::Unknown, "etcdserver: too many requests", Kind::TooManyRequests),
        (Code::PermissionDenied, "etcdserver: permission denied", Kind::PermissionDenied),
        (Code::Unimplemented, "not today", Kind::Unimplemented),
    ];
    for (code, text, kind) in refusals {
        let (answer, first, second) = put(&[Reply::Refuse(code, text)]).await;
        let error = answer.unwrap_err();
        assert_eq!((error.kind(), error.code(), error.outcome()), (kind, Some(code), Outcome::NotApplied), "{error:?}");
        assert_eq!((error.to_string().as_str(), first, second), (text, 1, 0));
    }
    // etcd may have written what it then refuses for want of room.
    let (answer, ..) =
        put(&[Reply::Refuse(Code::ResourceExhausted, "etcdserver: mvcc: database space exceeded")]).await;
    assert_eq!(answer.unwrap_err().outcome(), Outcome::Unknown);
}

#[tokio::test]
async fn a_write_that_certainly_did_nothing_is_sent_elsewhere() {
    for reply in [
        Reply::Reset(Reason::REFUSED_STREAM),
        Reply::Refuse(Code::FailedPrecondition, "etcdserver: rpc not supported for learner"),
    ] {
        let (answer, first, second) = put(&[reply]).await;
        assert!(answer.is_ok(), "{reply:?}: {answer:?}");
        assert_eq!((first, second), (1, 1), "{reply:?}");
    }
}

#[tokio::test]
async fn a_read_goes_on_elsewhere() {
    for reply in [
        Reply::Reset(Reason::CANCEL),
        Reply::Cut,
        Reply::Refuse(Code::Unavailable, "etcdserver: no leader"),
        Reply::Refuse(Code::Unavailable, "etcdserver: request timed out"),
    ] {
        let (one, other) = (Played::start(&[reply; 3]).await, Played::start(&[]).await);
        let client = client(&[&one, &other]);
        client.get_with(Get::key("k")).await.unwrap();
        client.get_with(Get::key("k")).await.unwrap();
        assert_eq!((one.requests(), other.requests()), (1, 2), "{reply:?}: it stays where it went");
    }
    let one =
        Played::start(&[Reply::Refuse(Code::OutOfRange, "etcdserver: mvcc: required revision has been compacted")]);
    let one = one.await;
    let error = client(&[&one]).get_with(Get::key("k")).await.unwrap_err();
    assert_eq!((error.kind(), one.requests()), (Kind::Compacted, 1), "a refusal of a read is an answer");
}

#[tokio::test]
async fn one_endpoint_is_tried_again_after_its_back_off() {
    let one = Played::start(&[Reply::Refuse(Code::Unavailable, "etcdserver: no leader"); 4]).await;
    client(&[&one]).get_with(Get::key("k")).await.unwrap();
    assert_eq!(one.requests(), 5);
}

#[tokio::test]
async fn silence_ends_a_call_and_sets_the_endpoint_aside() {
    let one = Played::start(&[Reply::Good, Reply::Silence, Reply::Silence]).await;
    let other = Played::start(&[]).await;
    let client = client(&[&one, &other]);
    client.put("k", "v").await.unwrap();
    let error = client.with_timeout(Duration::from_secs(3)).put("k", "v").await.unwrap_err();
    assert!(
        matches!(&error, Error::OutcomeUnknown { cause } if matches!(**cause, Error::Deadline { .. })),
        "{error:?}"
    );
    client.put("k", "v").await.unwrap();
    assert_eq!(other.requests(), 1);
}

#[tokio::test]
async fn a_watch_is_refused_for_good_where_nobody_serves_it() {
    let one = Played::start(&[Reply::Refuse(Code::Unimplemented, "not today")]).await;
    let error = client(&[&one]).watch(WatchOptions::key("k")).await.unwrap_err();
    assert_eq!((error.kind(), one.requests()), (Kind::Unimplemented, 1), "{error:?}");
}
