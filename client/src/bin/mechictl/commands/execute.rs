//! Programs that `lock` and `watch` run, and how Go tells of their ends.

use crate::go::quote::quote;
use std::ffi::OsString;
use std::io::Error;
use std::os::unix::ffi::OsStringExt;
use std::os::unix::process::ExitStatusExt;
use std::process::ExitStatus;
use tokio::process::Command;

/// A program with its words, ready for its environment.
pub(super) fn command(program: &[u8], args: &[Vec<u8>]) -> Command {
    let mut command = Command::new(OsString::from_vec(program.to_vec()));
    command.args(args.iter().map(|arg| OsString::from_vec(arg.clone())));
    command
}

/// How a program ended.
pub(super) fn ended(status: ExitStatus) -> String {
    match (status.code(), status.signal()) {
        (Some(code), _) => format!("exit status {code}"),
        (None, signal) => format!("signal: {}", signal.unwrap_or_default()),
    }
}

/// Why a program was not started: only a bare name is looked for in the path.
pub(super) fn not_started(program: &[u8], error: &Error) -> String {
    if !program.contains(&b'/') {
        return format!("exec: {}: executable file not found in $PATH", quote(program));
    }
    let why = error.to_string().to_lowercase();
    let why = why.split(" (os error").next().unwrap_or_default();
    format!("fork/exec {}: {why}", String::from_utf8_lossy(program))
}
