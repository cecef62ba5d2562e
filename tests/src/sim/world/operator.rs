//! The operator's part: now and then somebody gets or loses a vote, and now and then a process ends in the middle of it.

use super::*;
use crate::sim::machine::StoreLoss;
use mechi_replica::conf::Step;
use mechi_replica::effect::{Entry, EntryKind};
use std::collections::BTreeSet;

/// The operator's number among the clients; its operations are no client's.
pub(in crate::sim) const OPERATOR: u64 = u64::MAX - 1;

impl World {
    /// Asks for a change, mostly of the leader, and thinks of the next one.
    pub(super) fn operate(&mut self) {
        if !self.busy {
            return;
        }
        let pause = self.options.election_us() * self.options.operator;
        let again = pause / 4 + self.operator.below(pause * 3 / 2);
        self.after(again, Event::Operate);
        let (astray, choice) = (self.operator.chance(10), self.operator.next_u64());
        let member = match self.leader() {
            Some(leader) if !astray => leader,
            _ => 1 + choice % self.options.members,
        };
        let steps = self.choose_steps();
        // One in four of the leader's is a trap: a process ends between the change's commit and its application.
        self.trap |= self.operator.chance(25);
        self.issue(OPERATOR, member, Ask::Configure(steps));
    }

    /// Mostly something that makes sense by what is committed: most members keep their votes, so that work goes on.
    fn choose_steps(&mut self) -> Vec<Step> {
        let conf = self.ledger.conf();
        let rng = &mut self.operator;
        let mut pick = |from: &BTreeSet<MemberId>, count: usize| {
            let mut left: Vec<MemberId> = from.iter().copied().collect();
            let count = count.min(left.len());
            (0..count).map(|_| left.swap_remove(rng.below(left.len() as u64) as usize)).collect::<Vec<_>>()
        };
        let (voters, learners) = (&conf.voters, &conf.learners);
        let fewest = self.options.members as usize / 2 + 1;
        let [voter, learner] = [voters, learners].map(|set| pick(set, 1));
        let [two_voters, two_learners] = [voters, learners].map(|set| pick(set, 2));
        let promote = |members: Vec<MemberId>| members.into_iter().map(Step::Promote);
        let demote = |members: Vec<MemberId>| members.into_iter().map(Step::Demote);
        match rng.below(20) {
            // What is refused: a stranger, a voter that has its vote, nobody left.
            0 => vec![Step::Demote(MemberId(99))],
            1 => promote(voter).collect(),
            2 => demote(voters.iter().copied().collect()).collect(),
            3..=5 if !learners.is_empty() => promote(learner).collect(),
            6..=9 if !learners.is_empty() => promote(two_learners).collect(),
            _ if voters.len() <= fewest && !learners.is_empty() => promote(learner).chain(demote(voter)).collect(),
            10..=14 if voters.len() > fewest + 1 => demote(two_voters).collect(),
            _ => demote(voter).collect(),
        }
    }

    /// Springs the trap on a member that was told of a committed change.
    pub(super) fn trip_on(&mut self, member: u64, entries: &[Entry]) {
        let change = entries.iter().any(|entry| entry.kind == EntryKind::ConfChangeV2);
        if change && self.busy && std::mem::take(&mut self.trap) {
            let life = self.nodes[&member].life;
            self.after(0, Event::Trip { member, life });
        }
    }

    /// Ends a process, which comes back after a while.
    pub(super) fn trip(&mut self, member: u64, life: u64) -> Result<(), String> {
        if !self.is_alive(member, life) || !self.busy {
            return Ok(());
        }
        let loss = StoreLoss::Older;
        let how = if self.operator.chance(50) { End::Kill(loss) } else { End::PowerCut(loss) };
        self.stop(member, how)?;
        let life = self.nodes[&member].life;
        let delay = self.operator.below(self.options.election_us() * 2);
        self.after(delay, Event::Start { member, life });
        Ok(())
    }
}
