//! The guards, checked in every order of everything that can happen, within small bounds: two controllers on copies of any
//! age, transactions that are late, lost, or written again since nobody heard their answer.
//!
//! The rows are what is expected: with all guards nothing is wrong in any state; a guard less, and exactly the named
//! statements break. In reading order: `sets` (who makes and deletes), `finalizers` (who lets go), `bind` (who places pods,
//! and makes others go for them).

mod bind;
mod finalizers;
mod sets;

use stateright::{Checker as _, HasDiscoveries, Model};
use std::collections::BTreeSet;
use std::hash::Hash;

/// Steps that a row may have at most: more is a mistake in the model, and would fill the machine.
const STATES_MAX: usize = 20_000_000;

/// Guards that are there, and the statements that break.
struct Row<M> {
    name: &'static str,
    model: M,
    broken: &'static [&'static str],
}

/// Checks each row in all its states; prints the table.
///
/// - Panics: if another set of statements breaks than a row says.
fn check<M>(title: &str, rows: Vec<Row<M>>)
where
    M: Model + Send + Sync + 'static,
    M::State: Clone + std::fmt::Debug + Hash + PartialEq + Send + Sync + 'static,
    M::Action: Clone + std::fmt::Debug + PartialEq + Send + Sync,
{
    println!("| {title} | states | found, in so many steps |\n| --- | --- | --- |");
    let mut wrong = Vec::new();
    for Row { name, model, broken } in rows {
        let checker =
            model.checker().finish_when(HasDiscoveries::All).target_state_count(STATES_MAX).spawn_bfs().join();
        let states = checker.unique_state_count();
        let discoveries = checker.discoveries();
        let found: BTreeSet<&str> = discoveries.keys().copied().collect();
        let mut told: Vec<String> = discoveries
            .into_iter()
            .map(|(property, path)| format!("{property} ({})", path.into_actions().len()))
            .collect();
        told.sort();
        println!("| {name} | {states} | {} |", if told.is_empty() { "nothing".to_owned() } else { told.join(", ") });
        if found != broken.iter().copied().collect() {
            wrong.push(format!("{name}: {found:?} is found, and {broken:?} is expected"));
        }
        // What was not looked at cannot be said to be right.
        assert!(checker.state_count() < STATES_MAX, "{name}: there are too many states to look at all");
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn a_replica_set_needs_exactly_its_guards() {
    check("ReplicaSets", sets::rows());
}

#[test]
fn a_bind_needs_exactly_its_guards() {
    check("binds", bind::rows());
}

#[test]
fn a_finalizer_needs_its_guard() {
    check("finalizers", finalizers::rows());
}
