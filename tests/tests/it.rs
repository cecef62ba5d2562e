//! The tests that cross crates, in one binary: real processes, real clients, real etcd.

#[path = "it/differential.rs"]
mod differential;
#[path = "it/diverged.rs"]
mod diverged;
#[path = "it/disk_full.rs"]
mod disk_full;
#[path = "it/memory.rs"]
mod memory;
#[path = "it/architecture.rs"]
mod architecture;
#[path = "it/bad_flags.rs"]
mod bad_flags;
#[path = "it/bad_input.rs"]
mod bad_input;
#[path = "it/bad_watch.rs"]
mod bad_watch;
#[path = "it/cluster.rs"]
mod cluster;
#[path = "it/fire/mod.rs"]
mod fire;
#[path = "it/local.rs"]
mod local;
#[path = "it/command_lines.rs"]
mod command_lines;
#[path = "it/control_plane.rs"]
mod control_plane;
#[path = "it/control_run.rs"]
mod control_run;
#[path = "it/crash.rs"]
mod crash;
#[path = "it/client_watch.rs"]
mod client_watch;
#[path = "it/client_tls.rs"]
mod client_tls;
#[path = "it/client_lease.rs"]
mod client_lease;
#[path = "it/client_failover.rs"]
mod client_failover;
#[path = "it/client_calls.rs"]
mod client_calls;
#[path = "it/dump.rs"]
mod dump;
#[path = "it/etcd_client.rs"]
mod etcd_client;
#[path = "it/etcdctl.rs"]
mod etcdctl;
#[path = "it/mask.rs"]
mod mask;
#[path = "it/mechictl/mod.rs"]
mod mechictl;
#[path = "it/fuzz.rs"]
mod fuzz;
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
#[path = "it/data_dir.rs"]
mod data_dir;
#[path = "it/restart.rs"]
mod restart;
#[path = "it/model_history.rs"]
mod model_history;
