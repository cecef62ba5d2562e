//! A thin control plane over any etcd: desired state in the store, and what makes the world like it.
//!
//! The core does no I/O and reads no clock: it is told what the store answered and what time it is, and says what to ask
//! and to write. In reading order: `limits` (every bound), `types` (Kubernetes' objects), `digest` (what uids and drawn
//! names are made with), `keys` (where objects are), `kv` (all that is asked of a store, and the guards under which anything
//! is written), `cache` (a copy of everything), `queue` (what is to be reconciled), `elect` (who acts), `api` (what clients
//! do with objects), `control` (the controllers), `events` (what people are told), `sched` (the scheduler), `fake` (nodes
//! that only play), `audit` (whether it was all right).

pub mod limits;
pub mod types;
mod digest;
pub mod keys;
pub mod kv;
pub mod cache;
pub mod queue;
pub mod elect;
pub mod api;
pub mod control;
pub mod events;
pub mod sched;
pub mod fake;
pub mod audit;
