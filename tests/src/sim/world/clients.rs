//! The clients' part: operations one at a time, and watchers that move from member to member.

use super::operator::OPERATOR;
use super::*;

impl World {
    pub(super) fn client(&mut self, client: u64) -> Result<(), String> {
        if !self.busy || self.plan.is_over(self.now) {
            return Ok(());
        }
        let op = self.ops.len() as u64 + 1;
        let member = self.choose_member();
        let ask = self.work.next(op);
        if self.plan.has_op(op) {
            self.issue(client, member, ask);
            return Ok(());
        }
        // It keeps its number and takes its time, but nobody ever hears of it.
        let (now, outcome) = (self.now, Some(Outcome::Refused(Error::Stopped)));
        self.ops.push(Op { client, member, ask, invoked: now, returned: Some(now), outcome });
        let delay = self.options.latency.max * 2 + self.think.draw(&mut self.client);
        self.after(delay, Event::Client { client });
        Ok(())
    }

    /// Mostly a member that runs, as clients leave out those that refuse their connections.
    pub(super) fn choose_member(&mut self) -> u64 {
        let all: Vec<u64> = self.nodes.keys().copied().collect();
        let up: Vec<u64> = self
            .nodes
            .iter()
            .filter(|(_, node)| node.process.is_some() && node.stopped.is_none())
            .map(|(id, _)| *id)
            .collect();
        let (any, choice) = (self.client.chance(5), self.client.next_u64());
        let from = if any || up.is_empty() { &all } else { &up };
        from[(choice % from.len() as u64) as usize]
    }

    /// Sends a client's request; returns the operation's number.
    pub(in crate::sim) fn issue(&mut self, client: u64, member: u64, ask: Ask) -> u64 {
        self.ops.push(Op { client, member, ask, invoked: self.now, returned: None, outcome: None });
        let op = self.ops.len() as u64;
        let delay = self.network.delay();
        self.after(delay, Event::Request { op });
        self.after(self.timeout, Event::Timeout { op });
        op
    }

    pub(super) fn request(&mut self, op: u64) -> Result<(), String> {
        let found = &self.ops[op as usize - 1];
        let (member, ask, settled) = (found.member, found.ask.clone(), found.outcome.is_some());
        let node = self.node(member);
        if let Some(held) = &mut node.stopped {
            // It waits in the connection, as long as the client does.
            held.push(Event::Request { op });
            return Ok(());
        }
        if settled {
            return Ok(());
        }
        let life = node.life;
        if node.process.is_none() {
            return self.reply(op, Outcome::Refused(Error::Stopped));
        }
        self.inside(member, life, |process, clock, acts, _| process.request(clock, op, ask, acts))
    }

    pub(super) fn reply(&mut self, op: u64, outcome: Outcome) -> Result<(), String> {
        let now = self.now;
        let found = &mut self.ops[op as usize - 1];
        if found.outcome.is_some() {
            return Ok(());
        }
        self.work.heard(&found.ask, &outcome);
        self.log.event(now, &[33, op, u64::from(outcome.is_ok())], || {
            format!("  op {op} of client {} at {}: {:?} -> {outcome:?}", found.client, found.member, found.ask)
        });
        // Who gave up has not heard: whatever comes later happened after it gave up.
        found.returned = (outcome != Outcome::Unknown).then_some(now);
        found.outcome = Some(outcome);
        let client = found.client;
        if self.busy && client != OPERATOR {
            // Who was refused waits before the next attempt, as well-behaved clients do.
            let patience = match &found.outcome {
                Some(Outcome::Refused(Error::Stopped)) => self.options.election_us() / 2,
                Some(outcome) if !outcome.is_ok() => 2 * self.think.max,
                _ => 0,
            };
            let delay = patience + self.think.draw(&mut self.client);
            self.after(delay, Event::Client { client });
        }
        Ok(())
    }

    pub(super) fn watch(&mut self, watcher: usize) {
        // A watcher's life: connect, ask for progress now and then, stall, move on.
        let again = self.options.election_us() / 2 + self.client.below(self.options.election_us() * 3);
        let choice = self.client.below(10);
        self.after(again, Event::Watch { watcher });
        let Some((stream, member)) = self.watchers[watcher].stream else { return self.connect(watcher) };
        match choice {
            0..=1 if self.busy => {
                self.watchers[watcher].stream = None;
                if let Some(process) = &mut self.node(member).process {
                    process.close_stream(stream);
                }
                self.connect(watcher);
            }
            2..=3 if self.busy => self.watchers[watcher].stalled = true,
            _ => {
                let owed = std::mem::take(&mut self.watchers[watcher].owed);
                self.watchers[watcher].stalled = false;
                if owed > 0 {
                    self.after(0, Event::Credit { member, stream, cost: owed });
                }
                if let Some(process) = &mut self.node(member).process {
                    process.tell_hub(HubInput::Request(StreamId(stream), Watcher::ask_progress()));
                    self.want_hub(member);
                }
            }
        }
    }

    pub(super) fn connect(&mut self, watcher: usize) {
        if self.watchers[watcher].stream.is_some() {
            return;
        }
        let (member, after_event) = (self.choose_member(), self.client.chance(50));
        if self.nodes[&member].process.is_none() || self.nodes[&member].stopped.is_some() {
            return;
        }
        self.streams += 1;
        let stream = self.streams;
        let request = self.watchers[watcher].begin(stream, member, after_event);
        let process = self.node(member).process.as_mut().expect("it was there above");
        process.tell_hub(HubInput::Open(StreamId(stream)));
        process.tell_hub(HubInput::Request(StreamId(stream), request));
        self.want_hub(member);
    }

    pub(super) fn watch_message(
        &mut self,
        watcher: usize,
        session: u64,
        message: &Bytes,
        cost: usize,
    ) -> Result<(), String> {
        let found = &mut self.watchers[watcher];
        let Some((stream, member)) = found.stream.filter(|_| found.session == session) else { return Ok(()) };
        let taken = found.take(message).map_err(|error| format!("watcher {watcher} at {member}: {error}"))?;
        if found.stalled {
            found.owed += cost;
        } else {
            let delay = self.options.latency.min;
            self.after(delay, Event::Credit { member, stream, cost });
        }
        if taken == Taken::Canceled {
            if let Some(process) = &mut self.node(member).process {
                process.close_stream(stream);
            }
            let delay = self.network.delay();
            self.after(delay, Event::Connect { watcher });
        }
        Ok(())
    }
}
