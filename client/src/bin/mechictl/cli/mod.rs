//! The command line: the table of commands and flags, cobra's way to find and to parse them, and the help texts.

pub(crate) mod command;
pub(crate) mod complete;
pub(crate) mod environment;
pub(crate) mod find;
pub(crate) mod flags;
pub(crate) mod table;
pub(crate) mod usage;
