//! What waits in one watch for its reader: bounded by batches and by bytes.

use crate::error::Error;
use crate::limits::{WATCH_BATCHES_MAX, WATCH_BYTES_MAX};
use crate::watch::Batch;
use parking_lot::Mutex;
use std::collections::VecDeque;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};

/// One watch's queue, held by its reader and by the task of the stream.
#[derive(Clone, Debug, Default)]
pub(crate) struct Queue(Arc<Mutex<Inner>>);

#[derive(Debug, Default)]
struct Inner {
    batches: VecDeque<(Batch, usize)>,
    bytes: usize,
    /// Comes after the batches.
    end: Option<Error>,
    has_ended: bool,
    /// The watch was taken off the server because this was full; told once it is empty.
    is_parked: bool,
    reader: Option<Waker>,
}

/// A batch that there was no room for.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Full;

impl Queue {
    /// Adds a batch; one always fits into an empty queue, however large it is.
    pub(crate) fn push(&self, batch: Batch) -> Result<(), Full> {
        let bytes = prost::Message::encoded_len(&batch.0);
        let mut inner = self.0.lock();
        let fits = inner.batches.len() < WATCH_BATCHES_MAX && inner.bytes + bytes <= WATCH_BYTES_MAX;
        if !fits && !inner.batches.is_empty() {
            return Err(Full);
        }
        inner.bytes += bytes;
        inner.batches.push_back((batch, bytes));
        inner.wake();
        Ok(())
    }

    /// Marks that the watch goes on only once the reader has caught up.
    ///
    /// - Returns: whether it has already, so that nobody will be told.
    pub(crate) fn park(&self) -> bool {
        let mut inner = self.0.lock();
        inner.is_parked = !inner.batches.is_empty();
        !inner.is_parked
    }

    /// Ends the watch with an error, after what waits.
    pub(crate) fn end(&self, error: Error) {
        let mut inner = self.0.lock();
        inner.end = Some(error);
        inner.wake();
    }

    /// Takes the next batch; `None` after the end. `drained` is called when a parked watch may go on.
    pub(crate) fn poll(&self, cx: &mut Context<'_>, drained: impl FnOnce()) -> Poll<Option<Result<Batch, Error>>> {
        let mut inner = self.0.lock();
        if let Some((batch, bytes)) = inner.batches.pop_front() {
            inner.bytes -= bytes;
            let is_drained = inner.batches.is_empty() && std::mem::take(&mut inner.is_parked);
            drop(inner);
            if is_drained {
                drained();
            }
            return Poll::Ready(Some(Ok(batch)));
        }
        if let Some(error) = inner.end.take() {
            inner.has_ended = true;
            return Poll::Ready(Some(Err(error)));
        }
        if inner.has_ended {
            return Poll::Ready(None);
        }
        inner.reader = Some(cx.waker().clone());
        Poll::Pending
    }
}

impl Inner {
    fn wake(&mut self) {
        if let Some(reader) = self.reader.take() {
            reader.wake();
        }
    }
}
