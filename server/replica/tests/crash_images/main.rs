//! Every legal state of a disk after a power cut reopens to hold all that was acknowledged, and nothing invented.
//!
//! A seed makes a program of appends, syncs, marks, snapshots, trims, kills and reopens. It runs once for each place
//! at which the machine may stop; from there the power cuts are enumerated, and each image is reopened and judged.
//! [`harness`] does so for the log alone, with conflicts and tiny snapshots; [`member`] and [`judge`] do so for a whole
//! member, with the real snapshots, a store behind them, and every reader's answers compared.

mod harness;
mod judge;
mod member;
#[cfg(feature = "mutants")]
mod mutants;

use harness::{Counts, Program, judge_program};
use judge::judge_life;
use mechi_replica::disk::Disk;
use mechi_replica::disk::images::Numbers;
use mechi_replica::disk::sim::{Fate, Fault, SimDisk};
use mechi_replica::outcome::Fatal;
use member::Life;

/// Programs per run; each gives some hundreds of distinct images.
const SEEDS: u64 = 64;

/// Lives of a whole member per run.
const LIVES: u64 = 24;

/// What one run must show at least.
const DISTINCT_IMAGES_MIN: usize = 20_000;

/// What the lives must show beside that.
const MEMBER_IMAGES_MIN: usize = 10_000;

#[test]
fn every_power_cut_keeps_what_was_acknowledged() {
    let mut counts = Counts::default();
    for seed in 0..SEEDS {
        if let Err(violation) = judge_program(&Program::random(seed), seed, &mut counts) {
            panic!("seed {seed}: {violation}");
        }
    }
    println!("{counts}");
    assert!(counts.distinct() >= DISTINCT_IMAGES_MIN, "only {} distinct images", counts.distinct());
    for kind in ["first start", "append", "rotate", "recycle", "snapshot", "trim", "reopen", "during recovery"] {
        assert!(counts.of(kind) > 0, "no image of {kind}");
    }
}

#[test]
fn every_power_cut_leaves_a_member_that_holds_what_was_acknowledged() {
    let mut counts = Counts::default();
    let lives = (0..LIVES).map(Life::random).chain([Life::snapshots(1, 4)]);
    for (number, life) in lives.enumerate() {
        if let Err(violation) = judge_life(&life, &mut counts) {
            panic!("life {number}: {violation}");
        }
    }
    println!("whole member, {counts}");
    assert!(counts.distinct() >= MEMBER_IMAGES_MIN, "only {} distinct images", counts.distinct());
    let kinds = ["first start", "append", "snapshot", "garbage", "trim", "close", "reopen", "during recovery"];
    for kind in kinds {
        assert!(counts.of(kind) > 0, "no image of {kind}");
    }
}

#[test]
fn a_damaged_snapshot_gives_way_to_its_predecessor_and_the_log_above_that() {
    for seed in 0..8 {
        judge::judge_damaged_snapshot(&Life::snapshots(seed, 3)).unwrap_or_else(|why| panic!("seed {seed}: {why}"));
    }
}

#[test]
fn damage_below_what_is_vouched_for_is_never_cut() {
    let mut numbers = Numbers::new(7);
    let (mut refused, mut whole) = (0, 0);
    for seed in 0..12 {
        let run = harness::run(&Program::appends(seed), &SimDisk::new());
        let disk = run.disk.power_cut(|_| Fate::Applied);
        for _ in 0..100 {
            let image = disk.fork();
            let files: Vec<_> = image.files().into_iter().filter(|(path, _)| path.ends_with(".wal")).collect();
            let (path, bytes) = &files[numbers.below(files.len() as u64) as usize];
            let at = numbers.below(bytes.len() as u64) as usize;
            image.damage(path, at, &[bytes[at] ^ 1 << numbers.below(8)]);
            match harness::reopen(&image) {
                Err(Fatal::Corrupt { file, offset, .. }) => {
                    assert!(path.ends_with(&file), "{path} was damaged, {file} accused");
                    assert!(offset <= at as u64, "byte {at} was damaged, byte {offset} accused");
                    refused += 1;
                }
                Err(other) => panic!("seed {seed}: {path}:{at}: {other}"),
                Ok(recovered) => {
                    // The flip hit padding, unused space, or the mark itself, which promises nothing.
                    run.judge_recovered(&recovered).unwrap_or_else(|why| panic!("seed {seed}: {path}:{at}: {why}"));
                    whole += 1;
                }
            }
        }
    }
    println!("bit flips: {refused} refused, {whole} harmless");
    assert!(refused > 100, "too few flips hit the log to prove anything: {refused}");
}

#[test]
fn a_failed_sync_or_write_acknowledges_nothing_and_ends_the_log() {
    let program = Program::appends(3);
    let operations = harness::run(&program, &SimDisk::new()).disk.operations();
    for fault in [Fault::Error, Fault::SyncKeepsPages, Fault::SyncDropsPages] {
        for operation in 0..operations {
            let disk = SimDisk::new();
            disk.fail_at(operation, fault);
            let run = harness::run(&program, &disk);
            disk.heal();
            for fate in [Fate::Lost, Fate::Applied] {
                let image = disk.power_cut(|_| fate.clone());
                run.judge(&image).unwrap_or_else(|why| panic!("{fault:?} at operation {operation}: {why}"));
            }
        }
    }
}

#[test]
fn a_full_disk_loses_nothing_and_the_log_goes_on_once_there_is_room() {
    for extra in [0, 1000, 4096, 6000, 9000, 20_000] {
        let disk = SimDisk::new();
        let full = harness::run_until_full(&disk, extra);
        assert!(full.refused > 0, "the disk never ran full");
        for fate in [Fate::Lost, Fate::Applied] {
            let image = disk.power_cut(|_| fate.clone());
            image.set_capacity(None);
            full.run.judge(&image).unwrap_or_else(|why| panic!("{extra}: {why}"));
        }
    }
}

#[test]
fn opening_works_on_a_full_disk_by_giving_up_the_reserve() {
    let run = harness::run(&Program::appends(5), &SimDisk::new());
    let image = run.disk.power_cut(|_| Fate::Applied);
    image.set_capacity(Some(image.used()));
    run.judge_recovered(&harness::reopen(&image).expect("the reserve gives room")).unwrap();
    assert!(image.list("wal").unwrap().iter().all(|name| !name.ends_with(".free")));
}
