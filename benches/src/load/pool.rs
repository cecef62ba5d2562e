//! The connections of one run, and the thread that they all live on.

use super::calls::{Calls, Listener};
use super::connection::Method;
use anyhow::{Context, Result};
use std::future::{Future, poll_fn};
use std::rc::Rc;
use std::time::Instant;
use tokio::sync::Notify;
use tokio::task::{JoinSet, LocalSet};

/// The connections of a run, each driven by a task that ends only with an error.
pub struct Pool {
    /// The connections.
    pub connections: Vec<Rc<Calls>>,
    tasks: JoinSet<Result<()>>,
}

impl Pool {
    /// Opens connections, spread evenly over `endpoints`.
    pub async fn open<L: Listener + 'static>(
        endpoints: &[String],
        connections: usize,
        method: Method,
        listener: impl Fn() -> L,
    ) -> Result<Self> {
        let mut pool = Self { connections: Vec::new(), tasks: JoinSet::new() };
        for n in 0..connections {
            let endpoint = &endpoints[n % endpoints.len()];
            let connection = Rc::new(Calls::open(endpoint, method).await?);
            pool.connections.push(connection.clone());
            let (mut listener, to) = (listener(), endpoint.clone());
            pool.tasks.spawn_local(async move {
                let ran = poll_fn(|cx| connection.poll(cx, &mut listener)).await;
                ran.with_context(|| format!("{method:?} to {to}"))
            });
        }
        Ok(pool)
    }

    /// Sends what was begun on all of them.
    pub fn flush(&self) -> Result<()> {
        self.connections.iter().try_for_each(|connection| connection.flush())
    }

    /// How many calls have not ended.
    pub fn under_way(&self) -> usize {
        self.connections.iter().map(|connection| connection.under_way()).sum()
    }

    /// Waits for a connection to fail.
    pub async fn failed(&mut self) -> Result<()> {
        self.tasks.join_next().await.context("there is a connection")??
    }

    /// Waits until a point of time; a connection that fails ends the wait at once.
    pub async fn until(&mut self, deadline: Instant) -> Result<()> {
        tokio::select! {
            biased;
            () = tokio::time::sleep_until(deadline.into()) => Ok(()),
            failed = self.failed() => failed,
        }
    }

    /// Waits until a condition holds, and looks again after each `changed`; a connection that fails ends the wait.
    pub async fn wait_for(&mut self, changed: &Notify, holds: impl Fn(&Self) -> bool) -> Result<()> {
        while !holds(self) {
            tokio::select! {
                biased;
                failed = self.failed() => failed,
                () = changed.notified() => Ok(()),
            }?;
        }
        Ok(())
    }
}

/// Runs a future and its local tasks on this thread until it is done.
pub fn on_this_thread<T>(future: impl Future<Output = Result<T>>) -> Result<T> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let local = LocalSet::new();
    local.block_on(&runtime, future)
}
