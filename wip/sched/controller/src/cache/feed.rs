//! How a copy is filled and kept up to date: what to ask the store next, and what to make of its answer.
//!
//! ```text
//!   List ──page──▶ List ──last page──▶ Watch ──events──▶ Watch
//!    ▲  compacted: twice the page        │ stream broke: Watch from where it was
//!    └──────────── compacted, or another cluster ────────┘
//! ```
//!
//! It does nothing itself, so that a simulator can do anything in its place.

use crate::keys::{ROOT, prefix_end};
use crate::kv::{Batch, Error, KeyValue, Page, Range, Revision};
use crate::limits::{LIST_PAGE, LIST_PAGE_MAX};
use bytes::Bytes;

/// A copy of the store, of whatever it keeps of it.
pub trait Mirror {
    /// What was listed so far, beside the copy that is in use.
    type Staged: Default;

    /// What an update says.
    type Changes;

    /// The revision that it is a copy of.
    fn at(&self) -> Revision;

    /// Which cluster it is a copy of; 0 before the first list.
    fn cluster_id(&self) -> u64;

    /// Takes a page of a list aside.
    fn stage(&self, staged: &mut Self::Staged, cluster_id: u64, page: Vec<KeyValue>);

    /// Takes what was listed for everything there is at a revision, in one step.
    fn replace(&mut self, staged: Self::Staged, cluster_id: u64, at: Revision) -> Self::Changes;

    /// Takes what a watch told; what is known already is ignored.
    fn apply(&mut self, batch: Batch) -> Self::Changes;
}

/// What the store is to be asked next.
#[derive(Clone, Debug)]
pub enum Ask {
    /// A page.
    List(Range),
    /// Changes from a revision on.
    Watch(Revision),
}

/// Where the feed is.
pub struct Feed<M: Mirror> {
    state: State<M::Staged>,
    page: usize,
    /// No list may be older than what was seen.
    seen: Revision,
    relists: u64,
}

enum State<S> {
    /// Pages that came so far, all of one revision; the next one begins behind `last`.
    Listing {
        staged: S,
        last: Option<Bytes>,
        revision: Revision,
        cluster_id: u64,
    },
    Watching,
}

impl<M: Mirror> Default for Feed<M> {
    fn default() -> Self {
        Self { state: Self::nothing_listed(), page: LIST_PAGE, seen: 0, relists: 0 }
    }
}

impl<M: Mirror> Feed<M> {
    fn nothing_listed() -> State<M::Staged> {
        State::Listing { staged: M::Staged::default(), last: None, revision: 0, cluster_id: 0 }
    }

    /// Whether the copy is whole.
    pub fn is_watching(&self) -> bool {
        matches!(self.state, State::Watching)
    }

    /// How often everything was listed again.
    pub fn relists(&self) -> u64 {
        self.relists
    }

    /// Drops what was listed and lists again: after an election was won, so that nothing older than that is acted on.
    pub fn relist(&mut self) {
        self.relists += 1;
        self.state = Self::nothing_listed();
    }

    /// What the store is to be asked next.
    pub fn ask(&self, copy: &M) -> Ask {
        match &self.state {
            State::Watching => Ask::Watch(copy.at() + 1),
            State::Listing { last, revision, .. } => {
                let key = match last {
                    Some(last) => [&last[..], &[0]].concat().into(),
                    None => Bytes::from_static(ROOT.as_bytes()),
                };
                Ask::List(Range { key, end: prefix_end(ROOT).into(), limit: self.page, revision: *revision })
            }
        }
    }

    /// Takes a page, or why there is none. Returns what changed once the last one is there.
    ///
    /// - Errors: those after which to ask again later; what was listed so far is kept if it can be.
    pub fn listed(&mut self, copy: &mut M, page: Result<Page, Error>) -> Result<Option<M::Changes>, Error> {
        let page = match page {
            Ok(page) => page,
            Err(error @ Error::Compacted(_)) => {
                // Larger pages are done sooner.
                self.page = (self.page * 2).min(LIST_PAGE_MAX);
                self.relist();
                return Err(error);
            }
            Err(error) => return Err(error),
        };
        let State::Listing { staged, last, revision, cluster_id } = &mut self.state else {
            return Ok(None);
        };
        if *revision == 0 {
            if page.cluster_id == copy.cluster_id() && page.revision < self.seen {
                return Err(Error::Unavailable(format!(
                    "the member is at {}, and {} was seen",
                    page.revision, self.seen
                )));
            }
            (*revision, *cluster_id) = (page.revision, page.cluster_id);
        } else if page.cluster_id != *cluster_id {
            self.relist();
            return Err(Error::Unavailable("another cluster answers".to_owned()));
        }
        *last = page.items.last().map(|item| item.key.clone());
        copy.stage(staged, *cluster_id, page.items);
        if page.more {
            return Ok(None);
        }
        let (staged, revision, cluster_id) = (std::mem::take(staged), *revision, *cluster_id);
        self.state = State::Watching;
        self.page = LIST_PAGE;
        self.seen = revision;
        Ok(Some(copy.replace(staged, cluster_id, revision)))
    }

    /// Takes what a watch told, or why it is over. Returns what changed.
    ///
    /// - Errors: those after which to ask again; only after [`Error::Compacted`] everything is listed anew.
    pub fn heard(&mut self, copy: &mut M, batch: Result<Batch, Error>) -> Result<M::Changes, Error> {
        match batch {
            Ok(batch) => {
                let changes = copy.apply(batch);
                self.seen = self.seen.max(copy.at());
                Ok(changes)
            }
            Err(error) => {
                if matches!(error, Error::Compacted(_)) {
                    self.relist();
                }
                Err(error)
            }
        }
    }
}
