//! Commands that wait for their place in an entry, bounded by count and bytes.

use crate::command::entry_bytes;
use crate::limits::{ENTRY_BYTES_MAX, ENTRY_COMMANDS_MAX, PENDING_BYTES_MAX};
use crate::types::MonoMillis;
use mechi_proto::mechipb::Command;
use std::collections::VecDeque;

/// The queue before the log, oldest first.
#[derive(Default)]
pub(super) struct Queue {
    commands: VecDeque<Waiting>,
    bytes: usize,
}

struct Waiting {
    command: Command,
    bytes: usize,
    since: MonoMillis,
}

impl Queue {
    pub(super) fn len(&self) -> usize {
        self.commands.len()
    }

    pub(super) fn bytes(&self) -> usize {
        self.bytes
    }

    /// Queues a command; tells whether the bound on bytes let it in. An empty queue takes any.
    pub(super) fn push(&mut self, command: Command, now: MonoMillis) -> bool {
        let bytes = entry_bytes(&command);
        if !self.commands.is_empty() && self.bytes + bytes > PENDING_BYTES_MAX {
            return false;
        }
        self.bytes += bytes;
        self.commands.push_back(Waiting { command, bytes, since: now });
        true
    }

    /// Takes the commands of one entry, as many as fit and always one, and tells since when the oldest waited.
    pub(super) fn take_batch(&mut self) -> Option<(Vec<Command>, MonoMillis)> {
        let since = self.commands.front()?.since;
        let mut taken = Vec::new();
        let mut sum = 0;
        while let Some(next) = self.commands.front() {
            let fits = taken.len() < ENTRY_COMMANDS_MAX && sum + next.bytes <= ENTRY_BYTES_MAX;
            if !fits && !taken.is_empty() {
                break;
            }
            sum += next.bytes;
            taken.extend(self.commands.pop_front().map(|waiting| waiting.command));
        }
        self.bytes -= sum;
        Some((taken, since))
    }

    /// Takes out what has waited for `timeout_ms`; returns the ids.
    pub(super) fn overdue(&mut self, now: MonoMillis, timeout_ms: u64) -> Vec<u64> {
        let count = self.commands.partition_point(|waiting| now.0 >= waiting.since.0 + timeout_ms);
        let bytes: usize = self.commands.range(..count).map(|waiting| waiting.bytes).sum();
        self.bytes -= bytes;
        self.commands.drain(..count).map(|waiting| waiting.command.id).collect()
    }

    /// Takes all.
    pub(super) fn drain(&mut self) -> impl Iterator<Item = Command> {
        self.bytes = 0;
        self.commands.drain(..).map(|waiting| waiting.command)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use mechi_proto::etcdserverpb::PutRequest;
    use mechi_proto::mechipb::command::Request;

    fn put(id: u64, bytes: usize) -> Command {
        let put = PutRequest { key: "k".into(), value: vec![0; bytes].into(), ..Default::default() };
        Command { id, request: Some(Request::Put(put)), ..Default::default() }
    }

    const NOW: MonoMillis = MonoMillis(0);

    fn take(queue: &mut Queue) -> Vec<u64> {
        let (commands, _) = queue.take_batch().unwrap_or_default();
        commands.iter().map(|command| command.id).collect()
    }

    #[test]
    fn an_entry_takes_what_fits_in_order_and_always_one() {
        let mut queue = Queue::default();
        for (id, bytes) in [(1, 100), (2, ENTRY_BYTES_MAX / 2), (3, ENTRY_BYTES_MAX), (4, 1)] {
            assert!(queue.push(put(id, bytes), NOW));
        }
        assert_eq!(take(&mut queue), [1, 2]);
        assert_eq!(take(&mut queue), [3]);
        assert_eq!(take(&mut queue), [4]);
        assert_eq!((take(&mut queue).len(), queue.len(), queue.bytes), (0, 0, 0));
    }

    #[test]
    fn an_entry_has_at_most_so_many_commands() {
        let mut queue = Queue::default();
        for id in 0..=ENTRY_COMMANDS_MAX as u64 {
            assert!(queue.push(put(id, 1), NOW));
        }
        assert_eq!(take(&mut queue).len(), ENTRY_COMMANDS_MAX);
        assert_eq!(take(&mut queue).len(), 1);
    }

    #[test]
    fn bytes_are_bounded_but_an_empty_queue_takes_one() {
        let mut queue = Queue::default();
        assert!(queue.push(put(1, PENDING_BYTES_MAX + 1), NOW));
        assert!(!queue.push(put(2, 1), NOW));
        assert_eq!(take(&mut queue), [1]);
        assert!(queue.push(put(3, 1), NOW));
    }

    #[test]
    fn what_waits_too_long_leaves_oldest_first() {
        let mut queue = Queue::default();
        for id in 1..=3 {
            assert!(queue.push(put(id, 1), MonoMillis(id)));
        }
        assert_eq!(queue.overdue(MonoMillis(11), 10), [1]);
        assert_eq!(queue.overdue(MonoMillis(13), 10), [2, 3]);
        assert_eq!((queue.len(), queue.bytes), (0, 0));
    }
}
