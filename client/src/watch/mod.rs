//! Watches: many of them on one stream, each resumed where it was when the stream breaks.

mod options;
mod queue;
mod book;
mod hub;

pub(crate) use hub::Hub;
pub use options::WatchOptions;

use crate::client::Client;
use crate::error::Error;
use book::{Wanted, WatchKey};
use futures_util::Stream;
use mechi_proto::{etcdserverpb as pb, mvccpb};
use queue::Queue;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use tokio::sync::oneshot;

/// A watch: a stream of batches, which ends after its first error.
///
/// It outlives servers: when its stream breaks it goes on from another endpoint, right behind the last revision that it
/// has delivered, so that every change comes once. Only if that revision is compacted meanwhile does it end, with
/// [`Error::WatchCompacted`].
///
/// Up to 64 batches or 8 MiB wait for a reader that is slow. Beyond that the watch is taken off the server, and put back
/// where it was once the reader has caught up: other watches of the same client do not wait for it, memory stays bounded, and the
/// price is that the missing part is read from the server's history, which may be compacted by then.
///
/// Dropping it cancels it.
#[derive(Debug)]
#[must_use = "is canceled when it is dropped"]
pub struct Watch {
    key: WatchKey,
    queue: Queue,
    // Keeps the stream's task alive.
    client: Client,
}

/// What one answer of the server says to one watch.
#[derive(Clone, Debug, PartialEq)]
pub struct Batch(pub pb::WatchResponse);

impl Batch {
    /// The changes, in order; all those of one revision are in one batch.
    pub fn events(&self) -> &[mvccpb::Event] {
        &self.0.events
    }

    /// The store's revision when the server wrote this.
    pub fn revision(&self) -> i64 {
        self.0.header.as_ref().map_or(0, |header| header.revision)
    }

    /// Whether this only says that all changes up to [`Batch::revision`] have been delivered.
    pub fn is_progress(&self) -> bool {
        self.0.events.is_empty() && !self.0.created && !self.0.canceled && self.revision() != 0
    }
}

impl Watch {
    /// Waits for the next batch; `None` after an error.
    pub async fn next(&mut self) -> Option<Result<Batch, Error>> {
        std::future::poll_fn(|cx| Pin::new(&mut *self).poll_next(cx)).await
    }
}

impl Stream for Watch {
    type Item = Result<Batch, Error>;

    fn poll_next(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        self.queue.poll(cx, || self.client.hub().shared().drained(self.key))
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        self.client.hub().shared().dropped(self.key);
    }
}

impl Client {
    /// Watches as `options` says; returns once the server has confirmed it, so that every later change is seen.
    ///
    /// - Errors: [`Error::WatchCanceled`] if the server refuses it; [`Error::Deadline`] or [`Error::Unavailable`] if no
    ///   server has confirmed it within the time of a call.
    pub async fn watch(&self, options: WatchOptions) -> Result<Watch, Error> {
        let hub = self.hub();
        let key = hub.shared().key();
        let queue = Queue::default();
        let (confirm, confirmed) = oneshot::channel();
        let WatchOptions { request, tells_created } = options;
        // From here on, giving up takes the watch away again.
        let watch = Watch { key, queue: queue.clone(), client: self.clone() };
        let added = async {
            hub.add(key, Wanted { request, tells_created, queue, confirm }).await?;
            confirmed.await.unwrap_or(Err(Error::Closed))
        };
        let done = match self.timeout {
            Some(timeout) => tokio::time::timeout(timeout, added).await,
            None => Ok(added.await),
        };
        match done {
            Ok(Ok(())) => Ok(watch),
            Ok(Err(error)) => Err(error),
            Err(_) => Err(match hub.shared().last() {
                Some(last @ Error::Unavailable { .. }) => last,
                last => Error::Deadline { last: last.map(Box::new) },
            }),
        }
    }

    /// Asks the server to tell all watches of this client how far they are; it does once all of them are up to date, and
    /// says nothing otherwise. The answer comes as a batch of every watch, see [`Batch::is_progress`].
    pub async fn watch_progress(&self) -> Result<(), Error> {
        self.hub().progress().await
    }

    fn hub(&self) -> &Hub {
        self.inner.hub.get_or_init(|| Hub::start(Arc::downgrade(&self.inner)))
    }
}
