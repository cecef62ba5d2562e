//! What the cluster as a whole must never contradict: leaders, votes, appended and committed entries, digests.

use super::shadow::Image;
use mechi_replica::effect::Entry;
use mechi_replica::types::{Index, Term};
use std::collections::BTreeMap;

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
#[derive(Debug, Default)]
pub(super) struct Ledger {
    leaders: BTreeMap<Term, u64>,
    votes: BTreeMap<(u64, Term), u64>,
    appended: BTreeMap<(Index, Term), u32>,
    /// From index 1 on.
    pub(super) committed: Vec<Committed>,
    /// The terms of `committed`.
    pub(super) terms: Vec<Term>,
}

impl Ledger {
    /// R1: one leader in each term. R3: it holds everything that is committed.
    pub(super) fn leads(&mut self, member: u64, term: Term, log: &Image) -> Result<(), String> {
        let first = *self.leaders.entry(term).or_insert(member);
        if first != member {
            return Err(format!("R1: {first} and {member} lead in term {term}"));
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
        let crc = crc(entry);
        let first = *self.appended.entry((entry.index, entry.term)).or_insert(crc);
        if first == crc {
            return Ok(());
        }
        Err(format!("R2: {member} holds another entry {} of term {} than others", entry.index, entry.term))
    }

    /// R4, R5: what is committed at an index is so for ever. R6: a quorum holds it durably.
    ///
    /// - Shape: `term` is the member's own now; `durable` are the durable logs of all voters.
    pub(super) fn commits<'a>(
        &mut self,
        (member, term): (u64, Term),
        now: u64,
        entry: &Entry,
        durable: impl Iterator<Item = &'a Image>,
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
        let (mut voters, mut holders) = (0, 0);
        for log in durable {
            voters += 1;
            holders += u64::from(log.term(entry.index) == entry.term);
        }
        if 2 * holders <= voters {
            return Err(format!(
                "R6: {member} calls index {} committed, and {holders} of {voters} voters hold it durably",
                entry.index
            ));
        }
        self.terms.push(entry.term);
        self.committed.push(Committed { entry: entry.clone(), at: now, term, digest: None, applied_at: now });
        Ok(())
    }

    /// A4, A6: whoever has applied the same entries has the same digest, live or replayed.
    pub(super) fn applies(&mut self, member: u64, now: u64, index: Index, digest: u64) -> Result<(), String> {
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
