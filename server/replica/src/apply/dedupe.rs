//! One window per member: a batch that was sent twice is applied once.

use crate::limits::DEDUPE_WINDOW_MAX;
use crate::outcome::Fatal;
use mechi_proto::mechipb;
use std::collections::{BTreeMap, BTreeSet};

/// Which batches of each member were applied.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Windows(BTreeMap<u64, Window>);

/// Which batches of one member's newest boot were applied: all up to `low`, and those in `above`.
///
/// Invariant: every number in `above` is greater than `low + 1`, and there are at most `DEDUPE_WINDOW_MAX` of them.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Window {
    boot: u64,
    low: u64,
    above: BTreeSet<u64>,
}

impl Windows {
    /// Notes a batch; returns whether it is new and shall be applied.
    ///
    /// - Shape: boots and numbers count up from 1. A higher boot starts a new window; a lower one belongs to a
    ///   process that is gone and is ignored, since nobody waits for it and its numbers are no longer known.
    pub fn admit(&mut self, member: u64, boot: u64, number: u64) -> bool {
        let window = self.0.entry(member).or_default();
        if boot < window.boot {
            return false;
        }
        if boot > window.boot {
            *window = Window { boot, ..Window::default() };
        }
        let is_new = window.admit(number);
        #[cfg(feature = "mutants")]
        let is_new = is_new || crate::mutants::active("batch_applied_twice");
        is_new
    }

    /// The windows in their stored form, by member.
    pub fn to_meta(&self) -> Vec<mechipb::Window> {
        let window = |(&member, window): (&u64, &Window)| mechipb::Window {
            member,
            boot: window.boot,
            low: window.low,
            above: window.above.iter().copied().collect(),
        };
        self.0.iter().map(window).collect()
    }

    /// Reads the stored form; errors: [`Fatal::Bug`] if it breaks the invariant, since it passed its checksum.
    pub fn from_meta(meta: Vec<mechipb::Window>) -> Result<Self, Fatal> {
        let mut windows = BTreeMap::new();
        for mechipb::Window { member, boot, low, above } in meta {
            let above: BTreeSet<u64> = above.into_iter().collect();
            if above.len() > DEDUPE_WINDOW_MAX || above.first().is_some_and(|&first| first <= low.saturating_add(1)) {
                return Err(Fatal::Bug(format!("window of member {member:x} is malformed")));
            }
            if windows.insert(member, Window { boot, low, above }).is_some() {
                return Err(Fatal::Bug(format!("member {member:x} has two windows")));
            }
        }
        Ok(Self(windows))
    }
}

impl Window {
    fn admit(&mut self, number: u64) -> bool {
        if number <= self.low || !self.above.insert(number) {
            return false;
        }
        self.close_gap();
        if self.above.len() > DEDUPE_WINDOW_MAX {
            // The oldest gap closes: what was missing in it can no longer be applied, only refused.
            self.low = self.above.first().expect("more than the bound is not none") - 1;
            self.close_gap();
        }
        true
    }

    fn close_gap(&mut self) {
        while self.above.first() == Some(&(self.low + 1)) {
            self.above.pop_first();
            self.low += 1;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_number_is_admitted_once_in_any_order() {
        let mut windows = Windows::default();
        for number in [1, 3, 2, 7] {
            assert!(windows.admit(9, 1, number), "{number} is new");
        }
        for number in [1, 2, 3, 7] {
            assert!(!windows.admit(9, 1, number), "{number} was seen");
        }
        assert!(windows.admit(8, 1, 1), "another member counts for itself");
        assert_eq!(Windows::from_meta(windows.to_meta()).unwrap(), windows);
    }

    #[test]
    fn a_new_boot_starts_over_and_an_old_one_is_ignored() {
        let mut windows = Windows::default();
        assert!(windows.admit(9, 2, 5));
        assert!(!windows.admit(9, 1, 6));
        assert!(windows.admit(9, 3, 5));
        assert!(!windows.admit(9, 2, 7));
    }

    #[test]
    fn the_oldest_gap_closes_when_the_window_is_full() {
        let mut windows = Windows::default();
        let full = DEDUPE_WINDOW_MAX as u64;
        for number in 0..full {
            assert!(windows.admit(9, 1, number * 2 + 10));
        }
        assert!(windows.admit(9, 1, 2), "below the oldest kept number, and the gap is open");
        assert!(!windows.admit(9, 1, 1), "the gap closed when 2 overfilled the window");
        assert!(windows.admit(9, 1, 11), "later gaps stay open");
        assert_eq!(Windows::from_meta(windows.to_meta()).unwrap(), windows);
    }

    #[test]
    fn a_malformed_window_is_refused() {
        let window = |low, above| mechipb::Window { member: 1, boot: 1, low, above };
        assert!(Windows::from_meta(vec![window(3, vec![4])]).is_err());
        assert!(Windows::from_meta(vec![window(3, vec![0])]).is_err());
        assert!(Windows::from_meta(vec![window(3, vec![]), window(3, vec![])]).is_err());
    }
}
