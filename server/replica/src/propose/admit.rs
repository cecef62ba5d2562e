//! Commands that wait for their place in an entry, bounded by count and bytes.

use crate::command::entry_bytes;
use crate::limits::{ENTRY_BYTES_MAX, ENTRY_COMMANDS_MAX, PENDING_BYTES_MAX};
use mechi_proto::mechipb::Command;
use std::collections::VecDeque;

/// The queue before the log, oldest first.
#[derive(Default)]
pub(super) struct Queue {
    commands: VecDeque<(Command, usize)>,
    bytes: usize,
}

impl Queue {
    pub(super) fn len(&self) -> usize {
        self.commands.len()
    }

    /// Queues a command; tells whether the bound on bytes let it in. An empty queue takes any.
    pub(super) fn push(&mut self, command: Command) -> bool {
        let bytes = entry_bytes(&command);
        if !self.commands.is_empty() && self.bytes + bytes > PENDING_BYTES_MAX {
            return false;
        }
        self.bytes += bytes;
        self.commands.push_back((command, bytes));
        true
    }

    /// Takes the commands of one entry: as many as fit, and always one.
    pub(super) fn take_batch(&mut self) -> Vec<Command> {
        let mut taken = Vec::new();
        let mut sum = 0;
        while let Some((_, bytes)) = self.commands.front() {
            let fits = taken.len() < ENTRY_COMMANDS_MAX && sum + *bytes <= ENTRY_BYTES_MAX;
            if !fits && !taken.is_empty() {
                break;
            }
            sum += *bytes;
            taken.extend(self.commands.pop_front().map(|(command, _)| command));
        }
        self.bytes -= sum;
        taken
    }

    /// Takes all.
    pub(super) fn drain(&mut self) -> impl Iterator<Item = Command> {
        self.bytes = 0;
        self.commands.drain(..).map(|(command, _)| command)
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

    fn ids(commands: &[Command]) -> Vec<u64> {
        commands.iter().map(|command| command.id).collect()
    }

    #[test]
    fn an_entry_takes_what_fits_in_order_and_always_one() {
        let mut queue = Queue::default();
        for (id, bytes) in [(1, 100), (2, ENTRY_BYTES_MAX / 2), (3, ENTRY_BYTES_MAX), (4, 1)] {
            assert!(queue.push(put(id, bytes)));
        }
        assert_eq!(ids(&queue.take_batch()), [1, 2]);
        assert_eq!(ids(&queue.take_batch()), [3]);
        assert_eq!(ids(&queue.take_batch()), [4]);
        assert_eq!((ids(&queue.take_batch()).len(), queue.len(), queue.bytes), (0, 0, 0));
    }

    #[test]
    fn an_entry_has_at_most_so_many_commands() {
        let mut queue = Queue::default();
        for id in 0..=ENTRY_COMMANDS_MAX as u64 {
            assert!(queue.push(put(id, 1)));
        }
        assert_eq!(queue.take_batch().len(), ENTRY_COMMANDS_MAX);
        assert_eq!(queue.take_batch().len(), 1);
    }

    #[test]
    fn bytes_are_bounded_but_an_empty_queue_takes_one() {
        let mut queue = Queue::default();
        assert!(queue.push(put(1, PENDING_BYTES_MAX + 1)));
        assert!(!queue.push(put(2, 1)));
        assert_eq!(ids(&queue.take_batch()), [1]);
        assert!(queue.push(put(3, 1)));
    }
}
