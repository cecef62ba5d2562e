//! The tests that cross crates, in one binary: real processes, real clients, real etcd.

#[path = "it/differential.rs"]
mod differential;
#[path = "it/etcd_client.rs"]
mod etcd_client;
#[path = "it/etcdctl.rs"]
mod etcdctl;
