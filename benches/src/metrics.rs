//! Every figure that a comparison gives, its unit, and what it is to reach.

/// Which way is better.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(missing_docs)]
pub enum Better {
    More,
    Less,
}

/// One figure.
#[derive(Debug)]
pub struct Metric {
    /// Its name in results and on the command line.
    pub name: &'static str,
    /// Its name for people.
    pub title: &'static str,
    /// Its unit.
    pub unit: &'static str,
    /// Which way is better.
    pub better: Better,
    /// How many times better than etcd it is to be, and the least that is accepted.
    pub goal: Option<(f64, f64)>,
}

const fn more(name: &'static str, title: &'static str, unit: &'static str) -> Metric {
    Metric { name, title, unit, better: Better::More, goal: None }
}

const fn less(name: &'static str, title: &'static str, unit: &'static str) -> Metric {
    Metric { name, title, unit, better: Better::Less, goal: None }
}

impl Metric {
    const fn aims_at(mut self, goal: f64, floor: f64) -> Self {
        self.goal = Some((goal, floor));
        self
    }

    /// How many times better `mechi` is than `etcd`.
    pub fn ratio(&self, etcd: f64, mechi: f64) -> f64 {
        match self.better {
            Better::More => mechi / etcd,
            Better::Less => etcd / mechi,
        }
    }
}

/// All figures, in the order of the table.
pub static METRICS: &[Metric] = &[
    more("put_1", "puts, one member, 256 clients, new keys", "1/s"),
    more("put_one_key_1", "puts, one member, 256 clients, one key", "1/s"),
    more("put_random_1", "puts, one member, 256 clients, overwriting 100 k keys", "1/s"),
    more("put_3", "puts, three members, 256 clients", "1/s").aims_at(3.0, 1.5),
    less("put_3_cpu", "CPU per put, three members, all processes", "µs").aims_at(3.0, 1.5),
    less("put_1_cpu", "CPU per put, one member", "µs").aims_at(3.0, 1.5),
    more("put_3_all", "puts, three members, clients spread over all", "1/s"),
    more("txn_1", "guarded Txn-puts, one member, 256 clients", "1/s"),
    more("txn_3", "guarded Txn-puts, three members, 256 clients", "1/s"),
    less("lone_put_1_p50", "lone client's put, one member, p50", "ms"),
    less("lone_put_1_p99", "lone client's put, one member, p99", "ms"),
    less("lone_put_3_p50", "lone client's put, three members, p50", "ms"),
    less("lone_put_3_p99", "lone client's put, three members, p99", "ms"),
    less("half_load_p50", "puts at half of etcd's maximum, three members, p50", "ms"),
    less("half_load_p99", "puts at half of etcd's maximum, three members, p99", "ms"),
    less("half_load_p999", "puts at half of etcd's maximum, three members, p99.9", "ms"),
    more("get_1", "linearizable gets, one member, 256 clients", "1/s"),
    more("get_3", "linearizable gets, three members, 256 clients", "1/s").aims_at(4.0, 2.0),
    more("sget_1", "serializable gets, one member, 256 clients", "1/s"),
    more("sget_3", "serializable gets, three members, 256 clients", "1/s"),
    less("list_300k", "list of 300 k keys of 37 + 256 bytes", "ms").aims_at(4.0, 2.0),
    less("list_300k_cpu", "CPU per key of that list", "µs"),
    less("page_300k_p50", "page of 500 of 300 k keys, pinned revision, p50", "ms"),
    less("list_1m", "list of a million keys", "ms"),
    less("list_1m_cpu", "CPU per key of that list", "µs"),
    less("list_1m_extra", "peak memory beyond the fill's after three such lists", "MB"),
    less("page_1m_p50", "page of 500 of a million keys, pinned revision, p50", "ms").aims_at(200.0, 50.0),
    more("watch", "watch events, 1,000 watchers on 1,000 streams", "1/s").aims_at(2.0, 1.2),
    more("watch_shared", "watch events, 1,000 watchers on 10 streams", "1/s").aims_at(2.0, 1.2),
    more("keep_alive", "lease keep-alives, 256 streams", "1/s"),
    less("rss_1m", "RSS at a million keys of 37 + 256 bytes, live", "MB").aims_at(1.0 / 0.65, 1.0),
    less("rss_1m_anonymous", "of that, anonymous", "MB"),
    less("rss_1m_file", "of that, mapped files", "MB"),
    less("rss_1m_restarted", "RSS at a million keys after a restart", "MB"),
    less("rss_1m_restarted_anonymous", "of that, anonymous", "MB"),
    less("rss_1m_restarted_file", "of that, mapped files", "MB"),
    less("disk_1m", "disk at a million keys, live", "MB"),
    less("restart_1m", "restart after SIGTERM with a million keys, to the first linearizable read", "ms")
        .aims_at(4.0, 1.5),
    less("restart_1m_cpu", "CPU of that restart", "ms"),
    less("restart_1m_killed", "the same after kill -9", "ms"),
    less("stream_bytes", "memory per watch stream, 10 k streams", "KB"),
    less("watch_bytes", "memory per 100 k watches on 10 streams", "MB"),
    less("failover", "kill -9 of the leader to the next acknowledged write, three members", "ms"),
];

/// The figure of this name.
pub fn find(name: &str) -> Option<&'static Metric> {
    METRICS.iter().find(|metric| metric.name == name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_unique_and_goals_above_their_floors() {
        for metric in METRICS {
            assert!(std::ptr::eq(find(metric.name).expect("listed"), metric), "{} is listed twice", metric.name);
            assert!(metric.goal.is_none_or(|(goal, floor)| goal > floor && floor >= 1.0), "{}", metric.name);
        }
    }

    #[test]
    fn a_ratio_above_one_is_better_either_way() {
        let metric = |name| find(name).expect("listed");
        assert_eq!(metric("put_3").ratio(10.0, 30.0), 3.0);
        assert_eq!(metric("failover").ratio(1_000.0, 10.0), 100.0);
    }
}
