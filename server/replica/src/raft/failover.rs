//! Who campaigns when, after the leader's connections broke: one member at a time, long before the election timeout.
//!
//! If all that see it campaigned at once, each would vote for itself and nobody would win. So each takes the place that
//! a hash of term and member gives it among the voters that are left, and waits that many times
//! [`FAILOVER_RANK_MS`]; who has heard of a leader by then stays a follower. A round that brought no leader is followed by
//! another one, whose hash has another term or another number.

use super::timeout::mix;
use crate::limits::{FAILOVER_RANK_MS, FAILOVER_ROUNDS_MAX};
use crate::types::{MemberId, MonoMillis, Term};

/// One lost leader, until there is another one.
#[derive(Default)]
pub(super) struct Failover {
    turn: Option<Turn>,
}

struct Turn {
    member: MemberId,
    /// The voters but the lost leader.
    rivals: Vec<MemberId>,
    term: Term,
    round: u32,
    at: MonoMillis,
}

impl Turn {
    fn rank(&self) -> u64 {
        let key = |member: MemberId| (mix(mix(self.term ^ u64::from(self.round) << 48) ^ member.0), member);
        let own = key(self.member);
        self.rivals.iter().filter(|rival| key(**rival) < own).count() as u64
    }

    /// Begins another round: all that are left have had their turn by then.
    fn again(mut self, term: Term, now: MonoMillis) -> Option<Self> {
        self.round += 1;
        if self.round >= FAILOVER_ROUNDS_MAX {
            return None;
        }
        self.term = term;
        self.at = MonoMillis(now.0 + (self.rivals.len() as u64 + self.rank()) * FAILOVER_RANK_MS);
        Some(self)
    }
}

impl Failover {
    /// Takes note that the leader of `term` was lost just now.
    pub(super) fn begin(&mut self, member: MemberId, lost: MemberId, term: Term, voters: &[MemberId], now: MonoMillis) {
        let rivals = voters.iter().copied().filter(|voter| *voter != lost).collect();
        let mut turn = Turn { member, rivals, term, round: 0, at: now };
        turn.at = MonoMillis(now.0 + turn.rank() * FAILOVER_RANK_MS);
        self.turn = Some(turn);
    }

    /// Tells whether it is this member's turn to campaign. A leader ends it; a newer term means that somebody else has
    /// begun, who is given another round's time.
    pub(super) fn is_due(&mut self, led: bool, term: Term, now: MonoMillis) -> bool {
        if led {
            self.turn = None;
        }
        let Some(turn) = self.turn.take_if(|turn| turn.term != term) else {
            return self.turn.as_ref().is_some_and(|turn| turn.at <= now);
        };
        self.turn = turn.again(term, now);
        false
    }

    /// Takes note that this member campaigns now.
    pub(super) fn took_turn(&mut self, now: MonoMillis) {
        self.turn = self.turn.take().and_then(|turn| {
            let term = turn.term;
            turn.again(term, now)
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn turns(term: Term, count: u64) -> Vec<u64> {
        let voters: Vec<MemberId> = (1..=count).map(MemberId).collect();
        let turn = |member: &MemberId| {
            let mut failover = Failover::default();
            failover.begin(*member, MemberId(1), term, &voters, MonoMillis(1_000));
            failover.turn.map(|turn| turn.at.0 - 1_000)
        };
        voters[1..].iter().filter_map(turn).collect()
    }

    #[test]
    fn members_take_turns_in_an_order_that_the_term_shuffles() {
        let mut orders = std::collections::BTreeSet::new();
        for term in 1..=50 {
            let order = turns(term, 5);
            let mut sorted = order.clone();
            sorted.sort_unstable();
            assert_eq!(sorted, [0, FAILOVER_RANK_MS, 2 * FAILOVER_RANK_MS, 3 * FAILOVER_RANK_MS]);
            orders.insert(order);
        }
        assert!(orders.len() > 10, "{orders:?}");
    }

    #[test]
    fn a_leader_ends_it_and_a_new_term_grants_a_round() {
        let voters = [MemberId(1), MemberId(2)];
        let mut failover = Failover::default();
        failover.begin(MemberId(2), MemberId(1), 7, &voters, MonoMillis(0));
        assert!(failover.is_due(false, 7, MonoMillis(0)));
        assert!(!failover.is_due(false, 8, MonoMillis(0)));
        assert!(failover.is_due(false, 8, MonoMillis(FAILOVER_RANK_MS)));
        assert!(!failover.is_due(true, 8, MonoMillis(FAILOVER_RANK_MS)));
        assert!(!failover.is_due(false, 8, MonoMillis(u64::MAX)));
    }

    #[test]
    fn rounds_end() {
        let voters = [MemberId(1), MemberId(2)];
        let mut failover = Failover::default();
        failover.begin(MemberId(2), MemberId(1), 7, &voters, MonoMillis(0));
        let mut rounds = 0;
        for now in 0..60_000 {
            if failover.is_due(false, 7, MonoMillis(now)) {
                failover.took_turn(MonoMillis(now));
                rounds += 1;
            }
        }
        assert_eq!(rounds, FAILOVER_ROUNDS_MAX);
    }
}
