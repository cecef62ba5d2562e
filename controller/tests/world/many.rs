//! Many worlds: which ones run, how far they are, and what the first that fails is told.

use super::Ablation;
use std::cell::Cell;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Instant;

/// Worlds that a test looks at, if nobody says otherwise.
const SEEDS: u64 = 5_000;

/// Between two words about how far it is.
const PROGRESS_SECONDS: u64 = 10;

/// Which world, and what is left out of it.
#[derive(Clone, Copy)]
pub(crate) struct Setting {
    pub(crate) seed: u64,
    pub(crate) talks: bool,
    pub(crate) without: Option<&'static Ablation>,
}

/// What went wrong in a world.
#[derive(Debug)]
pub(crate) struct Caught {
    /// The statement that does not hold.
    pub(crate) rule: String,
    pub(crate) text: String,
    /// The world's time; none if it is wrong in the end.
    pub(crate) ms: Option<u64>,
}

/// Runs a world; returns the revisions and the changes of objects that were audited.
pub(crate) type Run = fn(Setting) -> Result<(u64, u64), Caught>;

pub(crate) fn variable(name: &str) -> Option<u64> {
    std::env::var(name).ok().map(|text| text.parse().unwrap_or_else(|_| panic!("{name}={text} is no number")))
}

thread_local! {
    /// Panics of this thread are told by whoever runs its worlds.
    static IS_TOLD: Cell<bool> = const { Cell::new(false) };
}

/// Runs a world; what panics in it begins with the statement that does not hold, or is a bug.
pub(crate) fn attempt(run: Run, setting: Setting) -> Result<(u64, u64), Caught> {
    static HOOK: std::sync::Once = std::sync::Once::new();
    HOOK.call_once(|| {
        let usual = std::panic::take_hook();
        std::panic::set_hook(Box::new(move |info| {
            if !IS_TOLD.get() {
                usual(info);
            }
        }));
    });
    // A world whose guards are all there must not panic in silence: where it did is worth knowing.
    IS_TOLD.set(setting.without.is_some());
    let done = catch_unwind(AssertUnwindSafe(|| run(setting)));
    IS_TOLD.set(false);
    done.unwrap_or_else(|panic| {
        let text = panic.downcast_ref::<String>().cloned();
        let text = text.or_else(|| panic.downcast_ref::<&str>().map(|text| (*text).to_owned())).unwrap_or_default();
        let rule =
            text.split_once(": ").map(|(rule, _)| rule).filter(|rule| matches!(*rule, "L1" | "L2" | "L3" | "L4"));
        Err(Caught { rule: rule.unwrap_or("panic").to_owned(), text, ms: None })
    })
}

/// Runs as many worlds as the environment says, or the one that it names, which then tells what happens.
///
/// - Shape: `MECHI_CONTROL_SEEDS` from `MECHI_CONTROL_FROM` on, on `MECHI_CONTROL_THREADS` threads, or `MECHI_CONTROL_SEED`.
/// - Panics: if one fails, naming its seed; if too little happened for it to say anything.
pub(crate) fn worlds(run: Run) {
    let setting = |seed, talks| Setting { seed, talks, without: None };
    if let Some(seed) = variable("MECHI_CONTROL_SEED") {
        run(setting(seed, true)).unwrap_or_else(|caught| panic!("{}: {}", caught.rule, caught.text));
        return;
    }
    let (from, seeds) = (variable("MECHI_CONTROL_FROM").unwrap_or(0), variable("MECHI_CONTROL_SEEDS").unwrap_or(SEEDS));
    let threads = variable("MECHI_CONTROL_THREADS")
        .unwrap_or_else(|| std::thread::available_parallelism().map_or(1, |threads| threads.get() as u64));
    let (next, revisions, objects, told) = (AtomicU64::new(0), AtomicU64::new(0), AtomicU64::new(0), AtomicU64::new(0));
    let failed: Mutex<Option<(u64, Caught)>> = Mutex::new(None);
    let begun = Instant::now();
    let work = || {
        loop {
            let n = next.fetch_add(1, Relaxed);
            if n >= seeds || failed.lock().expect("nobody panics with it").is_some() {
                return;
            }
            match attempt(run, setting(from + n, false)) {
                Ok(seen) => {
                    revisions.fetch_add(seen.0, Relaxed);
                    objects.fetch_add(seen.1, Relaxed);
                }
                Err(caught) => {
                    failed.lock().expect("nobody panics with it").get_or_insert((from + n, caught));
                }
            }
            let turn = begun.elapsed().as_secs() / PROGRESS_SECONDS;
            if told.fetch_max(turn, Relaxed) < turn {
                let a_second = (n + 1) as f64 / begun.elapsed().as_secs_f64();
                let left = (seeds - n - 1) as f64 / a_second;
                eprintln!("{} of {seeds} worlds, {a_second:.0} a second, {left:.0} s left", n + 1);
            }
        }
    };
    std::thread::scope(|scope| (0..threads.max(1)).for_each(|_| drop(scope.spawn(work))));
    if let Some((seed, caught)) = failed.into_inner().expect("nobody panicked with it") {
        panic!("MECHI_CONTROL_SEED={seed} fails: {}: {}", caught.rule, caught.text);
    }
    let (revisions, objects, seconds) = (revisions.into_inner(), objects.into_inner(), begun.elapsed().as_secs_f64());
    println!(
        "{seeds} worlds in {seconds:.1} s, {:.0} a second: {revisions} revisions and {objects} changes of objects were audited, nothing was found",
        seeds as f64 / seconds
    );
    assert!(revisions > 50 * seeds, "too little happened");
}
