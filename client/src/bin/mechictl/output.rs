//! The two streams: bytes as they are, each message in one write.

use std::io::Write;
use std::process::exit;

/// The code of a shell's child that a broken pipe has ended; nobody reads further output.
const BROKEN_PIPE: i32 = 141;

/// Writes to standard output.
pub(crate) fn out(bytes: impl AsRef<[u8]>) {
    finish(std::io::stdout().lock(), bytes.as_ref());
}

/// Writes a line to standard error.
pub(crate) fn complain(line: &str) {
    finish(std::io::stderr().lock(), format!("{line}\n").as_bytes());
}

fn finish(mut stream: impl Write, bytes: &[u8]) {
    if stream.write_all(bytes).and_then(|()| stream.flush()).is_err() {
        exit(BROKEN_PIPE);
    }
}

/// Prints a line, as `println!` does, but ends quietly when nobody reads it.
macro_rules! say {
    ($($arg:tt)*) => { $crate::output::out(format!("{}\n", format_args!($($arg)*))) };
}
pub(crate) use say;
