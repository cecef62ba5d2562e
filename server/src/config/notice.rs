//! What reading the configuration wants to say, kept until the log is open.

use std::fmt;

/// One log line to be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Notice {
    /// Whether it warns; else it informs.
    pub warning: bool,
    /// The line's `msg`.
    pub message: String,
    /// The line's other fields.
    pub fields: Vec<(&'static str, String)>,
}

impl Notice {
    /// Makes a warning.
    pub fn warn(message: impl Into<String>) -> Self {
        Self { warning: true, message: message.into(), fields: Vec::new() }
    }

    /// Makes an information.
    pub fn info(message: impl Into<String>) -> Self {
        Self { warning: false, message: message.into(), fields: Vec::new() }
    }

    /// Adds a field.
    pub fn with(mut self, name: &'static str, value: impl Into<String>) -> Self {
        self.fields.push((name, value.into()));
        self
    }
}

impl fmt::Display for Notice {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)?;
        self.fields.iter().try_for_each(|(name, value)| write!(f, " {name}={value}"))
    }
}
