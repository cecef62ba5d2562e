//! A fault is over: what it broke is mended, and whoever is down because of it comes back.

use super::*;
use crate::sim::machine::StoreLoss;
use crate::sim::world::{End, Event, World};

impl World {
    /// A fault is over.
    pub(in crate::sim) fn fault_ends(&mut self, fault: u64) -> Result<(), String> {
        let Some((kind, hit)) = self.chaos.open.remove(&fault) else { return Ok(()) };
        self.log.event(self.now, &[51, fault], || format!("  fault {fault} ends: {kind:?}"));
        if let Some(trace) = &mut self.trace {
            trace.fault_ends(self.now, fault);
        }
        if kind == FaultKind::Lag && fault.is_multiple_of(2) {
            // Who lagged comes back with the store of somebody who did not: it is ahead of the log.
            for member in &hit {
                self.end(*member, fault, End::Kill(StoreLoss::Foreign))?;
            }
        }
        self.network.mend(fault);
        self.chaos.ambush.take_if(|waiting| *waiting == fault);
        for node in self.nodes.values_mut() {
            node.slow.remove(&fault);
            node.machine.mend(fault);
            if let Some(by) = node.jumped.remove(&fault) {
                node.clock.jump(-by);
            }
        }
        for member in hit {
            let paused = self.chaos.open.values().any(|(kind, hit)| *kind == FaultKind::Pause && hit.contains(&member));
            if !paused {
                self.resume(member);
            }
            if kind.ends_processes() && self.nodes[&member].process.is_none() {
                let life = self.nodes[&member].life;
                let delay = self.network.delay() * 4;
                self.after(delay, Event::Start { member, life });
            }
        }
        Ok(())
    }

    /// Ends all faults at once, and brings everyone back.
    pub(in crate::sim) fn heal(&mut self) -> Result<(), String> {
        (self.chaos.left, self.chaos.next) = (0, FAULTS_MAX + 1);
        let open: Vec<u64> = self.chaos.open.keys().copied().collect();
        for fault in open {
            self.fault_ends(fault)?;
        }
        self.network.heal();
        let members: Vec<u64> = self.nodes.keys().copied().collect();
        for member in members {
            self.resume(member);
            let node = self.node(member);
            node.slow.clear();
            node.machine.disk.heal();
            if node.process.is_none() {
                let life = node.life;
                self.after(0, Event::Start { member, life });
            }
        }
        Ok(())
    }
}
