//! The `mechi` binary: arguments and environment in, an exit code out.

use mechi_server::config::{self, Action};
use mechi_server::{run, telemetry};
use std::process::ExitCode;

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    let args: Vec<String> = std::env::args_os().skip(1).map(|arg| arg.to_string_lossy().into_owned()).collect();
    let text = |value: std::ffi::OsString| value.to_string_lossy().into_owned();
    let env: Vec<(String, String)> = std::env::vars_os().map(|(name, value)| (text(name), text(value))).collect();
    match config::action(&args, &env) {
        Action::Print(text) => {
            print!("{text}");
            ExitCode::SUCCESS
        }
        Action::Usage(text) => {
            eprint!("{text}");
            ExitCode::from(2)
        }
        Action::Refuse(reason, notices) => {
            if let Err(error) = telemetry::install(&config::Log::default()) {
                eprintln!("{error:#}");
            }
            run::log_notices(&notices);
            tracing::error!(error = reason, "failed to start");
            ExitCode::FAILURE
        }
        Action::Run(config, notices) => {
            if let Err(error) = telemetry::install(&config.log) {
                eprintln!("{error:#}");
                return ExitCode::FAILURE;
            }
            run::log_notices(&notices);
            run::run(*config)
        }
    }
}
