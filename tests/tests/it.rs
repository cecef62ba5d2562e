//! The tests that cross crates, in one binary: real processes, real clients, real etcd.

#[path = "it/differential.rs"]
mod differential;
#[path = "it/disk_full.rs"]
mod disk_full;
#[path = "it/memory.rs"]
mod memory;
#[path = "it/architecture.rs"]
mod architecture;
#[path = "it/bad_input.rs"]
mod bad_input;
#[path = "it/crash.rs"]
mod crash;
#[path = "it/etcd_client.rs"]
mod etcd_client;
#[path = "it/etcdctl.rs"]
mod etcdctl;
#[path = "it/http.rs"]
mod http;
#[path = "it/kv.rs"]
mod kv;
#[path = "it/lease.rs"]
mod lease;
#[path = "it/maintenance.rs"]
mod maintenance;
#[path = "it/quota.rs"]
mod quota;
#[path = "it/watch.rs"]
mod watch;
