//! `mechi` with failpoints, for the tests: a program of its own, so that no build leaves them in `mechi` itself.

use std::process::ExitCode;

fn main() -> ExitCode {
    mechi_server::program::run()
}
