//! What a member's log must hold: kept beside it, from what was asked of it, and compared after each crash.

use mechi_replica::effect::{Entry, HardState};
use mechi_replica::types::{Index, Term};
use mechi_replica::wal::Recovered;
use mechi_replica::wal::record::Record;
use std::collections::VecDeque;

/// The terms of a log's entries from index 1 on, and its hard state.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Image {
    terms: Vec<Term>,
    /// The newest hard state.
    pub(super) hard_state: HardState,
}

/// One append: places and terms of its entries, and the hard state after them.
#[derive(Clone, Debug, Default)]
struct Round {
    entries: Vec<(Index, Term)>,
    hard_state: Option<HardState>,
}

/// What was written, what of it is durable, and the appends between.
#[derive(Clone, Debug, Default)]
pub(super) struct Shadow {
    /// With all that was asked for, written or not.
    pub(super) asked: Image,
    /// What no crash may take.
    pub(super) durable: Image,
    written: VecDeque<Round>,
}

impl Image {
    /// The index of the last entry.
    pub(super) fn last(&self) -> Index {
        self.terms.len() as Index
    }

    /// The term of the entry at `index`; 0 if there is none.
    pub(super) fn term(&self, index: Index) -> Term {
        index.checked_sub(1).and_then(|place| self.terms.get(place as usize)).copied().unwrap_or(0)
    }

    fn add(&mut self, round: &Round) {
        for (index, term) in &round.entries {
            // The same entry again leaves what follows it.
            if self.term(*index) != *term {
                self.terms.truncate(*index as usize - 1);
                self.terms.push(*term);
            }
        }
        if let Some(state) = round.hard_state {
            self.hard_state = state;
        }
    }

    fn end(&self) -> (Index, Term, Term, u64) {
        let last = self.last();
        (last, self.term(last), self.hard_state.term, self.hard_state.vote)
    }

    /// Replaces everything up to a snapshot by what was committed.
    fn install(&mut self, terms: &[Term]) {
        let index = terms.len();
        if self.term(index as Index) == terms.last().copied().unwrap_or(0) {
            return;
        }
        self.terms = terms.to_vec();
    }
}

fn round(records: &[Record]) -> Round {
    let mut round = Round::default();
    for record in records {
        match record {
            Record::Entry(entry) => round.entries.push((entry.index, entry.term)),
            Record::HardState(state) => round.hard_state = Some(*state),
            _ => {}
        }
    }
    round
}

impl Shadow {
    /// The member was asked to write these.
    pub(super) fn ask(&mut self, records: &[Record]) {
        self.asked.add(&round(records));
    }

    /// They were appended.
    pub(super) fn write(&mut self, records: &[Record]) {
        self.written.push_back(round(records));
    }

    /// All that was appended is durable.
    pub(super) fn sync(&mut self) {
        for round in self.written.drain(..) {
            self.durable.add(&round);
        }
    }

    /// Compares what an open found with what may have survived; from here on that is what is durable.
    ///
    /// - Shape: `all` says that no write may be lost, since only the process ended; `committed` holds the terms of the
    ///   committed entries up to the newest snapshot.
    pub(super) fn reopened(&mut self, recovered: &Recovered, snapshot: &[Term], all: bool) -> Result<(), String> {
        let found = (recovered.last_index, recovered.last_term, recovered.hard_state.term, recovered.hard_state.vote);
        let mut image = self.durable.clone();
        let mut candidates = vec![image.clone()];
        for round in &self.written {
            image.add(round);
            candidates.push(image.clone());
        }
        if all {
            candidates.drain(..candidates.len() - 1);
        }
        for candidate in &mut candidates {
            candidate.install(snapshot);
        }
        let Some(matching) = candidates.iter().rev().find(|candidate| candidate.end() == found) else {
            return Err(format!(
                "D2: the log ends with (index, term, hard state's term, vote) {found:?}, wanted was one of {:?}",
                candidates.iter().map(Image::end).collect::<Vec<_>>()
            ));
        };
        for Entry { index, term, .. } in &recovered.entries {
            if matching.term(*index) != *term {
                return Err(format!("D2: entry {index} came back with term {term}, not {}", matching.term(*index)));
            }
        }
        let mut durable = matching.clone();
        durable.hard_state.commit = recovered.hard_state.commit;
        self.durable = durable.clone();
        self.asked = durable;
        self.written.clear();
        Ok(())
    }
}
