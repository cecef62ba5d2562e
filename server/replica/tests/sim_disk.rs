//! The simulated disk keeps exactly what the contract of `Disk` promises, and no more: a proof is worth what it is.

use mechi_replica::disk::images::{self, Numbers};
use mechi_replica::disk::sim::{Fate, Fault, Pending, SimDisk};
use mechi_replica::disk::{self, Disk, File};
use std::collections::BTreeSet;
use std::io::ErrorKind;

fn lost(disk: &SimDisk) -> SimDisk {
    disk.power_cut(|_| Fate::Lost)
}

#[test]
fn a_synced_file_without_a_synced_directory_has_no_name() {
    let disk = SimDisk::new();
    let file = disk.create("f").unwrap();
    file.write_at(b"bytes", 0).unwrap();
    file.sync().unwrap();
    assert_eq!(lost(&disk).list("").unwrap(), [""; 0]);
    disk.sync_dir("").unwrap();
    assert_eq!(disk::read(&lost(&disk), "f").unwrap(), b"bytes");
}

#[test]
fn a_synced_directory_does_not_save_the_bytes_or_the_length() {
    let disk = SimDisk::new();
    let file = disk.create("f").unwrap();
    file.write_at(b"bytes", 0).unwrap();
    disk.sync_dir("").unwrap();
    assert_eq!(disk::read(&lost(&disk), "f").unwrap(), b"");
    let length_only = disk.power_cut(|_| Fate::Torn(Vec::new()));
    assert_eq!(disk::read(&length_only, "f").unwrap(), [0; 5]);
}

#[test]
fn sectors_of_one_write_survive_alone() {
    let disk = SimDisk::new();
    let file = disk.create("f").unwrap();
    file.allocate(2048).unwrap();
    file.sync().unwrap();
    disk.sync_dir("").unwrap();
    // From the middle of sector 0 to the middle of sector 2.
    file.write_at(&[7; 1024], 256).unwrap();
    let torn = disk.power_cut(|pending| match pending {
        Pending::Write { sectors, offset, .. } => {
            assert_eq!((sectors, offset), (3, 256));
            Fate::Torn(vec![false, true, false])
        }
        Pending::Name { .. } => Fate::Lost,
    });
    let bytes = disk::read(&torn, "f").unwrap();
    assert!((0..2048).all(|at| bytes[at] == if (512..1024).contains(&at) { 7 } else { 0 }));
}

#[test]
fn a_later_write_may_survive_an_earlier_one() {
    let disk = SimDisk::new();
    disk::write_atomic(&disk, "f", &[0; 1024]).unwrap();
    let file = disk.open("f").unwrap();
    file.write_at(b"first", 0).unwrap();
    file.write_at(b"second", 512).unwrap();
    let mut number = 0;
    let image = disk.power_cut(|_| {
        number += 1;
        if number == 1 { Fate::Lost } else { Fate::Applied }
    });
    let bytes = disk::read(&image, "f").unwrap();
    assert_eq!((&bytes[..5], &bytes[512..518]), (&[0; 5][..], &b"second"[..]));
}

#[test]
fn an_atomic_write_is_old_or_new_in_every_image() {
    let disk = SimDisk::new();
    disk::write_atomic(&disk, "f", b"old").unwrap();
    let start = disk.operations();
    let whole = disk.fork();
    disk::write_atomic(&whole, "f", b"new and longer").unwrap();
    let (mut numbers, mut seen) = (Numbers::new(1), BTreeSet::new());
    for stop in start..=whole.operations() {
        let stopped = disk.fork();
        stopped.halt_at(stop);
        let _ = disk::write_atomic(&stopped, "f", b"new and longer");
        images::power_cuts(&stopped, &mut numbers, 64, 8, &mut |image| {
            seen.insert(disk::read(&image, "f").unwrap());
        });
    }
    assert_eq!(seen, BTreeSet::from([b"old".to_vec(), b"new and longer".to_vec()]));
}

#[test]
fn a_failed_sync_forgets_the_pages_whatever_the_next_one_says() {
    for (fault, read_back) in [(Fault::SyncKeepsPages, &b"new"[..]), (Fault::SyncDropsPages, b"old")] {
        let disk = SimDisk::new();
        disk::write_atomic(&disk, "f", b"old").unwrap();
        let file = disk.open("f").unwrap();
        file.write_at(b"new", 0).unwrap();
        disk.fail_at(disk.operations(), fault);
        assert!(file.sync().is_err());
        assert_eq!(disk::read(&disk, "f").unwrap(), read_back);
        file.sync().unwrap();
        assert_eq!(disk::read(&lost(&disk), "f").unwrap(), b"old");
    }
}

#[test]
fn a_full_disk_writes_what_fits_and_keeps_what_is_allocated_usable() {
    let disk = SimDisk::new();
    let file = disk.create("f").unwrap();
    file.allocate(512).unwrap();
    disk.set_capacity(Some(600));
    assert_eq!(file.allocate(1024).unwrap_err().kind(), ErrorKind::StorageFull);
    file.write_at(&[1; 512], 0).unwrap();
    assert_eq!(file.write_at(&[2; 512], 512).unwrap_err().kind(), ErrorKind::StorageFull);
    assert_eq!(file.len().unwrap(), 600);
    disk.set_capacity(None);
    file.write_at(&[2; 512], 512).unwrap();
}

#[test]
fn a_directory_whose_name_is_lost_takes_its_files_with_it() {
    let disk = SimDisk::new();
    disk.create_dir("d").unwrap();
    disk::write_atomic(&disk, "d/f", b"bytes").unwrap();
    assert!(lost(&disk).open("d/f").is_err());
    disk::ensure_dir(&disk, "d").unwrap();
    assert_eq!(disk::read(&lost(&disk), "d/f").unwrap(), b"bytes");
}

#[test]
fn a_lock_is_held_once_and_not_after_a_power_cut() {
    let disk = SimDisk::new();
    let lock = disk.lock("lock").unwrap();
    assert_eq!(disk.lock("lock").err().map(|error| error.kind()), Some(ErrorKind::WouldBlock));
    lost(&disk).lock("lock").unwrap();
    drop(lock);
    disk.lock("lock").unwrap();
}

#[test]
fn the_next_sync_fails_once_whatever_it_is_of() {
    let disk = SimDisk::new();
    disk::write_atomic(&disk, "f", b"first").unwrap();
    let file = disk.open("f").unwrap();
    file.write_at(b"later", 0).unwrap();
    disk.fail_next_sync(Fault::SyncDropsPages);
    assert_eq!(disk.struck(), 0);
    file.write_at(b"!", 5).unwrap();
    assert!(file.sync().unwrap_err().to_string().contains("injected"));
    assert_eq!((disk.struck(), disk::read(&disk, "f").unwrap()), (1, b"first".to_vec()));
    file.sync().unwrap();
    disk.fail_next_sync(Fault::SyncKeepsPages);
    assert!(disk.sync_dir("").is_err());
    disk.sync_dir("").unwrap();
    disk.fail_next_sync(Fault::SyncKeepsPages);
    disk.heal();
    file.sync().unwrap();
    assert_eq!(disk.struck(), 2);
}

#[test]
fn what_a_sector_held_before_is_kept_on_request() {
    let disk = SimDisk::new();
    disk.keep_overwritten();
    let file = disk.create("f").unwrap();
    for byte in [1, 2, 3] {
        file.write_at(&[byte; 1024], 0).unwrap();
        file.sync().unwrap();
    }
    disk.sync_dir("").unwrap();
    // Not durable yet, so nothing was overwritten by it.
    file.write_at(&[4; 512], 512).unwrap();
    assert_eq!((disk.overwritten("f", 0), disk.overwritten("f", 1)), (Some([2; 512]), Some([2; 512])));
    assert_eq!(disk.overwritten("f", 2), None);
    let after = lost(&disk);
    assert_eq!(after.overwritten("f", 1), Some([2; 512]), "a power cut changes no history");
    assert_eq!(disk.overwritten("g", 0), None);
}

#[test]
fn a_removed_file_takes_no_part_in_a_power_cut_once_that_is_durable() {
    let disk = SimDisk::new();
    disk::write_atomic(&disk, "f", &[1; 512]).unwrap();
    disk.unlink("f").unwrap();
    // Its name may survive, and then its bytes must.
    assert_eq!(disk::read(&lost(&disk), "f").unwrap(), [1; 512]);
    disk.sync_dir("").unwrap();
    assert!(lost(&disk).files().is_empty());
}
