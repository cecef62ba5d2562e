//! What the program has to say beside its output: a line on standard error for each event.

use std::fmt::Write as _;
use std::io::Write as _;
use tracing::field::{Field, Visit};
use tracing::span::{Attributes, Id, Record};
use tracing::{Event, Level, Metadata, Subscriber};

/// The variable that says how much: error, warn, info, debug or trace.
const VARIABLE: &str = "MECHI_CONTROL_LOG";

/// Installs the process's log.
pub(crate) fn install() {
    let level = std::env::var(VARIABLE).ok().and_then(|text| text.parse().ok()).unwrap_or(Level::INFO);
    // There is no other one.
    let _ = tracing::subscriber::set_global_default(Lines { level });
}

struct Lines {
    level: Level,
}

impl Subscriber for Lines {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        // Libraries speak of their own insides: below a warning it would drown ours.
        let most = if metadata.target().starts_with("mechi") { self.level } else { self.level.min(Level::WARN) };
        metadata.is_event() && *metadata.level() <= most
    }

    fn event(&self, event: &Event<'_>) {
        let mut fields = Fields::default();
        event.record(&mut fields);
        let level = event.metadata().level();
        let Fields { message, others } = fields;
        let line = format!("{} {level:<5} {message}{others}\n", crate::clock::today());
        // There is nowhere left to say that the log cannot be written.
        let _ = std::io::stderr().lock().write_all(line.as_bytes());
    }

    // Spans are nobody's here.
    fn new_span(&self, _: &Attributes<'_>) -> Id {
        Id::from_u64(1)
    }
    fn record(&self, _: &Id, _: &Record<'_>) {}
    fn record_follows_from(&self, _: &Id, _: &Id) {}
    fn enter(&self, _: &Id) {}
    fn exit(&self, _: &Id) {}
}

#[derive(Default)]
struct Fields {
    message: String,
    others: String,
}

impl Visit for Fields {
    fn record_debug(&mut self, field: &Field, value: &dyn std::fmt::Debug) {
        let written = match field.name() {
            "message" => write!(self.message, "{value:?}"),
            name => write!(self.others, " {name}={value:?}"),
        };
        written.expect("writing to a text does not fail");
    }
}
