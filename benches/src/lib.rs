//! Measures Mechi beside etcd: load, processes, metrics, tables and plots. `README.md` says what and how.

pub mod arguments;
pub mod control;
pub mod load;
pub mod machine;
pub mod metrics;
pub mod plot;
pub mod process;
pub mod results;
pub mod scenario;
pub mod servers;
pub mod soak;
pub mod table;
