//! Watches: many of them on one stream, each resumed where it was when the stream breaks.

mod options;
pub use options::WatchOptions;

use crate::client::Client;
use crate::error::Error;
use futures_util::Stream;
use mechi_proto::{etcdserverpb as pb, mvccpb};
use std::pin::Pin;
use std::task::{Context, Poll};

/// A watch: a stream of batches, which ends after its first error.
///
/// Dropping it cancels it.
#[derive(Debug)]
pub struct Watch {}

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

    fn poll_next(self: Pin<&mut Self>, _cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        Poll::Ready(Some(Err(Error::Closed)))
    }
}

pub(crate) struct Hub {}

impl Client {
    /// Watches as `options` says; returns once the server has confirmed it, so that every later change is seen.
    ///
    /// - Errors: [`Error::WatchCanceled`] if the server refuses it; those of a read.
    pub async fn watch(&self, options: WatchOptions) -> Result<Watch, Error> {
        let _ = options;
        Err(Error::Closed)
    }

    /// Asks the server to tell all watches of this client how far they are; it does once all of them are up to date, and
    /// says nothing otherwise. The answer comes as a batch of every watch, see [`Batch::is_progress`].
    pub async fn watch_progress(&self) -> Result<(), Error> {
        Err(Error::Closed)
    }
}
