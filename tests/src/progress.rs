//! How far a long run is, for whoever looks.

use std::io::{IsTerminal, Write};

/// Replaces the line of progress on a terminal; writes nothing into a pipe.
pub fn progress(text: &str) {
    if std::io::stderr().is_terminal() {
        // Whoever looks misses nothing but progress if it cannot be written.
        let _ = write!(std::io::stderr(), "\r\x1b[K{text}");
    }
}
