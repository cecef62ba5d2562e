//! Mechi's shell: it listens, writes, waits and keeps time, so that `mechi-replica` only computes.
//!
//! In reading order:
pub mod disk;
pub mod recovery;
pub mod store;
pub mod node;
