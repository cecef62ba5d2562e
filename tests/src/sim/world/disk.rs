//! Between a process and its disk: writes, syncs, and what must follow when the disk fails.

use super::*;
use crate::sim::machine::StoreLoss;
use crate::sim::process::{DISK, REFUSED};
use mechi_replica::limits::DISK_FULL_RETRY_MS;

impl World {
    /// What a step of a process came to: `None` if it was the end of the process, as it must be when a sync failed.
    ///
    /// - Errors: what was broken, by the process or because it went on.
    pub(in crate::sim) fn survives<T>(&mut self, member: u64, result: Result<T, String>) -> Result<Option<T>, String> {
        match result {
            Ok(value) => {
                if self.nodes[&member].process.as_ref().is_some_and(Process::missed_an_error) {
                    return Err(format!("D5: {member} goes on after a sync of its disk failed"));
                }
                Ok(Some(value))
            }
            Err(text) => {
                self.excused(member, &text)?;
                self.log.event(self.now, &[34, member], || format!("  {member} cannot go on: {text}"));
                if let Some(trace) = &mut self.trace {
                    trace.disk(self.now, member, text);
                }
                self.stop(member, End::Broken)?;
                self.start_again(member);
                Ok(None)
            }
        }
    }

    /// Whether the faults of a member's disk explain an error; those that do had an effect.
    pub(super) fn excused(&mut self, member: u64, text: &str) -> Result<(), String> {
        let machine = &mut self.nodes.get_mut(&member).expect("a member").machine;
        let plain = text.trim_start_matches(DISK).trim_start_matches(REFUSED).to_owned();
        let by: Vec<u64> = if text.starts_with(REFUSED) {
            machine.damages.iter().map(|(fault, _)| *fault).collect()
        } else if text.starts_with(DISK) && text.contains("injected") {
            machine.sync_error.take().into_iter().collect()
        } else if text.starts_with(DISK) {
            machine.full.iter().copied().collect()
        } else {
            Vec::new()
        };
        by.iter().for_each(|fault| self.chaos.had_effect(*fault));
        if by.is_empty() { Err(plain) } else { Ok(()) }
    }

    /// Somebody starts the process again after a while.
    pub(super) fn start_again(&mut self, member: u64) {
        let life = self.nodes[&member].life;
        let delay = DISK_FULL_RETRY_MS * 1_000 + self.network.delay();
        self.after(delay, Event::Start { member, life });
    }

    /// A process could not open what its machine holds.
    ///
    /// With damage at rest it must say so and stay down, until somebody has repaired it; with a disk that is full, or
    /// whose sync failed, it is started again.
    pub(super) fn stays_down(&mut self, member: u64, text: &str) -> Result<(), String> {
        self.excused(member, text).map_err(|plain| format!("{member} does not open: {plain}"))?;
        self.log.event(self.now, &[35, member], || format!("  {member} does not open: {text}"));
        if let Some(trace) = &mut self.trace {
            trace.disk(self.now, member, format!("does not open: {text}"));
        }
        if !text.starts_with(REFUSED) {
            // What an open leaves that was cut short counts as written, or not.
            self.node(member).killed = false;
            self.start_again(member);
        }
        Ok(())
    }

    pub(super) fn begin_write(&mut self, member: u64, life: u64) -> Result<(), String> {
        let node = self.nodes.get_mut(&member).expect("a member");
        let waits = |process: &&mut Process| process.wants_write() && !node.queued.room;
        let Some(process) = node.process.as_mut().filter(waits) else { return Ok(()) };
        let written = process.begin_write();
        let Some(written) = self.survives(member, written)? else { return Ok(()) };
        let Some((sync, records)) = written else {
            let node = self.node(member);
            node.queued.room = true;
            for fault in node.machine.full.clone() {
                self.chaos.had_effect(fault);
            }
            self.after(DISK_FULL_RETRY_MS * 1_000, Event::Room { member, life });
            return Ok(());
        };
        self.node(member).machine.shadow.write(&records);
        if !sync {
            return Ok(());
        }
        let mut delay = self.options.fsync.draw(&mut self.disk);
        for (fault, slow) in &self.nodes[&member].slow {
            delay += slow.draw(&mut self.disk);
            self.chaos.had_effect(*fault);
        }
        if let Some(trace) = &mut self.trace {
            trace.sync(self.now, self.now + delay, member);
        }
        self.after(delay, Event::Synced { member, life });
        Ok(())
    }

    /// The log tries again whether there is room.
    pub(super) fn room(&mut self, member: u64, life: u64) -> Result<(), String> {
        if !self.is_alive(member, life) {
            return Ok(());
        }
        self.node(member).queued.room = false;
        self.begin_write(member, life)
    }

    pub(super) fn synced(&mut self, member: u64, life: u64) -> Result<(), String> {
        if !self.is_alive(member, life) {
            return Ok(());
        }
        // A sync that is about to fail makes nothing durable that anybody may rely on.
        let machine = &mut self.node(member).machine;
        if machine.sync_error.is_none() {
            // First the log, then the record of it: what the mutants skip must not be noted.
            machine.shadow.sync();
        }
        self.inside(member, life, |process, clock, _, _| process.end_write(clock))
    }

    /// Ends a process in good order, as far as its disk lets it.
    pub(super) fn close(&mut self, member: u64, process: Process) -> Result<(), String> {
        let node = self.nodes.get_mut(&member).expect("a member");
        let Err(text) = process.close(&mut node.machine) else { return Ok(()) };
        self.excused(member, &text)?;
        let rng = &mut self.disk;
        let node = self.nodes.get_mut(&member).expect("a member");
        node.machine.kill(StoreLoss::Older, rng);
        node.killed = false;
        Ok(())
    }
}
