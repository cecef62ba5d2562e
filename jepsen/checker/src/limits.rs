//! Every bound of the checkers; past one of them a verdict is `unknown`, and says so.

/// Levels of brackets in one EDN form: what a recursive reader may need of the stack.
pub const EDN_DEPTH_MAX: usize = 64;

/// Bytes in one EDN form.
pub const EDN_FORM_BYTES_MAX: usize = 64 << 20;

/// States that one search for a linearization may visit.
pub const WGL_STATES_MAX: usize = 2_000_000;

/// Choices of who wrote a revision that the revision oracle may try: some tens of seconds where each is dear.
pub const ORACLE_CHOICES_MAX: usize = 30_000;

/// Findings that one checker lists: the first ones explain the rest.
pub const FINDINGS_MAX: usize = 20;

/// Nodes of one strongly connected component from which the shortest cycle is searched.
pub const CYCLE_STARTS_MAX: usize = 2_000;

/// Operations that one picture shows.
pub const PICTURE_OPS_MAX: usize = 200;

/// Suspicious lines that are quoted from the servers' logs.
pub const LOG_LINES_MAX: usize = 20;

/// Bytes of one line of a log that are quoted.
pub const LOG_LINE_BYTES_MAX: usize = 400;
