//! The task that keeps the stream of all watches of a client, on one endpoint after the other.

use crate::call::Failure;
use crate::client::{Client, Inner};
use crate::connection::{Connection, Link};
use crate::error::{Code, Error, ServerError};
use crate::kind::Kind;
use crate::limits::{BACKOFF_MIN, STREAM_QUEUE, TOKEN_RENEWALS_MAX, WATCH_ASKS_MAX, WATCH_OPEN_MAX};
use crate::watch::book::{After, Book, Wanted, WatchKey};
use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use mechi_proto::etcdserverpb as pb;
use parking_lot::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Weak};
use tokio::sync::{Notify, mpsc};
use tonic::{Status, Streaming};

/// The way to the task; one per client, begun by its first watch.
pub(crate) struct Hub {
    asks: mpsc::Sender<Ask>,
    shared: Arc<Shared>,
}

/// What readers tell the task without waiting, and what it tells about itself.
#[derive(Default)]
pub(crate) struct Shared {
    next_key: AtomicU64,
    /// At most two for each watch.
    signals: Mutex<Vec<Signal>>,
    signalled: Notify,
    /// How the last attempt at a stream failed, for those who give up waiting.
    last: Mutex<Option<Error>>,
}

enum Signal {
    Dropped(WatchKey),
    Drained(WatchKey),
}

enum Ask {
    Add(WatchKey, Wanted),
    Progress,
}

/// Why a stream is left.
enum Left {
    /// It failed; the watches go on elsewhere.
    Lost,
    /// No watch is left on it.
    Idle,
    /// The client is gone.
    Closed,
}

impl Hub {
    /// Begins the task; must be called in a runtime.
    pub(crate) fn start(client: Weak<Inner>) -> Self {
        let (asks, incoming) = mpsc::channel(WATCH_ASKS_MAX);
        let shared = Arc::<Shared>::default();
        let keeper = Keeper { client, book: Book::default(), incoming, shared: shared.clone(), renewals: 0 };
        tokio::spawn(keeper.run());
        Self { asks, shared }
    }

    pub(crate) fn shared(&self) -> &Arc<Shared> {
        &self.shared
    }

    pub(crate) async fn add(&self, key: WatchKey, wanted: Wanted) -> Result<(), Error> {
        self.asks.send(Ask::Add(key, wanted)).await.map_err(|_| Error::Closed)
    }

    pub(crate) async fn progress(&self) -> Result<(), Error> {
        self.asks.send(Ask::Progress).await.map_err(|_| Error::Closed)
    }
}

impl Shared {
    pub(crate) fn key(&self) -> WatchKey {
        self.next_key.fetch_add(1, Ordering::Relaxed)
    }

    pub(crate) fn dropped(&self, key: WatchKey) {
        self.signal(Signal::Dropped(key));
    }

    pub(crate) fn drained(&self, key: WatchKey) {
        self.signal(Signal::Drained(key));
    }

    pub(crate) fn last(&self) -> Option<Error> {
        self.last.lock().clone()
    }

    fn signal(&self, signal: Signal) {
        self.signals.lock().push(signal);
        self.signalled.notify_one();
    }
}

struct Keeper {
    // Weak, so that the task does not keep alive what ends it; every watch holds its client.
    client: Weak<Inner>,
    book: Book,
    incoming: mpsc::Receiver<Ask>,
    shared: Arc<Shared>,
    /// Tokens asked for since the last good answer.
    renewals: u32,
}

impl Keeper {
    async fn run(mut self) {
        loop {
            while self.book.is_empty() {
                if !self.hear().await {
                    return;
                }
            }
            match self.stream().await {
                Left::Closed => return,
                Left::Idle => {}
                // The endpoint is set aside and the next one tried at once; this guards against failures that come
                // faster than that.
                Left::Lost => tokio::time::sleep(BACKOFF_MIN).await,
            }
        }
    }

    /// Waits for an ask or a signal; whether the client still lives.
    async fn hear(&mut self) -> bool {
        tokio::select! {
            biased;
            () = self.shared.signalled.notified() => self.take_signals(),
            ask = self.incoming.recv() => match ask {
                Some(ask) => self.take(ask),
                None => return false,
            },
        }
        true
    }

    fn take(&mut self, ask: Ask) {
        match ask {
            // Its caller gave up before it got here; that was told already, and nobody will tell it again.
            Ask::Add(_, wanted) if wanted.confirm.is_closed() => {}
            Ask::Add(key, wanted) => self.book.add(key, wanted),
            // Without a watch there is nobody to tell, and no stream to be kept open.
            Ask::Progress if self.book.is_empty() => {}
            Ask::Progress => self.book.ask_progress(),
        }
    }

    fn take_signals(&mut self) {
        let signals = std::mem::take(&mut *self.shared.signals.lock());
        for signal in signals {
            match signal {
                Signal::Dropped(key) => self.book.remove(key),
                Signal::Drained(key) => self.book.unpark(key),
            }
        }
    }

    /// Opens one stream and keeps it until it ends.
    async fn stream(&mut self) -> Left {
        let Some(inner) = self.client.upgrade() else { return Left::Closed };
        let client = Client { inner, timeout: None };
        let mut linking = Box::pin(client.link());
        let linked = loop {
            // Watches may come and go while a server is looked for.
            tokio::select! {
                linked = &mut linking => break linked,
                lives = self.hear() => if !lives { return Left::Closed },
            }
            if self.book.is_empty() {
                return Left::Idle;
            }
        };
        drop(linking);
        drop(client);
        match linked {
            Ok(link) => {
                self.book.begin_stream();
                self.keep(Stream::open(link)).await
            }
            Err(error) => self.lost(error),
        }
    }

    async fn keep(&mut self, mut stream: Stream) -> Left {
        let opened_by = tokio::time::sleep(WATCH_OPEN_MAX);
        tokio::pin!(opened_by);
        loop {
            let is_opening = stream.is_opening();
            let asks = stream.asks.clone();
            let ended = tokio::select! {
                biased;
                lives = self.hear() => match lives {
                    true => None,
                    false => return Left::Closed,
                },
                answer = stream.next() => match answer {
                    Ok(Some(answer)) => self.answered(answer, &stream).err(),
                    Ok(None) => Some(self.failed(&Status::unavailable("the server ended the stream"), &stream)),
                    Err(status) => Some(self.failed(&status, &stream)),
                },
                // The sending half ends with the connection; how it ended is read above.
                Ok(room) = asks.reserve(), if self.book.has_message() => {
                    room.send(self.book.take_message().expect("nothing was taken since it was looked at"));
                    None
                }
                () = &mut opened_by, if is_opening => {
                    Some(self.failed(&Status::unavailable("no answer to a new watch stream"), &stream))
                }
            };
            match ended {
                Some(error) => return self.lost(error),
                // The stream ends with this, and the server forgets its watches.
                None if self.book.is_empty() => return Left::Idle,
                None => {}
            }
        }
    }

    /// Takes an answer; an error ends the stream.
    fn answered(&mut self, answer: pb::WatchResponse, stream: &Stream) -> Result<(), Error> {
        match self.book.answer(answer) {
            After::GoOn => Ok(()),
            After::Confirmed => {
                self.renewals = 0;
                *self.shared.last.lock() = None;
                if let Some(inner) = self.client.upgrade() {
                    inner.pool.succeeded(&stream.connection);
                }
                Ok(())
            }
            After::Refused(reason) => {
                // etcd puts its whole error into the words: `rpc error: code = … desc = etcdserver: …`.
                let kind = Kind::of(reason.rsplit("desc = ").next().unwrap_or(&reason));
                if self.renews(kind, stream) {
                    return Err(Error::WatchCanceled { reason });
                }
                self.book.fail_first_pending(reason);
                Ok(())
            }
            After::Nonsense(what) => {
                tracing::warn!(what, "a watch stream is begun anew");
                Err(self.failed(&Status::unavailable(what), stream))
            }
        }
    }

    /// Whether a new token is worth a new stream.
    fn renews(&mut self, kind: Kind, stream: &Stream) -> bool {
        let renewed = self.client.upgrade().is_some_and(|inner| inner.tokens.renew(stream.token.as_ref(), kind));
        self.renewals += u32::from(renewed);
        renewed && self.renewals <= TOKEN_RENEWALS_MAX
    }

    /// Reads how a stream failed, and sets its endpoint aside.
    fn failed(&mut self, status: &Status, stream: &Stream) -> Error {
        let connection = &stream.connection;
        let Some(inner) = self.client.upgrade() else { return Error::Closed };
        let failure = inner.pool.failed(status, connection);
        if let Failure::Server(error) = &failure {
            if self.renews(error.kind, stream) {
                return Error::WatchCanceled { reason: error.message.clone() };
            }
            inner.pool.set_aside(connection, false);
        }
        failure.into_error(connection)
    }

    /// Decides whether an error ends the watches or only their stream.
    fn lost(&mut self, error: Error) -> Left {
        let is_final = match &error {
            Error::Server(error) => is_final(error),
            Error::Config(_) | Error::Closed => true,
            _ => false,
        };
        tracing::debug!(%error, is_final, "watch stream ended");
        *self.shared.last.lock() = Some(error.clone());
        if is_final {
            self.book.fail_all(&error);
            return Left::Idle;
        }
        Left::Lost
    }
}

/// Whether a refusal of the stream stays the same however often it is asked for.
fn is_final(error: &ServerError) -> bool {
    matches!(
        error.code,
        Code::Unimplemented
            | Code::InvalidArgument
            | Code::PermissionDenied
            | Code::Unauthenticated
            | Code::FailedPrecondition
            | Code::OutOfRange
            | Code::NotFound
    )
}

/// A stream on one endpoint. Ends when it is dropped.
struct Stream {
    asks: mpsc::Sender<pb::WatchRequest>,
    answers: Answers,
    connection: Connection,
    token: Option<http::HeaderValue>,
}

enum Answers {
    /// etcd sends its headers with its first answer, so that asks must go out before.
    Opening(BoxFuture<'static, Result<Streaming<pb::WatchResponse>, Status>>),
    Open(Box<Streaming<pb::WatchResponse>>),
}

impl Stream {
    fn open(link: Link) -> Self {
        let Link { connection, token, .. } = link.clone();
        let (asks, mut outgoing) = mpsc::channel(STREAM_QUEUE);
        let outgoing = futures_util::stream::poll_fn(move |cx| outgoing.poll_recv(cx));
        let opening = async move { Ok(link.watch().watch(outgoing).await?.into_inner()) };
        Self { asks, answers: Answers::Opening(opening.boxed()), connection, token }
    }

    fn is_opening(&self) -> bool {
        matches!(self.answers, Answers::Opening(_))
    }

    /// Waits for the next answer; may be given up and called again.
    async fn next(&mut self) -> Result<Option<pb::WatchResponse>, Status> {
        loop {
            match &mut self.answers {
                Answers::Opening(opening) => self.answers = Answers::Open(Box::new(opening.await?)),
                Answers::Open(answers) => return answers.message().await,
            }
        }
    }
}
