//! Known bugs that can be put back one at a time, to show that a test would catch them.
//!
//! Compiled only with the feature `mutants`. A place in the code asks [`active`]; a test runs [`with`].

use std::cell::Cell;

thread_local! {
    static ACTIVE: Cell<Option<&'static str>> = const { Cell::new(None) };
}

/// The bugs of one member, which the crash images catch.
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

/// The bugs of a cluster, which the simulator catches; `ack_before_fsync` above is one as well.
pub const CLUSTER_NAMES: &[&str] = &[
    // The order of effects.
    "vote_not_synced",
    "message_before_ticket",
    "hard_state_before_entries",
    // Opening.
    "applied_from_commit_on_restart",
    "sled_ahead_of_commit_at_open",
    // Membership.
    "conf_change_after_advance",
    // Forwarding and reading.
    "batch_applied_twice",
    "read_context_reused",
    // Leases.
    "lease_ended_by_wall_clock",
    "lease_revoked_by_deposed_leader",
    // History.
    "tombstone_dropped_at_compact_revision",
    "watch_cursor_reset_by_snapshot",
];

fn known(name: &str) -> Option<&'static str> {
    NAMES.iter().chain(CLUSTER_NAMES).find(|known| **known == name).copied()
}

/// Whether the bug `name` is in force on this thread.
pub fn active(name: &str) -> bool {
    debug_assert!(known(name).is_some(), "no mutant is called {name}");
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
    let known = known(name).expect("a mutant is named in NAMES or CLUSTER_NAMES");
    let _restore = Restore(ACTIVE.replace(Some(known)));
    body()
}
