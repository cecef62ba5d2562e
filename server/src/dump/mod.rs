//! `mechi dump`: what a stopped member's files hold, for a person; nothing is written, and damage is told with its place.

mod asked;
mod disk;
mod fact;
mod keys;
mod line;
mod log;
mod running;
mod snapshots;
mod store;

use crate::recovery::folder;
use anyhow::{Context, Result, bail};
use asked::Asked;
use clap::Parser;
use disk::ReadOnly;
use fact::Out;
use mechi_replica::snapshot;
use std::ffi::OsString;
use std::io::{self, ErrorKind, Write};
use std::process::ExitCode;

/// Runs the dump; `args` are those after `dump`.
///
/// - Shape: exit code 0 if all is whole, 1 if something is damaged or failed. Help, and wrong arguments with 2, end the
///   process at once.
pub fn run(args: &[OsString]) -> ExitCode {
    let asked = Asked::parse_from(args);
    let mut out = Out::new(asked.is_json(), Box::new(io::BufWriter::new(io::stdout().lock())));
    match dump(&asked, &mut out).and_then(|()| out.finish().context("write")) {
        Ok(()) if out.damages() == 0 => ExitCode::SUCCESS,
        Ok(()) => ExitCode::FAILURE,
        // Whoever reads has seen enough.
        Err(error) if is_closed_pipe(&error) => ExitCode::SUCCESS,
        Err(error) => {
            let _ = io::stdout().flush();
            eprintln!("mechi dump: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn is_closed_pipe(error: &anyhow::Error) -> bool {
    error.chain().any(|cause| cause.downcast_ref::<io::Error>().is_some_and(|e| e.kind() == ErrorKind::BrokenPipe))
}

fn dump(asked: &Asked, out: &mut Out) -> Result<()> {
    let shown = asked.data_dir.display();
    let member = asked.data_dir.join("member");
    if !member.is_dir() {
        bail!("{shown} is no data directory of a member: it has no folder member/");
    }
    if let Some(holder) = running::holder(&asked.data_dir.join("lock"))? {
        bail!("a member runs on {shown} ({holder}): stop it first, or dump a snapshot of its file system");
    }
    let disk = ReadOnly::new(&member);
    // What is damaged is told where the snapshots are printed.
    let newest = snapshot::newest_verified(&disk, "snap").map_or(None, |(newest, _)| newest);
    if asked.wal() {
        log::dump(&disk, asked, newest.as_ref().map(|newest| (newest.index(), newest.term())), out)?;
    }
    if asked.snapshots() {
        snapshots::dump(&disk, asked, newest.as_ref(), out)?;
    }
    if asked.store() {
        let stores = folder::stores(&member).unwrap_or_default();
        for (boot, path) in &stores {
            store::dump(boot, path, asked, out)?;
        }
        if stores.is_empty() {
            out.head("store", &[("found", "none".into())])?;
        }
    }
    Ok(())
}
