//! The search agrees with a search through all orders, and stays fast where that could not.

use super::register::{Register, check_registers};
use super::store::check_store;
use super::{Call, Spec, check, check_within};
use crate::history::value::{self, RegisterCall, Seen, Value};
use crate::history::{History, Kind, Op, Process};
use crate::testing::{Rng, Shape, store};
use crate::verdict::Verdict;

type RegisterOp = Call<(RegisterCall, Option<Seen>)>;

/// Whether any order of all known calls and any of the others explains everything: the definition, word by word.
fn brute(calls: &[RegisterOp]) -> bool {
    fn go(calls: &[RegisterOp], placed: &mut Vec<usize>, state: &<Register as Spec>::State) -> bool {
        let left: Vec<_> = (0..calls.len()).filter(|call| !placed.contains(call)).collect();
        if left.iter().all(|&call| calls[call].returned_ns.is_none()) {
            return true;
        }
        left.iter().any(|&call| {
            let first =
                left.iter().all(|&other| calls[other].returned_ns.is_none_or(|at| at >= calls[call].invoked_ns));
            let Some(next) = Register.step(state, &calls[call].call).filter(|_| first) else { return false };
            placed.push(call);
            let found = go(calls, placed, &next);
            placed.pop();
            found
        })
    }
    go(calls, &mut Vec::new(), &Register.start())
}

/// Calls on a register at random times, with answers that are right at one moment of each, or about right.
fn calls(rng: &mut Rng, count: u64, wrong_percent: u64, unknown_percent: u64, versions: bool) -> Vec<RegisterOp> {
    let mut state = Register.start();
    let mut calls = Vec::new();
    for id in 0..count {
        let at = 100 + id * 10;
        let call = match rng.below(3) {
            0 => RegisterCall::Read,
            1 => RegisterCall::Write(rng.below(3) as i64 + if count > 20 { id as i64 * 4 } else { 0 }),
            _ => RegisterCall::Cas(state.value.unwrap_or(0), rng.below(3) as i64),
        };
        let unknown = call != RegisterCall::Read && rng.chance(unknown_percent);
        let next = Register.step(&state, &(call, None)).filter(|_| !unknown || rng.chance(50));
        if next.is_none() && !unknown {
            continue;
        }
        if let Some(next) = next.filter(|next| next.version > state.version) {
            state = super::register::State { mod_revision: at as i64, ..next };
        }
        let mut seen =
            Seen { value: state.value, version: Some(state.version), mod_revision: Some(state.mod_revision) };
        if !versions {
            (seen.version, seen.mod_revision) = (None, None);
        }
        if rng.chance(wrong_percent) && call == RegisterCall::Read {
            seen.value = Some(rng.below(3) as i64);
        }
        let returned = at + 1 + rng.below(40);
        calls.push(Call {
            id,
            invoked_ns: at - 1 - rng.below(40),
            returned_ns: (!unknown).then_some(returned),
            call: (call, (!unknown).then_some(seen)),
            text: format!("{id} {call:?} {seen:?}"),
        });
    }
    calls
}

#[test]
fn tiny_histories_are_judged_as_by_trying_every_order() {
    let (mut good, mut bad) = (0, 0);
    for seed in 0..4_000 {
        let mut rng = Rng(seed);
        let calls = calls(&mut rng, 7, 40, 30, seed % 2 == 0);
        let wanted = brute(&calls);
        let verdict = check(&Register, &calls);
        assert_eq!(verdict.is_valid(), wanted, "seed {seed}: {calls:?}");
        if wanted { good += 1 } else { bad += 1 }
    }
    assert!(good > 1_000 && bad > 300, "{good} good, {bad} bad");
}

#[test]
fn long_histories_with_unknown_outcomes_need_few_states() {
    for seed in 0..20 {
        let right = calls(&mut Rng(seed), 200, 0, 10, true);
        assert_eq!(check_within(&Register, &right, 200_000), Verdict::Valid, "seed {seed}");
    }
}

#[test]
fn a_search_without_an_end_is_unknown() {
    // Thirty writes of unknown outcome, and a read of what nobody wrote.
    let call = |id, call, seen: Option<Seen>| Call {
        id,
        invoked_ns: id,
        returned_ns: seen.map(|_| id + 1),
        call: (call, seen),
        text: String::new(),
    };
    let mut all: Vec<_> = (0..30).map(|id| call(id, RegisterCall::Write(id as i64), None)).collect();
    all.push(call(40, RegisterCall::Read, Some(Seen { value: Some(77), version: None, mod_revision: None })));
    assert!(matches!(check_within(&Register, &all, 1_000), Verdict::Unknown(_)));
}

/// A history of reads and writes of one register, one after another.
fn register_history(steps: &[(RegisterCall, Option<i64>)]) -> History {
    let mut history = History::default();
    for ((call, value), number) in steps.iter().zip(0..) {
        let register = |seen| Value::Register(value::Register { key: 4, call: *call, seen });
        let seen = Seen { value: *value, version: None, mod_revision: None };
        history.push(Op::new(number * 10, Kind::Invoke, Process::Client(number), register(None)));
        history.push(Op::new(number * 10 + 5, Kind::Ok, Process::Client(number), register(Some(seen))));
    }
    history
}

#[test]
fn a_stale_read_is_explained_by_the_read_and_what_came_before() {
    let right = [(RegisterCall::Write(1), Some(1)), (RegisterCall::Cas(1, 2), Some(2)), (RegisterCall::Read, Some(2))];
    assert_eq!(check_registers(&register_history(&right)), Ok(Verdict::Valid));
    let stale = [right[0], right[1], (RegisterCall::Read, Some(1))];
    let verdict = check_registers(&register_history(&stale)).unwrap();
    let [finding] = verdict.findings() else { panic!("{verdict:?}") };
    assert_eq!(finding.ops, [2, 4]);
    assert!(finding.text.starts_with("no way is found how operation 4 (read of 1 from 4) can be linearized after"));
}

#[test]
fn the_whole_store_is_searched_as_the_revision_oracle_replays_it() {
    let shape = Shape { operations: 14, clients: 3, keys: 3, unknown_percent: 10, everything: true };
    let mut bad = 0;
    for seed in 0..60 {
        let (history, _) = store(seed, &shape);
        assert_eq!(check_store(&history), Ok(Verdict::Valid), "seed {seed}");
        // One answer with the revision of the next.
        let mut ops = history.ops().to_vec();
        for op in &mut ops {
            if let Value::Answer(crate::history::store::Response::Put(put)) = &mut op.value {
                put.header = crate::history::store::header(crate::history::store::revision(&put.header) + 7);
                bad += 1;
                break;
            }
        }
        let tampered = History::from_ops(ops);
        if tampered != history {
            assert!(!check_store(&tampered).unwrap().is_valid(), "seed {seed}");
        }
    }
    assert!(bad > 40);
}

/// `cargo test --release -p mechi-checker -- --ignored --nocapture two_hundred`
#[test]
#[ignore = "a measurement"]
fn two_hundred_calls_on_each_of_a_hundred_registers() {
    for versions in [true, false] {
        let start = std::time::Instant::now();
        let verdicts: Vec<_> =
            (0..100).map(|seed| check(&Register, &calls(&mut Rng(seed), 200, 0, 10, versions))).collect();
        let valid = verdicts.iter().filter(|verdict| verdict.is_valid()).count();
        println!("versions {versions}: {valid} of 100 valid, {:?} each", start.elapsed() / 100);
    }
}
