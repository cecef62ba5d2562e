//! Answers on their way from the member's threads to the runtime, a batch at a time.
//!
//! To wake a task from another thread costs a lock and often a system call, and the connection that is woken first
//! flushes its one answer before the next is there. A task of the runtime that wakes the others costs neither: they run
//! after it, when all answers of the batch are ready, and each connection writes once.

use crate::driver::Reply;
use crate::propose::Answer;
use crate::watch::WatchMessage;
use mechi_replica::member;
use mechi_replica::outcome::Error;
use tokio::sync::{mpsc, oneshot};

/// One answer or message, and who waits for it.
pub enum Delivery {
    /// What became of a command.
    Command(oneshot::Sender<Answer>, Answer),
    /// What the member says to a question.
    Question(Reply, Result<member::Answer, Error>),
    /// What a watch stream is to send; its place in the stream's channel is taken.
    Watched(mpsc::OwnedPermit<WatchMessage>, WatchMessage),
}

impl Delivery {
    fn deliver(self) {
        // An error says that the client has gone meanwhile.
        match self {
            Self::Command(to, answer) => drop(to.send(answer)),
            Self::Question(to, answer) => drop(to.send(answer)),
            Self::Watched(place, message) => drop(place.send(message)),
        }
    }
}

/// The way to the runtime; cheap to clone. The default delivers on the caller's own thread.
#[derive(Clone, Default)]
pub struct Deliveries(Option<mpsc::UnboundedSender<Vec<Delivery>>>);

impl Deliveries {
    /// Starts the task that delivers, on the runtime that the caller is on; it ends with the last clone of this.
    ///
    /// What is on its way is bounded by the places of those who wait, and of the watch streams' channels.
    pub fn start() -> Self {
        let (sender, mut batches) = mpsc::unbounded_channel::<Vec<Delivery>>();
        tokio::spawn(async move {
            while let Some(batch) = batches.recv().await {
                batch.into_iter().for_each(Delivery::deliver);
            }
        });
        Self(Some(sender))
    }

    /// Delivers a batch.
    pub fn send(&self, batch: Vec<Delivery>) {
        if batch.is_empty() {
            return;
        }
        match &self.0 {
            // A runtime that is gone has nobody who waits.
            Some(sender) => drop(sender.send(batch)),
            None => batch.into_iter().for_each(Delivery::deliver),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use mechi_replica::outcome::Response;

    #[tokio::test]
    async fn a_batch_reaches_all_who_wait_and_passes_by_who_has_gone() {
        let deliveries = Deliveries::start();
        let (sender, first) = oneshot::channel();
        let (gone, _) = oneshot::channel();
        let (other, second) = oneshot::channel();
        let batch = vec![
            Delivery::Command(gone, Err(Error::Stopped)),
            Delivery::Command(sender, Ok(Response::Internal)),
            Delivery::Question(other, Ok(member::Answer::ReadAt(7))),
        ];
        std::thread::spawn(move || deliveries.send(batch)).join().unwrap();
        assert_eq!(first.await.unwrap(), Ok(Response::Internal));
        assert!(matches!(second.await.unwrap(), Ok(member::Answer::ReadAt(7))));
    }
}
