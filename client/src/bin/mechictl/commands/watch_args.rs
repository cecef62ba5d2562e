//! What `watch` watches, and what it runs for each event: etcdctl's reading of its words, quirks and all.

use crate::cli::flags::{Flags, Malformed};
use crate::cli::table::{HELP_FLAG, WATCH};

const NUMBER: &str = "bad number of arguments";
const CONFLICT: &str = "bad number of arguments (found conflicting environment key)";
const SEPARATOR: &str = "bad number of arguments (found separator --, but no commands)";

/// `ETCDCTL_WATCH_KEY` and `ETCDCTL_WATCH_RANGE_END`; empty if they are not set.
#[derive(Clone, Debug, Default)]
pub(super) struct FromEnvironment {
    pub(super) key: Vec<u8>,
    pub(super) end: Vec<u8>,
}

/// The keys' words and the command's.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Words {
    pub(super) keys: Vec<Vec<u8>>,
    pub(super) command: Vec<Vec<u8>>,
}

/// Reads the words of the command line: `all` as they were given, and those of `args` that are no flags.
pub(super) fn of_command_line(all: &[Vec<u8>], args: &[Vec<u8>], env: &FromEnvironment) -> Result<Words, String> {
    let after = all.iter().position(|word| word == b"watch").map_or(all, |at| &all[at + 1..]);
    let separator = after.iter().position(|word| word == b"--");
    if separator.is_some_and(|at| at + 1 == after.len()) {
        return Err(SEPARATOR.into());
    }
    if separator.is_none() && after.is_empty() && env.key.is_empty() {
        return Err(NUMBER.into());
    }
    if !env.key.is_empty() {
        let is_conflict = match separator {
            None => !args.is_empty(),
            // A word of a key stands before the separator, beside the one from the environment.
            Some(at) => args.len() > after.len() - at - 1,
        };
        if is_conflict {
            return Err(CONFLICT.into());
        }
    }
    Ok(split(after, separator, args.to_vec(), env))
}

/// Reads a line of an interactive watch, and its flags with it.
pub(super) fn of_line(line: &[Vec<u8>], env: &FromEnvironment) -> Result<(Words, Flags), String> {
    let words = line.get(1..).unwrap_or_default();
    let separator = words.iter().position(|word| word == b"--");
    if separator.is_some_and(|at| at + 1 == words.len()) {
        return Err(SEPARATOR.into());
    }
    let mut flags = Flags::new(WATCH.flags.iter().copied().chain([HELP_FLAG]));
    flags.parse(words).map_err(|Malformed(why)| why)?;
    let args = flags.args.clone();
    if separator.is_none() && env.key.is_empty() && args.is_empty() {
        return Err(NUMBER.into());
    }
    if separator.is_none() && !env.key.is_empty() && !args.is_empty() {
        return Err(CONFLICT.into());
    }
    Ok((split(words, separator, args, env), flags))
}

/// Takes the command off the end of the words that are no flags.
fn split(words: &[Vec<u8>], separator: Option<usize>, args: Vec<Vec<u8>>, env: &FromEnvironment) -> Words {
    let mut keys: Vec<Vec<u8>> = [&env.key, &env.end].into_iter().filter(|word| !word.is_empty()).cloned().collect();
    keys.extend(args);
    let command = separator.map_or(Vec::new(), |at| words[at + 1..].to_vec());
    if let Some(first) = command.first() {
        let at = keys.iter().rposition(|word| word == first).unwrap_or(keys.len());
        keys.truncate(at);
    }
    Words { keys, command }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn list(line: &str) -> Vec<Vec<u8>> {
        line.split_whitespace().map(|word| word.as_bytes().to_vec()).collect()
    }

    fn given(line: &str, env: &str) -> Result<(String, String), String> {
        let all = list(line);
        let mut flags = Flags::new(WATCH.flags.iter().copied());
        flags.parse(&all[2..]).expect("well formed");
        let env = FromEnvironment { key: env.into(), end: Vec::new() };
        let text = |words: Vec<Vec<u8>>| String::from_utf8(words.join(&b' ')).expect("text");
        of_command_line(&all, &flags.args, &env).map(|words| (text(words.keys), text(words.command)))
    }

    #[test]
    fn a_command_follows_the_separator() {
        let ok = |keys: &str, command: &str| Ok((keys.to_owned(), command.to_owned()));
        assert_eq!(given("x watch foo", ""), ok("foo", ""));
        assert_eq!(given("x watch foo bar --rev 1 -- echo hello", ""), ok("foo bar", "echo hello"));
        assert_eq!(given("x watch --rev 1 -- echo hi", "foo"), ok("foo", "echo hi"));
        assert_eq!(given("x watch -- echo hi", ""), ok("", "echo hi"));
        assert_eq!(given("x watch foo -- echo foo", ""), ok("foo", "echo foo"));
    }

    #[test]
    fn words_that_do_not_fit_are_refused() {
        assert_eq!(given("x watch", ""), Err(NUMBER.into()));
        assert_eq!(given("x watch foo --", ""), Err(SEPARATOR.into()));
        assert_eq!(given("x watch foo", "foo"), Err(CONFLICT.into()));
        assert_eq!(given("x watch foo -- echo hi", "foo"), Err(CONFLICT.into()));
    }
}
