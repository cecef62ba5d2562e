//! Known bugs that can be put back one at a time, to show that a test would catch them.
//!
//! Compiled only with the feature `mutants`. A place in the code asks [`active`]; a test runs [`with`].

use std::cell::Cell;

thread_local! {
    static ACTIVE: Cell<Option<&'static str>> = const { Cell::new(None) };
}

/// Every bug there is, by name.
pub const NAMES: &[&str] = &[
    // The log.
    "ack_before_fsync",
    "cut_at_first_bad_crc",
    "midlog_damage_as_tail",
    "trim_before_snapshot_durable",
    "unsynced_tail_taken_for_durable",
    // Opening.
    "use_sled_after_power_cut",
    "applied_above_commit_at_open",
];

/// Whether the bug `name` is in force on this thread.
pub fn active(name: &str) -> bool {
    debug_assert!(NAMES.contains(&name), "no mutant is called {name}");
    ACTIVE.get() == Some(name)
}

/// Runs `body` with the bug `name` in force on this thread, and puts the former one back, also after a panic.
///
/// - Panics: if there is no such bug.
pub fn with<T>(name: &str, body: impl FnOnce() -> T) -> T {
    struct Restore(Option<&'static str>);
    impl Drop for Restore {
        fn drop(&mut self) {
            ACTIVE.set(self.0);
        }
    }
    let known = NAMES.iter().find(|known| **known == name).expect("a mutant is named in NAMES");
    let _restore = Restore(ACTIVE.replace(Some(known)));
    body()
}
