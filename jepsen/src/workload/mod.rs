//! What clients do: eight of them, six that know one member and two that know all, and what they look at in the end.

mod append;
mod compact;
mod election;
mod ending;
mod idle;
mod kube;
mod lease;
mod lock;
mod register;
mod requests;
mod set;
mod turn;
mod txn;
mod watch;
mod wr;

pub(crate) use append::PREFIX as LISTS;
pub(crate) use ending::CATCH_UP;
pub use ending::{HASHES, last_reads};
pub(crate) use register::PREFIX as REGISTERS;
pub(crate) use wr::PREFIX as WR_REGISTERS;

use crate::client::Client;
use crate::cluster::Member;
use crate::recorder::Recorder;
use anyhow::Result;
use mechi_tests::rng::Rng;
use std::fmt;
use std::future::Future;
use std::str::FromStr;
use std::sync::Arc;
use std::time::Duration;
use tokio::time::Instant;

/// The keys that hold a set.
pub(crate) const SETS: [&str; 2] = [set::KEY, lock::KEY];

/// Clients that know one member.
const PINNED: u64 = 6;

/// Clients that know all.
const FREE: u64 = 2;

/// The thread of whoever compacts.
const COMPACTOR: u64 = PINNED + FREE;

/// The first thread of those that look at everything in the end.
const LAST_READER: u64 = COMPACTOR + 1;

/// How long a client rests after something went wrong: a member that is down refuses a thousand times a second.
const REST: Duration = Duration::from_millis(40);

/// What clients do.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
#[allow(missing_docs)]
pub enum Workload {
    /// Reads, writes and compare-and-sets of many registers, with versions.
    Register,
    /// One key that holds a set, which only grows.
    Set,
    /// Elle's list-append, each transaction a read and a guarded write.
    Append,
    /// Elle's rw-register, each transaction one request without a guard.
    Wr,
    /// Writers, and watchers that begin and end at random.
    Watch,
    /// What Kubernetes does: objects changed under guards, lists in pages, list and watch.
    Kube,
    /// Leases that are renewed, revoked, used and left alone.
    Lease,
    /// A lock over a lease around writes that nothing else guards: it is known to lose some.
    Lock,
    /// The same with writes that are guarded by the lock's key.
    LockFenced,
    /// Leaders, what they say, and who sees whom.
    Election,
    /// Compaction at random revisions, and reads and watches around them.
    Compact,
    /// Random nested transactions.
    Txn,
    /// Next to nothing.
    None,
}

impl Workload {
    /// All of them.
    pub const ALL: [Self; 13] = [
        Self::Register,
        Self::Set,
        Self::Append,
        Self::Wr,
        Self::Watch,
        Self::Kube,
        Self::Lease,
        Self::Lock,
        Self::LockFenced,
        Self::Election,
        Self::Compact,
        Self::Txn,
        Self::None,
    ];

    /// Its name on the command line and in reports.
    pub fn name(self) -> &'static str {
        match self {
            Self::Register => "register",
            Self::Set => "set",
            Self::Append => "append",
            Self::Wr => "wr",
            Self::Watch => "watch",
            Self::Kube => "kube",
            Self::Lease => "lease",
            Self::Lock => "lock",
            Self::LockFenced => "lock-fenced",
            Self::Election => "election",
            Self::Compact => "compact",
            Self::Txn => "txn",
            Self::None => "none",
        }
    }

    /// Successful requests per second that a run must have had before the first fault.
    pub fn ok_per_second(self) -> u64 {
        if self == Self::None { 1 } else { 100 }
    }
}

impl fmt::Display for Workload {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl FromStr for Workload {
    type Err = String;

    fn from_str(name: &str) -> Result<Self, String> {
        let found = Self::ALL.into_iter().find(|workload| workload.name() == name);
        found.ok_or_else(|| {
            let all: Vec<_> = Self::ALL.iter().map(|workload| workload.name()).collect();
            format!("{name} is no workload: {}", all.join(", "))
        })
    }
}

/// How a workload is run.
#[derive(Clone, Debug)]
pub struct WorkloadOptions {
    /// Decides what clients try.
    pub seed: u64,
    /// How long they do.
    pub seconds: u64,
    /// Between two operations of a client.
    pub pause: Duration,
}

/// Milliseconds between two operations of a client, usually: a machine with two cores runs the members too.
pub const PAUSE_MS: u64 = 12;

impl WorkloadOptions {
    /// As they are given on a command line.
    pub fn new(seed: u64, seconds: u64, pause_ms: u64) -> Self {
        Self { seed, seconds, pause: Duration::from_millis(pause_ms) }
    }
}

/// Lets clients work for as long as the options say.
///
/// - Errors: an address that is none; nothing that happens to a request.
pub async fn run(
    workload: Workload,
    members: &[Member],
    options: &WorkloadOptions,
    recorder: &Arc<Recorder>,
) -> Result<()> {
    let crew = Crew::new(members, options, recorder);
    match workload {
        Workload::Register => crew.work(register::Registers::default()).await,
        Workload::Set => crew.work(set::Sets::new(&crew)).await,
        Workload::Append => crew.work(append::Lists::default()).await,
        Workload::Wr => crew.work(wr::Registers::default()).await,
        Workload::Watch => watch::run(&crew).await,
        Workload::Kube => kube::run(&crew).await,
        Workload::Lease => crew.work(lease::Leases::default()).await,
        Workload::Lock => crew.work(lock::Locks::new(false)).await,
        Workload::LockFenced => crew.work(lock::Locks::new(true)).await,
        Workload::Election => crew.work(election::Elections::default()).await,
        Workload::Compact => compact::run(&crew).await,
        Workload::Txn => crew.work(txn::Txns::default()).await,
        Workload::None => idle::run(&crew).await,
    }
}

/// One client's work.
trait Work: Send + Sync + 'static {
    /// Does one thing; returns whether it went well.
    fn step(&self, client: &mut Client) -> impl Future<Output = bool> + Send;
}

/// All clients of a run.
struct Crew {
    members: Vec<Member>,
    options: WorkloadOptions,
    recorder: Arc<Recorder>,
    until: Instant,
}

impl Crew {
    fn new(members: &[Member], options: &WorkloadOptions, recorder: &Arc<Recorder>) -> Self {
        let until = Instant::now() + Duration::from_secs(options.seconds);
        Self { members: members.to_vec(), options: options.clone(), recorder: recorder.clone(), until }
    }

    /// A client of its own; of one member, or of all.
    fn client(&self, thread: u64, pinned: Option<usize>) -> Result<Client> {
        Client::new(thread, &self.members, pinned, &self.recorder, self.seed(thread))
    }

    /// Random numbers of its own.
    fn rng(&self, what: u64) -> Rng {
        Rng::new(self.seed(what))
    }

    fn seed(&self, what: u64) -> u64 {
        // A stream of its own for each: one more request of one of them changes nothing for the others.
        Rng::new(self.options.seed ^ what.wrapping_mul(0xd134_2543_de82_ef95)).next_u64()
    }

    /// Lets all clients work until the time is over.
    async fn work(&self, work: impl Work) -> Result<()> {
        let work = Arc::new(work);
        let mut tasks = tokio::task::JoinSet::new();
        for thread in 0..PINNED + FREE {
            let pinned = (thread < PINNED).then(|| thread as usize % self.members.len());
            let mut client = self.client(thread, pinned)?;
            let (work, until, pause) = (work.clone(), self.until, self.options.pause);
            tasks.spawn(async move {
                while Instant::now() < until {
                    let went_well = work.step(&mut client).await;
                    tokio::time::sleep(if went_well { pause } else { pause + REST }).await;
                }
            });
        }
        while let Some(ended) = tasks.join_next().await {
            ended?;
        }
        Ok(())
    }

    /// Waits for a period; returns whether there is time for more.
    async fn wait(&self, period: Duration) -> bool {
        tokio::time::sleep_until((Instant::now() + period).min(self.until)).await;
        Instant::now() < self.until
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_workload_is_found_by_its_name() {
        for workload in Workload::ALL {
            assert_eq!(workload.name().parse(), Ok(workload));
        }
        assert!("registers".parse::<Workload>().unwrap_err().contains("lock-fenced"));
    }
}
