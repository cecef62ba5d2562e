//! Members under fire, one file per kind of harm; after each case everything that clients wrote down must hold.
//!
//! A quick run does a few rounds of each. `MECHI_FIRE_ROUNDS=20 MECHI_FIRE_WRITES=10000 ./test fire` does it in full,
//! and `MECHI_FIRE_SEED` draws otherwise.

mod cut;
mod disk;
mod freeze;
mod handover;
mod kill;
mod lag;
mod store;
mod wipe;
