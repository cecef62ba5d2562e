//! Bounds on what comes from outside: files, terminals, servers.

/// Bytes of a value on standard input; far above what any server takes in one request.
pub(crate) const VALUE_BYTES_MAX: u64 = 64 << 20;
/// Bytes of one typed line, of a transaction or an interactive watch.
pub(crate) const LINE_BYTES_MAX: u64 = 64 << 20;
/// Bytes of a server's metrics; they are some hundred kilobytes.
pub(crate) const METRICS_BYTES_MAX: u64 = 16 << 20;
/// Letters of a table's cell, above which a text with spaces is broken.
pub(crate) const CELL_WIDTH_MAX: usize = 30;
/// How far a mistyped word may be from a command to be suggested.
pub(crate) const SUGGESTION_DISTANCE_MAX: usize = 2;
