//! Known bugs of the log, put back one at a time: the crash images must find each.

use crate::harness::{self, Counts, Program, judge_program};
use mechi_replica::disk::sim::{Fate, SimDisk};
use mechi_replica::mutants;
use mechi_replica::outcome::Fatal;

/// Searches the images for a violation; gives the first one.
fn hunt() -> Option<String> {
    let mut counts = Counts::default();
    (0..40).find_map(|seed| {
        let judged = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
            judge_program(&Program::random(seed), seed, &mut counts)
        }));
        // A program's own assertions are violations as well.
        judged.unwrap_or_else(|_| Err("an assertion of the program failed".into())).err()
    })
}

/// Damages a vouched batch in the middle of the log and judges what the open makes of it.
fn damaged_middle() -> Option<String> {
    let run = harness::run(&Program::appends(1), &SimDisk::new());
    let disk = run.disk.power_cut(|_| Fate::Applied);
    let files: Vec<_> = disk.files().into_keys().filter(|path| path.ends_with(".wal")).collect();
    files.iter().find_map(|path| {
        let image = disk.fork();
        // The second batch's payload.
        image.damage(path, 512 + 90, b"damage");
        match harness::reopen(&image) {
            Err(Fatal::Corrupt { .. }) => None,
            Err(other) => Some(other.to_string()),
            Ok(recovered) => run.judge_recovered(&recovered).err(),
        }
    })
}

#[test]
fn the_log_as_it_is_passes_the_hunt() {
    assert_eq!(damaged_middle(), None);
}

#[test]
fn an_acknowledgement_before_the_sync_is_caught() {
    let found = mutants::with("ack_before_fsync", hunt).expect("caught");
    println!("{found}");
}

#[test]
fn trimming_before_the_snapshot_is_durable_is_caught() {
    let found = mutants::with("trim_before_snapshot_durable", hunt).expect("caught");
    println!("{found}");
}

#[test]
fn a_tail_read_back_after_a_kill_and_taken_for_durable_is_caught() {
    let found = mutants::with("unsynced_tail_taken_for_durable", hunt).expect("caught");
    println!("{found}");
}

#[test]
fn cutting_at_the_first_bad_sum_is_caught() {
    let found = mutants::with("cut_at_first_bad_crc", damaged_middle).expect("caught");
    println!("{found}");
}

#[test]
fn damage_in_the_middle_taken_for_a_tail_is_caught() {
    let found = mutants::with("midlog_damage_as_tail", damaged_middle).expect("caught");
    println!("{found}");
}
