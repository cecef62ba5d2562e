//! Known bugs of the log, put back one at a time: the crash images must find each.

use crate::harness::{self, Counts, Program, judge_program};
use crate::judge::judge_life;
use crate::member::Life;
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

/// Does the same with lives of a whole member.
fn hunt_lives() -> Option<String> {
    let mut counts = Counts::default();
    (0..20).find_map(|seed| judge_life(&Life::random(seed), &mut counts).err())
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

/// A known bug, the search that must find it, and what its finding must say.
type Row = (&'static str, fn() -> Option<String>, &'static str);

/// Each bug with the search that must find it, and what its finding must say.
const CAUGHT_BY: &[Row] = &[
    ("ack_before_fsync", hunt, ""),
    ("cut_at_first_bad_crc", damaged_middle, ""),
    ("midlog_damage_as_tail", damaged_middle, ""),
    ("trim_before_snapshot_durable", hunt, ""),
    ("unsynced_tail_taken_for_durable", hunt, ""),
    ("use_sled_after_power_cut", hunt_lives, "power cut"),
    ("applied_above_commit_at_open", hunt_lives, "above the commit index"),
];

#[test]
fn the_code_as_it_is_passes_the_search_for_damage() {
    // The other searches without a bug are the tests of main.rs.
    assert_eq!(damaged_middle(), None);
}

#[test]
fn every_known_bug_is_caught() {
    let mut names: Vec<_> = CAUGHT_BY.iter().map(|(name, ..)| *name).collect();
    names.sort_unstable();
    let mut all: Vec<_> = mutants::BUGS.iter().filter(|bug| bug.by_images).map(|bug| bug.name).collect();
    all.sort_unstable();
    assert_eq!(names, all, "every bug has its search");
    println!("{:<32} caught by", "mutant");
    for (name, search, says) in CAUGHT_BY {
        let found = mutants::with(name, search).unwrap_or_else(|| panic!("{name} was not caught"));
        let found: String = found.chars().take(200).collect();
        assert!(found.contains(says), "{name}: {found}");
        println!("{name:<32} {found}");
    }
}
