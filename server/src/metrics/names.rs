//! Every metric's name, type, labels and buckets, as etcd 3.7.1 has them.

use prometheus::core::Collector;
use prometheus::{
    Gauge, Histogram, HistogramOpts, HistogramVec, IntCounter, IntCounterVec, IntGauge, IntGaugeVec, Opts, Registry,
    exponential_buckets,
};

/// Declares a struct of handles together with what they are registered as.
macro_rules! metrics {
    ($(#[$doc:meta])* $name:ident { $($field:ident: $type:ty = $make:expr;)* }) => {
        $(#[$doc])*
        #[derive(Clone, Debug)]
        #[allow(missing_docs)]
        pub struct $name { $(pub $field: $type,)* }

        impl $name {
            /// Registers these metrics.
            pub(crate) fn new(registry: &Registry) -> Self {
                Self { $($field: register(registry, $make),)* }
            }
        }
    };
}

metrics! {
    /// `etcd_server_*`: each field is named as the metric; its help says what it counts.
    Server {
        has_leader: IntGauge = gauge("etcd_server_has_leader", "Whether or not a leader exists. 1 is existence, 0 is not.");
        is_leader: IntGauge = gauge("etcd_server_is_leader", "Whether or not this member is a leader. 1 if is, 0 otherwise.");
        is_learner: IntGauge = gauge("etcd_server_is_learner", "Whether or not this member is a learner. 1 if is, 0 otherwise.");
        leader_changes_seen_total: IntCounter = counter("etcd_server_leader_changes_seen_total", "The number of leader changes seen.");
        learner_promote_successes: IntCounter = counter("etcd_server_learner_promote_successes", "Successful learner promotions while this member is leader.");
        heartbeat_send_failures_total: IntCounter = counter("etcd_server_heartbeat_send_failures_total", "Leader heartbeat send failures (likely overloaded from slow disk).");
        slow_apply_total: IntCounter = counter("etcd_server_slow_apply_total", "Slow apply requests (likely overloaded from slow disk).");
        slow_read_indexes_total: IntCounter = counter("etcd_server_slow_read_indexes_total", "Pending read indexes not in sync with leader's or timed out read index requests.");
        read_indexes_failed_total: IntCounter = counter("etcd_server_read_indexes_failed_total", "Failed read indexes seen.");
        proposals_failed_total: IntCounter = counter("etcd_server_proposals_failed_total", "Failed proposals seen.");
        proposals_committed_total: IntGauge = gauge("etcd_server_proposals_committed_total", "Consensus proposals committed.");
        proposals_applied_total: IntGauge = gauge("etcd_server_proposals_applied_total", "Consensus proposals applied.");
        proposals_pending: IntGauge = gauge("etcd_server_proposals_pending", "Pending proposals to commit.");
        snapshot_apply_in_progress_total: IntGauge = gauge("etcd_server_snapshot_apply_in_progress_total", "1 if the server is applying the incoming snapshot. 0 if none.");
        quota_backend_bytes: IntGauge = gauge("etcd_server_quota_backend_bytes", "Current storage quota size in bytes.");
        learner_promote_failures: IntCounterVec = counters("etcd_server_learner_promote_failures", "Failed learner promotions while this member is leader.", &["Reason"]);
        version: IntGaugeVec = gauges("etcd_server_version", "Which version is running. 1 for 'server_version' label with current version.", &["server_version"]);
        cluster_version: IntGaugeVec = gauges("etcd_cluster_version", "Which version is running. 1 for 'cluster_version' label with current cluster version.", &["cluster_version"]);
        go_version: IntGaugeVec = gauges("etcd_server_go_version", "Which Go version server is running with; none.", &["server_go_version"]);
        id: IntGaugeVec = gauges("etcd_server_id", "Server or member ID in hexadecimal format. 1 for 'server_id' label with current ID.", &["server_id"]);
        feature_enabled: IntGaugeVec = gauges("etcd_server_feature_enabled", "Whether or not a feature is enabled. 1 is enabled, 0 is not.", &["name", "stage"]);
        request_duration_seconds: HistogramVec = histograms("etcd_server_request_duration_seconds", "Response latency distribution in seconds for each request type.", &["type", "success"], (0.001, 14));
        apply_duration_seconds: HistogramVec = histograms("etcd_server_apply_duration_seconds", "Latency distribution of v2 apply called by backend.", &["version", "op", "success"], (0.0001, 20));
        range_duration_seconds: HistogramVec = histograms("etcd_server_range_duration_seconds", "Latency distribution of ranges.", &["success"], (0.0001, 20));
        client_requests_total: IntCounterVec = counters("etcd_server_client_requests_total", "Client requests per client version.", &["type", "client_api_version"]);
        health_success: IntCounter = counter("etcd_server_health_success", "Successful health checks.");
        health_failures: IntCounter = counter("etcd_server_health_failures", "Failed health checks.");
        healthcheck: IntGaugeVec = gauges("etcd_server_healthcheck", "The result of each kind of healthcheck.", &["type", "name"]);
        healthchecks_total: IntCounterVec = counters("etcd_server_healthchecks_total", "Each kind of healthcheck.", &["type", "name", "status"]);
        lease_expired_total: IntCounter = counter("etcd_debugging_server_lease_expired_total", "Expired leases.");
        alarms: IntGaugeVec = gauges("etcd_debugging_server_alarms", "Alarms for every member in cluster. 1 for 'server_id' label with current ID.", &["server_id", "alarm_type"]);
        watch_send_loop_watch_stream_duration_seconds: Histogram = histogram("etcd_debugging_server_watch_send_loop_watch_stream_duration_seconds", "Time of one watch batch in the send loop.", (0.001, 14));
        watch_send_loop_control_stream_duration_seconds: Histogram = histogram("etcd_debugging_server_watch_send_loop_control_stream_duration_seconds", "Time of one control answer in the send loop.", (0.001, 14));
        watch_send_loop_progress_duration_seconds: Histogram = histogram("etcd_debugging_server_watch_send_loop_progress_duration_seconds", "Time of one progress notification in the send loop.", (0.001, 14));
    }
}

metrics! {
    /// `etcd_mvcc_*` and `etcd_debugging_mvcc_*`: each field is named as the metric; its help says what it counts.
    Mvcc {
        range_total: IntCounter = counter("etcd_mvcc_range_total", "Ranges seen by this member.");
        put_total: IntCounter = counter("etcd_mvcc_put_total", "Puts seen by this member.");
        delete_total: IntCounter = counter("etcd_mvcc_delete_total", "Deletes seen by this member.");
        txn_total: IntCounter = counter("etcd_mvcc_txn_total", "Txns seen by this member.");
        db_total_size_in_bytes: IntGauge = gauge("etcd_mvcc_db_total_size_in_bytes", "Live and not yet reclaimed bytes of the store.");
        db_total_size_in_use_in_bytes: IntGauge = gauge("etcd_mvcc_db_total_size_in_use_in_bytes", "Live bytes of the store: all revisions that are not compacted.");
        db_open_read_transactions: IntGauge = gauge("etcd_mvcc_db_open_read_transactions", "Currently open read views.");
        hash_duration_seconds: Histogram = histogram("etcd_mvcc_hash_duration_seconds", "Latency of hashing the whole store.", (0.01, 15));
        hash_rev_duration_seconds: Histogram = histogram("etcd_mvcc_hash_rev_duration_seconds", "Latency of hashing the store at a revision.", (0.01, 15));
        keys_total: IntGauge = gauge("etcd_debugging_mvcc_keys_total", "Keys.");
        watch_stream_total: IntGauge = gauge("etcd_debugging_mvcc_watch_stream_total", "Watch streams.");
        watcher_total: IntGauge = gauge("etcd_debugging_mvcc_watcher_total", "Watchers.");
        slow_watcher_total: IntGauge = gauge("etcd_debugging_mvcc_slow_watcher_total", "Watchers that read from history.");
        events_total: IntCounter = counter("etcd_debugging_mvcc_events_total", "Events sent by this member.");
        pending_events_total: IntGauge = gauge("etcd_debugging_mvcc_pending_events_total", "Events to be sent.");
        current_revision: IntGauge = gauge("etcd_debugging_mvcc_current_revision", "The store's current revision.");
        compact_revision: IntGauge = gauge("etcd_debugging_mvcc_compact_revision", "The revision of the last compaction.");
        db_compaction_last: IntGauge = gauge("etcd_debugging_mvcc_db_compaction_last", "Unix time of the last compaction.");
        db_compaction_keys_total: IntCounter = counter("etcd_debugging_mvcc_db_compaction_keys_total", "Revisions compacted.");
        total_put_size_in_bytes: IntGauge = gauge("etcd_debugging_mvcc_total_put_size_in_bytes", "Bytes put, keys and values.");
        db_compaction_pause_duration_milliseconds: Histogram = histogram("etcd_debugging_mvcc_db_compaction_pause_duration_milliseconds", "Pauses made by compaction.", (1.0, 13));
        db_compaction_total_duration_milliseconds: Histogram = histogram("etcd_debugging_mvcc_db_compaction_total_duration_milliseconds", "Duration of compactions.", (100.0, 14));
        index_compaction_pause_duration_milliseconds: Histogram = histogram("etcd_debugging_mvcc_index_compaction_pause_duration_milliseconds", "Pauses made by compaction of the index.", (0.5, 14));
    }
}

metrics! {
    /// `etcd_disk_*` and `etcd_snap_*`: each field is named as the metric; its help says what it counts.
    Disk {
        wal_fsync_duration_seconds: Histogram = histogram("etcd_disk_wal_fsync_duration_seconds", "Latency of the log's fsync.", (0.001, 14));
        wal_write_duration_seconds: Histogram = histogram("etcd_disk_wal_write_duration_seconds", "Latency of the log's writes.", (0.001, 14));
        wal_write_bytes_total: IntGauge = gauge("etcd_disk_wal_write_bytes_total", "Bytes written to the log.");
        backend_commit_duration_seconds: Histogram = histogram("etcd_disk_backend_commit_duration_seconds", "Latency of the store's commits.", (0.001, 14));
        backend_defrag_duration_seconds: Histogram = histogram("etcd_disk_backend_defrag_duration_seconds", "Latency of defragmentations.", (0.1, 13));
        backend_snapshot_duration_seconds: Histogram = histogram("etcd_disk_backend_snapshot_duration_seconds", "Latency of snapshots.", (0.01, 17));
        defrag_inflight: IntGauge = gauge("etcd_disk_defrag_inflight", "Whether or not defrag is active. 1 means active, 0 means not.");
        snap_fsync_duration_seconds: Histogram = histogram("etcd_snap_fsync_duration_seconds", "Latency of a snapshot's fsync.", (0.001, 14));
        snap_db_fsync_duration_seconds: Histogram = histogram("etcd_snap_db_fsync_duration_seconds", "Latency of a received snapshot's fsync.", (0.001, 14));
        snap_db_save_total_duration_seconds: Histogram = histogram("etcd_snap_db_save_total_duration_seconds", "Latency of saving a received snapshot.", (0.1, 10));
    }
}

metrics! {
    /// `etcd_network_*`: each field is named as the metric; its help says what it counts.
    Network {
        active_peers: IntGaugeVec = gauges("etcd_network_active_peers", "Current active peer connections.", &["Local", "Remote"]);
        known_peers: IntGaugeVec = gauges("etcd_network_known_peers", "Known peers.", &["Local", "Remote"]);
        disconnected_peers_total: IntCounterVec = counters("etcd_network_disconnected_peers_total", "Disconnected peers.", &["Local", "Remote"]);
        peer_sent_bytes_total: IntCounterVec = counters("etcd_network_peer_sent_bytes_total", "Bytes sent to peers.", &["To"]);
        peer_received_bytes_total: IntCounterVec = counters("etcd_network_peer_received_bytes_total", "Bytes received from peers.", &["From"]);
        peer_sent_failures_total: IntCounterVec = counters("etcd_network_peer_sent_failures_total", "Send failures from peers.", &["To"]);
        peer_received_failures_total: IntCounterVec = counters("etcd_network_peer_received_failures_total", "Receive failures from peers.", &["From"]);
        peer_round_trip_time_seconds: HistogramVec = histograms("etcd_network_peer_round_trip_time_seconds", "Round-trip time between peers.", &["To"], (0.0001, 16));
        snapshot_send_success: IntCounterVec = counters("etcd_network_snapshot_send_success", "Total number of successful snapshot sends", &["To"]);
        snapshot_send_failures: IntCounterVec = counters("etcd_network_snapshot_send_failures", "Total number of snapshot send failures", &["To"]);
        snapshot_send_inflights_total: IntGaugeVec = gauges("etcd_network_snapshot_send_inflights_total", "Total number of inflight snapshot sends", &["To"]);
        snapshot_send_total_duration_seconds: HistogramVec = histograms("etcd_network_snapshot_send_total_duration_seconds", "Total latency distributions of v3 snapshot sends", &["To"], (0.1, 10));
        snapshot_receive_success: IntCounterVec = counters("etcd_network_snapshot_receive_success", "Total number of successful snapshot receives", &["From"]);
        snapshot_receive_failures: IntCounterVec = counters("etcd_network_snapshot_receive_failures", "Total number of snapshot receive failures", &["From"]);
        snapshot_receive_inflights_total: IntGaugeVec = gauges("etcd_network_snapshot_receive_inflights_total", "Total number of inflight snapshot receives", &["From"]);
        snapshot_receive_total_duration_seconds: HistogramVec = histograms("etcd_network_snapshot_receive_total_duration_seconds", "Total latency distributions of v3 snapshot receives", &["From"], (0.1, 10));
        client_grpc_sent_bytes_total: IntCounter = counter("etcd_network_client_grpc_sent_bytes_total", "Bytes sent to grpc clients.");
        client_grpc_received_bytes_total: IntCounter = counter("etcd_network_client_grpc_received_bytes_total", "Bytes received from grpc clients.");
        server_stream_failures_total: IntCounterVec = counters("etcd_network_server_stream_failures_total", "Stream failures from the local server.", &["Type", "API"]);
    }
}

metrics! {
    /// `etcd_debugging_lease_*`: each field is named as the metric; its help says what it counts.
    Lease {
        granted_total: IntCounter = counter("etcd_debugging_lease_granted_total", "Granted leases.");
        revoked_total: IntCounter = counter("etcd_debugging_lease_revoked_total", "Revoked leases.");
        renewed_total: IntCounter = counter("etcd_debugging_lease_renewed_total", "Renewed leases seen by the leader.");
        ttl_total: Histogram = histogram("etcd_debugging_lease_ttl_total", "Bucketed histogram of lease TTLs.", (1.0, 24));
    }
}

metrics! {
    /// What etcd does not have: each field is named as the metric; its help says what it counts.
    Mechi {
        quota_used_ratio: Gauge = Gauge::new("mechi_quota_used_ratio", "Live bytes as a part of the quota; warn at 0.8, growth is refused at 1.").expect(WELL_FORMED);
    }
}

const WELL_FORMED: &str = "the table's names are well formed and unique, as a test registers them all";

fn register<C: Collector + Clone + 'static>(registry: &Registry, metric: C) -> C {
    registry.register(Box::new(metric.clone())).expect(WELL_FORMED);
    metric
}

fn gauge(name: &str, help: &str) -> IntGauge {
    IntGauge::new(name, help).expect(WELL_FORMED)
}

fn counter(name: &str, help: &str) -> IntCounter {
    IntCounter::new(name, help).expect(WELL_FORMED)
}

fn gauges(name: &str, help: &str, labels: &[&str]) -> IntGaugeVec {
    IntGaugeVec::new(Opts::new(name, help), labels).expect(WELL_FORMED)
}

fn counters(name: &str, help: &str, labels: &[&str]) -> IntCounterVec {
    IntCounterVec::new(Opts::new(name, help), labels).expect(WELL_FORMED)
}

/// Buckets are (first bound, count); each bound is twice the one before.
fn options(name: &str, help: &str, (first, count): (f64, usize)) -> HistogramOpts {
    HistogramOpts::new(name, help).buckets(exponential_buckets(first, 2.0, count).expect(WELL_FORMED))
}

fn histogram(name: &str, help: &str, buckets: (f64, usize)) -> Histogram {
    Histogram::with_opts(options(name, help, buckets)).expect(WELL_FORMED)
}

fn histograms(name: &str, help: &str, labels: &[&str], buckets: (f64, usize)) -> HistogramVec {
    HistogramVec::new(options(name, help, buckets), labels).expect(WELL_FORMED)
}
