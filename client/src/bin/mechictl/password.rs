//! Passwords typed at a terminal, unseen.

use crate::output::out;
use rustix::termios::{LocalModes, OptionalActions, tcgetattr, tcsetattr};
use std::io::{BufRead, IsTerminal};

/// Asks at the terminal, or reads a line of what stands in for it.
///
/// - Errors: standard input cannot be read, or the terminal cannot be silenced.
pub(crate) fn ask(prompt: &str) -> Result<String, String> {
    out(prompt);
    let stdin = std::io::stdin();
    let before = if stdin.is_terminal() { Some(tcgetattr(&stdin).map_err(|error| error.to_string())?) } else { None };
    if let Some(before) = &before {
        let mut silent = before.clone();
        silent.local_modes.remove(LocalModes::ECHO);
        tcsetattr(&stdin, OptionalActions::Flush, &silent).map_err(|error| error.to_string())?;
    }
    let mut line = String::new();
    let read = stdin.lock().read_line(&mut line);
    if let Some(before) = &before {
        tcsetattr(&stdin, OptionalActions::Flush, before).map_err(|error| error.to_string())?;
    }
    out("\n");
    read.map_err(|error| error.to_string())?;
    Ok(line.trim_end_matches(['\r', '\n']).to_owned())
}

/// Asks for a user's new password, twice.
pub(crate) fn ask_new(user: &str) -> Result<String, String> {
    let failed = |why: String| format!("failed to ask password: {why}");
    let first = ask(&format!("Password of {user}: ")).map_err(failed)?;
    if first.is_empty() {
        return Err("empty password".into());
    }
    let second = ask(&format!("Type password of {user} again for confirmation: ")).map_err(failed)?;
    if first != second {
        return Err("given passwords are different".into());
    }
    Ok(first)
}

/// The first word of standard input, as `--interactive=false` reads it.
pub(crate) fn read_word() -> String {
    let mut line = String::new();
    // A password that cannot be read is an empty one, as with etcdctl; the server has the last word on it.
    let _ = std::io::stdin().lock().read_line(&mut line);
    line.split_whitespace().next().unwrap_or_default().to_owned()
}
