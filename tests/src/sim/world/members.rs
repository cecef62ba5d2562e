//! The members' part: what happens inside a process, what follows outside of it, and how processes end and begin.

use super::*;
use crate::sim::machine::StoreLoss;

/// The driver's own ticks in one of raft's.
const TICKS_PER_RAFT_TICK: u64 = 2;

impl World {
    /// Does something inside a process, and what follows from it.
    pub(super) fn inside(
        &mut self,
        member: u64,
        life: u64,
        body: impl FnOnce(&mut Process, mechi_replica::types::MonoMillis, &mut Vec<Act>, &mut Ledger) -> Result<(), String>,
    ) -> Result<(), String> {
        if !self.is_alive(member, life) {
            return Ok(());
        }
        let mut acts = std::mem::take(&mut self.acts);
        let now = self.now;
        let node = self.nodes.get_mut(&member).expect("it is alive");
        let clock = node.clock.mono(now);
        let process = node.process.as_mut().expect("it is alive");
        let done = body(process, clock, &mut acts, &mut self.ledger);
        // Whatever arrives until the settle shares it.
        let settles = !node.queued.settle;
        let done = match done {
            Ok(()) if settles && self.sched.chance(60) => process.settle(clock, &mut acts).map(|()| true),
            done => done.map(|()| false),
        };
        let Some(settled) = self.survives(member, done)? else {
            // What it was about to do it never did.
            acts.clear();
            self.acts = acts;
            return Ok(());
        };
        if !settled && settles {
            self.node(member).queued.settle = true;
            let delay = self.sched.below(150);
            self.after(delay, Event::Settle { member, life });
        }
        for act in acts.drain(..) {
            self.act(member, act)?;
        }
        self.acts = acts;
        self.begin_write(member, life)?;
        let node = self.node(member);
        if let Some(process) = &node.process
            && process.wants_apply()
            && !node.queued.apply
        {
            node.queued.apply = true;
            let delay = self.options.apply.draw(&mut self.sched);
            self.after(delay, Event::Apply { member, life });
        }
        Ok(())
    }

    pub(super) fn act(&mut self, member: u64, act: Act) -> Result<(), String> {
        match act {
            Act::Send { to, wire } => self.send(member, to, wire),
            Act::Reply { op, outcome } => {
                if let Outcome::Read { at, .. } = &outcome {
                    let node = self.node(member);
                    if *at < node.shown {
                        return Err(format!("K3: {member} shows index {at} after {}", node.shown));
                    }
                    node.shown = *at;
                }
                let delay = self.network.delay();
                self.after(delay, Event::Reply { op, outcome });
                Ok(())
            }
            Act::Watch { stream, message, cost } => {
                let found = self.watchers.iter().position(|watcher| watcher.stream == Some((stream, member)));
                if let Some(watcher) = found {
                    let session = self.watchers[watcher].session;
                    let delay = self.options.latency.min;
                    self.after(delay, Event::WatchMessage { watcher, session, message, cost });
                }
                Ok(())
            }
            Act::Role(role) => {
                self.log
                    .event(self.now, &[30, member, role.term, role.kind as u64], || format!("  {member} is {role:?}"));
                let node = self.nodes.get_mut(&member).expect("it acts");
                if role.term < node.role.term {
                    return Err(format!("R7: {member} went from term {} to {}", node.role.term, role.term));
                }
                node.role = role;
                if let Some(trace) = &mut self.trace {
                    trace.role(self.now, member, &role);
                }
                if role.kind == RoleKind::Leader {
                    let process = node.process.as_ref().expect("it acts");
                    let counts_by = (process.conf(), process.state.applied_index);
                    self.ledger.leads((member, role.term), &node.machine.shadow.asked, counts_by)?;
                    if role.settled {
                        self.led.push((self.now, member, role.term));
                    }
                }
                Ok(())
            }
            Act::Asked(records) => {
                for record in &records {
                    if let mechi_replica::wal::record::Record::Entry(entry) = record {
                        self.ledger.appends(member, entry)?;
                    }
                }
                self.node(member).machine.shadow.ask(&records);
                let asked = &self.nodes[&member].machine.shadow.asked;
                self.ledger.holds(member, asked, asked.hard_state.commit)?;
                self.raises(member)?;
                self.spring(member, &records);
                Ok(())
            }
            Act::Committed(entries) => {
                let term = self.nodes[&member].process.as_ref().map_or(0, |process| process.role().term);
                for entry in &entries {
                    let own = &self.nodes[&member].machine.shadow.durable;
                    if own.term(entry.index) != entry.term {
                        return Err(format!("R9: {member} applies entry {}, which is not durable there", entry.index));
                    }
                    let nodes = &self.nodes;
                    let holds = |id: u64| {
                        nodes.get(&id).is_some_and(|node| node.machine.shadow.durable.term(entry.index) == entry.term)
                    };
                    self.ledger.commits((member, term), self.now, entry, holds)?;
                }
                self.trip_on(member, &entries);
                Ok(())
            }
            Act::Offer { to, index, term } => {
                self.offer(member, to, index, term);
                Ok(())
            }
            Act::Diverged(index) => Err(format!("A6: {member} says that it differs at index {index}")),
        }
    }

    /// Checks the commit index that a member has just asked its log to hold.
    fn raises(&mut self, member: u64) -> Result<(), String> {
        let Self { nodes, ledger, .. } = self;
        let node = &nodes[&member];
        let Some(process) = &node.process else { return Ok(()) };
        let (asked, role) = (&node.machine.shadow.asked, process.role());
        let commit = asked.hard_state.commit;
        let leads = role.kind == RoleKind::Leader && role.term == asked.hard_state.term;
        let holds =
            |id: u64| nodes.get(&id).is_some_and(|node| node.machine.shadow.durable.term(commit) == asked.term(commit));
        ledger.raises(leads.then_some(member), commit, holds, &[process.conf(), process.conf_before()])
    }

    /// Checks what a message promises, and gives it to the network.
    pub(super) fn send(&mut self, from: u64, to: u64, wire: Wire) -> Result<(), String> {
        if let Wire::Raft(bytes) = &wire {
            let message = peek(bytes).ok_or("a raft message that cannot be read")?;
            let durable = &self.nodes[&from].machine.shadow.durable;
            let (term, hard_state) = (message.term, durable.hard_state);
            let voted =
                |candidate: u64| hard_state.term > term || (hard_state.term, hard_state.vote) == (term, candidate);
            match message.kind {
                raft_peek::REQUEST_VOTE_RESPONSE if !message.reject => {
                    if !voted(to) {
                        return Err(format!("R8: {from} votes for {to} in term {term} before that is durable"));
                    }
                    self.ledger.votes(from, term, to)?;
                }
                raft_peek::REQUEST_VOTE => {
                    if !voted(from) {
                        return Err(format!("R8: {from} asks for votes in term {term} before its own is durable"));
                    }
                    self.ledger.votes(from, term, from)?;
                }
                raft_peek::APPEND if hard_state.term < term => {
                    return Err(format!("R8: {from} leads in term {term} before that is durable"));
                }
                raft_peek::APPEND_RESPONSE if !message.reject && message.index > durable.last() => {
                    return Err(format!(
                        "R6: {from} acknowledges entry {} while its durable log ends at {}",
                        message.index,
                        durable.last()
                    ));
                }
                _ => {}
            }
        }
        let fate = self.network.send(self.now, Link { from, to });
        if let Some(trace) = &mut self.trace {
            trace.message(self.now, fate.arrivals.first().copied(), from, to, &wire);
        }
        if let Some(fault) = fate.by {
            self.chaos.had_effect(fault);
        }
        if fate.arrivals.is_empty() && self.sched.chance(10) {
            let life = self.nodes[&from].life;
            let delay = self.network.delay();
            self.after(delay, Event::Unreachable { member: from, life, to });
        }
        for at in fate.arrivals {
            self.at(at, Event::Deliver { from, to, wire: wire.clone() });
        }
        Ok(())
    }

    pub(super) fn deliver(&mut self, from: u64, to: u64, wire: Wire) -> Result<(), String> {
        let life = self.nodes[&to].life;
        self.inside(to, life, |process, clock, acts, _| {
            process.receive(clock, from, wire, acts);
            Ok(())
        })
    }

    pub(super) fn tick(&mut self, member: u64, life: u64) -> Result<(), String> {
        if !self.is_alive(member, life) {
            return Ok(());
        }
        let wall_ms = self.nodes[&member].clock.wall_ms(self.now);
        self.inside(member, life, |process, clock, _, _| {
            process.feed(clock, Input::Tick { wall_ms });
            process.tell_hub(HubInput::Tick(clock));
            Ok(())
        })?;
        let own = self.options.tick_ms * 1_000 / TICKS_PER_RAFT_TICK;
        let delay = self.nodes[&member].clock.true_us(own) + self.sched.below(own / 8 + 1);
        self.after(delay, Event::Tick { member, life });
        Ok(())
    }

    pub(super) fn apply(&mut self, member: u64, life: u64) -> Result<(), String> {
        if !self.is_alive(member, life) {
            return Ok(());
        }
        self.node(member).queued.apply = false;
        let (now, count) = (self.now, 1 + self.sched.below(8));
        self.inside(member, life, |process, clock, acts, ledger| process.apply(clock, now, count, ledger, acts))?;
        if let Some(trace) = &mut self.trace
            && let Some(process) = &self.nodes[&member].process
        {
            trace.revision(now, member, process.state.applied_index, process.state.mvcc.revision());
        }
        self.want_hub(member);
        Ok(())
    }

    /// Lets the watches of a member be stepped soon.
    pub(in crate::sim) fn want_hub(&mut self, member: u64) {
        let node = self.node(member);
        let life = node.life;
        if node.process.as_ref().is_some_and(|process| process.hub.has_work()) && !node.queued.hub {
            node.queued.hub = true;
            let delay = self.sched.below(300);
            self.after(delay, Event::Hub { member, life });
        }
    }

    pub(super) fn hub(&mut self, member: u64, life: u64) -> Result<(), String> {
        if !self.is_alive(member, life) {
            return Ok(());
        }
        self.node(member).queued.hub = false;
        let mut acts = Vec::new();
        self.node(member).process.as_mut().expect("it is alive").watch(&mut acts)?;
        for act in acts {
            self.act(member, act)?;
        }
        self.want_hub(member);
        Ok(())
    }

    pub(super) fn keep(&mut self, member: u64, life: u64) -> Result<(), String> {
        if !self.is_alive(member, life) {
            return Ok(());
        }
        let more = self.node(member).process.as_mut().expect("it is alive").keep();
        let Some(more) = self.survives(member, more)? else { return Ok(()) };
        self.begin_write(member, life)?;
        let tick = self.options.tick_ms * 1_000;
        let delay = if more { self.disk.below(tick / 4) } else { tick + self.disk.below(2 * tick) };
        self.after(delay, Event::Keep { member, life });
        Ok(())
    }

    pub(super) fn start(&mut self, member: u64, life: u64) -> Result<(), String> {
        let now = self.now;
        let node = self.nodes.get_mut(&member).expect("a member");
        if node.process.is_some() || node.life != life {
            return Ok(());
        }
        let opened = Process::open(member, &mut node.machine, &self.options, &mut self.ledger, now, node.killed);
        let opened = match opened {
            Ok(opened) => opened,
            Err(text) => return self.stays_down(member, &text),
        };
        node.life += 1;
        node.killed = true;
        node.clock.start(now);
        node.queued = Queued::default();
        let durable = node.machine.shadow.durable.hard_state.term;
        if durable < node.role.term && node.role.kind == RoleKind::Leader && node.role.settled {
            return Err(format!("R7: {member} led in term {} and is back in term {durable}", node.role.term));
        }
        node.role = Role::default();
        let (boot, replayed) = (opened.process.boot, opened.replayed);
        self.rebuilds += u64::from(opened.rebuilt.is_some());
        self.log.event(now, &[31, member, boot, replayed], || {
            format!("  {member} is open: boot {boot}, replayed {replayed}, store rebuilt {:?}", opened.rebuilt)
        });
        let revision = opened.process.state.mvcc.revision();
        if let Some(trace) = &mut self.trace {
            trace.up(now, member, boot, replayed, revision);
        }
        let node = self.nodes.get_mut(&member).expect("a member");
        let life = node.life;
        node.process = Some(opened.process);
        self.after(0, Event::Tick { member, life });
        let delay = self.disk.below(self.options.tick_ms * 1_000);
        self.after(delay, Event::Keep { member, life });
        Ok(())
    }

    /// Ends a process; its clients and peers see their connections break.
    pub(in crate::sim) fn stop(&mut self, member: u64, how: End) -> Result<(), String> {
        let rng = &mut self.disk;
        let node = self.nodes.get_mut(&member).expect("a member");
        let Some(process) = node.process.take() else { return Ok(()) };
        node.stopped = None;
        let fetch = node.fetch.take();
        node.killed = true;
        match how {
            End::Kill(loss) => {
                drop(process);
                node.machine.kill(loss, rng);
            }
            End::PowerCut(loss) => {
                drop(process);
                node.machine.power_cut(loss, rng);
                node.killed = false;
            }
            End::Broken => {
                drop(process);
                node.machine.kill(StoreLoss::Older, rng);
                node.killed = false;
            }
            End::Close => self.close(member, process)?,
        }
        self.node(member).life += 1;
        self.log.event(self.now, &[32, member], || format!("  {member} ends: {how:?}"));
        if let Some(trace) = &mut self.trace {
            trace.down(self.now, member, &format!("{how:?}"));
        }
        for op in 1..=self.ops.len() as u64 {
            let found = &self.ops[op as usize - 1];
            if found.member == member && found.outcome.is_none() {
                let delay = self.network.delay();
                self.after(delay, Event::Reply { op, outcome: Outcome::Unknown });
            }
        }
        for watcher in 0..self.watchers.len() {
            if self.watchers[watcher].stream.is_some_and(|(_, on)| on == member) {
                self.watchers[watcher].stream = None;
                let delay = self.network.delay() * 4;
                self.after(delay, Event::Connect { watcher });
            }
        }
        let others: Vec<(u64, u64)> =
            self.nodes.iter().filter(|(id, _)| **id != member).map(|(id, node)| (*id, node.life)).collect();
        for (other, life) in others {
            // Over a link that is cut nobody hears of it.
            if !self.network.is_cut(Link { from: member, to: other }) && self.sched.chance(80) {
                let delay = self.network.delay();
                self.after(delay, Event::Reset { member: other, life, of: member });
            }
        }
        if let Some(fetch) = fetch {
            let delay = self.network.delay();
            self.after(delay, Event::Taken { member: fetch.from, life: fetch.life, to: member, ok: false });
        }
        Ok(())
    }

    /// Stops a process as SIGSTOP does.
    pub(in crate::sim) fn pause(&mut self, member: u64) {
        let now = self.now;
        let node = self.node(member);
        if node.process.is_some() && node.stopped.is_none() {
            node.stopped = Some(Vec::new());
            if let Some(trace) = &mut self.trace {
                trace.pause(now, member, true);
            }
        }
    }

    /// Lets it go on: what waited comes at once, time last.
    pub(in crate::sim) fn resume(&mut self, member: u64) {
        let Some(held) = self.node(member).stopped.take() else { return };
        if let Some(trace) = &mut self.trace {
            trace.pause(self.now, member, false);
        }
        let (ticks, others): (Vec<Event>, Vec<Event>) =
            held.into_iter().partition(|event| matches!(event, Event::Tick { .. }));
        for event in others.into_iter().chain(ticks) {
            self.after(0, event);
        }
    }
}
