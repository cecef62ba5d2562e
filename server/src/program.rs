//! The `mechi` program but for its allocator: reads what it is told to be, opens the log, and starts.

use crate::config::notice::Notice;
use crate::config::{self, Action, Config, Log};
use crate::{dump, local, run, telemetry};
use std::ffi::OsString;
use std::process::ExitCode;

/// etcd's exit code for a malformed flag.
const USAGE: u8 = 2;

/// Does what the arguments and the environment ask for; returns the process's exit code.
pub fn run() -> ExitCode {
    let text = |text: OsString| text.to_string_lossy().into_owned();
    let args: Vec<OsString> = std::env::args_os().skip(1).collect();
    match args.split_first() {
        Some((first, args)) if first == "local" => return local::run(args),
        Some((first, args)) if first == "dump" => return dump::run(args),
        _ => {}
    }
    local::child::follow_parent();
    let args: Vec<String> = args.into_iter().map(text).collect();
    let env: Vec<(String, String)> = std::env::vars_os().map(|(name, value)| (text(name), text(value))).collect();
    match config::action(&args, &env) {
        Action::Print(text) => {
            print!("{text}");
            ExitCode::SUCCESS
        }
        Action::Usage(text) => {
            eprint!("{text}");
            ExitCode::from(USAGE)
        }
        Action::Refuse(reason, notices) => match open_log(&Log::default(), &notices) {
            Ok(()) => refused(&reason),
            Err(code) => code,
        },
        Action::Run(config, notices) => match open_log(&config.log, &notices) {
            Ok(()) => member(&config),
            Err(code) => code,
        },
    }
}

/// Opens the log and says what reading the configuration had to say.
fn open_log(log: &Log, notices: &[Notice]) -> Result<(), ExitCode> {
    if let Err(error) = telemetry::install(log) {
        eprintln!("failed to open the log: {error:#}");
        return Err(ExitCode::FAILURE);
    }
    for notice in notices {
        // The log's fields have fixed names, so a notice's own go into one of them.
        let fields: Vec<String> = notice.fields.iter().map(|(name, value)| format!("{name}={value}")).collect();
        let fields = (!fields.is_empty()).then(|| fields.join(" "));
        match notice.warning {
            true => tracing::warn!(fields, "{}", notice.message),
            false => tracing::info!(fields, "{}", notice.message),
        }
    }
    Ok(())
}

fn refused(reason: &str) -> ExitCode {
    tracing::error!(error = reason, "failed to verify flags");
    ExitCode::FAILURE
}

fn member(config: &Config) -> ExitCode {
    // A failpoint that is asked for and not set would prove nothing.
    #[cfg(feature = "failpoints")]
    if let Err(error) = crate::failpoint::begin() {
        return refused(&error.to_string());
    }
    run::run(config)
}
