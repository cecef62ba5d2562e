//! What disks do wrong, beside losing what was never synced.
//!
//! Damage at rest is found or does not matter: a member that opens has all that it promised, and one that cannot says so
//! and stays down. It is undone in the end, as by a mirror, so that the member comes back; nobody is asked to recover
//! from the loss of what only this disk held. An error of a sync ends the process at once, and a full disk makes the log
//! wait. See `World::start` and `World::survives` for what must follow.

use super::begin::Strike;
use super::*;
use crate::sim::damage::{self, Harm};
use crate::sim::machine::StoreLoss;
use crate::sim::options::Span;
use crate::sim::world::{End, World};
use mechi_replica::disk::sim::Fault as SyncFault;

impl World {
    /// Does what a disk's fault does at once; returns how long it lasts.
    pub(super) fn strike_disk(&mut self, strike: Strike) -> Result<u64, String> {
        let Strike { fault, kind, target, duration, detail } = strike;
        let election = self.options.election_us();
        let mut rng = Rng::new(detail);
        match kind {
            FaultKind::SlowDisk => {
                let max = rng.below(2 * election);
                self.node(target).slow.insert(fault, Span { min: 0, max });
            }
            FaultKind::Stall => {
                let min = (2 + rng.below(3)) * election;
                self.node(target).slow.insert(fault, Span { min, max: min });
                // Long enough for one fsync to begin; what begins takes its time.
                return Ok(election / 8 + duration / 8);
            }
            FaultKind::SyncError => {
                let how = *rng.pick(&[SyncFault::SyncKeepsPages, SyncFault::SyncDropsPages]);
                let machine = &mut self.node(target).machine;
                machine.disk.fail_next_sync(how);
                machine.sync_error = Some(fault);
            }
            FaultKind::DiskFull => {
                let room = rng.below(2 * self.options.segment_bytes);
                let machine = &mut self.node(target).machine;
                machine.disk.set_capacity(Some(machine.disk.used() + room));
                machine.full.insert(fault);
            }
            FaultKind::BitFlip => self.harm(target, fault, Harm::Flip, &mut rng)?,
            FaultKind::StaleBlock => self.harm(target, fault, Harm::Stale, &mut rng)?,
            FaultKind::Misdirected => self.harm(target, fault, Harm::Misdirected, &mut rng)?,
            _ => unreachable!("only disks' faults come here"),
        }
        // The only member may be down for as long as its disk is damaged, and nobody is served meanwhile.
        let alone = self.options.members == 1 && !self.nodes[&target].machine.damages.is_empty();
        Ok(if alone { duration / 4 } else { duration })
    }

    /// Damages something on a disk; mostly the process ends as well, so that somebody reads it.
    fn harm(&mut self, target: u64, fault: u64, harm: Harm, rng: &mut Rng) -> Result<(), String> {
        let end = match rng.below(4) {
            0 => None,
            1 => Some(End::PowerCut(StoreLoss::Older)),
            _ => Some(End::Kill(StoreLoss::Older)),
        };
        if let Some(how) = end
            && self.nodes[&target].process.is_some()
        {
            self.stop(target, how)?;
        }
        let now = self.now;
        let machine = &mut self.node(target).machine;
        if let Some(damage) = damage::harm(&machine.disk, harm, &machine.damages, rng) {
            self.log.event(now, &[53, fault, target], || format!("  fault {fault} at {target}: {damage}"));
            if let Some(trace) = &mut self.trace {
                trace.disk(now, target, damage.to_string());
            }
            self.node(target).machine.damages.push((fault, damage));
            self.chaos.had_effect(fault);
        }
        Ok(())
    }
}
