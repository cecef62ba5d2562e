//! A lease kept alive by a task of its own, for as long as its handle lives.

use crate::client::Client;
use crate::error::{Error, LeaseEnd};
use crate::kind::Kind;
use crate::limits::{KEEP_ALIVE_ANSWER_MAX, KEEP_ALIVE_PAUSE_MIN};
use mechi_proto::etcdserverpb as pb;
use std::time::Duration;
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio::time::Instant;
use tonic::{Response, Status};

/// Keeps a lease alive until it is dropped; tells when the lease is lost. Dropping it does not end the lease.
#[derive(Debug)]
pub struct KeepAlive {
    id: i64,
    state: watch::Receiver<State>,
    task: JoinHandle<()>,
}

#[derive(Clone, Debug)]
enum State {
    Kept(pb::LeaseKeepAliveResponse),
    Lost(LeaseEnd),
}

impl KeepAlive {
    /// The lease.
    pub fn id(&self) -> i64 {
        self.id
    }

    /// The newest answer; its TTL counts from when it came.
    pub fn latest(&self) -> Result<pb::LeaseKeepAliveResponse, LeaseEnd> {
        match &*self.state.borrow() {
            State::Kept(answer) => Ok(*answer),
            State::Lost(end) => Err(*end),
        }
    }

    /// Waits for the next answer. Answers that nobody waits for are not kept: only the newest is.
    pub async fn next(&mut self) -> Result<pb::LeaseKeepAliveResponse, LeaseEnd> {
        if self.state.changed().await.is_err() {
            return Err(self.latest().err().unwrap_or(LeaseEnd::Unconfirmed { id: self.id }));
        }
        match &*self.state.borrow_and_update() {
            State::Kept(answer) => Ok(*answer),
            State::Lost(end) => Err(*end),
        }
    }

    /// Waits until the lease is lost.
    pub async fn lost(&mut self) -> LeaseEnd {
        let id = self.id;
        match self.state.wait_for(|state| matches!(state, State::Lost(_))).await.as_deref() {
            Ok(State::Lost(end)) => *end,
            _ => LeaseEnd::Unconfirmed { id },
        }
    }
}

impl Drop for KeepAlive {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Client {
    /// Keeps a lease alive; returns once it was kept alive for the first time.
    ///
    /// A task asks for more time whenever a third of the lease's time has passed, on another endpoint if the one that is
    /// used fails. The lease counts as lost once its time has passed since the last ask that was answered.
    ///
    /// - Errors: [`Error::LeaseLost`] if the servers do not know it; else as [`Client::lease_keep_alive_once`].
    pub async fn lease_keep_alive(&self, id: i64) -> Result<KeepAlive, Error> {
        let asked = Instant::now();
        let first = self.lease_keep_alive_once(id).await?;
        if first.ttl <= 0 {
            return Err(Error::LeaseLost(LeaseEnd::Gone { id }));
        }
        let (tell, state) = watch::channel(State::Kept(first));
        let task = tokio::spawn(keep(self.with_timeout(KEEP_ALIVE_ANSWER_MAX), first, asked, tell));
        Ok(KeepAlive { id, state, task })
    }

    /// Keeps a lease alive once. The answer for a lease that is gone has TTL 0. Asking twice is harmless, so that it is
    /// sent again like a read.
    pub async fn lease_keep_alive_once(&self, id: i64) -> Result<pb::LeaseKeepAliveResponse, Error> {
        self.open(pb::LeaseKeepAliveRequest { id }, |link, message| async move {
            let asks = futures_util::stream::iter([message.into_inner()]);
            let mut answers = link.lease().lease_keep_alive(asks).await?.into_inner();
            match answers.message().await? {
                Some(answer) => Ok(Response::new(answer)),
                None => Err(Status::unavailable("the server ended the stream without an answer")),
            }
        })
        .await
    }
}

async fn keep(client: Client, first: pb::LeaseKeepAliveResponse, asked: Instant, tell: watch::Sender<State>) {
    let (id, mut asked, mut ttl) = (first.id, asked, seconds(first.ttl));
    loop {
        tokio::time::sleep_until(asked + (ttl / 3).max(KEEP_ALIVE_PAUSE_MIN)).await;
        // The time begins before the ask is sent: the server's begins later, so that it cannot end first.
        let answered = tokio::time::timeout_at(asked + ttl, ask(&client, id)).await;
        match answered {
            Ok(Ok((at, answer))) => {
                (asked, ttl) = (at, seconds(answer.ttl));
                tell.send_replace(State::Kept(answer));
            }
            Ok(Err(end)) => {
                tell.send_replace(State::Lost(end));
                return;
            }
            Err(_) => {
                tell.send_replace(State::Lost(LeaseEnd::Unconfirmed { id }));
                return;
            }
        }
    }
}

/// Asks until there is an answer, however long that takes; returns when the answered ask was begun.
async fn ask(client: &Client, id: i64) -> Result<(Instant, pb::LeaseKeepAliveResponse), LeaseEnd> {
    loop {
        let begun = Instant::now();
        match client.lease_keep_alive_once(id).await {
            Ok(answer) if answer.ttl > 0 => return Ok((begun, answer)),
            Ok(_) => return Err(LeaseEnd::Gone { id }),
            Err(error) => match error.kind() {
                Kind::LeaseNotFound => return Err(LeaseEnd::Gone { id }),
                Kind::PermissionDenied | Kind::AuthFailed => return Err(LeaseEnd::Refused { id }),
                _ => {
                    tracing::debug!(id, %error, "a lease was not kept alive, asking again");
                    tokio::time::sleep(KEEP_ALIVE_PAUSE_MIN).await;
                }
            },
        }
    }
}

/// A time to live; servers grant at most nine thousand million seconds.
fn seconds(ttl: i64) -> Duration {
    Duration::from_secs(ttl.clamp(0, 9_000_000_000) as u64)
}
