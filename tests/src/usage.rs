//! Holds a program's help and refusals against what is promised of them: for the command lines that are ours alone.

use std::collections::BTreeSet;
use std::path::Path;
use std::process::Command;

/// The longest line of a help: a reader of a wide terminal sees it whole.
const LINE_CHARS_MAX: usize = 130;

/// What a call printed, and its exit code.
struct Said {
    code: Option<i32>,
    out: String,
    err: String,
}

fn call(program: &Path, words: &[&str]) -> Said {
    let ran = Command::new(program).args(words).output();
    let ran = ran.unwrap_or_else(|error| panic!("{} does not start: {error}", program.display()));
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).expect("is text");
    Said { code: ran.status.code(), out: text(ran.stdout), err: text(ran.stderr) }
}

/// Asks for help behind `words` and looks for `promised` in it: options with their values and defaults.
///
/// - Panics: if help is an error, does not begin with one line of what it is about, or lacks something.
pub fn helps(program: &Path, words: &[&str], promised: &[&str]) {
    for wish in ["--help", "-h"] {
        let Said { code, out, err } = call(program, &[words, &[wish]].concat());
        assert_eq!((code, err.as_str()), (Some(0), ""), "{out}");
        let mut lines = out.lines();
        assert!(
            lines.next().is_some_and(|about| about.len() > 20) && lines.next() == Some(""),
            "no line of about: {out}"
        );
        assert!(out.contains("\nUsage: ") && out.contains("\nOptions:\n") && out.contains("\nExample"), "{out}");
        let promised = promised.iter().filter(|_| wish == "--help");
        promised.for_each(|promised| assert!(out.contains(promised), "{promised:?} is not in\n{out}"));
        let long = out.lines().find(|line| line.chars().count() > LINE_CHARS_MAX);
        assert_eq!(long, None, "a line of more than {LINE_CHARS_MAX} characters");
    }
}

/// Gives wrong words, each a line of them, and looks for the sentence that refuses them.
///
/// - Panics: if a line is not refused with 2, etcd's exit code for a malformed flag, or in other words.
pub fn refuses(program: &Path, table: &[(&str, &str)]) {
    for (line, sentence) in table {
        let words: Vec<&str> = line.split_whitespace().collect();
        let Said { code, out, err } = call(program, &words);
        assert_eq!((code, out.as_str()), (Some(2), ""), "{line}: {err}");
        assert!(err.starts_with(&format!("error: {sentence}")), "{line}: {sentence:?} is not what begins\n{err}");
        assert!(err.contains("--help"), "{line}: help is not named in\n{err}");
    }
}

/// Which of `words` a program's file holds anywhere.
///
/// - Panics: if the file cannot be read.
pub fn words_in<'a>(program: &Path, words: &[&'a str]) -> BTreeSet<&'a str> {
    let bytes = std::fs::read(program).unwrap_or_else(|error| panic!("read {}: {error}", program.display()));
    let mut begins = [false; 256];
    words.iter().filter_map(|word| word.bytes().next()).for_each(|first| begins[usize::from(first)] = true);
    let mut found = BTreeSet::new();
    // A program has some hundred million bytes: most are passed by at their first look.
    for at in (0..bytes.len()).filter(|at| begins[usize::from(bytes[*at])]) {
        found.extend(words.iter().filter(|word| bytes[at..].starts_with(word.as_bytes())));
    }
    found
}
