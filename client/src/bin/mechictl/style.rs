//! Colours, for a terminal only.

use std::io::IsTerminal;

pub(crate) const BOLD: &str = "\x1b[1m";
pub(crate) const DIM: &str = "\x1b[2m";
pub(crate) const RED: &str = "\x1b[31m";
pub(crate) const GREEN: &str = "\x1b[32m";
pub(crate) const END: &str = "\x1b[0m";

/// `text` in a style.
pub(crate) fn paint(style: &str, text: &str) -> String {
    format!("{style}{text}{END}")
}

/// Whether a stream may be coloured: a terminal that is not dumb, and nobody has said no.
pub(crate) fn allowed(stream: &impl IsTerminal) -> bool {
    let refused = std::env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty());
    let dumb = std::env::var_os("TERM").is_none_or(|term| term == "dumb");
    stream.is_terminal() && !refused && !dumb
}

/// A label before a sentence on standard error: red for what went wrong, bold for the rest.
pub(crate) fn label(text: &str, wrong: bool) -> String {
    if allowed(&std::io::stderr()) { paint(if wrong { RED } else { BOLD }, text) } else { text.to_owned() }
}
