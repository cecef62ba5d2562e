//! Which command is meant: cobra's search, with prefixes and suggestions.

use super::command::Command;
use super::flags::Flag;
use super::table::HELP_FLAG;
use crate::limits::SUGGESTION_DISTANCE_MAX;

/// A command with its ancestors, the root first.
pub(crate) type Path = Vec<&'static Command>;

/// Finds the command that `words` name, and the words without its name.
///
/// - Errors: the sentence about a word that is no command of the root.
pub(crate) fn find(root: &'static Command, program: &str, words: &[Vec<u8>]) -> Result<(Path, Vec<Vec<u8>>), String> {
    let mut path = vec![root];
    let mut rest = words.to_vec();
    loop {
        let here = *path.last().expect("the root is there");
        let names = without_flags(&rest, &path);
        let Some(name) = names.first() else { return Ok((path, rest)) };
        match next(here, name) {
            Some(child) => {
                path.push(child);
                // The first equal word goes, even if it was a flag's value: cobra does so too.
                let at = rest.iter().position(|word| word == name).expect("the name is one of the words");
                rest.remove(at);
            }
            None if path.len() == 1 => {
                let name = String::from_utf8_lossy(name);
                let quoted = crate::go::quote::quote(name.as_bytes());
                return Err(format!("unknown command {quoted} for \"{program}\"{}", suggestions(here, &name)));
            }
            None => return Ok((path, rest)),
        }
    }
}

fn next(command: &'static Command, name: &[u8]) -> Option<&'static Command> {
    let children = || command.children.iter().copied();
    if let Some(child) = children().find(|child| child.name.as_bytes() == name) {
        return Some(child);
    }
    let mut matches = children().filter(|child| child.name.as_bytes().starts_with(name));
    let first = matches.next()?;
    matches.next().is_none().then_some(first)
}

/// All flags that a command knows, its ancestors' persistent ones included.
pub(crate) fn flags(path: &[&'static Command]) -> Vec<Flag> {
    let (command, ancestors) = path.split_last().expect("the root is there");
    let own = command.flags.iter().chain(command.persistent);
    let inherited = ancestors.iter().flat_map(|ancestor| ancestor.persistent);
    own.chain([&HELP_FLAG]).chain(inherited).copied().collect()
}

/// The words that are neither flags nor flags' values, as far as this command can tell.
fn without_flags(words: &[Vec<u8>], path: &[&'static Command]) -> Vec<Vec<u8>> {
    let flags = flags(path);
    let alone = |name: &[u8]| flags.iter().any(|flag| flag.is_bool() && flag.name.as_bytes() == name);
    let letter_alone = |letter: u8| flags.iter().any(|flag| flag.is_bool() && flag.short == Some(char::from(letter)));
    let mut found = Vec::new();
    let mut rest = words;
    while let Some((word, tail)) = rest.split_first() {
        rest = tail;
        let takes_next = match word.as_slice() {
            b"--" => break,
            text if text.contains(&b'=') => false,
            [b'-', b'-', name @ ..] => !alone(name),
            [b'-', letter] => !letter_alone(*letter),
            _ => false,
        };
        if takes_next {
            // Too few words are left for a value and a command.
            if rest.len() <= 1 {
                break;
            }
            rest = &rest[1..];
        } else if !word.is_empty() && !word.starts_with(b"-") {
            found.push(word.clone());
        }
    }
    found
}

fn suggestions(root: &'static Command, typed: &str) -> String {
    let typed = typed.to_lowercase();
    let near: Vec<&str> = root
        .children
        .iter()
        .copied()
        .filter(|child| !child.is_help())
        .map(|child| child.name)
        .filter(|name| distance(&typed, name) <= SUGGESTION_DISTANCE_MAX || name.starts_with(&typed))
        .collect();
    if near.is_empty() {
        return String::new();
    }
    let lines: String = near.iter().map(|name| format!("\t{name}\n")).collect();
    format!("\n\nDid you mean this?\n{lines}")
}

/// Levenshtein's distance.
fn distance(left: &str, right: &str) -> usize {
    let right: Vec<char> = right.chars().collect();
    let mut row: Vec<usize> = (0..=right.len()).collect();
    for (n, a) in left.chars().enumerate() {
        let mut diagonal = row[0];
        row[0] = n + 1;
        for (m, &b) in right.iter().enumerate() {
            let above = row[m + 1];
            row[m + 1] = (diagonal + usize::from(a != b)).min(above + 1).min(row[m] + 1);
            diagonal = above;
        }
    }
    row[right.len()]
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::table::ETCDCTL;

    fn words(line: &str) -> Vec<Vec<u8>> {
        line.split_whitespace().map(|word| word.as_bytes().to_vec()).collect()
    }

    fn found(line: &str) -> (String, String) {
        let (path, rest) = find(&ETCDCTL, "etcdctl", &words(line)).expect("a command");
        let names: Vec<&str> = path[1..].iter().map(|command| command.name).collect();
        let rest: Vec<_> = rest.iter().map(|word| String::from_utf8_lossy(word).into_owned()).collect();
        (names.join(" "), rest.join(" "))
    }

    #[test]
    fn commands_are_found_behind_flags_and_by_prefix() {
        assert_eq!(found("--endpoints a get k"), ("get".into(), "--endpoints a k".into()));
        assert_eq!(found("-w json --hex me list"), ("member list".into(), "-w json --hex".into()));
        assert_eq!(found("lease nope"), ("lease".into(), "nope".into()));
        assert_eq!(found("--hex"), (String::new(), "--hex".into()));
    }

    #[test]
    fn an_unknown_word_names_its_neighbours() {
        let why = |line| find(&ETCDCTL, "etcdctl", &words(line)).expect_err("unknown");
        assert_eq!(
            why("l grant 10"),
            "unknown command \"l\" for \"etcdctl\"\n\nDid you mean this?\n\tdel\n\tlease\n\tlock\n"
        );
        assert_eq!(why("bogus"), "unknown command \"bogus\" for \"etcdctl\"");
    }
}
