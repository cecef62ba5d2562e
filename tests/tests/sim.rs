//! Many seeds of the simulator: every promise is kept, a seed is its run, and known bugs do not go unseen.

use mechi_tests::sim::campaign::{across, campaign};
use mechi_tests::sim::{Keep, Plan, run};
use std::process::Command;

/// Seeds in each run of the tests; `cargo sim --seeds A..B` runs any others.
const SEEDS: u64 = 500;

/// Of them, those that are run again in a process of their own.
const SEEDS_TWICE: u64 = 20;

fn threads() -> usize {
    std::thread::available_parallelism().map_or(1, std::num::NonZero::get)
}

#[test]
fn every_promise_is_kept_over_five_hundred_seeds() {
    let sums = campaign(0..SEEDS, threads(), &Plan::default(), |body| body(), |_, _| {});
    println!("{sums}");
    let broken: Vec<_> =
        sums.broken.iter().map(|(seed, text)| format!("{text}\n  again: cargo sim --seed {seed}")).collect();
    assert!(broken.is_empty(), "{} of {SEEDS} seeds are broken:\n{}", broken.len(), broken.join("\n"));
    // What never had an effect was never tested.
    let quiet: Vec<_> = Plan::classes().into_iter().filter(|class| !sums.all.by_kind.contains_key(class)).collect();
    assert!(quiet.is_empty(), "no seed felt {quiet:?}");
}

/// The hash is over every event of the run, so equal hashes are equal runs.
#[test]
fn a_seed_gives_the_same_run_in_another_process() {
    across(0..SEEDS_TWICE, threads(), |seed| {
        let here = run(seed, Keep::Nothing);
        let output = Command::new(env!("CARGO_BIN_EXE_sim")).args(["--seed", &seed.to_string()]).output();
        let output = output.expect("the simulator's own program");
        let text = String::from_utf8_lossy(&output.stdout);
        let wanted = here.stats.to_string();
        assert!(text.contains(&wanted), "seed {seed} went another way: wanted {wanted}, got {text}");
        true
    });
}

#[cfg(feature = "mutants")]
mod mutants {
    use super::threads;
    use mechi_replica::mutants::with;
    use mechi_tests::sim::mutants::{SEEDS_MAX, hunt_known, known};
    use mechi_tests::sim::{Keep, Plan, run, run_by, shrink};

    /// As `cargo mutants-table` has written it. Where it is out of date the hunts take longer, and find all the same.
    const TABLE: &str = include_str!("../../docs/mutants.md");

    /// Runs for making one smaller: enough to leave much of it out.
    const RUNS_MAX: u64 = 40;

    #[test]
    fn each_known_bug_is_caught() {
        // A panic of raft's own is a finding as good as any; its text would only hide the list.
        std::panic::set_hook(Box::new(|_| {}));
        let hunts = hunt_known(&known(TABLE), threads(), &mut |hunt| println!("{hunt}"));
        let _ = std::panic::take_hook();
        let missed: Vec<_> = hunts.iter().filter(|hunt| hunt.found.is_none()).map(|hunt| hunt.bug.name).collect();
        assert!(missed.is_empty(), "nobody noticed within {SEEDS_MAX} seeds: {missed:?}");
    }

    /// A bug is found, made smaller without losing it, and drawn.
    #[test]
    fn a_failing_run_is_made_smaller() {
        let name = "batch_applied_twice";
        std::panic::set_hook(Box::new(|_| {}));
        let finds = |seed: &u64| with(name, || run(*seed, Keep::Nothing)).finding().is_some();
        let seed = known(TABLE).get(name).copied().into_iter().chain(0..SEEDS_MAX).find(finds);
        let seed = seed.expect("the hunts find it, too");
        let whole = with(name, || run(seed, Keep::Nothing));
        let shrunk = with(name, || shrink::shrink(seed, &Plan::default(), RUNS_MAX, &mut |_| {})).expect("it fails");
        let again = with(name, || run_by(seed, &shrunk.plan, Keep::Nothing, true));
        let _ = std::panic::take_hook();
        assert_eq!(again.broken, shrunk.report.broken, "what is left fails in the same way each time");
        let kinds = [&whole, &again].map(|report| report.finding().map(shrink::kind));
        assert_eq!(kinds[0], kinds[1]);
        let (before, after) = (whole.stats.operations, again.stats.operations);
        assert!(again.faults.len() < whole.faults.len() || after < before, "{} operations are left", after);
        let drawn = mechi_tests::sim::page::page(&again, &shrunk.plan, "cargo sim").expect("it was traced");
        let text = again.finding().expect("it fails");
        assert!(drawn.contains(&text.replace('"', "\\\"")), "the page does not say {text}");
        // The one address is the name of a format.
        assert_eq!(drawn.matches("://").count(), 1, "the page needs the network");
    }
}
