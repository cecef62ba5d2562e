//! How a dump is printed: facts, each a kind and named values, as lines for a person or as JSON objects.

use serde_json::{Map, Value, json};
use std::io::{Result, Write};

/// A named value.
pub(super) type Field = (&'static str, Value);

/// Where facts go.
pub(super) struct Out {
    is_json: bool,
    to: Box<dyn Write>,
    damages: u64,
}

impl Out {
    pub(super) fn new(is_json: bool, to: Box<dyn Write>) -> Self {
        Self { is_json, to, damages: 0 }
    }

    /// Whether it is for a program to read.
    pub(super) fn is_json(&self) -> bool {
        self.is_json
    }

    /// How much damage was told.
    pub(super) fn damages(&self) -> u64 {
        self.damages
    }

    /// Tells something at the left margin.
    pub(super) fn head(&mut self, kind: &str, fields: &[Field]) -> Result<()> {
        self.tell(0, kind, fields)
    }

    /// Tells a part of the last head.
    pub(super) fn part(&mut self, kind: &str, fields: &[Field]) -> Result<()> {
        self.tell(1, kind, fields)
    }

    /// Tells a detail of the last part.
    pub(super) fn detail(&mut self, kind: &str, fields: &[Field]) -> Result<()> {
        self.tell(2, kind, fields)
    }

    /// Tells something within the last detail.
    pub(super) fn within(&mut self, kind: &str, fields: &[Field]) -> Result<()> {
        self.tell(3, kind, fields)
    }

    /// Tells damage: where it is, and what was wanted and found.
    pub(super) fn damage(&mut self, file: &str, offset: Option<u64>, what: &str) -> Result<()> {
        self.damages += 1;
        let mut fields = vec![("file", file.into())];
        fields.extend(offset.map(|offset| ("offset", json!(offset))));
        fields.push(("what", what.into()));
        self.tell(0, "DAMAGE", &fields)
    }

    fn tell(&mut self, depth: usize, kind: &str, fields: &[Field]) -> Result<()> {
        if self.is_json {
            let mut object = Map::new();
            object.insert("kind".to_owned(), kind.to_lowercase().into());
            object.extend(fields.iter().map(|(name, value)| (name.replace(' ', "_"), value.clone())));
            return writeln!(self.to, "{}", Value::Object(object));
        }
        write!(self.to, "{:1$}{kind}", "", depth * 2)?;
        for (name, value) in fields {
            match value {
                // A text stands for itself; what could break the line was escaped where it was made.
                Value::String(text) => write!(self.to, "  {name} {text}")?,
                value => write!(self.to, "  {name} {value}")?,
            }
        }
        writeln!(self.to)
    }

    pub(super) fn finish(&mut self) -> Result<()> {
        self.to.flush()
    }
}
