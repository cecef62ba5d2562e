//! The store's twin in memory: a sorted map with the same answers, for tests and the simulator.

use super::{Batch, Store};
use crate::outcome::Fatal;
use bytes::Bytes;
use std::cell::RefCell;
use std::collections::BTreeMap;
use std::ops::Bound::{Excluded, Included};

/// A store in memory. A clone is a copy: what a crash leaves behind can be kept and compared.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct MemStore(RefCell<BTreeMap<Vec<u8>, Bytes>>);

impl Store for MemStore {
    fn get(&self, key: &[u8]) -> Result<Option<Bytes>, Fatal> {
        Ok(self.0.borrow().get(key).cloned())
    }

    fn last(&self, from: &[u8], to: &[u8]) -> Result<Option<(Bytes, Bytes)>, Fatal> {
        if from > to {
            return Ok(None);
        }
        let map = self.0.borrow();
        let last = map.range::<[u8], _>((Included(from), Included(to))).next_back();
        Ok(last.map(|(key, value)| (Bytes::copy_from_slice(key), value.clone())))
    }

    fn scan(&self, from: &[u8], to: &[u8], visit: &mut dyn FnMut(&[u8], &[u8]) -> bool) -> Result<(), Fatal> {
        if from < to {
            for (key, value) in self.0.borrow().range::<[u8], _>((Included(from), Excluded(to))) {
                if !visit(key, value) {
                    break;
                }
            }
        }
        Ok(())
    }

    fn commit(&self, batch: Batch) -> Result<(), Fatal> {
        let mut map = self.0.borrow_mut();
        for key in batch.removes {
            map.remove(&key);
        }
        for (key, value) in batch.puts {
            map.insert(key, value.into());
        }
        Ok(())
    }
}
