//! From milliseconds to raft ticks, and election timeouts that a seed can replay.

use crate::types::{MemberId, MonoMillis, Term};

/// Turns the shell's monotonic time into ticks.
pub(super) struct Clock {
    tick_ms: u64,
    ticks_max: usize,
    counted: Option<MonoMillis>,
}

impl Clock {
    /// Makes a clock of `tick_ms` that never gives more than `ticks_max` ticks at once.
    pub(super) fn new(tick_ms: u64, ticks_max: usize) -> Self {
        Self { tick_ms, ticks_max, counted: None }
    }

    /// Returns how many ticks are due at `now`.
    ///
    /// After a pause of the process the rest is forgotten: a member that slept must not campaign at once on time
    /// in which it could not hear its leader.
    pub(super) fn due(&mut self, now: MonoMillis) -> usize {
        let Some(counted) = self.counted else {
            self.counted = Some(now);
            return 0;
        };
        let ticks = now.0.saturating_sub(counted.0) / self.tick_ms;
        match usize::try_from(ticks) {
            Ok(ticks) if ticks <= self.ticks_max => {
                self.counted = Some(MonoMillis(counted.0 + ticks as u64 * self.tick_ms));
                ticks
            }
            _ => {
                self.counted = Some(now);
                self.ticks_max
            }
        }
    }
}

/// Chooses a randomized election timeout in ticks: within `[election_ticks, 2 * election_ticks)`.
///
/// raft-rs draws it from the thread's random numbers, so no run could be replayed. This is a hash of what differs
/// between members and between attempts.
pub(super) fn election_timeout(
    seed: u64,
    member: MemberId,
    term: Term,
    campaigns: u64,
    election_ticks: usize,
) -> usize {
    let mut hash = seed;
    for part in [member.0, term, campaigns] {
        hash = mix(hash ^ part);
    }
    election_ticks + (hash % election_ticks as u64) as usize
}

/// The finalizer of splitmix64.
pub(super) fn mix(value: u64) -> u64 {
    let value = value.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let value = (value ^ (value >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let value = (value ^ (value >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    value ^ (value >> 31)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    #[test]
    fn time_becomes_ticks_and_keeps_the_remainder() {
        let mut clock = Clock::new(100, 10);
        assert_eq!(clock.due(MonoMillis(5_000)), 0);
        assert_eq!(clock.due(MonoMillis(5_099)), 0);
        assert_eq!(clock.due(MonoMillis(5_150)), 1);
        assert_eq!(clock.due(MonoMillis(5_199)), 0);
        assert_eq!(clock.due(MonoMillis(5_200)), 1);
    }

    #[test]
    fn a_long_pause_gives_one_election_timeout_of_ticks() {
        let mut clock = Clock::new(100, 10);
        clock.due(MonoMillis(0));
        assert_eq!(clock.due(MonoMillis(3_600_000)), 10);
        assert_eq!(clock.due(MonoMillis(3_600_099)), 0);
        assert_eq!(clock.due(MonoMillis(3_600_100)), 1);
    }

    #[test]
    fn time_that_goes_back_gives_no_ticks() {
        let mut clock = Clock::new(100, 10);
        clock.due(MonoMillis(1_000));
        assert_eq!(clock.due(MonoMillis(500)), 0);
    }

    #[test]
    fn timeouts_repeat_for_a_seed_and_differ_between_attempts() {
        let all: BTreeSet<usize> =
            (0..50).map(|campaigns| election_timeout(1, MemberId(7), 3, campaigns, 10)).collect();
        assert!(all.len() > 5 && all.iter().all(|ticks| (10..20).contains(ticks)), "{all:?}");
        assert_eq!(election_timeout(1, MemberId(7), 3, 4, 10), election_timeout(1, MemberId(7), 3, 4, 10));
    }
}
