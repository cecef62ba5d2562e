//! Known bugs that can be put back one at a time, to show that a test would catch them.
//!
//! Compiled only with the feature `mutants`. A place in the code asks [`active`]; a test runs [`with`].

use std::cell::Cell;

thread_local! {
    static ACTIVE: Cell<Option<&'static str>> = const { Cell::new(None) };
}

/// A bug that can be put back.
#[derive(Clone, Copy, Debug)]
pub struct Bug {
    /// What it is called.
    pub name: &'static str,
    /// What is wrong with it, in words.
    pub wrong: &'static str,
    /// Whether the crash images of one member must find it.
    pub by_images: bool,
    /// Whether the simulator of a cluster must find it.
    pub by_simulator: bool,
}

const fn by_images(name: &'static str, wrong: &'static str) -> Bug {
    Bug { name, wrong, by_images: true, by_simulator: false }
}

const fn by_simulator(name: &'static str, wrong: &'static str) -> Bug {
    Bug { name, wrong, by_images: false, by_simulator: true }
}

const fn by_both(name: &'static str, wrong: &'static str) -> Bug {
    Bug { name, wrong, by_images: true, by_simulator: true }
}

/// All of them.
pub const BUGS: &[Bug] = &[
    // The log.
    by_both("ack_before_fsync", "a write is acknowledged before its fsync"),
    by_simulator("sync_error_ignored", "a failed fsync is taken for a finished one"),
    by_simulator("log_sums_skipped", "the log is read without looking at its sums"),
    by_both("cut_at_first_bad_crc", "the log is cut at the first damage, wherever that is"),
    by_both("midlog_damage_as_tail", "damage amid the newest segment is taken for a torn tail"),
    by_simulator("conflict_kept_at_open", "an entry that was replaced leaves those behind it in the log"),
    by_images("trim_before_snapshot_durable", "the log is trimmed before its snapshot is noted durably"),
    by_both("unsynced_tail_taken_for_durable", "what an open reads back counts as synced"),
    by_simulator("snapshot_not_synced", "a snapshot's chunks are renamed without an fsync"),
    // Opening.
    by_both("use_sled_after_power_cut", "the store is used after a power cut"),
    by_both("applied_above_commit_at_open", "raft starts with an applied index above its commit index"),
    by_simulator("applied_from_commit_on_restart", "an open calls applied what is only committed"),
    by_simulator("sled_ahead_of_commit_at_open", "a store is used that is ahead of the log"),
    by_simulator("snapshot_conf_ignored", "a restored state forgets who votes"),
    by_simulator("revision_from_keys_at_open", "the revision at open is that of the newest key that lives"),
    by_simulator("dedupe_forgotten_at_open", "a restored state forgets which batches it has taken"),
    // The order of effects.
    by_simulator("vote_not_synced", "a vote is sent without an fsync"),
    by_simulator("message_before_ticket", "an acknowledgement leaves before the write that it promises"),
    by_simulator("hard_state_before_entries", "the hard state is written before its entries"),
    // Membership and snapshots of others.
    by_simulator("conf_change_after_advance", "raft hears of a change after the applied index has passed it"),
    by_simulator("two_changes_at_once", "a membership change is proposed while another one is open"),
    by_simulator("snapshot_report_dropped", "raft is not told what became of a snapshot that it sent"),
    // Forwarding and reading.
    by_simulator("batch_applied_twice", "a batch that was sent twice is applied twice"),
    by_simulator("read_context_reused", "a read round is asked again under the same context"),
    by_simulator("read_context_shared", "two members ask read rounds under the same context"),
    by_simulator("read_before_applied", "a read is served before its read point is applied"),
    by_simulator("compacted_read_by_sweep", "a compacted revision can be read until the sweep has come by"),
    // Leases.
    by_simulator("lease_ended_by_wall_clock", "leases end by the wall clock"),
    by_simulator("lease_revoked_by_deposed_leader", "the lease end that an earlier leader wished counts"),
    by_simulator("keep_alive_without_round", "a keep-alive is answered by whoever believes to lead"),
    // History.
    by_simulator("tombstone_dropped_at_compact_revision", "a deletion at the compact revision is forgotten"),
    by_simulator("swept_under_export", "old versions are swept while a snapshot reads them"),
    by_simulator("watch_cursor_reset_by_snapshot", "a watch goes on from now instead of from its revision"),
    by_simulator("progress_before_events", "a progress notification overtakes events"),
    by_simulator("revision_split", "the events of one revision come in two responses"),
    by_simulator("slow_watcher_skips", "a slow watcher goes on behind what it had no room for"),
    by_simulator("future_watch_from_now", "a watch from a revision to come is told what comes before"),
];

fn known(name: &str) -> Option<&'static str> {
    BUGS.iter().map(|bug| bug.name).find(|known| *known == name)
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
    let known = known(name).expect("a mutant is named in BUGS");
    let _restore = Restore(ACTIVE.replace(Some(known)));
    body()
}
