//! What happened, in order: a hash over all of it, and the text of it if somebody wants to read it.

use std::collections::VecDeque;

/// How much of the log's text is kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Keep {
    /// None of it; only the hash.
    Nothing,
    /// The last events.
    Last(usize),
    /// All of it, on standard output as it happens.
    Print,
}

/// The events of one run.
#[derive(Debug)]
pub(super) struct EventLog {
    hash: u64,
    events: u64,
    keep: Keep,
    last: VecDeque<String>,
}

impl EventLog {
    /// Starts an empty log.
    pub(super) fn new(keep: Keep) -> Self {
        Self { hash: 0xcbf2_9ce4_8422_2325, events: 0, keep, last: VecDeque::new() }
    }

    /// Notes an event: the numbers go into the hash; the text is made only if it is kept.
    pub(super) fn event(&mut self, now: u64, numbers: &[u64], text: impl FnOnce() -> String) {
        self.events += 1;
        self.add(now);
        numbers.iter().for_each(|number| self.add(*number));
        match self.keep {
            Keep::Nothing => {}
            Keep::Last(count) => {
                if self.last.len() == count {
                    self.last.pop_front();
                }
                self.last.push_back(line(now, &text()));
            }
            Keep::Print => println!("{}", line(now, &text())),
        }
    }

    fn add(&mut self, number: u64) {
        self.hash = (self.hash ^ number).wrapping_mul(0x0000_0100_0000_01b3).rotate_left(29);
    }

    /// A number that is equal for equal logs.
    pub(super) fn hash(&self) -> u64 {
        self.hash
    }

    /// How many events there were.
    pub(super) fn events(&self) -> u64 {
        self.events
    }

    /// The last events, as far as they were kept.
    pub(super) fn take_last(&mut self) -> Vec<String> {
        std::mem::take(&mut self.last).into()
    }
}

fn line(now: u64, text: &str) -> String {
    format!("{:>6}.{:06} {text}", now / 1_000_000, now % 1_000_000)
}
