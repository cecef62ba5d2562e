//! The log's thread: what waits is written at once and made durable by one fsync; on a full disk it waits for room.

use super::*;

/// What the log's thread is asked for.
pub(super) enum WalAsk {
    Persist { ticket: Ticket, records: Vec<Record>, sync: bool },
    Snapshot { index: Index, term: Term, trim: Index },
}

/// What is written at once.
#[derive(Default)]
pub(super) struct Writing {
    records: Vec<Record>,
    sync: bool,
    round: Round,
}

/// What becomes true when the fsync that is under way returns.
#[derive(Default)]
pub(super) struct Round {
    durable: Option<Ticket>,
    snapshots: Vec<(Index, Term, Index)>,
}

impl Process {
    /// Whether the log's thread would do something now.
    pub(in crate::sim) fn wants_write(&self) -> bool {
        self.round.is_none() && (!self.wal_queue.is_empty() || self.unwritten.is_some())
    }

    /// Whether a sync of its disk failed, and it goes on as if nothing had been.
    pub(in crate::sim) fn missed_an_error(&self) -> bool {
        self.disk.struck() != self.struck
    }

    /// Appends all that waits; returns whether an fsync follows, and what was appended. `None`: the disk is full, and the
    /// same must be tried again.
    pub(in crate::sim) fn begin_write(&mut self) -> Result<Option<(bool, Vec<Record>)>, String> {
        let Writing { mut records, mut sync, mut round } = self.unwritten.take().unwrap_or_default();
        for ask in self.wal_queue.drain(..) {
            match ask {
                WalAsk::Persist { ticket, records: more, sync: wanted } => {
                    records.extend(more);
                    if wanted {
                        round.durable = Some(ticket);
                        sync = true;
                    }
                }
                WalAsk::Snapshot { index, term, trim } => {
                    records.push(Record::Snapshot { index, term });
                    round.snapshots.push((index, term, trim));
                    sync = true;
                }
            }
        }
        // Of several hard states only the last one counts.
        let last = records.iter().rposition(|record| matches!(record, Record::HardState(_)));
        let mut place = 0;
        records.retain(|record| {
            place += 1;
            !matches!(record, Record::HardState(_)) || Some(place - 1) == last
        });
        match self.wal.append(&records) {
            Ok(()) => {}
            Err(wal::Error::Full(_)) => {
                self.unwritten = Some(Writing { records, sync, round });
                return Ok(None);
            }
            Err(wal::Error::Fatal(fatal)) => return Err(say("append")(fatal)),
        }
        if sync {
            self.round = Some(round);
        }
        Ok(Some((sync, records)))
    }

    /// The fsync returns.
    pub(in crate::sim) fn end_write(&mut self, now: MonoMillis) -> Result<(), String> {
        let round = self.round.take().expect("an fsync was under way");
        self.wal.sync().map_err(say("sync"))?;
        if let Some(ticket) = round.durable {
            self.core.feed(now, Input::Persisted(ticket));
        }
        for (index, term, trim) in round.snapshots {
            self.wal.trim(trim).map_err(say("trim"))?;
            self.core.feed(now, Input::SnapshotMade { index, term });
        }
        if self.wal_queue.is_empty() {
            match self.wal.mark() {
                // A mark only helps recovery to tell damage from a torn tail; the next write says the same.
                Ok(()) | Err(wal::Error::Full(_)) => {}
                Err(wal::Error::Fatal(fatal)) => return Err(say("mark")(fatal)),
            }
        }
        Ok(())
    }

    /// Ends in good order: all that was asked is written, the store is flushed and closed, and the log says so; on a full
    /// disk as far as that goes, after which somebody loses patience.
    pub(in crate::sim) fn close(mut self, machine: &mut Machine) -> Result<(), String> {
        if let Some(builder) = self.builder.take() {
            builder.abandon();
        }
        if !self.wal_queue.is_empty() || self.unwritten.is_some() {
            let Some((_, records)) = self.begin_write()? else { return Ok(()) };
            machine.shadow.write(&records);
        }
        self.wal.sync().map_err(say("sync"))?;
        machine.shadow.sync();
        let in_store = self.flusher.applied().map_or(0, |applied| applied.index);
        while self.flush.is_some() {
            self.step_flush(in_store, in_store)?;
        }
        if !self.is_store_idle() {
            let meta = self.state.to_meta();
            self.flusher.flush_all(&self.store, &self.state.mvcc, meta).map_err(say("last flush"))?;
        }
        if let Some(applied) = self.flusher.applied() {
            machine.close();
            match self.wal.close_clean(applied.index) {
                // Without the note the next start may rebuild the store: slower, and as safe.
                Ok(()) | Err(wal::Error::Full(_)) => {}
                Err(wal::Error::Fatal(fatal)) => return Err(say("close")(fatal)),
            }
        }
        Ok(())
    }
}
