//! Commands about the program itself, and those that it does not have.

use crate::call::Call;
use crate::cli::{complete, find, usage};
use crate::exit::{ERROR, Exit, bad_args};
use crate::go::quote::backquoted;
use crate::output::{complain, out, say};

pub(super) fn version(call: &Call) -> Result<(), Exit> {
    let program = &call.program;
    say!("{} version: {}\nAPI version: {}", program.name, program.version, program.api_version);
    Ok(())
}

/// The help of the command that the words name; of none, the root's.
pub(super) fn help(call: &Call) -> Result<(), Exit> {
    let program = &call.program;
    match find::find(program.root, program.name, call.args()) {
        Ok((path, _)) => out(usage::usage(program, &path)),
        Err(_) => {
            let words: Vec<String> = call.args().iter().map(|word| backquoted(word)).collect();
            complain(&format!("Unknown help topic [{}]", words.join(" ")));
            out(usage::usage_without_help_flag(program));
        }
    }
    Ok(())
}

pub(super) fn options(call: &Call) -> Result<(), Exit> {
    out(usage::options(call.program.root));
    Ok(())
}

pub(super) fn completion(call: &Call) -> Result<(), Exit> {
    let shells = "completion takes the name of a shell: bash, zsh or fish";
    let [shell] = call.args() else { return Err(bad_args(shells)) };
    let script =
        complete::script(&String::from_utf8_lossy(shell), call.program.name).ok_or_else(|| bad_args(shells))?;
    out(script);
    Ok(())
}

pub(super) fn no_snapshot() -> Result<(), Exit> {
    Err(Exit::new(ERROR, "snapshot files are etcd's own format, which this program does not write or read"))
}

pub(super) fn no_mirror() -> Result<(), Exit> {
    Err(Exit::new(ERROR, "make-mirror is not supported"))
}
