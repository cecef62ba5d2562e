//! Keeps a copy of the store up to date: lists, watches, lists again, over any number of lost connections.

use crate::limits::{BATCHES_MAX, QUIET_MAX, READ_RETRY};
use crate::metrics::Metrics;
use mechi_controller::cache::{Ask, Feed, Mirror};
use mechi_controller::keys::{ROOT, prefix_end};
use mechi_controller::kv::{Batch, Error, Kv, Page, Range, Watch as _};
use std::future::Future;
use std::pin::pin;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep_until};

/// A copy, and whatever fills it.
pub(crate) struct Follower<K: Kv, M: Mirror> {
    kv: K,
    feed: Feed<M>,
    /// The copy.
    pub(crate) copy: M,
    reading: Reading<K>,
    rest_until: Instant,
    heard_at: Instant,
    /// The store does not answer; it is said once.
    is_lost: bool,
    name: &'static str,
    metrics: Arc<Metrics>,
}

enum Reading<K: Kv> {
    Nothing,
    Asked(JoinHandle<Answer<K>>),
    Watching(K::Watch),
}

enum Answer<K: Kv> {
    Page(Result<Page, Error>),
    Watch(Result<K::Watch, Error>),
}

/// What is new in the copy.
pub(crate) struct Heard<C> {
    pub(crate) changes: C,
    /// Everything was listed: what did not change may still have to be looked at.
    pub(crate) is_list: bool,
}

impl<K: Kv, M: Mirror + Default> Follower<K, M> {
    /// An empty copy, under a name for metrics.
    pub(crate) fn new(kv: K, name: &'static str, metrics: Arc<Metrics>) -> Self {
        let now = Instant::now();
        let (feed, copy) = (Feed::default(), M::default());
        let reading = Reading::Nothing;
        Self { kv, feed, copy, reading, rest_until: now, heard_at: now, is_lost: false, name, metrics }
    }

    /// Whether the copy is whole.
    pub(crate) fn is_watching(&self) -> bool {
        self.feed.is_watching()
    }

    /// Lists everything again, and forgets what it has asked for.
    pub(crate) fn relist(&mut self, cause: &str) {
        self.metrics.add("mechi_control_relists_total", &[("copy", self.name), ("cause", cause)], 1.0);
        self.stop_reading();
        self.feed.relist();
    }

    /// An answer that is still to come is to a question that is no longer asked.
    fn stop_reading(&mut self) {
        if let Reading::Asked(asked) = std::mem::replace(&mut self.reading, Reading::Nothing) {
            asked.abort();
        }
    }

    /// Waits for what is new. May be given up and called again.
    pub(crate) async fn next(&mut self) -> Heard<M::Changes> {
        loop {
            match &mut self.reading {
                Reading::Nothing => {
                    sleep_until(self.rest_until).await;
                    self.reading = Reading::Asked(self.ask());
                }
                Reading::Asked(asked) => {
                    let answer = asked.await;
                    self.reading = Reading::Nothing;
                    match answer {
                        Ok(Answer::Page(page)) => {
                            if let Some(changes) = self.listed(page) {
                                return Heard { changes, is_list: true };
                            }
                        }
                        Ok(Answer::Watch(Ok(watch))) => {
                            self.reading = Reading::Watching(watch);
                            self.heard_at = Instant::now();
                        }
                        Ok(Answer::Watch(Err(error))) => self.failed(error),
                        Err(ended) => self.failed(Error::Unavailable(ended.to_string())),
                    }
                }
                Reading::Watching(watch) => {
                    let batch = tokio::select! {
                        biased;
                        batch = watch.next() => batch,
                        () = sleep_until(self.heard_at + QUIET_MAX) => {
                            self.probe().await;
                            continue;
                        }
                    };
                    if let Some(changes) = self.heard(batch) {
                        return Heard { changes, is_list: false };
                    }
                }
            }
        }
    }

    /// What is new already, without waiting; `None` once there is nothing more.
    pub(crate) fn more(&mut self, taken: usize) -> Option<M::Changes> {
        let Reading::Watching(watch) = &mut self.reading else { return None };
        if taken >= BATCHES_MAX {
            return None;
        }
        let polled = {
            let next = pin!(watch.next());
            next.poll(&mut Context::from_waker(Waker::noop()))
        };
        match polled {
            Poll::Ready(batch) => self.heard(batch),
            Poll::Pending => None,
        }
    }

    fn ask(&self) -> JoinHandle<Answer<K>> {
        let (kv, ask) = (self.kv.clone(), self.feed.ask(&self.copy));
        tokio::spawn(async move {
            match ask {
                Ask::List(range) => Answer::Page(kv.range(range).await),
                Ask::Watch(from) => Answer::Watch(kv.watch(ROOT.into(), prefix_end(ROOT).into(), from).await),
            }
        })
    }

    fn listed(&mut self, page: Result<Page, Error>) -> Option<M::Changes> {
        let is_refused = matches!(page, Err(Error::Refused(_)));
        match self.feed.listed(&mut self.copy, page) {
            Ok(changes) => {
                self.found();
                changes
            }
            Err(error) => {
                if is_refused {
                    // The same page would be refused again.
                    self.relist("refused");
                }
                self.failed(error);
                None
            }
        }
    }

    fn heard(&mut self, batch: Result<Batch, Error>) -> Option<M::Changes> {
        self.heard_at = Instant::now();
        match self.feed.heard(&mut self.copy, batch) {
            Ok(changes) => {
                self.found();
                Some(changes)
            }
            Err(error) => {
                self.reading = Reading::Nothing;
                self.failed(error);
                None
            }
        }
    }

    fn failed(&mut self, error: Error) {
        if let Error::Compacted(revision) = error {
            self.metrics.add("mechi_control_relists_total", &[("copy", self.name), ("cause", "compacted")], 1.0);
            tracing::info!(copy = self.name, revision, "history is compacted, everything is listed again");
        } else if !self.is_lost {
            self.is_lost = true;
            tracing::warn!(copy = self.name, %error, "the store does not answer");
        }
        self.rest_until = Instant::now() + READ_RETRY;
    }

    fn found(&mut self) {
        if std::mem::take(&mut self.is_lost) {
            tracing::info!(copy = self.name, "the store answers again");
        }
    }

    /// Asks whether the store is still the one that was copied: one that was put in its place tells a watch nothing.
    async fn probe(&mut self) {
        let range = Range { key: ROOT.into(), end: prefix_end(ROOT).into(), limit: 1, revision: 0 };
        let answer = self.kv.range(range).await;
        self.heard_at = Instant::now();
        if answer.is_ok_and(|page| page.cluster_id != self.copy.cluster_id()) {
            tracing::warn!(copy = self.name, "another cluster answers, everything is listed again");
            self.relist("cluster");
        }
    }
}

impl<K: Kv, M: Mirror> Drop for Follower<K, M> {
    fn drop(&mut self) {
        if let Reading::Asked(asked) = &self.reading {
            asked.abort();
        }
    }
}
