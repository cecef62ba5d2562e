//! Do all members hold the same? Their chain digests, index by index, and what follows from a difference.
//!
//! Each member tells the others its digest at every 1,024th index. The chain covers all that was applied before, so one
//! that differs once differs from then on, and it is enough to compare the newest indexes.

use crate::conf::Configuration;
use crate::limits::{DIGEST_EVERY, DIGESTS_KEPT_MAX};
use crate::types::{Index, MemberId};
use std::collections::{BTreeMap, BTreeSet};

/// What a comparison found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Verdict {
    /// A majority of the voters agrees on another digest than this member's: this member is wrong. While the configuration
    /// is joint, a majority of both its halves.
    Diverged {
        /// Where.
        index: Index,
    },
    /// Voters differ and no majority of them can agree: nobody can say who is wrong.
    Split {
        /// Where.
        index: Index,
    },
}

/// The newest digests of all members.
pub(crate) struct Agreement {
    member: MemberId,
    conf: Configuration,
    /// By member, then by index; at most `DIGESTS_KEPT_MAX` of each.
    digests: BTreeMap<MemberId, BTreeMap<Index, u64>>,
    /// The newest index with a verdict: older ones have nothing to add, and a verdict is given once.
    judged: Index,
    /// Where voters were first seen to differ, if no majority has spoken since.
    suspect: Option<Index>,
}

impl Agreement {
    /// Starts without digests.
    pub(crate) fn new(member: MemberId, conf: Configuration) -> Self {
        Self { member, conf, digests: BTreeMap::new(), judged: 0, suspect: None }
    }

    /// Takes note of another configuration.
    pub(crate) fn configure(&mut self, conf: Configuration) {
        self.conf = conf;
        let (member, members) = (self.member, self.conf.members().collect::<BTreeSet<_>>());
        self.digests.retain(|known, _| *known == member || members.contains(known));
    }

    /// Whom to tell this member's digests.
    pub(crate) fn others(&self) -> impl Iterator<Item = MemberId> {
        self.conf.members().filter(|other| *other != self.member)
    }

    /// Takes this member's own digest.
    pub(crate) fn applied(&mut self, index: Index, chain: u64) -> Option<Verdict> {
        self.keep(self.member, index, chain)
    }

    /// Takes another member's digest; a stranger's is ignored.
    pub(crate) fn told(&mut self, from: MemberId, index: Index, chain: u64) -> Option<Verdict> {
        let known = self.others().any(|other| other == from);
        if known { self.keep(from, index, chain) } else { None }
    }

    fn keep(&mut self, member: MemberId, index: Index, chain: u64) -> Option<Verdict> {
        let kept = self.digests.entry(member).or_default();
        kept.insert(index, chain);
        if kept.len() > DIGESTS_KEPT_MAX {
            kept.pop_first();
        }
        self.compare(index)
    }

    fn digest(&self, member: MemberId, index: Index) -> Option<u64> {
        self.digests.get(&member)?.get(&index).copied()
    }

    fn compare(&mut self, index: Index) -> Option<Verdict> {
        let own = self.digest(self.member, index)?;
        if index <= self.judged {
            return None;
        }
        let told: BTreeSet<u64> = self.conf.all_voters().filter_map(|voter| self.digest(voter, index)).collect();
        let agreed = |chain: &u64| self.conf.has_quorum(|voter| self.digest(voter, index) == Some(*chain));
        let possible =
            |chain: &u64| self.conf.has_quorum(|voter| self.digest(voter, index).is_none_or(|d| d == *chain));
        let verdict = if let Some(chain) = told.iter().find(|chain| agreed(chain)) {
            self.suspect = None;
            if *chain == own {
                return None;
            }
            Verdict::Diverged { index }
        } else if told.len() < 2 {
            return None;
        } else if !told.iter().any(possible) || self.waited_long(index) {
            Verdict::Split { index }
        } else {
            return None;
        };
        self.judged = index;
        Some(verdict)
    }

    /// Tells whether voters have differed for so long that one which is silent will not settle it: it may be away for
    /// days, and the others must not build on what is wrong on one of them.
    fn waited_long(&mut self, index: Index) -> bool {
        let since = *self.suspect.get_or_insert(index);
        index >= since + DIGESTS_KEPT_MAX as u64 * DIGEST_EVERY
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::conf::Step;

    fn agreement(voters: u64) -> Agreement {
        let mut conf = Configuration::founding((1..=voters).map(MemberId));
        conf.learners.insert(MemberId(99));
        Agreement::new(MemberId(1), conf)
    }

    #[test]
    fn equal_digests_have_no_verdict() {
        let mut agreement = agreement(3);
        assert_eq!(agreement.applied(1024, 7), None);
        assert_eq!(agreement.told(MemberId(2), 1024, 7), None);
        assert_eq!(agreement.told(MemberId(3), 1024, 7), None);
        assert_eq!(agreement.others().collect::<Vec<_>>(), [MemberId(2), MemberId(3), MemberId(99)]);
    }

    #[test]
    fn who_differs_from_an_agreeing_majority_is_wrong_and_hears_it_once() {
        let mut agreement = agreement(3);
        assert_eq!(agreement.told(MemberId(2), 1024, 8), None);
        assert_eq!(agreement.applied(1024, 7), None, "one against one: the third decides");
        assert_eq!(agreement.told(MemberId(99), 1024, 8), None, "a learner has no voice");
        assert_eq!(agreement.told(MemberId(55), 1024, 8), None, "nor has a stranger");
        assert_eq!(agreement.told(MemberId(3), 1024, 8), Some(Verdict::Diverged { index: 1024 }));
        assert_eq!(agreement.told(MemberId(3), 1024, 8), None);
    }

    #[test]
    fn a_joint_configuration_wants_both_majorities_and_a_learner_has_lost_its_voice() {
        let mut agreement = agreement(3);
        let swap = [Step::Promote(MemberId(99)), Step::Demote(MemberId(3))];
        let joint = agreement.conf.after(&swap).unwrap();
        agreement.configure(joint.clone());
        agreement.applied(1024, 7);
        assert_eq!(agreement.told(MemberId(2), 1024, 8), None);
        assert_eq!(agreement.told(MemberId(3), 1024, 8), None, "two of three before, one of three after");
        assert_eq!(agreement.told(MemberId(99), 1024, 8), Some(Verdict::Diverged { index: 1024 }));
        agreement.configure(joint.after(&[]).unwrap());
        agreement.applied(2048, 7);
        assert_eq!(agreement.told(MemberId(3), 2048, 8), None);
        assert_eq!(agreement.told(MemberId(2), 2048, 8), None, "3 is no voter any more");
        assert_eq!(agreement.told(MemberId(99), 2048, 8), Some(Verdict::Diverged { index: 2048 }));
    }

    #[test]
    fn who_is_in_the_majority_leaves_the_other_to_itself() {
        let mut agreement = agreement(3);
        agreement.applied(1024, 7);
        assert_eq!(agreement.told(MemberId(2), 1024, 7), None);
        assert_eq!(agreement.told(MemberId(3), 1024, 8), None);
    }

    #[test]
    fn a_split_without_a_possible_majority_is_told() {
        let mut two = agreement(2);
        two.applied(1024, 7);
        assert_eq!(two.told(MemberId(2), 1024, 8), Some(Verdict::Split { index: 1024 }));
        let mut three = agreement(3);
        three.applied(1024, 7);
        assert_eq!(three.told(MemberId(2), 1024, 8), None);
        assert_eq!(three.told(MemberId(3), 1024, 9), Some(Verdict::Split { index: 1024 }));
    }

    #[test]
    fn a_third_that_stays_away_does_not_hide_a_difference_for_ever() {
        let mut agreement = agreement(3);
        let last = DIGESTS_KEPT_MAX as u64 + 1;
        for number in 1..last {
            assert_eq!(agreement.told(MemberId(2), number * 1024, number), None);
            assert_eq!(agreement.applied(number * 1024, number + 100), None);
        }
        agreement.applied(last * 1024, 1);
        assert_eq!(agreement.told(MemberId(2), last * 1024, 2), Some(Verdict::Split { index: last * 1024 }));
    }

    #[test]
    fn a_third_that_is_away_from_members_that_agree_is_no_difference() {
        let mut agreement = agreement(3);
        for number in 1..=3 * DIGESTS_KEPT_MAX as u64 {
            assert_eq!(agreement.told(MemberId(2), number * 1024, number), None);
            assert_eq!(agreement.applied(number * 1024, number), None);
        }
        assert!(agreement.digests.values().all(|kept| kept.len() <= DIGESTS_KEPT_MAX));
    }

    #[test]
    fn a_member_that_lags_compares_with_what_others_told_before() {
        let mut agreement = agreement(3);
        for number in 1..=4 {
            agreement.told(MemberId(2), number * 1024, number);
            agreement.told(MemberId(3), number * 1024, number);
        }
        assert_eq!(agreement.applied(1024, 1), None);
        assert_eq!(agreement.applied(2048, 9), Some(Verdict::Diverged { index: 2048 }));
    }
}
