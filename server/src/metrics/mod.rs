//! Metrics under etcd's names, so that its dashboards and alerts work unchanged.
//!
//! In reading order: [`names`] (every metric, its type, labels and buckets), [`grpc`] (counts calls), [`process`].
//! What the member already knows is pulled when somebody scrapes; only events and durations are pushed.

pub mod grpc;
pub mod names;
pub mod process;

use crate::config::table::GATES;
use crate::config::{CLUSTER_VERSION, Config, ETCD_VERSION};
use crate::node::Status;
use names::{Disk, Lease, Mechi, Mvcc, Network, Server};
use prometheus::{Encoder, Registry, TextEncoder};

/// All metrics; the fields of its parts are the handles that other modules set.
#[derive(Debug)]
pub struct Metrics {
    /// `etcd_server_*`.
    pub server: Server,
    /// `etcd_mvcc_*` and `etcd_debugging_mvcc_*`.
    pub mvcc: Mvcc,
    /// `etcd_disk_*` and `etcd_snap_*`.
    pub disk: Disk,
    /// `etcd_network_*`.
    pub network: Network,
    /// `etcd_debugging_lease_*`.
    pub lease: Lease,
    /// What etcd does not have.
    pub mechi: Mechi,
    /// `grpc_server_*`.
    pub grpc: grpc::Calls,
    process: process::Process,
    registry: Registry,
    member: u64,
}

impl Metrics {
    /// Registers everything.
    ///
    /// - Units: `member` is this member's id.
    pub fn new(config: &Config, member: u64) -> Self {
        let registry = Registry::new();
        let network = Network::new(&registry);
        let server = Server::new(&registry);
        let metrics = Self {
            grpc: grpc::Calls::new(&registry, config.metrics_extensive, &server, &network),
            server,
            mvcc: Mvcc::new(&registry),
            disk: Disk::new(&registry),
            network,
            lease: Lease::new(&registry),
            mechi: Mechi::new(&registry),
            process: process::Process::new(&registry),
            registry,
            member,
        };
        metrics.server.version.with_label_values(&[ETCD_VERSION]).set(1);
        metrics.server.go_version.with_label_values(&["none"]).set(1);
        // etcd counts a member among those that it knows itself.
        let id = format!("{member:x}");
        metrics.network.known_peers.with_label_values(&[&id, &id]).set(1);
        metrics.server.id.with_label_values(&[&format!("{member:x}")]).set(1);
        // The cluster's version is a major and a minor here, as etcd shows it.
        let cluster = CLUSTER_VERSION.rsplit_once('.').map_or(CLUSTER_VERSION, |(minor, _)| minor);
        metrics.server.cluster_version.with_label_values(&[cluster]).set(1);
        for (name, stage, _) in GATES {
            let on = config.features.get(name).copied().unwrap_or_default();
            metrics.server.feature_enabled.with_label_values(&[name, stage]).set(i64::from(on));
        }
        metrics
    }

    /// Writes everything in Prometheus' text format, after a look at the member and at the process.
    pub fn render(&self, status: &Status) -> Vec<u8> {
        self.refresh(status);
        self.process.refresh();
        let mut text = Vec::with_capacity(64 << 10);
        TextEncoder::new()
            .encode(&self.registry.gather(), &mut text)
            .expect("writing to memory does not fail, and every family has a metric");
        text
    }

    fn refresh(&self, status: &Status) {
        let count = |number: u64| i64::try_from(number).unwrap_or(i64::MAX);
        let server = &self.server;
        server.has_leader.set(i64::from(status.leader != 0));
        server.is_leader.set(i64::from(status.leader != 0 && status.leader == self.member));
        server.is_learner.set(i64::from(status.is_learner));
        server.proposals_committed_total.set(count(status.committed_index));
        server.proposals_applied_total.set(count(status.applied_index));
        server.quota_backend_bytes.set(status.quota);
        server.alarms.reset();
        for alarm in &status.alarms {
            let (member, kind) = (format!("{:x}", alarm.member_id), alarm.alarm().as_str_name());
            server.alarms.with_label_values(&[&member, kind]).set(1);
        }
        self.mvcc.db_total_size_in_bytes.set(status.db_size);
        self.mvcc.db_total_size_in_use_in_bytes.set(status.db_size_in_use);
        self.mvcc.keys_total.set(count(status.keys));
        self.mvcc.current_revision.set(status.revision);
        self.mvcc.compact_revision.set(status.compact_revision);
        // A quota of 0 or less is none at all, and none of it is used.
        let ratio = if status.quota > 0 { status.db_size_in_use as f64 / status.quota as f64 } else { 0.0 };
        self.mechi.quota_used_ratio.set(ratio);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use mechi_proto::etcdserverpb as pb;

    fn metrics() -> Metrics {
        let crate::config::Action::Run(config, _) = crate::config::action(&[], &[]) else { panic!("refused") };
        Metrics::new(&config, 0xa1)
    }

    fn lines(status: &Status) -> Vec<String> {
        String::from_utf8(metrics().render(status)).unwrap().lines().map(str::to_string).collect()
    }

    #[test]
    fn what_the_alerts_and_the_dashboard_use_is_there_from_the_first_scrape() {
        let lines = lines(&Status::default());
        for name in [
            "etcd_server_has_leader",
            "etcd_server_leader_changes_seen_total",
            "etcd_server_proposals_failed_total",
            "etcd_server_proposals_pending",
            "etcd_server_proposals_committed_total",
            "etcd_server_proposals_applied_total",
            "etcd_server_quota_backend_bytes",
            "etcd_disk_wal_fsync_duration_seconds_bucket",
            "etcd_disk_backend_commit_duration_seconds_bucket",
            "etcd_mvcc_db_total_size_in_bytes",
            "etcd_mvcc_db_total_size_in_use_in_bytes",
            "etcd_network_client_grpc_sent_bytes_total",
            "etcd_network_client_grpc_received_bytes_total",
            "grpc_server_started_total",
            "grpc_server_handled_total",
            "process_resident_memory_bytes",
            "process_cpu_seconds_total",
            "os_fd_used",
            "os_fd_limit",
        ] {
            let found = lines.iter().any(|line| line.split([' ', '{']).next() == Some(name));
            assert!(found, "{name} is missing");
        }
        assert!(!lines.iter().any(|line| line.starts_with("grpc_server_handling_seconds")));
    }

    #[test]
    fn a_scrape_shows_the_members_status() {
        let status = Status {
            leader: 0xa1,
            quota: 1000,
            db_size: 900,
            db_size_in_use: 850,
            keys: 3,
            alarms: vec![pb::AlarmMember { member_id: 0xa1, alarm: pb::AlarmType::Nospace as i32 }],
            ..Status::default()
        };
        let lines = lines(&status);
        for line in [
            "etcd_server_has_leader 1",
            "etcd_server_is_leader 1",
            "etcd_server_quota_backend_bytes 1000",
            "etcd_mvcc_db_total_size_in_use_in_bytes 850",
            "etcd_debugging_mvcc_keys_total 3",
            "mechi_quota_used_ratio 0.85",
            "etcd_debugging_server_alarms{alarm_type=\"NOSPACE\",server_id=\"a1\"} 1",
            "etcd_server_version{server_version=\"3.7.1\"} 1",
            "etcd_cluster_version{cluster_version=\"3.7\"} 1",
            "etcd_server_id{server_id=\"a1\"} 1",
            "etcd_server_feature_enabled{name=\"FastLeaseKeepAlive\",stage=\"BETA\"} 1",
        ] {
            assert!(lines.iter().any(|found| found == line), "{line} is missing");
        }
    }

    #[test]
    fn types_and_buckets_are_etcds() {
        let lines = lines(&Status::default());
        for line in [
            "# TYPE etcd_server_proposals_committed_total gauge",
            "# TYPE etcd_server_proposals_failed_total counter",
            "# TYPE etcd_disk_wal_write_bytes_total gauge",
            "etcd_disk_wal_fsync_duration_seconds_bucket{le=\"0.001\"} 0",
            "etcd_disk_wal_fsync_duration_seconds_bucket{le=\"8.192\"} 0",
            "etcd_disk_wal_fsync_duration_seconds_bucket{le=\"+Inf\"} 0",
        ] {
            assert!(lines.iter().any(|found| found == line), "{line} is missing");
        }
        assert!(!lines.iter().any(|line| line.contains("fsync_duration_seconds_bucket{le=\"16")));
    }
}
