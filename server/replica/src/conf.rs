//! The cluster's configuration: who votes, who only learns, and how one change leads to the next.
//!
//! It is replicated state: a change is an entry of the log and counts from its application on. One step is done at once,
//! since the majorities before and after it have a member in common. Several steps go through a *joint* configuration,
//! in which every decision needs a majority of the voters before and one of those after; the leader ends it by itself.

use crate::effect::{Entry, EntryKind};
use crate::outcome::{Error, Fatal};
use crate::types::{Index, MemberId};
use bytes::Bytes;
use mechi_proto::mechipb;
use prost::Message;
use std::collections::BTreeSet;

/// Who takes part, and how.
///
/// Nobody is both a voter and a learner. `learners_next` are among `outgoing`, and both are empty unless it is joint.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Configuration {
    /// The voters; of a joint configuration those that stay or come.
    pub voters: BTreeSet<MemberId>,
    /// The voters before, while it is joint.
    pub outgoing: BTreeSet<MemberId>,
    /// They hold what all hold, and are never counted.
    pub learners: BTreeSet<MemberId>,
    /// Voters that will be learners once it is no longer joint.
    pub learners_next: BTreeSet<MemberId>,
}

/// What a change does with one member.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Step {
    /// A learner becomes a voter.
    Promote(MemberId),
    /// A voter becomes a learner.
    Demote(MemberId),
}

/// Who waits for a change: the member that proposed it, its boot counter, and the shell's id for it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Author {
    /// The leader that proposed it.
    pub member: u64,
    /// Its boot counter.
    pub boot: u64,
    /// The shell's id, of the same kind as a command's.
    pub id: u64,
}

/// A change as an entry holds it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Move {
    /// Who waits for it; nobody for the end of a joint configuration.
    pub author: Author,
    /// What it does; nothing: it ends a joint configuration.
    pub steps: Vec<Step>,
}

/// A change that was applied and took effect.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Moved {
    /// Its entry.
    pub index: Index,
    /// What it did; nothing: it ended a joint configuration.
    pub steps: Vec<Step>,
    /// The configuration from here on.
    pub now: Configuration,
}

impl Step {
    /// Whom it concerns.
    pub fn member(self) -> MemberId {
        match self {
            Self::Promote(member) | Self::Demote(member) => member,
        }
    }
}

impl Move {
    /// The data of the entry that holds it; `wall_ms` is its leader's wall clock, for people.
    pub fn encode(&self, wall_ms: i64) -> Bytes {
        let Author { member, boot, id } = self.author;
        let context = mechipb::MoveContext { member, boot, id, wall_ms };
        crate::raft::encode_change(&self.steps, context.encode_to_vec())
    }

    /// Reads the change that an entry holds; `None` if it holds none.
    ///
    /// - Errors: [`Fatal::Bug`] if it is none that this version knows: a member that cannot apply an entry must stop.
    pub fn decode(entry: &Entry) -> Result<Option<Self>, Fatal> {
        let unknown = || Fatal::Bug(format!("entry {} holds a membership change unknown to this version", entry.index));
        match entry.kind {
            EntryKind::Normal => Ok(None),
            // Nothing in Mechi makes such entries.
            EntryKind::ConfChange => Err(unknown()),
            EntryKind::ConfChangeV2 => {
                let (steps, context) = crate::raft::decode_change(&entry.data).ok_or_else(unknown)?;
                let context = mechipb::MoveContext::decode(&context[..]).map_err(|_| unknown())?;
                let author = Author { member: context.member, boot: context.boot, id: context.id };
                Ok(Some(Self { author, steps }))
            }
        }
    }
}

impl Configuration {
    /// The configuration in which a cluster begins.
    pub fn founding(voters: impl IntoIterator<Item = MemberId>) -> Self {
        Self { voters: voters.into_iter().collect(), ..Self::default() }
    }

    /// Tells whether nobody has founded the cluster yet.
    pub fn is_empty(&self) -> bool {
        self.voters.is_empty()
    }

    /// Tells whether decisions need a majority before and one after.
    pub fn is_joint(&self) -> bool {
        !self.outgoing.is_empty()
    }

    /// Tells whether `member` votes, before or after.
    pub fn is_voter(&self, member: MemberId) -> bool {
        self.voters.contains(&member) || self.outgoing.contains(&member)
    }

    /// Tells whether `member` decides everything by itself.
    pub fn decides_alone(&self, member: MemberId) -> bool {
        self.all_voters().eq([member])
    }

    /// All that vote, before or after.
    pub fn all_voters(&self) -> impl Iterator<Item = MemberId> {
        self.voters.union(&self.outgoing).copied()
    }

    /// Everyone.
    pub fn members(&self) -> impl Iterator<Item = MemberId> {
        let all: BTreeSet<MemberId> = self.all_voters().chain(self.learners.iter().copied()).collect();
        all.into_iter()
    }

    /// Tells whether those for whom `agrees` holds can decide: a majority of the voters, of both sets if it is joint.
    pub fn has_quorum(&self, agrees: impl Fn(MemberId) -> bool) -> bool {
        let majority = |set: &BTreeSet<MemberId>| 2 * set.iter().filter(|member| agrees(**member)).count() > set.len();
        majority(&self.voters) && (!self.is_joint() || majority(&self.outgoing))
    }

    /// The configuration after a change; nothing to do ends a joint one.
    ///
    /// - Errors: in etcd's words, equal on every member: `UnhealthyCluster` while it is joint, or if it is to end and is
    ///   not; `MemberNotFound` for a stranger, who is named twice, or who should lose a vote that it does not have;
    ///   `MemberNotLearner` for the promotion of a voter; `NotEnoughStartedMembers` if no voter would be left.
    pub fn after(&self, steps: &[Step]) -> Result<Self, Error> {
        let mut after = self.clone();
        if self.is_joint() != steps.is_empty() {
            return Err(Error::UnhealthyCluster);
        }
        if steps.is_empty() {
            after.outgoing.clear();
            after.learners.append(&mut after.learners_next);
            return Ok(after);
        }
        let mut named = BTreeSet::new();
        for step in steps {
            let member = step.member();
            let (votes, learns) = (self.voters.contains(&member), self.learners.contains(&member));
            if !named.insert(member) || !votes && !learns {
                return Err(Error::MemberNotFound);
            }
            match step {
                Step::Promote(_) if votes => return Err(Error::MemberNotLearner),
                Step::Demote(_) if learns => return Err(Error::MemberNotFound),
                Step::Promote(_) => {
                    after.learners.remove(&member);
                    after.voters.insert(member);
                }
                Step::Demote(_) => {
                    after.voters.remove(&member);
                    // Who still votes for the time before cannot learn yet.
                    let learners = if steps.len() > 1 { &mut after.learners_next } else { &mut after.learners };
                    learners.insert(member);
                }
            }
        }
        if after.voters.is_empty() {
            return Err(Error::NotEnoughStartedMembers);
        }
        if steps.len() > 1 {
            after.outgoing.clone_from(&self.voters);
        }
        Ok(after)
    }

    /// Its stored form, equal for equal configurations.
    pub fn to_meta(&self) -> mechipb::ConfState {
        let ids = |set: &BTreeSet<MemberId>| set.iter().map(|member| member.0).collect();
        mechipb::ConfState {
            voters: ids(&self.voters),
            learners: ids(&self.learners),
            voters_outgoing: ids(&self.outgoing),
            learners_next: ids(&self.learners_next),
            auto_leave: self.is_joint(),
        }
    }

    /// Reads the stored form; errors: [`Fatal::Bug`] if it is none, since it passed its checksum.
    pub fn from_meta(meta: &mechipb::ConfState) -> Result<Self, Fatal> {
        let set = |ids: &[u64]| ids.iter().copied().map(MemberId).collect();
        let conf = Self {
            voters: set(&meta.voters),
            outgoing: set(&meta.voters_outgoing),
            learners: set(&meta.learners),
            learners_next: set(&meta.learners_next),
        };
        let learns_only = conf.learners.iter().all(|learner| !conf.is_voter(*learner));
        let leaves = conf.learners_next.is_subset(&conf.outgoing) && conf.learners_next.is_disjoint(&conf.voters);
        if learns_only && leaves && meta.auto_leave == conf.is_joint() {
            return Ok(conf);
        }
        Err(Fatal::Bug(format!("{meta:?} is no configuration")))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use Step::{Demote, Promote};

    fn set(ids: &[u64]) -> BTreeSet<MemberId> {
        ids.iter().copied().map(MemberId).collect()
    }

    fn conf(voters: &[u64], learners: &[u64]) -> Configuration {
        Configuration { voters: set(voters), learners: set(learners), ..Configuration::default() }
    }

    fn quorum(conf: &Configuration, members: &[u64]) -> bool {
        conf.has_quorum(|member| members.contains(&member.0))
    }

    #[test]
    fn one_step_is_done_at_once_and_learners_are_not_counted() {
        let demoted = conf(&[1, 2, 3], &[]).after(&[Demote(MemberId(3))]).unwrap();
        assert_eq!(demoted, conf(&[1, 2], &[3]));
        assert!(!quorum(&demoted, &[1, 3]) && quorum(&demoted, &[1, 2]));
        assert_eq!(demoted.after(&[Promote(MemberId(3))]).unwrap(), conf(&[1, 2, 3], &[]));
    }

    #[test]
    fn several_steps_need_both_majorities_until_they_end() {
        let swap = [Promote(MemberId(3)), Demote(MemberId(1))];
        let joint = conf(&[1, 2], &[3]).after(&swap).unwrap();
        assert_eq!((&joint.voters, &joint.outgoing), (&set(&[2, 3]), &set(&[1, 2])));
        assert_eq!((&joint.learners, &joint.learners_next), (&set(&[]), &set(&[1])));
        assert!(quorum(&joint, &[1, 2, 3]) && !quorum(&joint, &[2, 3]) && !quorum(&joint, &[1, 2]));
        assert_eq!(joint.members().collect::<BTreeSet<_>>(), set(&[1, 2, 3]));
        assert_eq!(joint.after(&swap), Err(Error::UnhealthyCluster));
        let left = joint.after(&[]).unwrap();
        assert_eq!(left, conf(&[2, 3], &[1]));
        assert_eq!(left.after(&[]), Err(Error::UnhealthyCluster));
    }

    #[test]
    fn what_makes_no_sense_is_refused() {
        let two = conf(&[1, 2], &[3]);
        for (steps, why) in [
            (&[Promote(MemberId(9))][..], Error::MemberNotFound),
            (&[Demote(MemberId(3))], Error::MemberNotFound),
            (&[Promote(MemberId(3)), Demote(MemberId(3))], Error::MemberNotFound),
            (&[Promote(MemberId(2))], Error::MemberNotLearner),
            (&[Demote(MemberId(1)), Demote(MemberId(2))], Error::NotEnoughStartedMembers),
        ] {
            assert_eq!(two.after(steps), Err(why), "{steps:?}");
        }
        assert_eq!(conf(&[1], &[]).after(&[Demote(MemberId(1))]), Err(Error::NotEnoughStartedMembers));
    }

    #[test]
    fn the_stored_form_comes_back_and_nonsense_is_found() {
        let joint = conf(&[1, 2], &[3]).after(&[Promote(MemberId(3)), Demote(MemberId(1))]).unwrap();
        for conf in [joint.clone(), conf(&[1, 2], &[3]), Configuration::default()] {
            assert_eq!(Configuration::from_meta(&conf.to_meta()).unwrap(), conf);
        }
        let both = mechipb::ConfState { voters: vec![1], learners: vec![1], ..Default::default() };
        let never = mechipb::ConfState { auto_leave: false, ..joint.to_meta() };
        let nobody = mechipb::ConfState { learners_next: vec![4], ..Default::default() };
        for meta in [both, never, nobody] {
            assert!(Configuration::from_meta(&meta).is_err(), "{meta:?}");
        }
    }
}
