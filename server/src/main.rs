//! The `mechi` program: reads what it is told to be, opens the log, and starts a member, or several on this machine.

use mechi_server::config::notice::Notice;
use mechi_server::config::{self, Action, Log};
use mechi_server::{dump, local, run, telemetry};
use std::ffi::OsString;
use std::process::ExitCode;

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// mimalloc's `mi_option_purge_delay`: milliseconds that freed pages are kept before the system gets them back.
const PURGE_DELAY: std::ffi::c_int = 15;

#[allow(unsafe_code)]
unsafe extern "C" {
    fn mi_option_set(option: std::ffi::c_int, value: std::ffi::c_long);
}

/// Gives freed pages back at once. By default a second's worth of them is kept, and a hundred lists at full speed free
/// more in a second than `--memory-limit` may be.
fn keep_memory_small() {
    // SAFETY: the function takes two numbers, stores the second under the first, which is in range, and is called
    // before there is a second thread.
    #[allow(unsafe_code)]
    unsafe {
        mi_option_set(PURGE_DELAY, 0);
    }
}

/// etcd's exit code for a malformed flag.
const USAGE: u8 = 2;

fn main() -> ExitCode {
    keep_memory_small();
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
            Ok(()) => run::run(&config),
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
