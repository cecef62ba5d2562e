//! A list in pages, all at the revision of the first.

use crate::client::Client;
use crate::error::Error;
use crate::keys::successor;
use crate::kind::Kind;
use crate::limits::PAGE_KEYS;
use crate::ops::{Get, SortOrder, SortTarget};
use mechi_proto::{etcdserverpb as pb, mvccpb};

/// The pages of a list; [`Pages::next`] asks for one.
///
/// Writes between two pages are not seen: every page is read at the revision of the first. If that is compacted in the
/// middle, the list cannot be finished and ends in [`Error::ListCompacted`].
#[must_use = "asks nothing until a page is asked for"]
#[derive(Debug)]
pub struct Pages {
    client: Client,
    get: Get,
    revision: i64,
    is_done: bool,
}

impl Pages {
    pub(crate) fn new(client: Client, mut get: Get) -> Self {
        if get.0.limit <= 0 {
            get.0.limit = PAGE_KEYS;
        }
        let revision = get.0.revision;
        Self { client, get, revision, is_done: false }
    }

    /// Asks for the next page; `None` after the last. A failed page can be asked for again.
    ///
    /// - Errors: [`Error::ListCompacted`]; [`Error::Config`] for a list that is sorted other than by ascending keys or filtered by revisions,
    ///   since pages are told apart by their last key.
    pub async fn next(&mut self) -> Result<Option<pb::RangeResponse>, Error> {
        if self.is_done {
            return Ok(None);
        }
        check(&self.get)?;
        let page = match self.client.get_with(self.get.clone()).await {
            Ok(page) => page,
            Err(error) if error.kind() == Kind::Compacted && self.revision != 0 => {
                return Err(Error::ListCompacted { revision: self.revision });
            }
            Err(error) => return Err(error),
        };
        if self.revision == 0 {
            self.revision = page.header.as_ref().map_or(0, |header| header.revision);
            self.get.0.revision = self.revision;
        }
        match page.kvs.last() {
            Some(last) if page.more => {
                if self.get.0.range_end.is_empty() {
                    // One key has no second page; a server that says so would be asked forever.
                    self.is_done = true;
                }
                self.get.0.key = successor(&last.key);
            }
            _ => self.is_done = true,
        }
        Ok(Some(page))
    }

    /// The revision of the list; 0 before the first page.
    pub fn revision(&self) -> i64 {
        self.revision
    }

    /// Asks for all pages that are left, and puts them together.
    pub async fn all(mut self) -> Result<Vec<mvccpb::KeyValue>, Error> {
        let mut all = Vec::new();
        while let Some(page) = self.next().await? {
            all.extend(page.kvs);
        }
        Ok(all)
    }
}

/// Refuses what cannot be listed in parts: they are told apart by their last key.
pub(crate) fn check(get: &Get) -> Result<(), Error> {
    let get = &get.0;
    let by_key = get.sort_target == SortTarget::Key as i32 && get.sort_order != SortOrder::Descend as i32;
    let filters = [get.min_mod_revision, get.max_mod_revision, get.min_create_revision, get.max_create_revision];
    if by_key && filters == [0; 4] && !get.count_only {
        return Ok(());
    }
    let text = "a list in parts is in ascending order of keys, with neither revision filters nor a mere count";
    Err(Error::Config(text.to_owned()))
}
