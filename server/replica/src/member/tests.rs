//! What a member decides beside raft: who judges leases and when one ends, who is answered, and who differs.

use super::*;
use crate::apply::LeaseEvent;
use crate::command::decode;
use crate::conf::{Moved, Step};
use crate::effect::Entry;
use crate::limits::{DIGEST_EVERY, LEASE_PAUSE_GRACE_MS, LOG_MEMORY_BYTES_MAX};
use crate::types::LeaseId;
use mechi_proto::etcdserverpb::LeaseCheckpoint;

/// A member whose disk and state machine do at once what they are asked; time passes when it is told.
struct One {
    member: Member,
    now: u64,
    /// What it asked for, except for writes and entries.
    seen: Vec<Effect>,
    /// Every command that it applied.
    commands: Vec<Request>,
    /// Nothing is applied meanwhile.
    paused: bool,
    waiting: Vec<Entry>,
}

const TICK: u64 = 10;

fn config(voters: u64, leases: Vec<mechipb::Lease>) -> MemberConfig {
    MemberConfig {
        replica: ReplicaConfig {
            member: MemberId(1),
            conf: Configuration::founding((1..=voters).map(MemberId)),
            boot: 1,
            seed: 1,
            tick_ms: TICK,
            heartbeat_ticks: 1,
            election_ticks: 10,
            log_memory_bytes: LOG_MEMORY_BYTES_MAX,
        },
        tail: LogTail::default(),
        applied: 0,
        snapshot: (0, 0),
        leases,
        lease_checkpoint_ms: 300_000,
    }
}

fn lease(id: i64, ttl: i64, remaining_ttl: i64) -> mechipb::Lease {
    mechipb::Lease { id, ttl, remaining_ttl, grant_index: 0 }
}

impl One {
    fn new(voters: u64, leases: Vec<mechipb::Lease>) -> Self {
        let member = Member::new(config(voters, leases)).unwrap();
        let mut one =
            Self { member, now: 1_000, seen: Vec::new(), commands: Vec::new(), paused: false, waiting: Vec::new() };
        one.feed(Input::Tick { wall_ms: 0 });
        one
    }

    fn feed(&mut self, input: Input) {
        self.member.feed(MonoMillis(self.now), input);
        loop {
            let mut effects = Vec::new();
            let more = self.member.settle(&mut effects);
            let mut any = !effects.is_empty();
            for effect in effects {
                match effect {
                    Effect::Persist { ticket, sync: true, .. } => {
                        self.member.feed(MonoMillis(self.now), Input::Persisted(ticket));
                    }
                    Effect::Persist { .. } => {}
                    Effect::Apply(entries) => self.waiting.extend(entries),
                    effect => self.seen.push(effect),
                }
            }
            if !self.paused {
                any |= !self.waiting.is_empty();
                self.apply();
            }
            if !more && !any {
                return;
            }
        }
    }

    fn apply(&mut self) {
        for entry in std::mem::take(&mut self.waiting) {
            let commands = if entry.data.is_empty() { Vec::new() } else { decode(&entry.data).unwrap().commands };
            let mut lease_events = Vec::new();
            for request in commands.into_iter().filter_map(|command| command.request) {
                match &request {
                    Request::LeaseExpire(wish) => {
                        lease_events.push(LeaseEvent::Revoked { id: LeaseId(wish.id), grant_index: wish.grant_index })
                    }
                    Request::LeaseCheckpoint(notes) => {
                        lease_events.extend(notes.checkpoints.iter().map(|&LeaseCheckpoint { id, remaining_ttl }| {
                            LeaseEvent::Checkpointed { id: LeaseId(id), grant_index: 0, remaining_ttl }
                        }));
                    }
                    _ => {}
                }
                self.commands.push(request);
            }
            let applied = Input::Applied { index: entry.index, lease_events, digests: Vec::new(), moved: Vec::new() };
            self.member.feed(MonoMillis(self.now), applied);
        }
    }

    fn pass(&mut self, ms: u64) {
        for _ in 0..ms / TICK {
            self.now += TICK;
            self.feed(Input::Tick { wall_ms: 0 });
        }
    }

    /// The answer to a token, if it was given since the last look.
    fn answer(&mut self, token: u64) -> Option<Result<Answer, Error>> {
        let place = self
            .seen
            .iter()
            .position(|effect| matches!(effect, Effect::Answered { token: asked, .. } if asked.0 == token))?;
        let Effect::Answered { answer, .. } = self.seen.remove(place) else { return None };
        Some(answer)
    }

    fn keep_alive(&mut self, token: u64, id: i64) -> Option<Result<Answer, Error>> {
        self.feed(Input::KeepAlive { token: Token(token), id: LeaseId(id) });
        self.answer(token)
    }

    fn expiries(&self) -> usize {
        self.commands.iter().filter(|command| matches!(command, Request::LeaseExpire(_))).count()
    }
}

#[test]
fn a_single_member_judges_at_once_and_answers_every_question_once() {
    let mut one = One::new(1, vec![lease(7, 600, 0), lease(8, 600, 300), lease(9, 1, 0)]);
    assert!(one.seen.iter().any(|effect| matches!(effect, Effect::Judges(1))));
    one.feed(Input::Leases(Token(1)));
    assert_eq!(one.answer(1), Some(Ok(Answer::Leases(vec![LeaseId(9), LeaseId(8), LeaseId(7)]))));
    one.feed(Input::Read(Token(2)));
    assert_eq!(one.answer(2), Some(Ok(Answer::ReadAt(1))));
    assert_eq!(one.keep_alive(3, 7), Some(Ok(Answer::Renewed(600))));
    assert_eq!(one.keep_alive(4, 5), Some(Ok(Answer::Renewed(0))));
    one.feed(Input::TimeToLive { token: Token(5), id: LeaseId(5) });
    assert_eq!(one.answer(5), Some(Ok(Answer::Remaining(None))));
    assert!(one.answer(2).is_none());
}

#[test]
fn who_asks_a_new_leader_waits_until_it_judges() {
    let mut one = One::new(1, vec![lease(7, 600, 0)]);
    let mut member = Member::new(config(1, vec![lease(7, 600, 0)])).unwrap();
    std::mem::swap(&mut one.member, &mut member);
    (one.seen, one.paused) = (Vec::new(), true);
    one.feed(Input::Tick { wall_ms: 0 });
    assert_eq!(one.member.role().kind, RoleKind::Leader);
    assert_eq!(one.keep_alive(1, 7), None);
    one.feed(Input::TimeToLive { token: Token(2), id: LeaseId(7) });
    assert_eq!(one.answer(2), None);
    one.paused = false;
    one.pass(TICK);
    assert_eq!(one.answer(1), Some(Ok(Answer::Renewed(600))));
    assert!(matches!(one.answer(2), Some(Ok(Answer::Remaining(Some(_))))));
}

/// A lease whose end is committed is not renewed, whether the leader has applied that or not (etcd 20813).
#[test]
fn reg_lease_renew_revoked() {
    let mut one = One::new(1, vec![lease(7, 600, 0)]);
    one.paused = true;
    let end = Request::LeaseExpire(mechipb::LeaseExpire { id: 7, grant_index: 0, ..Default::default() });
    one.feed(Input::Propose(Command { id: 5, request: Some(end), ..Command::default() }));
    assert_eq!(one.keep_alive(1, 7), None, "its end is committed, and not applied");
    one.paused = false;
    one.pass(TICK);
    assert_eq!(one.answer(1), Some(Ok(Answer::Renewed(0))));
    assert_eq!(one.keep_alive(2, 7), Some(Ok(Answer::Renewed(0))));
}

#[test]
fn who_asks_for_what_is_left_waits_until_the_leader_has_applied_what_is_committed() {
    let mut one = One::new(1, vec![lease(7, 600, 0)]);
    one.paused = true;
    let end = Request::LeaseExpire(mechipb::LeaseExpire { id: 7, grant_index: 0, ..Default::default() });
    one.feed(Input::Propose(Command { id: 5, request: Some(end), ..Command::default() }));
    one.feed(Input::TimeToLive { token: Token(1), id: LeaseId(7) });
    assert_eq!(one.answer(1), None, "its end is committed, and not applied");
    one.paused = false;
    one.pass(TICK);
    assert_eq!(one.answer(1), Some(Ok(Answer::Remaining(None))));
}

#[test]
fn a_noted_lease_is_renewed_only_once_the_note_is_cleared() {
    let mut one = One::new(1, vec![lease(8, 600, 300)]);
    one.paused = true;
    assert_eq!(one.keep_alive(1, 8), None);
    assert_eq!(one.keep_alive(2, 8), None, "both wait for one clearing");
    one.paused = false;
    one.pass(TICK);
    assert_eq!(one.answer(1), Some(Ok(Answer::Renewed(600))));
    assert_eq!(one.answer(2), Some(Ok(Answer::Renewed(600))));
    assert_eq!(one.commands.len(), 1);
}

#[test]
fn a_lease_ends_after_its_time_and_a_read_point_and_not_while_the_process_wakes() {
    let mut one = One::new(1, vec![lease(9, 2, 0)]);
    one.pass(2_000);
    assert_eq!(one.expiries(), 0, "a new leader grants an election timeout more");
    one.pass(200);
    assert_eq!((one.expiries(), one.member.leases_expired()), (1, 1));

    let mut one = One::new(1, vec![lease(9, 2, 0)]);
    // Stopped for longer than the lease: keep-alives that waited in the connections are heard first.
    one.now += 60_000;
    one.feed(Input::Paused);
    one.feed(Input::Tick { wall_ms: 0 });
    one.pass(LEASE_PAUSE_GRACE_MS - 100);
    assert_eq!(one.expiries(), 0);
    assert_eq!(one.keep_alive(1, 9), Some(Ok(Answer::Renewed(2))));
    one.pass(1_900);
    assert_eq!(one.expiries(), 0, "the renewal counts from when it was heard");
    one.pass(200);
    assert_eq!(one.expiries(), 1);
}

#[test]
fn a_gap_between_ticks_is_a_pause_even_if_nobody_tells() {
    let mut one = One::new(1, vec![lease(9, 2, 0)]);
    one.now += 60_000;
    one.feed(Input::Tick { wall_ms: 0 });
    one.pass(LEASE_PAUSE_GRACE_MS - 100);
    assert_eq!(one.expiries(), 0);
}

#[test]
fn who_does_not_lead_lists_leases_but_judges_none() {
    let mut one = One::new(3, vec![lease(7, 1, 0), lease(8, 600, 300)]);
    assert_eq!(one.keep_alive(1, 7), Some(Err(Error::NotLeader)));
    one.feed(Input::TimeToLive { token: Token(2), id: LeaseId(7) });
    assert_eq!(one.answer(2), Some(Err(Error::NotLeader)));
    one.feed(Input::Leases(Token(3)));
    assert_eq!(one.answer(3), Some(Ok(Answer::Leases(vec![LeaseId(7), LeaseId(8)]))));
    one.feed(Input::Read(Token(4)));
    one.pass(6_000);
    assert_eq!(one.answer(4), Some(Err(Error::NoLeader)));
    assert_eq!(one.expiries(), 0);
}

fn digested(one: &mut One, index: Index, chain: u64) {
    let digests = vec![(index, chain)];
    one.feed(Input::Applied { index: 0, lease_events: Vec::new(), digests, moved: Vec::new() });
}

#[test]
fn a_member_tells_its_digests_and_learns_that_it_differs_from_a_majority() {
    let mut one = One::new(3, Vec::new());
    digested(&mut one, DIGEST_EVERY, 7);
    let told: Vec<u64> = one
        .seen
        .iter()
        .filter_map(|effect| match effect {
            Effect::Digest { to, index: DIGEST_EVERY, chain: 7 } => Some(to.0),
            _ => None,
        })
        .collect();
    assert_eq!(told, [2, 3]);
    one.feed(Input::Digest { from: MemberId(2), index: DIGEST_EVERY, chain: 8 });
    assert!(!one.seen.iter().any(|effect| matches!(effect, Effect::Diverged { .. })));
    one.feed(Input::Digest { from: MemberId(3), index: DIGEST_EVERY, chain: 8 });
    assert!(one.seen.iter().any(|effect| matches!(effect, Effect::Diverged { index: DIGEST_EVERY })));
}

#[test]
fn a_split_raises_corrupt_through_the_log_if_this_member_leads() {
    let mut one = One::new(1, Vec::new());
    one.member.agreement = Agreement::new(MemberId(1), Configuration::founding([MemberId(1), MemberId(2)]));
    digested(&mut one, DIGEST_EVERY, 7);
    one.feed(Input::Digest { from: MemberId(2), index: DIGEST_EVERY, chain: 8 });
    let alarm = pb::AlarmRequest { action: 1, member_id: 0, alarm: pb::AlarmType::Corrupt.into() };
    assert_eq!(one.commands, [Request::Alarm(alarm)]);
}

#[test]
fn a_membership_change_is_refused_in_words_and_changes_who_is_counted() {
    let refused = |one: &mut One, steps: &[Step]| {
        one.seen.clear();
        one.feed(Input::Configure { id: 4, steps: steps.to_vec() });
        one.seen.iter().find_map(|effect| match effect {
            Effect::Refuse { id: 4, why } => Some(why.clone()),
            _ => None,
        })
    };
    let demote = |id| Step::Demote(MemberId(id));
    assert_eq!(refused(&mut One::new(1, Vec::new()), &[demote(1)]), Some(Error::NotEnoughStartedMembers));
    assert_eq!(refused(&mut One::new(1, Vec::new()), &[]), Some(Error::UnhealthyCluster));
    let mut one = One::new(3, Vec::new());
    assert_eq!(refused(&mut one, &[demote(2)]), Some(Error::NotLeader));

    // Member 3 is demoted: what it says of its digest decides nothing any more.
    let now = one.member.configuration().after(&[demote(3)]).unwrap();
    let moved = vec![Moved { index: 0, steps: vec![demote(3)], now: now.clone() }];
    one.feed(Input::Applied { index: 0, lease_events: Vec::new(), digests: Vec::new(), moved });
    assert_eq!(*one.member.configuration(), now);
    digested(&mut one, DIGEST_EVERY, 7);
    one.feed(Input::Digest { from: MemberId(3), index: DIGEST_EVERY, chain: 8 });
    one.feed(Input::Digest { from: MemberId(2), index: DIGEST_EVERY, chain: 8 });
    assert!(!one.seen.iter().any(|effect| matches!(effect, Effect::Diverged { .. })));
}
