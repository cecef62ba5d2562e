//! The harm: kinds of faults, how one run does them in rounds, and how everything is made whole again.
//!
//! In reading order: [`ballast`] (what makes the log grow), `harm` (what every kind has at hand), then one file per
//! family of kinds, then `swarm` (all).

pub mod ballast;
mod harm;
mod process;
mod network;
mod clock;
mod disk;
mod damage;
mod files;
mod admin;
mod failpoint;
mod swarm;

pub(crate) use admin::move_leader;
pub(crate) use harm::sample;
pub(crate) use network::draw as draw_cut;

use crate::cluster::{Cluster, Gear};
use crate::recorder::Recorder;
use anyhow::Result;
use harm::Harm;
use mechi_checker::edn::Edn;
use mechi_tests::process::Kind;
use std::fmt;
use std::str::FromStr;
use std::sync::Arc;
use std::time::Instant;

/// A kind of harm.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
#[allow(missing_docs)]
pub enum Nemesis {
    None,
    Kill,
    Pause,
    Partition,
    Slow,
    Clock,
    Admin,
    DiskFull,
    DiskSlow,
    FsyncError,
    CorruptWal,
    CorruptSnapshot,
    CorruptStore,
    EngineLost,
    Wipe,
    RestartStorm,
    Failpoint,
    All,
}

use Nemesis as N;

/// What a member says whose damaged store makes sled panic: that it did and where, and that the store is rebuilt.
const SLED_PANICS: [&str; 2] = ["/sled-0", "the store is damaged: engine lost"];

impl Nemesis {
    /// Every kind, in the order of a report.
    pub const ALL: [Self; 18] = [
        N::None,
        N::Kill,
        N::Pause,
        N::Partition,
        N::Slow,
        N::Clock,
        N::Admin,
        N::DiskFull,
        N::DiskSlow,
        N::FsyncError,
        N::CorruptWal,
        N::CorruptSnapshot,
        N::CorruptStore,
        N::EngineLost,
        N::Wipe,
        N::RestartStorm,
        N::Failpoint,
        N::All,
    ];

    /// Its name on a command line and in a report.
    pub fn name(self) -> &'static str {
        match self {
            N::None => "none",
            N::Kill => "kill",
            N::Pause => "pause",
            N::Partition => "partition",
            N::Slow => "slow",
            N::Clock => "clock",
            N::Admin => "admin",
            N::DiskFull => "disk-full",
            N::DiskSlow => "disk-slow",
            N::FsyncError => "fsync-error",
            N::CorruptWal => "corrupt-wal",
            N::CorruptSnapshot => "corrupt-snapshot",
            N::CorruptStore => "corrupt-store",
            N::EngineLost => "engine-lost",
            N::Wipe => "wipe",
            N::RestartStorm => "restart-storm",
            N::Failpoint => "failpoint",
            N::All => "all",
        }
    }

    /// One sentence for a person.
    pub fn about(self) -> &'static str {
        match self {
            N::None => "no harm at all",
            N::Kill => "kill -9 of one, a minority, all, or the leader",
            N::Pause => "SIGSTOP of one, a minority, all, or the leader",
            N::Partition => {
                "cuts: a member alone, halves, rings, one way, a bridge, clients only, one link after the other"
            }
            N::Slow => "delays, lost packets and resets, between members and to clients",
            N::Clock => "the wall clock jumps, swings, and goes faster or slower",
            N::Admin => "storms of compaction, of leadership handed on, of defragmentation",
            N::DiskFull => "the disk has no byte left",
            N::DiskSlow => "each fsync takes 50 ms to 2 s",
            N::FsyncError => "an fsync answers EIO",
            N::CorruptWal => "bits, pages, stale pages and the end of a stopped member's log",
            N::CorruptSnapshot => "the same in its snapshots",
            N::CorruptStore => "the same in its working store",
            N::EngineLost => "a stopped member's working store is gone",
            N::Wipe => "a member starts on an empty directory, and gets its own back",
            N::RestartStorm => "all members are killed every 2 s",
            N::Failpoint => "the server ends or waits at a place in its code",
            N::All => "a random half of all kinds, two at a time",
        }
    }

    /// What members must have for it, if the server is of this kind.
    pub fn gear(self, kind: Kind) -> Gear {
        let none = Gear::default();
        match self {
            N::Clock | N::DiskSlow | N::FsyncError => Gear { shim: kind == Kind::Mechi, ..none },
            N::DiskFull => Gear { small_disks: true, ..none },
            N::CorruptSnapshot => Gear { snapshots: true, ..none },
            N::CorruptStore | N::EngineLost => Gear { store: true, ..none },
            N::All => swarm::kinds().fold(none, |gear, one| gear.and(one.gear(kind))),
            _ => none,
        }
    }

    /// Why it cannot be done to a server of this kind; `None` if it can.
    pub fn impossible(self, kind: Kind) -> Option<&'static str> {
        match (self, kind) {
            (N::Clock | N::DiskSlow | N::FsyncError, Kind::Etcd) => {
                Some("a Go program does not call the C library, where this fault is injected")
            }
            (N::CorruptStore | N::EngineLost, Kind::Etcd) => {
                Some("etcd's database is not a copy of something else, so that no etcd outlives its loss")
            }
            (N::Failpoint, Kind::Etcd) => Some("this build of etcd has no failpoints"),
            _ => None,
        }
    }

    /// What a member's log may say because of it, although it is a suspicious word elsewhere.
    pub fn expected_logs(self) -> &'static [&'static str] {
        match self {
            N::FsyncError => &["Input/output error"],
            N::Failpoint => &["failpoint"],
            // sled may panic where it opens what is damaged; the member notices, and rebuilds its store.
            N::CorruptStore => &SLED_PANICS,
            N::All => &["Input/output error", "failpoint", SLED_PANICS[0], SLED_PANICS[1]],
            _ => &[],
        }
    }

    /// How many effects a run of so many seconds of harm must have had to say anything.
    pub fn effects_wanted(self, seconds: u64) -> u64 {
        // Rounds of these take seconds: a process is stopped, copied, started, and looked at.
        let per_effect = match self {
            N::None => return 0,
            N::CorruptWal | N::CorruptSnapshot | N::CorruptStore | N::EngineLost | N::Wipe => 6,
            N::FsyncError | N::DiskFull | N::DiskSlow | N::Pause | N::Failpoint => 4,
            _ => 3,
        };
        (seconds / per_effect).clamp(1, 5)
    }
}

impl fmt::Display for Nemesis {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl FromStr for Nemesis {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let names = || Self::ALL.map(Self::name).join(", ");
        Self::ALL.into_iter().find(|one| one.name() == text).ok_or_else(|| format!("it must be one of {}", names()))
    }
}

/// Does harm in rounds until `end`; what it does is recorded, and so is each effect that was seen.
///
/// - Errors: a process or a file of the run's own could not be handled; what was harmed may still be so.
pub async fn run(nemesis: Nemesis, cluster: &Cluster, recorder: &Arc<Recorder>, seed: u64, end: Instant) -> Result<()> {
    let mut harm = Harm::new(cluster, recorder, seed, end);
    match nemesis {
        N::None => {
            tokio::time::sleep_until(end.into()).await;
            Ok(())
        }
        N::All => swarm::run(cluster, recorder, seed, end).await,
        one => {
            while !harm.is_over() {
                round(one, &mut harm).await?;
            }
            Ok(())
        }
    }
}

/// One round of one kind: it begins, lasts, and is undone.
async fn round(nemesis: Nemesis, harm: &mut Harm<'_>) -> Result<()> {
    match nemesis {
        N::None | N::All => harm.hold(100..1_000).await,
        N::Kill => return process::kill(harm).await,
        N::Pause => return process::pause(harm).await,
        N::RestartStorm => return process::storm(harm).await,
        N::Partition => return network::partition(harm).await,
        N::Slow => return network::slow(harm).await,
        N::Clock => return clock::lie(harm).await,
        N::Admin => return admin::storm(harm).await,
        N::DiskFull => return disk::fill(harm).await,
        N::DiskSlow => return disk::slow(harm).await,
        N::FsyncError => return disk::fail(harm).await,
        N::CorruptWal => return files::corrupt(harm, files::Part::Wal).await,
        N::CorruptSnapshot => return files::corrupt(harm, files::Part::Snapshot).await,
        N::CorruptStore => return files::corrupt(harm, files::Part::Store).await,
        N::EngineLost => return files::lose_engine(harm).await,
        N::Wipe => return files::wipe(harm).await,
        N::Failpoint => return failpoint::hit(harm).await,
    }
    Ok(())
}

/// Undoes whatever may be left of any harm, and waits until all members serve.
///
/// - Errors: a member does not come back; its log's end is in the text.
pub async fn heal(cluster: &Cluster, recorder: &Recorder) -> Result<()> {
    cluster.heal_network();
    for n in 0..cluster.len() {
        if cluster.gear().shim {
            cluster.shim(n, |shim| shim.heal())?;
        }
        disk::free(cluster, n)?;
        cluster.thaw(n)?;
        cluster.ended(n);
        cluster.spawn(n)?;
    }
    cluster.wait_until_all_serve().await?;
    for n in 0..cluster.len() {
        disk::disarm(cluster, n).await;
        if cluster.program().kind == Kind::Mechi && has_failpoints(cluster, n) {
            failpoint::clear(cluster, n);
        }
    }
    recorder.nemesis("heal", Edn::Nil);
    Ok(())
}

/// Whether a running member was built with failpoints.
pub fn has_failpoints(cluster: &Cluster, n: usize) -> bool {
    !failpoint::sites(cluster, n).is_empty()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_kind_has_a_name_of_its_own_that_is_read_back() {
        for one in Nemesis::ALL {
            assert_eq!(one.name().parse(), Ok(one));
            assert!(!one.about().is_empty());
        }
        assert!("kil".parse::<Nemesis>().is_err());
        assert!(N::All.gear(Kind::Mechi).shim && N::All.gear(Kind::Mechi).small_disks);
        assert_eq!((N::None.effects_wanted(30), N::Kill.effects_wanted(17), N::Kill.effects_wanted(1)), (0, 5, 1));
    }
}
