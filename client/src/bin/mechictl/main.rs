//! `mechictl`: etcdctl's commands for Mechi and etcd; called `etcdctl`, it is etcdctl.
//!
//! A call goes `cli` (find the command, parse its flags) → `commands` (ask the server) → `printers` (reply to bytes).
//! `go` holds the forms that the outputs inherit from Go's standard library.

mod call;
mod cli;
mod commands;
mod exit;
mod go;
mod limits;
mod log;
mod output;
mod password;
mod printers;
mod program;
mod recipes;
mod session;
mod style;

use crate::call::Call;
use crate::cli::flags::{Flags, Malformed};
use crate::cli::table::HELP_FLAG;
use crate::cli::{complete, environment, find, usage};
use crate::exit::{ERROR, Exit};
use crate::output::{complain, out};
use crate::program::Program;
use std::os::unix::ffi::OsStringExt;
use std::process::ExitCode;
use std::sync::Arc;

/// Requests that run at once are few, but for `check`, which is bound by the server.
const WORKER_THREADS: usize = 2;

fn main() -> ExitCode {
    let words: Vec<Vec<u8>> = std::env::args_os().map(OsStringExt::into_vec).collect();
    let program = Arc::new(Program::called(std::env::args_os().next().as_deref()));
    match run(&program, words) {
        Ok(()) => ExitCode::SUCCESS,
        Err(Exit { code, message }) => {
            if let Some(message) = message {
                complain(&format!("{} {message}", style::label("Error:", true)));
            }
            ExitCode::from(code)
        }
    }
}

fn run(program: &Arc<Program>, words: Vec<Vec<u8>>) -> Result<(), Exit> {
    refuse_other_apis(program)?;
    if words.get(1).is_some_and(|word| word == complete::COMMAND.as_bytes()) {
        complete::print(program, &words[2..]);
        return Ok(());
    }
    let args = words.get(1..).unwrap_or_default();
    let (path, rest) = find::find(program.root, program.name, args).map_err(|why| {
        if program.is_etcdctl() {
            complain(&format!("Error: {why}\nRun '{} --help' for usage.", program.name));
        }
        Exit::new(ERROR, why)
    })?;
    let command = *path.last().expect("the root is there");
    let mut flags = Flags::new(find::flags(&path));
    if let Err(Malformed(why)) = flags.parse(&rest) {
        return Err(malformed(program, &path, why));
    }
    let Some(action) = command.action.filter(|_| !flags.on(HELP_FLAG.name)) else {
        out(usage::usage(program, &path));
        return Ok(());
    };
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(WORKER_THREADS)
        .enable_all()
        .build()
        .map_err(|error| Exit::new(ERROR, format!("start the runtime: {error}")))?;
    let mut call = Call::new(program.clone(), path, flags, words);
    let ended = runtime.block_on(commands::run(action, &mut call));
    // A thread that reads standard input may never return.
    runtime.shutdown_background();
    ended
}

/// Only etcdctl had another API, and only it reads the variable.
fn refuse_other_apis(program: &Program) -> Result<(), Exit> {
    match std::env::var(environment::API).as_deref() {
        _ if !program.is_etcdctl() => Ok(()),
        Err(_) | Ok("" | "3") => Ok(()),
        Ok(other) => {
            complain(&format!("unsupported API version: {other}"));
            Err(Exit::silent(ERROR))
        }
    }
}

fn malformed(program: &Program, path: &find::Path, why: String) -> Exit {
    if program.is_etcdctl() {
        out(usage::usage(program, path));
        complain(&format!("Error: {why}\n"));
        return Exit::new(ERROR, why);
    }
    let names: Vec<&str> = path.iter().map(|command| command.name).collect();
    Exit::new(ERROR, format!("{why}\nRun '{} --help' for usage.", names.join(" ")))
}
