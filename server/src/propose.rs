//! Clients that wait for what becomes of their commands.
//!
//! The apply thread answers those that were applied, the driver those that never reached the log or were lost with a
//! leader. Whoever gives up leaves its place at once, so places count requests that someone still waits for.

use crate::deliver::{Deliveries, Delivery};
use mechi_replica::limits::PENDING_REQUESTS_MAX;
use mechi_replica::outcome::{Error, Response};
use parking_lot::Mutex;
use std::collections::HashMap;
use std::sync::Arc;
use tokio::sync::oneshot;

/// What a client hears.
pub type Answer = Result<Response, Error>;

/// The waiting clients by command id; cheap to clone.
#[derive(Clone, Default)]
pub struct Pending {
    table: Arc<Mutex<Inner>>,
    deliveries: Deliveries,
}

#[derive(Default)]
struct Inner {
    last_id: u64,
    stopped: bool,
    waiting: HashMap<u64, oneshot::Sender<Answer>>,
}

/// One client's place; dropped, it is free again.
pub struct Place {
    id: u64,
    pending: Pending,
    answer: oneshot::Receiver<Answer>,
    answered: bool,
}

impl Pending {
    /// Starts without clients; their answers go by way of `deliveries`.
    pub fn new(deliveries: Deliveries) -> Self {
        Self { table: Arc::default(), deliveries }
    }

    /// Takes a place for one command under a new id, counting from 1.
    ///
    /// - Errors: `TooManyRequests` if all places are taken, `Stopped` after [`Pending::stop`].
    pub fn register(&self) -> Result<Place, Error> {
        let mut inner = self.table.lock();
        if inner.stopped {
            return Err(Error::Stopped);
        }
        if inner.waiting.len() >= PENDING_REQUESTS_MAX {
            return Err(Error::TooManyRequests);
        }
        inner.last_id += 1;
        let id = inner.last_id;
        let (sender, answer) = oneshot::channel();
        inner.waiting.insert(id, sender);
        Ok(Place { id, pending: self.clone(), answer, answered: false })
    }

    /// Answers commands; those that nobody waits for are passed over.
    pub fn answer(&self, answers: impl IntoIterator<Item = (u64, Answer)>) {
        let mut found = Vec::new();
        {
            let mut inner = self.table.lock();
            for (id, answer) in answers {
                if let Some(sender) = inner.waiting.remove(&id) {
                    found.push(Delivery::Command(sender, answer));
                }
            }
        }
        self.deliveries.send(found);
    }

    /// Tells all that wait, and all that come, that the member stops.
    pub fn stop(&self) {
        let waiting = {
            let mut inner = self.table.lock();
            inner.stopped = true;
            std::mem::take(&mut inner.waiting)
        };
        let stopped = |sender| Delivery::Command(sender, Err(Error::Stopped));
        self.deliveries.send(waiting.into_values().map(stopped).collect());
    }

    /// Counts the clients that wait.
    pub fn count(&self) -> usize {
        self.table.lock().waiting.len()
    }
}

impl Place {
    /// The command's id.
    pub fn id(&self) -> u64 {
        self.id
    }

    /// Waits for the answer. Safe to drop at any point: the outcome is unknown then.
    pub async fn answer(mut self) -> Answer {
        let answer = (&mut self.answer).await;
        self.answered = true;
        // The sender is dropped unanswered only when the whole table is.
        answer.unwrap_or(Err(Error::Stopped))
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        if !self.answered {
            self.pending.table.lock().waiting.remove(&self.id);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn an_answer_finds_its_client_and_frees_the_place() {
        let pending = Pending::default();
        let (first, second) = (pending.register().unwrap(), pending.register().unwrap());
        assert_eq!((first.id(), second.id()), (1, 2));
        pending.answer([(2, Err(Error::NoSpace)), (1, Ok(Response::Internal)), (9, Ok(Response::Internal))]);
        assert_eq!(first.answer().await, Ok(Response::Internal));
        assert_eq!(second.answer().await, Err(Error::NoSpace));
        assert_eq!(pending.count(), 0);
    }

    #[tokio::test]
    async fn who_gives_up_frees_the_place() {
        let pending = Pending::default();
        let places: Vec<Place> = (0..PENDING_REQUESTS_MAX).map(|_| pending.register().unwrap()).collect();
        assert_eq!(pending.register().err(), Some(Error::TooManyRequests));
        drop(places);
        assert_eq!(pending.count(), 0);
        assert!(pending.register().is_ok());
    }

    #[tokio::test]
    async fn a_stopping_member_tells_all_that_wait_and_all_that_come() {
        let pending = Pending::default();
        let place = pending.register().unwrap();
        pending.stop();
        assert_eq!(place.answer().await, Err(Error::Stopped));
        assert_eq!(pending.register().err(), Some(Error::Stopped));
    }
}
