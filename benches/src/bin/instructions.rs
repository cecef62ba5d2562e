//! Counts the instructions that one put, guarded Txn, get and watch event take in a running member, in all its threads.
//!
//! The member runs under valgrind's callgrind, which counts the same on a busy machine as on a quiet one; what the member
//! does anyway in that time is measured idle and taken off, and nothing is flushed to the working store meanwhile.

use anyhow::{Context, Result, ensure};
use clap::Parser;
use mechi_benches::arguments::{MechiProgram, keys};
use mechi_benches::load::drive::{Extent, Shape, closed};
use mechi_benches::load::fanout::{Watchers, fan_out};
use mechi_benches::load::work::{Gets, GuardedTxns, Keys, Puts, VALUE_BYTES};
use mechi_tests::process::{Kind, Server};
use std::cell::RefCell;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::rc::Rc;
use std::time::{Duration, Instant};

/// How long the idle member is counted.
const IDLE: Duration = Duration::from_secs(3);

/// How long events are delivered.
const WATCH: (Duration, Duration) = (Duration::ZERO, Duration::from_secs(4));

const WATCHERS: Watchers = Watchers { connections: 2, streams: 25, watches: 1 };

/// A kind of work: its name, how many operations it did, and how long that took.
type Done = (&'static str, u64, Duration);

const EXAMPLE: &str = "\
Needs Debian's package valgrind.

Example:
  target/release/instructions --operations 500
  callgrind_annotate --inclusive=yes target/instructions/callgrind.put.256 | head -60";

/// Count the instructions that a put, guarded Txn, get and watch event take in a running member
#[derive(Debug, Parser)]
#[command(after_help = EXAMPLE, allow_negative_numbers = true)]
struct Options {
    #[command(flatten)]
    mechi: MechiProgram,
    /// Operations of each kind that are counted
    #[arg(long, value_name = "N", default_value = "2000", value_parser = keys())]
    operations: u64,
    /// The folder for the profiles, one of each kind
    #[arg(long, value_name = "DIR", default_value = "target/instructions")]
    out: PathBuf,
}

fn main() -> Result<()> {
    let Options { mechi, operations, out } = Options::parse();
    std::fs::create_dir_all(&out)?;
    let folder = tempfile::tempdir()?;
    let mut server = Server::at(Kind::Mechi, folder.path(), &["--store-flush-interval=1h"]);
    server.program = Some(mechi.find());
    let out = out.canonicalize()?;
    let file = |name: &str| out.join(format!("callgrind.{name}"));
    let words = ["valgrind", "--tool=callgrind", "--instr-atstart=no", "--separate-threads=no"];
    server.wrapper = words.map(str::to_owned).into();
    server.wrapper.push(format!("--callgrind-out-file={}", file("out").display()));
    println!("starting under valgrind");
    server.spawn()?;
    let pid = server.pid().context("it runs")?;
    let to = [server.endpoint()];
    let none = || Duration::ZERO;
    closed(&to, Shape::MANY, Extent::Count(operations), Puts::new(Keys::New(0), VALUE_BYTES), &none)?;

    control(pid, &["-i", "on"])?;
    let idle = counted(pid, &file("out"), &file("idle"), || {
        std::thread::sleep(IDLE);
        Ok(("idle", 1, IDLE))
    })?;
    let idle_per_second = idle.1 as f64 / idle.0.2.as_secs_f64();
    println!("\n| path | clients | instructions per operation | idle share taken off |\n| --- | --- | --- | --- |");
    let watch = |name| {
        let began = Instant::now();
        let report = fan_out(&to[0], WATCHERS, WATCH, VALUE_BYTES, &none)?;
        Ok((name, report.operations, began.elapsed()))
    };
    // It knows the revisions of the keys that it has written, over both shapes; the puts and gets keep to those before.
    let txns = Rc::new(RefCell::new(GuardedTxns::new(operations, Shape::MANY.clients(), VALUE_BYTES)));
    for shape in [Shape::LONE, Shape::MANY] {
        let extent = Extent::Count(operations);
        let paths: [(&str, &dyn Fn() -> Result<u64>); 4] = [
            ("put", &|| Ok(closed(&to, shape, extent, Puts::new(Keys::New(0), VALUE_BYTES), &none)?.operations)),
            ("guarded txn", &|| Ok(closed(&to, shape, extent, txns.clone(), &none)?.operations)),
            ("get", &|| Ok(closed(&to, shape, extent, Gets::new(Keys::Random(operations), false), &none)?.operations)),
            ("sget", &|| Ok(closed(&to, shape, extent, Gets::new(Keys::Random(operations), true), &none)?.operations)),
        ];
        for (name, path) in paths {
            let dump = file(&format!("{}.{}", name.replace(' ', "-"), shape.clients()));
            let counted = counted(pid, &file("out"), &dump, || {
                let began = Instant::now();
                Ok((name, path()?, began.elapsed()))
            })?;
            row(counted, shape.clients(), idle_per_second);
        }
    }
    let counted = counted(pid, &file("out"), &file("watch-event"), || watch("watch event"))?;
    row(counted, WATCHERS.total(), idle_per_second);
    println!("\nwhere they went: callgrind_annotate {}/callgrind.put.256", out.display());
    Ok(())
}

fn row(((name, operations, took), instructions): (Done, u64), clients: usize, idle_per_second: f64) {
    let idle = idle_per_second * took.as_secs_f64();
    let each = (instructions as f64 - idle).max(0.0) / operations.max(1) as f64;
    let share = idle / instructions.max(1) as f64 * 100.0;
    println!("| {name} | {clients} | {each:.0} | {share:.0} % |");
}

/// Runs `work` and returns what it did and the instructions of the member meanwhile.
fn counted(pid: u32, written: &Path, to: &Path, work: impl FnOnce() -> Result<Done>) -> Result<(Done, u64)> {
    control(pid, &["-z"])?;
    let done = work()?;
    control(pid, &["-d"])?;
    // Each dump has the next number behind the name.
    let folder = written.parent().context("a file in a folder")?;
    let prefix = written.file_name().context("a file")?.to_string_lossy().into_owned() + ".";
    let mut dumps: Vec<_> = std::fs::read_dir(folder)?.filter_map(Result::ok).map(|entry| entry.path()).collect();
    dumps.retain(|path| path.file_name().is_some_and(|name| name.to_string_lossy().starts_with(&prefix)));
    ensure!(dumps.len() == 1, "callgrind wrote {} dumps, not one", dumps.len());
    std::fs::rename(&dumps[0], to)?;
    let text = std::fs::read_to_string(to)?;
    let line = text.lines().find_map(|line| line.strip_prefix("totals: ").or_else(|| line.strip_prefix("summary: ")));
    Ok((done, line.context("a dump has totals")?.trim().parse()?))
}

fn control(pid: u32, args: &[&str]) -> Result<()> {
    let output = Command::new("callgrind_control").args(args).arg(pid.to_string()).output();
    let output = output.context("start callgrind_control; Debian has it in the package valgrind")?;
    ensure!(output.status.success(), "callgrind_control {args:?}: {}", String::from_utf8_lossy(&output.stderr));
    Ok(())
}
