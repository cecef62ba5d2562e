//! What waits on one connection to another member: bounded, and gone when the connection breaks.

use crate::limits::PEER_QUEUE_MESSAGES_MAX;
use futures_util::Stream;
use mechi_proto::mechipeerpb::PeerMessage;
use mechi_proto::mechipeerpb::peer_message::Message;
use parking_lot::Mutex;
use prost::Message as _;
use std::collections::VecDeque;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};

/// The queue of one connection. It takes messages only while the connection stands: what waited for it any longer would
/// be stale, and raft has learnt meanwhile that it was not delivered.
#[derive(Debug)]
pub(super) struct Queue {
    bytes_max: usize,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    waiting: VecDeque<(PeerMessage, usize)>,
    bytes: usize,
    /// Counts connections, so that the feed of an old one takes nothing that is meant for the new.
    generation: u64,
    up: bool,
    closing: bool,
    waker: Option<Waker>,
}

/// What became of a message.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Pushed {
    /// It waits to be sent, in this generation.
    pub(super) taken: Option<u64>,
    /// How many raft messages were dropped, the new one counted if it is one of them.
    pub(super) dropped_raft: usize,
}

impl Queue {
    pub(super) fn new(bytes_max: usize) -> Arc<Self> {
        Arc::new(Self { bytes_max, state: Mutex::default() })
    }

    /// Puts a message in; drops the oldest raft messages if there is no room.
    pub(super) fn push(&self, message: Message) -> Pushed {
        let is_raft = matches!(message, Message::Raft(_));
        let message = PeerMessage { message: Some(message) };
        let bytes = message.encoded_len();
        let mut state = self.state.lock();
        let mut pushed = Pushed::default();
        if !state.up || state.closing {
            pushed.dropped_raft = usize::from(is_raft);
            return pushed;
        }
        while is_raft && !state.has_room(bytes, self.bytes_max) && state.drop_oldest_raft() {
            pushed.dropped_raft += 1;
        }
        if !state.has_room(bytes, self.bytes_max) {
            pushed.dropped_raft += usize::from(is_raft);
            return pushed;
        }
        state.bytes += bytes;
        state.waiting.push_back((message, bytes));
        pushed.taken = Some(state.generation);
        let waker = state.waker.take();
        drop(state);
        if let Some(waker) = waker {
            waker.wake();
        }
        pushed
    }

    /// Begins a connection; its messages come out of the feed. Nothing is taken until [`Queue::set_up`].
    pub(super) fn begin(self: &Arc<Self>) -> Feed {
        let mut state = self.state.lock();
        state.generation += 1;
        Feed { queue: self.clone(), generation: state.generation }
    }

    /// From now on messages are taken.
    pub(super) fn set_up(&self) {
        self.state.lock().up = true;
    }

    /// The connection broke: drops what waits. Returns whether a raft message was among it.
    pub(super) fn set_down(&self) -> bool {
        let mut state = self.state.lock();
        state.up = false;
        state.generation += 1;
        state.bytes = 0;
        let waiting = std::mem::take(&mut state.waiting);
        let waker = state.waker.take();
        drop(state);
        if let Some(waker) = waker {
            waker.wake();
        }
        waiting.iter().any(|(message, _)| matches!(message.message, Some(Message::Raft(_))))
    }

    /// Takes nothing more; the feed ends once what waits has left.
    pub(super) fn close(&self) {
        let mut state = self.state.lock();
        state.closing = true;
        if let Some(waker) = state.waker.take() {
            drop(state);
            waker.wake();
        }
    }

    /// Whether the connection of this generation still stands.
    pub(super) fn is_up(&self, generation: u64) -> bool {
        let state = self.state.lock();
        state.up && state.generation == generation
    }

    /// Whether messages are taken.
    #[cfg(test)]
    pub(super) fn is_open(&self) -> bool {
        let state = self.state.lock();
        state.up && !state.closing
    }
}

impl State {
    fn has_room(&self, bytes: usize, bytes_max: usize) -> bool {
        self.waiting.is_empty() || self.waiting.len() < PEER_QUEUE_MESSAGES_MAX && self.bytes + bytes <= bytes_max
    }

    fn drop_oldest_raft(&mut self) -> bool {
        let oldest = self.waiting.iter().position(|(message, _)| matches!(message.message, Some(Message::Raft(_))));
        let Some((_, bytes)) = oldest.and_then(|at| self.waiting.remove(at)) else { return false };
        self.bytes -= bytes;
        true
    }
}

/// The messages of one connection, as its call reads them.
#[derive(Debug)]
pub(super) struct Feed {
    queue: Arc<Queue>,
    generation: u64,
}

impl Stream for Feed {
    type Item = PeerMessage;

    fn poll_next(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<PeerMessage>> {
        let mut state = self.queue.state.lock();
        if state.generation != self.generation {
            return Poll::Ready(None);
        }
        if let Some((message, bytes)) = state.waiting.pop_front() {
            state.bytes -= bytes;
            return Poll::Ready(Some(message));
        }
        if state.closing {
            return Poll::Ready(None);
        }
        state.waker = Some(cx.waker().clone());
        Poll::Pending
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use bytes::Bytes;
    use futures_util::FutureExt as _;
    use futures_util::StreamExt as _;

    fn raft(byte: u8) -> Message {
        Message::Raft(Bytes::from(vec![byte; 100]))
    }

    fn batch(byte: u8) -> Message {
        Message::Batch(Bytes::from(vec![byte; 100]))
    }

    fn waiting(feed: &mut Feed) -> Vec<Message> {
        std::iter::from_fn(|| feed.next().now_or_never().flatten()).filter_map(|message| message.message).collect()
    }

    #[test]
    fn a_full_queue_drops_the_oldest_raft_message_and_refuses_batches() {
        let queue = Queue::new(350);
        let mut feed = queue.begin();
        queue.set_up();
        assert!(queue.push(batch(1)).taken.is_some());
        assert!(queue.push(raft(2)).taken.is_some());
        assert!(queue.push(raft(3)).taken.is_some());
        assert_eq!(queue.push(batch(4)), Pushed::default());
        let pushed = queue.push(raft(5));
        assert_eq!((pushed.taken.is_some(), pushed.dropped_raft), (true, 1));
        assert_eq!(waiting(&mut feed), [batch(1), raft(3), raft(5)]);
    }

    #[test]
    fn one_message_always_fits_and_nothing_waits_without_a_connection() {
        let queue = Queue::new(10);
        assert_eq!(queue.push(raft(1)), Pushed { taken: None, dropped_raft: 1 });
        let mut feed = queue.begin();
        queue.set_up();
        assert!(queue.push(raft(2)).taken.is_some());
        assert_eq!(waiting(&mut feed), [raft(2)]);
    }

    #[test]
    fn what_waited_for_a_broken_connection_does_not_go_over_the_next() {
        let queue = Queue::new(1000);
        let mut old = queue.begin();
        queue.set_up();
        let generation = queue.push(raft(1)).taken.unwrap();
        assert!(queue.is_up(generation));
        assert!(queue.set_down());
        assert!(!queue.is_up(generation));
        let mut new = queue.begin();
        queue.set_up();
        queue.push(raft(2));
        assert_eq!(old.next().now_or_never(), Some(None));
        assert_eq!(waiting(&mut new), [raft(2)]);
    }

    #[test]
    fn a_closed_queue_is_emptied_and_then_ends() {
        let queue = Queue::new(1000);
        let mut feed = queue.begin();
        queue.set_up();
        queue.push(raft(1));
        queue.close();
        assert_eq!(queue.push(raft(2)).dropped_raft, 1);
        assert_eq!(waiting(&mut feed), [raft(1)]);
        assert_eq!(feed.next().now_or_never(), Some(None));
    }
}
