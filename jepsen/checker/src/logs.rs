//! What no server's log may hold: a panic, a fatal error, or raft's complaint about a log that lost its end.

use crate::limits::{LOG_LINE_BYTES_MAX, LOG_LINES_MAX};
use crate::verdict::{Finding, Verdict};
use std::io::{self, BufRead};

/// Looks through one log; lines that hold one of `expected` are those that the nemesis asked for.
///
/// - Source: `to_commit X is out of range [last index Y]` is raft's when a follower has lost what it acknowledged.
pub fn check(name: &str, log: impl BufRead, expected: &[&str]) -> io::Result<Verdict> {
    let mut findings = Vec::new();
    for (line, number) in log.split(b'\n').zip(1..) {
        let line = line?;
        let line = String::from_utf8_lossy(&line);
        let Some(rule) = suspicious(&line) else { continue };
        if expected.iter().any(|expected| line.contains(expected)) {
            continue;
        }
        let end = (0..=line.len().min(LOG_LINE_BYTES_MAX)).rev().find(|end| line.is_char_boundary(*end)).unwrap_or(0);
        findings.push(Finding::new(rule, format!("{name}:{number}: {}", &line[..end]), []));
        if findings.len() >= LOG_LINES_MAX {
            break;
        }
    }
    Ok(Verdict::of(findings))
}

fn suspicious(line: &str) -> Option<&'static str> {
    let lower = line.to_lowercase();
    if lower.find("to_commit").is_some_and(|at| lower[at..].contains("out of range")) {
        return Some("lost-log");
    }
    // As a word, or the beginning of one (`panicked`): not within `dont_panic` or a key of that name in quotes.
    let word = |word: &str| {
        lower.match_indices(word).any(|(at, _)| {
            !lower[..at].ends_with(|letter: char| letter.is_alphanumeric() || letter == '_' || letter == '-')
        })
    };
    ["panic", "fatal"].into_iter().find(|it| word(it))
}
