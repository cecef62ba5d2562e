//! Members in one process, each on a runtime and a port of its own, so that one can be killed.

mod messages;
mod rig;
mod snapshots;
