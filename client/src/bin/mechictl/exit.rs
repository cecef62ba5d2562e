//! How a run ends: etcdctl's exit codes, and the sentence that goes with one.

use std::fmt::Display;

/// Any error that has no code of its own.
pub(crate) const ERROR: u8 = 1;
/// The server was not reached, or a lease's stream broke.
pub(crate) const BAD_CONNECTION: u8 = 2;
/// Lines of a transaction or of an interactive watch that cannot be read.
pub(crate) const INVALID_INPUT: u8 = 3;
/// A known flag with a value that is not supported.
pub(crate) const BAD_FEATURE: u8 = 4;
/// The server ended a watch.
pub(crate) const INTERRUPTED: u8 = 5;
/// Wrong arguments.
pub(crate) const BAD_ARGS: u8 = 128;

/// A run that ends with a code other than 0.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Exit {
    /// The process's exit code.
    pub(crate) code: u8,
    /// What is printed after `Error: `; none if it has been said already.
    pub(crate) message: Option<String>,
}

impl Exit {
    /// Ends with `code` and says why.
    pub(crate) fn new(code: u8, message: impl Display) -> Self {
        Self { code, message: Some(message.to_string()) }
    }

    /// Ends with `code`; the reason is on the screen already.
    pub(crate) fn silent(code: u8) -> Self {
        Self { code, message: None }
    }
}

/// An [`Exit`] for wrong arguments.
pub(crate) fn bad_args(message: impl Display) -> Exit {
    Exit::new(BAD_ARGS, message)
}
