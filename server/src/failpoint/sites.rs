//! The places, and what happens at one.

use std::cell::Cell;

thread_local! {
    static HIT: Cell<bool> = const { Cell::new(false) };
}

/// Every place, in the order of `docs/failpoints.md`.
pub const SITES: &[&str] = &[
    // The log.
    "wal_before_append",
    "wal_after_append_before_sync",
    "wal_after_sync",
    "hs_before_save",
    "hs_after_save",
    "wal_before_truncate",
    "wal_after_truncate",
    // Messages.
    "send_before_leader",
    "send_before_follower",
    "forward_before_send",
    // Apply.
    "apply_before",
    "apply_mid_batch",
    "apply_after",
    "lease_before_revoke",
    "lease_before_checkpoint",
    "compact_after_mark",
    // The working store.
    "engine_before_commit",
    "engine_after_commit",
    "compact_mid_batch",
    "compact_after_batch_before_finish",
    "compact_after_finish",
    // The note of an orderly stop.
    "ckpt_after_flush_before_fsync",
    "ckpt_after_fsync_before_record",
    "ckpt_after_record",
    // A store that is set aside.
    "rebuild_before_swap",
    "rebuild_after_swap",
    // Snapshots.
    "snap_before_write",
    "snap_after_write_before_rename",
    "snap_after_rename_before_dirsync",
    "snap_recv_mid",
    "snap_recv_before_sync",
    "snap_before_apply",
    "snap_after_apply",
    // Watches.
    "watch_before_send",
    "watch_before_sync",
    "watch_before_victims",
    "watch_before_progress",
    // Reads.
    "readindex_after_confirm",
    "readindex_before_respond",
];

/// `return(bug)` is this: a panic like any other, of which `panics.rs` makes what it makes of a bug in that thread.
const BUG: &str = "bug";

/// Does what this place is set to; returns the text of `return(text)`, empty for `return`.
///
/// - Panics: at a place that is set to `panic`, which ends the process on whatever thread it is, see [`is_hit`]; and at one
///   that is set to `return(bug)`.
pub fn hit(name: &'static str) -> Option<String> {
    debug_assert!(SITES.contains(&name), "{name} is not among the places");
    let outer = HIT.replace(true);
    let told = fail::eval(name, Option::unwrap_or_default);
    HIT.set(outer);
    assert!(told.as_deref() != Some(BUG), "a bug at {name}");
    told
}

/// Whether this thread panics at a place right now. The runtime outlives the panic of a task, and a crash must not be
/// outlived.
pub fn is_hit() -> bool {
    HIT.get()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::failpoint::{arm, failpoint};

    fn place() -> Result<(), String> {
        failpoint!("snap_recv_mid", |text| Err(text));
        failpoint!(if false, "snap_recv_mid", |_| Err("never".to_owned()));
        Ok(())
    }

    #[test]
    fn a_place_does_what_it_is_set_to_as_often_as_it_is_told() {
        assert_eq!(place(), Ok(()));
        arm("snap_recv_mid", "2*return(cut)").unwrap();
        assert_eq!((place(), place(), place()), (Err("cut".into()), Err("cut".into()), Ok(())));
        arm("snap_recv_mid", "return(bug)").unwrap();
        assert!(std::panic::catch_unwind(place).is_err());
        arm("snap_recv_mid", "off").unwrap();
        assert!(!is_hit());
    }
}
