//! What the member is told to be: flags, variables or a file go in, one checked [`Config`] comes out.
//!
//! In reading order: [`table`] (every flag), [`flags`] (what was typed), [`env`], [`file`], [`cross`] (what it means,
//! and what must not go together).

pub mod cross;
pub mod env;
pub mod file;
pub mod flags;
pub mod help;
pub mod limits;
pub mod memory;
pub mod notice;
pub mod table;
pub mod urls;
pub mod value;

use notice::Notice;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::Duration;
use urls::Url;

/// The version of etcd whose behaviour this server has, as clients and tools read it.
pub const ETCD_VERSION: &str = "3.7.1";

/// The cluster's and the storage's version that goes with [`ETCD_VERSION`].
pub const CLUSTER_VERSION: &str = "3.7.0";

/// A member's configuration, checked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Config {
    /// The member's name.
    pub name: String,
    /// Where everything is kept.
    pub data_dir: PathBuf,
    /// Where the log is kept, if not in the data directory.
    pub wal_dir: Option<PathBuf>,
    /// Time between a leader's heartbeats.
    pub heartbeat_interval: Duration,
    /// Time without a leader after which a member stands for election.
    pub election_timeout: Duration,
    /// Whether an election is preceded by a poll that changes no term.
    pub pre_vote: bool,
    /// Where peers are listened to; loopback or unix sockets.
    pub listen_peer_urls: Vec<Url>,
    /// Where clients are listened to; never empty.
    pub listen_client_urls: Vec<Url>,
    /// Where HTTP clients are listened to; if empty, on the client URLs.
    pub listen_client_http_urls: Vec<Url>,
    /// Where metrics and health alone are served.
    pub listen_metrics_urls: Vec<Url>,
    /// This member's peer URLs; its id is made from them.
    pub advertise_peer_urls: Vec<Url>,
    /// What `MemberList` tells clients.
    pub advertise_client_urls: Vec<Url>,
    /// Members of a new cluster and their peer URLs.
    pub initial_cluster: BTreeMap<String, Vec<Url>>,
    /// Tells clusters of the same URLs apart.
    pub cluster_token: String,
    /// The bound on live bytes.
    pub quota: Quota,
    /// Operations in one branch of a txn.
    pub max_txn_ops: usize,
    /// Bytes of one request in its log form.
    pub max_request_bytes: usize,
    /// HTTP/2 streams per connection.
    pub max_concurrent_streams: u32,
    /// How connections are kept alive.
    pub keepalive: Keepalive,
    /// Options of listening sockets.
    pub socket: SocketOptions,
    /// What is compacted without being asked.
    pub auto_compaction: Option<AutoCompaction>,
    /// Time between two looks of the auto-compaction by revision.
    pub auto_compaction_revision_interval: Duration,
    /// Time between two notes of a lease's remaining time.
    pub lease_checkpoint_interval: Duration,
    /// Time between progress notifications of a watch that asked for them.
    pub watch_progress_interval: Duration,
    /// Origins that browsers may call from.
    pub cors: Allowed,
    /// Host names that HTTP clients may use.
    pub host_whitelist: Allowed,
    /// How logs are written.
    pub log: Log,
    /// Whether gRPC latencies are measured.
    pub metrics_extensive: bool,
    /// Bytes of memory to stay within.
    pub memory_limit: u64,
    /// How long a change may wait until it is in the working store.
    pub store_flush_interval: Duration,
    /// Bytes of log from which on a snapshot replaces it; as many are kept in memory for members that lag.
    pub snapshot_log_bytes: u64,
    /// etcd's feature gates, every one of them; only shown in metrics.
    pub features: BTreeMap<&'static str, bool>,
}

/// The bound on live bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Quota {
    /// Taken from the free disk.
    FromDisk,
    /// So many bytes.
    Bytes(i64),
    /// None at all.
    Unlimited,
}

/// How connections are kept alive.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Keepalive {
    /// Time between the server's pings; `None` if it does not ping.
    pub interval: Option<Duration>,
    /// How long a ping's answer may take.
    pub timeout: Duration,
}

/// Options of listening sockets.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct SocketOptions {
    /// SO_REUSEPORT.
    pub reuse_port: bool,
    /// SO_REUSEADDR.
    pub reuse_address: bool,
}

/// What is compacted without being asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AutoCompaction {
    /// Everything older than this.
    Periodic(Duration),
    /// Everything but the newest so many revisions; positive.
    Revision(i64),
}

/// A list of what is allowed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Allowed {
    /// Everything.
    All,
    /// Only these; never empty.
    Only(Vec<String>),
}

impl Allowed {
    /// Whether `item` is on the list.
    pub fn allows(&self, item: &str) -> bool {
        match self {
            Self::All => true,
            Self::Only(items) => items.iter().any(|allowed| allowed == item || allowed == "*"),
        }
    }
}

/// How logs are written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Log {
    /// The least severe level that is written.
    pub level: tracing::level_filters::LevelFilter,
    /// Lines for people instead of JSON.
    pub console: bool,
    /// Where lines go; never empty.
    pub outputs: Vec<LogOutput>,
}

impl Default for Log {
    fn default() -> Self {
        let level = tracing::level_filters::LevelFilter::INFO;
        Self { level, console: false, outputs: vec![LogOutput::Stderr] }
    }
}

/// Where log lines go.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum LogOutput {
    /// Standard error.
    Stderr,
    /// Standard output.
    Stdout,
    /// A file, appended to.
    File(PathBuf),
}

/// What the command line asks for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Action {
    /// Start a member; the notices are to be logged first.
    Run(Box<Config>, Vec<Notice>),
    /// Print this to stdout and exit with 0.
    Print(String),
    /// Print this to stderr and exit with 2.
    Usage(String),
    /// Log the notices and this error, and exit with 1.
    Refuse(String, Vec<Notice>),
}

/// Decides what the arguments (after the program's name) and the environment ask for.
///
/// - Errors: none; what is wrong is an [`Action`] too, with the text and the exit code that etcd has for it.
pub fn action(args: &[String], env: &[(String, String)]) -> Action {
    let mut notices = Vec::new();
    match decide(args, env, &mut notices) {
        Ok(Some(config)) => Action::Run(Box::new(config), notices),
        Ok(None) => Action::Print(help::version()),
        Err(flags::Stop::Help) => Action::Print(help::help()),
        Err(flags::Stop::Usage(reason)) => Action::Usage(format!("{reason}\n{}", help::usage())),
        Err(flags::Stop::Refuse(reason)) => Action::Refuse(reason, notices),
    }
}

fn decide(args: &[String], env: &[(String, String)], notices: &mut Vec<Notice>) -> Result<Option<Config>, flags::Stop> {
    if let Some(name @ ("gateway" | "grpc-proxy")) = args.first().map(String::as_str) {
        return Err(flags::Stop::Refuse(format!(
            "the sub-command {name} is not served: run it from an etcd release, it works with this server"
        )));
    }
    let mut typed = flags::Flags::parse(args)?;
    if value::parse_bool(typed.get("version")) == Some(true) {
        return Ok(None);
    }
    let from_env = env.iter().find(|(name, _)| name == "ETCD_CONFIG_FILE").map(|(_, value)| value.clone());
    let path = match typed.get("config-file") {
        "" => from_env.unwrap_or_default(),
        path => path.to_string(),
    };
    if path.is_empty() {
        env::apply(&mut typed, env, notices)?;
    } else {
        typed = file::read(Path::new(&path), notices).map_err(flags::Stop::Refuse)?;
        let notice = Notice::info(
            "loaded server configuration, other configuration command line flags and environment variables will be \
             ignored if provided",
        );
        notices.push(notice.with("path", path));
    }
    cross::config(&typed, notices).map(Some).map_err(flags::Stop::Refuse)
}

#[cfg(test)]
mod tests;
