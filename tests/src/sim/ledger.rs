//! What the cluster as a whole must never contradict: leaders, votes, appended and committed entries, digests.

use super::shadow::Image;
use mechi_replica::apply::state::State;
use mechi_replica::conf::{Configuration, Move};
use mechi_replica::effect::{Entry, EntryKind};
use mechi_replica::types::{Index, MemberId, Term};
use std::collections::{BTreeMap, BTreeSet};

/// One committed entry.
#[derive(Clone, Debug)]
pub(super) struct Committed {
    /// As it was applied.
    pub(super) entry: Entry,
    /// When the first member heard that it is committed.
    pub(super) at: u64,
    /// That member's term then: it was committed in this one or in an earlier one.
    term: Term,
    /// The chain digest after it, once somebody has applied it.
    pub(super) digest: Option<u64>,
    /// When the first member had applied it.
    pub(super) applied_at: u64,
}

/// The merged history of all members.
#[derive(Debug)]
pub(super) struct Ledger {
    leaders: BTreeMap<Term, u64>,
    votes: BTreeMap<(u64, Term), u64>,
    appended: BTreeMap<(Index, Term), u32>,
    /// From index 1 on.
    pub(super) committed: Vec<Committed>,
    /// The terms of `committed`.
    pub(super) terms: Vec<Term>,
    /// The configurations that the committed log leads to, each with the index from which on it holds.
    confs: Vec<(Index, Configuration)>,
    /// Places of appended membership changes, committed or not.
    changes: BTreeSet<(Index, Term)>,
    /// The highest commit index that any member has written.
    told: Index,
}

impl Ledger {
    /// Nothing has happened yet in a cluster that begins like this.
    pub(super) fn new(conf: Configuration) -> Self {
        Self {
            leaders: BTreeMap::new(),
            votes: BTreeMap::new(),
            appended: BTreeMap::new(),
            committed: Vec::new(),
            terms: Vec::new(),
            confs: vec![(0, conf)],
            changes: BTreeSet::new(),
            told: 0,
        }
    }

    /// The configuration as of an index, and the one before it.
    fn conf_at(&self, index: Index) -> (&Configuration, Option<&Configuration>) {
        let place = self.confs.partition_point(|(from, _)| *from <= index) - 1;
        (&self.confs[place].1, place.checked_sub(1).map(|before| &self.confs[before].1))
    }

    /// The configuration that all committed changes lead to.
    pub(super) fn conf(&self) -> &Configuration {
        &self.confs.last().expect("the first one stays").1
    }

    /// Membership changes that were committed.
    pub(super) fn moves(&self) -> u64 {
        self.confs.len() as u64 - 1
    }

    /// R1: one leader in each term. R3: it holds everything that is committed. R10: it was elected under the newest
    /// configuration that it knows of. R11: voters alone have elected it.
    ///
    /// - Shape: `conf` is what the member itself counts by, as of `applied`.
    pub(super) fn leads(
        &mut self,
        (member, term): (u64, Term),
        log: &Image,
        (conf, applied): (&Configuration, Index),
    ) -> Result<(), String> {
        let known = self.leaders.contains_key(&term);
        let first = *self.leaders.entry(term).or_insert(member);
        if first != member {
            return Err(format!("R1: {first} and {member} lead in term {term}"));
        }
        let voted = |voter: MemberId| voter.0 == member || self.votes.get(&(voter.0, term)) == Some(&member);
        let elected = conf.has_quorum(voted) && conf.is_voter(MemberId(member));
        if !known && !elected {
            let votes: Vec<u64> = conf.members().filter(|voter| voted(*voter)).map(|voter| voter.0).collect();
            return Err(format!("R11: {member} leads in term {term} by the votes of {votes:?} under {conf:?}"));
        }
        let mut known_changes = self.changes.range((applied + 1, 0)..(log.hard_state.commit + 1, 0));
        if let Some(change) = known_changes.find(|(index, term)| !known && log.term(*index) == *term) {
            return Err(format!("R10: {member} leads in term {term}, and knows of the change {change:?} from before"));
        }
        for committed in &self.committed {
            // A leader that was elected late, or is about to be deposed, knows nothing of later terms.
            let (index, wanted) = (committed.entry.index, committed.entry.term);
            if committed.term < term && log.term(index) != wanted {
                return Err(format!(
                    "R3: {member} leads in term {term} with term {} at index {index}, committed was term {wanted}",
                    log.term(index)
                ));
            }
        }
        Ok(())
    }

    /// Terms in which somebody led.
    pub(super) fn leaders(&self) -> usize {
        self.leaders.len()
    }

    /// R8: one vote per member and term, over all crashes.
    pub(super) fn votes(&mut self, member: u64, term: Term, candidate: u64) -> Result<(), String> {
        let first = *self.votes.entry((member, term)).or_insert(candidate);
        if first == candidate {
            return Ok(());
        }
        Err(format!("R8: in term {term} {member} votes for {first} and for {candidate}"))
    }

    /// R2: the same index and term is the same entry everywhere.
    pub(super) fn appends(&mut self, member: u64, entry: &Entry) -> Result<(), String> {
        if entry.kind == EntryKind::ConfChangeV2 {
            self.changes.insert((entry.index, entry.term));
        }
        let crc = crc(entry);
        let first = *self.appended.entry((entry.index, entry.term)).or_insert(crc);
        if first == crc {
            return Ok(());
        }
        Err(format!("R2: {member} holds another entry {} of term {} than others", entry.index, entry.term))
    }

    /// R10: at most one membership change of a log is not known to be committed there. A member that campaigns counts by
    /// what it has applied, and it has applied all changes that it knows to be committed; so it is at most one change
    /// behind, and neighbouring configurations have no disjoint majorities.
    pub(super) fn holds(&self, member: u64, log: &Image, commit: Index) -> Result<(), String> {
        let open = self.changes.range((commit + 1, 0)..).filter(|(index, term)| log.term(*index) == *term);
        let open: Vec<&(Index, Term)> = open.collect();
        if open.len() <= 1 {
            return Ok(());
        }
        Err(format!("R10: the log of {member}, committed up to {commit}, holds the open changes {open:?}"))
    }

    /// R6, R11: what a leader commits is durable on a majority of those that it counts, and on no learner's word.
    ///
    /// - Shape: `holds` tells who holds the entry durably; `confs` are what the leader counted by since it last told.
    pub(super) fn raises(
        &mut self,
        leader: Option<u64>,
        commit: Index,
        holds: impl Fn(u64) -> bool,
        confs: &[&Configuration],
    ) -> Result<(), String> {
        if commit <= self.told {
            return Ok(());
        }
        self.told = commit;
        let Some(leader) = leader else { return Ok(()) };
        if confs.iter().any(|conf| conf.has_quorum(|voter| holds(voter.0))) {
            return Ok(());
        }
        let held: Vec<u64> = confs[0].members().map(|member| member.0).filter(|member| holds(*member)).collect();
        Err(format!("R6: {leader} commits {commit}, which is durable on {held:?}, under {confs:?}"))
    }

    /// R4, R5: what is committed at an index is so for ever. R6: a quorum holds it durably.
    ///
    /// - Shape: `term` is the member's own now; `holds` tells who has the entry in its durable log.
    pub(super) fn commits(
        &mut self,
        (member, term): (u64, Term),
        now: u64,
        entry: &Entry,
        holds: impl Fn(u64) -> bool,
    ) -> Result<(), String> {
        let place = entry.index as usize - 1;
        if let Some(first) = self.committed.get(place) {
            if first.entry.term == entry.term && first.entry.data == entry.data {
                return Ok(());
            }
            return Err(format!(
                "R4: {member} has committed term {} at index {}, others term {}",
                entry.term, entry.index, first.entry.term
            ));
        }
        if place != self.committed.len() {
            return Err(format!("R4: {member} commits index {} before anyone the one before it", entry.index));
        }
        // Its leader may not have applied the newest change when it counted.
        let (conf, before) = self.conf_at(entry.index - 1);
        let counts = |conf: &Configuration| conf.has_quorum(|voter| holds(voter.0));
        if !counts(conf) && !before.is_some_and(counts) {
            let holders: Vec<u64> = conf.members().map(|member| member.0).filter(|member| holds(*member)).collect();
            return Err(format!(
                "R6: {member} calls index {} committed, and {holders:?} hold it durably, under {conf:?}",
                entry.index
            ));
        }
        let change = Move::decode(entry).map_err(|error| format!("A5: {error}"))?;
        if let Some(change) = change {
            let after = self.conf().after(&change.steps);
            let after =
                after.map_err(|error| format!("R10: {change:?} is committed after {:?}: {error}", self.conf()))?;
            if let Some((one, other)) = disjoint(self.conf(), &after) {
                return Err(format!("R10: {one:?} decide before {change:?}, {other:?} after it"));
            }
            self.confs.push((entry.index, after));
        }
        self.terms.push(entry.term);
        self.committed.push(Committed { entry: entry.clone(), at: now, term, digest: None, applied_at: now });
        Ok(())
    }

    /// A4, A6: whoever has applied the same entries has the same digest and configuration, live, replayed or installed.
    pub(super) fn applies(&mut self, member: u64, now: u64, state: &State) -> Result<(), String> {
        let (index, digest) = (state.applied_index, state.chain_digest);
        if index <= self.last() && state.conf != *self.conf_at(index).0 {
            return Err(format!(
                "A6: at index {index} {member} has {:?}, the log leads to {:?}",
                state.conf,
                self.conf_at(index).0
            ));
        }
        let Some(committed) = index.checked_sub(1).and_then(|place| self.committed.get_mut(place as usize)) else {
            return if index == 0 {
                Ok(())
            } else {
                Err(format!("A4: {member} has applied {index}, which nobody committed"))
            };
        };
        match committed.digest {
            None => {
                committed.digest = Some(digest);
                committed.applied_at = now;
                Ok(())
            }
            Some(first) if first == digest => Ok(()),
            Some(first) => Err(format!("A6: at index {index} {member} has digest {digest:016x}, others {first:016x}")),
        }
    }

    /// The last committed index.
    pub(super) fn last(&self) -> Index {
        self.committed.len() as Index
    }
}

/// Two groups without a common member of which one can decide under each configuration.
fn disjoint(one: &Configuration, other: &Configuration) -> Option<(Vec<u64>, Vec<u64>)> {
    let all: BTreeSet<u64> = one.members().chain(other.members()).map(|member| member.0).collect();
    let groups = (0..1_u32 << all.len()).map(|bits| {
        let within = |place: usize| bits >> place & 1 == 1;
        let (some, rest): (Vec<_>, Vec<_>) = all.iter().copied().enumerate().partition(|(place, _)| within(*place));
        let ids = |group: Vec<(usize, u64)>| group.into_iter().map(|(_, id)| id).collect::<Vec<u64>>();
        (ids(some), ids(rest))
    });
    let decides = |conf: &Configuration, group: &[u64]| conf.has_quorum(|member| group.contains(&member.0));
    groups.into_iter().find(|(some, rest)| decides(one, some) && decides(other, rest))
}

fn crc(entry: &Entry) -> u32 {
    crc32(&entry.data) ^ entry.kind as u32
}

/// FNV over the bytes, folded: enough to tell entries apart.
fn crc32(bytes: &[u8]) -> u32 {
    let mut hash = 0xcbf2_9ce4_8422_2325_u64;
    for chunk in bytes.chunks(8) {
        let mut word = [0; 8];
        word[..chunk.len()].copy_from_slice(chunk);
        hash = (hash ^ u64::from_le_bytes(word)).wrapping_mul(0x0000_0100_0000_01b3).rotate_left(23);
    }
    (hash ^ hash >> 32) as u32 ^ bytes.len() as u32
}

#[cfg(test)]
mod tests {
    use super::*;

    fn voters(ids: &[u64]) -> Configuration {
        Configuration::founding(ids.iter().copied().map(MemberId))
    }

    #[test]
    fn majorities_without_a_common_member_are_found() {
        assert_eq!(disjoint(&voters(&[1, 2, 3]), &voters(&[1, 2])), None);
        assert_eq!(disjoint(&voters(&[1, 2, 3]), &voters(&[1, 2, 3, 4])), None);
        assert!(disjoint(&voters(&[1, 2, 3]), &voters(&[1])).is_some());
        assert!(disjoint(&voters(&[1, 2]), &voters(&[2, 3, 4])).is_some());
    }

    #[test]
    fn a_commit_on_a_learners_word_is_found() {
        let mut conf = voters(&[1, 2]);
        conf.learners.insert(MemberId(3));
        let mut ledger = Ledger::new(conf.clone());
        assert!(ledger.raises(Some(1), 1, |member| member != 2, &[&conf]).is_err());
        assert!(ledger.raises(Some(1), 2, |member| member != 3, &[&conf]).is_ok());
    }
}
