//! Logs in the shape that zap gives etcd's: one JSON object a line, `level`, `ts`, `caller`, `msg`, then the fields.
//!
//! A line is written with one call and never buffered: suites wait for lines, and the last one before a crash is the
//! one that matters.

use crate::config::{Log, LogOutput};
use parking_lot::Mutex;
use serde_json::Value;
use std::fmt::Write as _;
use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};
use tracing::field::{Field, Visit};
use tracing::level_filters::LevelFilter;
use tracing::{Event, Level, Metadata, Subscriber};
use tracing_subscriber::Layer;
use tracing_subscriber::layer::{Context, SubscriberExt};

/// Opens the outputs and installs the process's log; panics are logged too.
///
/// - Errors: an output that cannot be opened, with its path; a log that is installed already.
pub fn install(log: &Log) -> anyhow::Result<()> {
    let outputs = log.outputs.iter().map(open).collect::<Result<Vec<_>, _>>()?;
    let lines = Lines { level: log.level, console: log.console, outputs: Arc::new(Mutex::new(outputs)) };
    tracing::subscriber::set_global_default(tracing_subscriber::registry().with(lines))?;
    crate::panics::install();
    Ok(())
}

fn open(output: &LogOutput) -> anyhow::Result<Output> {
    use anyhow::Context as _;
    Ok(match output {
        LogOutput::Stderr => Output::Stderr,
        LogOutput::Stdout => Output::Stdout,
        LogOutput::File(path) => {
            let file = OpenOptions::new().create(true).append(true).open(path);
            Output::File(file.with_context(|| format!("couldn't open sink {:?}", path.display().to_string()))?)
        }
    })
}

enum Output {
    Stderr,
    Stdout,
    File(File),
}

impl Output {
    fn line(&mut self, line: &[u8]) -> io::Result<()> {
        match self {
            Self::Stderr => io::stderr().lock().write_all(line),
            Self::Stdout => {
                let mut stdout = io::stdout().lock();
                stdout.write_all(line)?;
                stdout.flush()
            }
            Self::File(file) => file.write_all(line),
        }
    }
}

/// The layer that turns events into lines.
struct Lines {
    level: LevelFilter,
    console: bool,
    outputs: Arc<Mutex<Vec<Output>>>,
}

impl<S: Subscriber> Layer<S> for Lines {
    fn enabled(&self, metadata: &Metadata<'_>, _: Context<'_, S>) -> bool {
        // Libraries speak of their own insides: below a warning it would drown ours.
        let ours = metadata.target().starts_with("mechi");
        *metadata.level() <= self.level && (ours || *metadata.level() <= Level::WARN)
    }

    fn on_event(&self, event: &Event<'_>, _: Context<'_, S>) {
        let line = line(event, SystemTime::now(), self.console);
        for output in self.outputs.lock().iter_mut() {
            // There is nowhere left to say that the log cannot be written, and serving goes on without it.
            let _ = output.line(line.as_bytes());
        }
    }
}

fn line(event: &Event<'_>, now: SystemTime, console: bool) -> String {
    let mut fields = Fields::default();
    event.record(&mut fields);
    let metadata = event.metadata();
    let level = match *metadata.level() {
        Level::ERROR => "error",
        Level::WARN => "warn",
        Level::INFO => "info",
        Level::DEBUG | Level::TRACE => "debug",
    };
    let caller = caller(metadata.file().unwrap_or_default(), metadata.line().unwrap_or_default());
    let ts = timestamp(now);
    let mut text = String::with_capacity(256);
    if console {
        text.extend([&ts, "\t", level, "\t", &caller, "\t", &fields.message]);
        if !fields.others.is_empty() {
            text.push_str("\t{");
            pairs(&mut text, &fields.others);
            text.push('}');
        }
    } else {
        text.push('{');
        let head =
            [("level", level.into()), ("ts", ts.into()), ("caller", caller.into()), ("msg", fields.message.into())];
        pairs(&mut text, &head);
        if !fields.others.is_empty() {
            text.push(',');
            pairs(&mut text, &fields.others);
        }
        text.push('}');
    }
    text.push('\n');
    text
}

fn pairs(text: &mut String, fields: &[(&'static str, Value)]) {
    for (at, (name, value)) in fields.iter().enumerate() {
        let comma = if at == 0 { "" } else { "," };
        write!(text, "{comma}{}:{value}", Value::from(*name)).expect("writing to a string does not fail");
    }
}

/// The file with its folder, as zap's short caller has it.
fn caller(file: &str, line: u32) -> String {
    let mut slashes = file.rmatch_indices('/').map(|(at, _)| at + 1);
    let from = slashes.nth(1).unwrap_or(0);
    format!("{}:{line}", &file[from..])
}

/// Go's layout `2006-01-02T15:04:05.999999Z0700`, in UTC.
pub(crate) fn timestamp(now: SystemTime) -> String {
    let since = now.duration_since(UNIX_EPOCH).unwrap_or_default();
    let (days, seconds) = (since.as_secs() / 86_400, since.as_secs() % 86_400);
    let (year, month, day) = civil(days);
    let (hour, minute, second) = (seconds / 3600, seconds / 60 % 60, seconds % 60);
    format!("{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}.{:06}Z", since.subsec_micros())
}

/// The civil date of a day since 1970-01-01.
///
/// - Source: Howard Hinnant, "chrono-compatible low-level date algorithms", `civil_from_days`.
fn civil(days: u64) -> (u64, u64, u64) {
    let shifted = days + 719_468;
    let (era, day_of_era) = (shifted / 146_097, shifted % 146_097);
    let year_of_era = (day_of_era - day_of_era / 1_460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let shifted_month = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * shifted_month + 2) / 5 + 1;
    let month = if shifted_month < 10 { shifted_month + 3 } else { shifted_month - 9 };
    (era * 400 + year_of_era + u64::from(month <= 2), month, day)
}

#[derive(Default)]
struct Fields {
    message: String,
    others: Vec<(&'static str, Value)>,
}

impl Fields {
    fn add(&mut self, field: &Field, value: Value) {
        match field.name() {
            "message" => self.message = value.as_str().map_or_else(|| value.to_string(), str::to_string),
            name => self.others.push((name, value)),
        }
    }
}

impl Visit for Fields {
    fn record_debug(&mut self, field: &Field, value: &dyn std::fmt::Debug) {
        self.add(field, format!("{value:?}").into());
    }
    fn record_str(&mut self, field: &Field, value: &str) {
        self.add(field, value.into());
    }
    fn record_i64(&mut self, field: &Field, value: i64) {
        self.add(field, value.into());
    }
    fn record_u64(&mut self, field: &Field, value: u64) {
        self.add(field, value.into());
    }
    fn record_f64(&mut self, field: &Field, value: f64) {
        self.add(field, value.into());
    }
    fn record_bool(&mut self, field: &Field, value: bool) {
        self.add(field, value.into());
    }
    fn record_error(&mut self, field: &Field, value: &(dyn std::error::Error + 'static)) {
        self.add(field, value.to_string().into());
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    fn lines_of(console: bool, level: LevelFilter, log: impl FnOnce()) -> Vec<String> {
        let file = tempfile::NamedTempFile::new().unwrap();
        let output = open(&LogOutput::File(file.path().into())).unwrap();
        let lines = Lines { level, console, outputs: Arc::new(Mutex::new(vec![output])) };
        tracing::subscriber::with_default(tracing_subscriber::registry().with(lines), log);
        let text = std::fs::read_to_string(file.path()).unwrap();
        text.lines().map(str::to_string).collect()
    }

    #[test]
    fn a_line_is_json_in_zaps_order() {
        let lines = lines_of(false, LevelFilter::INFO, || {
            tracing::info!(count = 3, name = "a\"b", on = true, ratio = 0.5, "ready to serve {}", "client requests");
        });
        let [line] = &lines[..] else { panic!("{lines:?}") };
        assert!(line.starts_with("{\"level\":\"info\",\"ts\":\""), "{line}");
        assert!(
            line.ends_with(
                "\"msg\":\"ready to serve client requests\",\"count\":3,\"name\":\"a\\\"b\",\"on\":true,\"ratio\":0.5}"
            ),
            "{line}"
        );
        let value: Value = serde_json::from_str(line).unwrap();
        assert!(value["caller"].as_str().unwrap().starts_with("src/telemetry.rs:"), "{value}");
        let ts = value["ts"].as_str().unwrap();
        assert_eq!((ts.len(), &ts[10..11], &ts[26..]), (27, "T", "Z"));
    }

    #[test]
    fn levels_and_foreign_chatter_are_kept_out() {
        let lines = lines_of(false, LevelFilter::INFO, || {
            tracing::debug!("hidden");
            tracing::info!(target: "h2::codec", "hidden");
            tracing::warn!(target: "h2::codec", "shown");
            tracing::error!("shown");
        });
        assert_eq!(lines.len(), 2, "{lines:?}");
        assert!(lines.iter().all(|line| line.contains("\"msg\":\"shown\"")));
    }

    #[test]
    fn console_lines_are_columns() {
        let lines = lines_of(true, LevelFilter::INFO, || tracing::warn!(why = "x", "careful"));
        let columns: Vec<_> = lines[0].split('\t').collect();
        assert_eq!((columns[1], columns[3], columns[4]), ("warn", "careful", "{\"why\":\"x\"}"));
    }

    #[test]
    fn times_are_civil_dates() {
        for (seconds, micros, wanted) in [
            (0, 0, "1970-01-01T00:00:00.000000Z"),
            (951_782_400, 1, "2000-02-29T00:00:00.000001Z"),
            (1_795_304_794, 821_286, "2026-11-21T23:46:34.821286Z"),
            (4_107_542_399, 999_999, "2100-02-28T23:59:59.999999Z"),
            (4_107_542_400, 0, "2100-03-01T00:00:00.000000Z"),
        ] {
            assert_eq!(timestamp(UNIX_EPOCH + Duration::new(seconds, micros * 1000)), wanted);
        }
    }

    #[test]
    fn an_output_that_cannot_be_opened_is_named() {
        let error = open(&LogOutput::File("/nonexistent/x".into())).err().unwrap();
        assert_eq!(error.to_string(), "couldn't open sink \"/nonexistent/x\"");
    }
}
