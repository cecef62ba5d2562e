//! Mechi's shell: it listens, writes, waits and keeps time, so that `mechi-replica` only computes.
//!
//! In reading order:
pub mod config;
pub mod front;
pub mod http;
pub mod identity;
pub mod listen;
pub mod metrics;
pub mod node;
pub mod telemetry;
