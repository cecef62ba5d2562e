//! `ETCDCTL_*`: the environment gives values to the flags that the command line does not.

use super::find::Path;
use super::flags::{Flag, Flags};
use crate::exit::{ERROR, Exit};
use crate::log;
use crate::program::Program;
use std::collections::BTreeMap;

const PREFIX: &str = "ETCDCTL_";

/// What chooses etcdctl's API; no flag, and read before all others.
pub(crate) const API: &str = "ETCDCTL_API";

/// `watch` reads these two itself.
const WATCH_ONLY: [&str; 2] = ["watch-key", "watch-range-end"];

/// The flags that a command has from its ancestors, by name: only those can come from the environment.
pub(crate) fn inherited(path: &Path) -> Vec<Flag> {
    let (_, ancestors) = path.split_last().expect("the root is there");
    let mut flags: Vec<Flag> = ancestors.iter().flat_map(|ancestor| ancestor.persistent).copied().collect();
    flags.sort_by_key(|flag| flag.name);
    flags
}

/// Sets the inherited flags that were not given from `variables`. A value that is none of the flag's kind is passed over.
///
/// - Errors: a variable whose flag was given too.
pub(crate) fn apply(
    program: &Program,
    path: &Path,
    flags: &mut Flags,
    variables: &BTreeMap<String, String>,
) -> Result<(), Exit> {
    let is_watch = path.last().is_some_and(|command| command.name == "watch");
    let (mut given, mut used) = (Vec::new(), Vec::new());
    for flag in inherited(path) {
        let variable = variable(flag.name);
        if flags.changed(flag.name) {
            given.push(variable);
        } else if let Some(value) = variables.get(&variable).filter(|value| !value.is_empty()) {
            let _ = flags.set(flag.name, value);
            used.push(variable);
        }
    }
    if is_watch {
        used.extend(WATCH_ONLY.map(variable));
    }
    for (name, value) in variables {
        if used.contains(name) {
            continue;
        }
        if given.contains(name) {
            let message = "conflicting environment variable is shadowed by corresponding command-line flag \
                           (either unset environment variable or disable flag))";
            log::about_environment(program, true, message, name);
            return Err(Exit::silent(ERROR));
        }
        if name.starts_with(PREFIX) && name != API {
            let variable = format!("{name}={value}");
            log::about_environment(program, false, "unrecognized environment variable", &variable);
        }
    }
    Ok(())
}

/// The variable of a flag.
pub(crate) fn variable(flag: &str) -> String {
    format!("{PREFIX}{}", flag.replace('-', "_").to_uppercase())
}

/// The variables that may concern this program.
pub(crate) fn variables() -> BTreeMap<String, String> {
    let text = |word: std::ffi::OsString| word.to_string_lossy().into_owned();
    std::env::vars_os()
        .map(|(name, value)| (text(name), text(value)))
        .filter(|(name, _)| name.starts_with(PREFIX))
        .collect()
}
