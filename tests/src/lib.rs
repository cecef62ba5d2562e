//! What the tests that cross crates share: a model, processes, oracles, a client and random histories.

pub mod arguments;
pub mod client;
pub mod cluster;
pub mod failover;
pub mod fire;
pub mod fuzz;
pub mod generate;
pub mod grounds;
pub mod model;
pub mod oracle;
pub mod pace;
pub mod port;
pub mod process;
pub mod progress;
pub mod proxy;
pub mod small_disk;
pub mod raw;
pub mod rng;
pub mod run;
pub mod service;
pub mod sim;
pub mod tamper;
pub mod wire;
pub mod watching;
pub mod usage;
