//! A library before the C library of a member: slow fsyncs, fsyncs that fail, and a wall clock that lies.
//!
//! It is one C file, compiled at the start of a run by the compiler that Rust links with, and obeys a small file of
//! numbers. A program that does not go through the C library (etcd, as all Go) is not disturbed by it.

use anyhow::{Context, Result, ensure};
use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

const SOURCE: &str = include_str!("../shim/shim.c");

/// The variable that tells the library where its numbers stand.
const VARIABLE: &str = "MECHI_JEPSEN_SHIM";

/// Numbers of 64 bits in the file.
const NUMBERS: usize = 8;

/// Compiles the library into a folder; returns its path.
///
/// - Errors: there is no C compiler (`cc`), or it does not like the source.
pub fn build(folder: &Path) -> Result<PathBuf> {
    let (source, library) = (folder.join("shim.c"), folder.join("shim.so"));
    std::fs::write(&source, SOURCE)?;
    let ran = Command::new("cc")
        .args(["-O2", "-shared", "-fPIC", "-o"])
        .arg(&library)
        .arg(&source)
        .arg("-ldl")
        .output()
        .context("the faults of fsync and clock need a C compiler: run cc")?;
    ensure!(ran.status.success(), "cc: {}", String::from_utf8_lossy(&ran.stderr));
    Ok(library)
}

/// What the library of one member is to do, and what it has done.
#[derive(Debug)]
pub struct Control {
    file: File,
    path: PathBuf,
}

impl Control {
    /// Makes a file with no wishes.
    pub fn create(path: PathBuf) -> Result<Self> {
        let file = File::options().read(true).write(true).create(true).truncate(true).open(&path)?;
        file.set_len(8 * NUMBERS as u64)?;
        Ok(Self { file, path })
    }

    /// The environment of a process that is to obey.
    pub fn env(&self, library: &Path) -> [(String, String); 2] {
        [("LD_PRELOAD".into(), library.display().to_string()), (VARIABLE.into(), self.path.display().to_string())]
    }

    /// Each fsync waits so long before it begins.
    pub fn slow_fsyncs(&self, delay: Duration) -> Result<()> {
        self.write(0, delay.as_micros() as i64)
    }

    /// So many of the next fsyncs answer EIO, without having done anything.
    pub fn fail_fsyncs(&self, count: i64) -> Result<()> {
        self.write(1, count)
    }

    /// The wall clock shows so many nanoseconds more.
    pub fn shift_clock(&self, nanoseconds: i64) -> Result<()> {
        self.write(2, nanoseconds)
    }

    /// The wall clock goes faster by so many millionths from now on.
    pub fn speed_clock(&self, millionths: i64) -> Result<()> {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        self.write(4, now.as_nanos() as i64)?;
        self.write(3, millionths)
    }

    /// No wish is left.
    pub fn heal(&self) -> Result<()> {
        (0..5).try_for_each(|place| self.write(place, 0))
    }

    /// How many fsyncs were slow, how many failed, and how often the wall clock lied.
    pub fn done(&self) -> Result<[i64; 3]> {
        Ok([self.read(5)?, self.read(6)?, self.read(7)?])
    }

    fn write(&self, place: u64, number: i64) -> Result<()> {
        Ok(self.file.write_all_at(&number.to_ne_bytes(), 8 * place)?)
    }

    fn read(&self, place: u64) -> Result<i64> {
        let mut number = [0; 8];
        self.file.read_exact_at(&mut number, 8 * place)?;
        Ok(i64::from_ne_bytes(number))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_process_obeys_its_numbers() {
        let home = tempfile::tempdir().expect("a folder");
        let library = build(home.path()).expect("compiles");
        let control = Control::create(home.path().join("control")).expect("is made");
        let file = home.path().join("file").display().to_string();
        let run = |program: &str, args: &[&str]| {
            let ran = Command::new(program).args(args).envs(control.env(&library)).output().expect("runs");
            (ran.status.success(), String::from_utf8_lossy(&ran.stdout).trim().to_owned())
        };
        let write = ["if=/dev/zero", &format!("of={file}"), "count=1", "conv=fsync"];
        assert!(run("dd", &write).0);
        assert_eq!(control.done().expect("reads"), [0, 0, 0]);

        control.fail_fsyncs(1).expect("writes");
        assert!(!run("dd", &write).0, "the fsync fails");
        assert!(run("dd", &write).0, "only that one");
        control.slow_fsyncs(Duration::from_millis(1)).expect("writes");
        assert!(run("dd", &write).0);
        assert_eq!(control.done().expect("reads")[..2], [1, 1]);

        let now = || SystemTime::now().duration_since(UNIX_EPOCH).expect("after 1970").as_secs();
        control.shift_clock(-3_600_000_000_000).expect("writes");
        let told: u64 = run("date", &["+%s"]).1.parse().expect("seconds");
        assert!(told.abs_diff(now() - 3_600) < 60, "an hour ago, and not {told}");
        control.heal().expect("writes");
        let told: u64 = run("date", &["+%s"]).1.parse().expect("seconds");
        assert!(told.abs_diff(now()) < 60, "{told}");
        assert!(control.done().expect("reads")[2] > 0);
    }
}
