//! What is left of a paged list, so that a continued page need not count again.

use crate::limits::PAGES_MAX;
use bytes::Bytes;
use mechi_replica::mvcc::Totals;
use parking_lot::Mutex;
use std::collections::{BTreeMap, VecDeque};

/// (revision, next key, range end) to what is left from there; counts at a revision never change.
#[derive(Default)]
pub struct PageCounts(Mutex<Inner>);

type Page = (i64, Bytes, Bytes);

#[derive(Default)]
struct Inner {
    left: BTreeMap<Page, Totals>,
    order: VecDeque<Page>,
}

impl PageCounts {
    /// What the list still holds from `key` on at `revision`, if the page before was served here.
    pub fn get(&self, revision: i64, key: &Bytes, range_end: &Bytes) -> Option<Totals> {
        let inner = self.0.lock();
        if inner.left.is_empty() {
            return None;
        }
        inner.left.get(&(revision, key.clone(), range_end.clone())).copied()
    }

    /// Remembers what is left from `key` on. The keys are copied, so that no request is kept by them.
    pub fn put(&self, revision: i64, key: Bytes, range_end: Bytes, left: Totals) {
        let page = (revision, key, Bytes::copy_from_slice(&range_end));
        let mut inner = self.0.lock();
        if inner.left.insert(page.clone(), left).is_none() {
            inner.order.push_back(page);
        }
        if inner.order.len() > PAGES_MAX
            && let Some(oldest) = inner.order.pop_front()
        {
            inner.left.remove(&oldest);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn forgets_the_oldest_page_at_its_bound() {
        let pages = PageCounts::default();
        let end = Bytes::from_static(b"z");
        let key = |n: usize| Bytes::from(format!("k{n}"));
        for n in 0..=PAGES_MAX {
            pages.put(7, key(n), end.clone(), Totals { keys: n as u64, framed_bytes: 0 });
        }
        assert_eq!(pages.get(7, &key(0), &end), None);
        assert_eq!(pages.get(7, &key(1), &end).map(|totals| totals.keys), Some(1));
        assert_eq!(pages.get(8, &key(1), &end), None, "another revision is another list");
    }
}
