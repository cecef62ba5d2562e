//! What clients saw, what should have been, and the judgement: histories, the model and the checkers.
//!
//! One crate for the simulator, which makes histories inside one process, and for the runner of real processes. It is
//! pure: files are read and written through what the caller opens.

pub mod limits;
pub mod verdict;
pub mod edn;
pub mod history;
pub mod model;
pub mod revision;
pub mod wgl;
pub mod set;
pub mod elle;
pub mod watch;
pub mod serializable;
pub mod lease;
pub mod lock;
pub mod hash;
pub mod stats;
pub mod logs;
pub mod judge;
pub mod timeline;

#[cfg(test)]
mod testing;
