//! The tests that cross crates, in one binary: real processes, real clients, real etcd.

#[path = "it/differential.rs"]
mod differential;
