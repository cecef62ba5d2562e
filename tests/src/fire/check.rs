//! What must hold after any faults: the book of the clients against the history that the watches saw.

use super::record::{Change, Lease, Outcome, Read, What, Write};
use super::witness::Seen;
use super::workload::Book;
use anyhow::{Context, Result, ensure};
use bytes::Bytes;
use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

/// What two readings of the clock on two sides of one lease may differ by, beside the round trip: members count
/// milliseconds.
const CLOCK_SLACK: Duration = Duration::from_millis(5);

/// How late a lease may end that nobody renews, while a leader judges it.
const OVERDUE_MAX: Duration = Duration::from_secs(60);

/// How much of everything was seen.
#[derive(Debug, Default)]
#[allow(missing_docs)]
pub struct Counts {
    pub acknowledged: usize,
    pub idle: usize,
    pub refused: usize,
    pub unknown: usize,
    /// Unknown ones that the history holds.
    pub unknown_done: usize,
    pub reads: usize,
    pub renewals: usize,
    /// Leases that were granted.
    pub leases: usize,
    /// Leases whose end was due in peace.
    pub due: usize,
    /// The longest that one of those outlived its last promise, and the time that a leader gave it anew after harm.
    pub overdue_max: Duration,
    /// The median of all.
    pub overdue_p50: Duration,
}

/// All changes, in order, and what they make of each key.
pub struct History<'a> {
    changes: &'a [Change],
    /// Of each key, its values by revision.
    keys: BTreeMap<&'a Bytes, BTreeMap<i64, Option<&'a Bytes>>>,
}

impl<'a> History<'a> {
    /// Checks that `changes` begin at revision 2, without a gap, and that no key changes twice at one.
    pub fn new(changes: &'a [Change]) -> Result<Self> {
        let (mut keys, mut last) = (BTreeMap::<_, BTreeMap<_, _>>::new(), 1);
        for change in changes {
            ensure!(change.revision == last || change.revision == last + 1, "{change:?} comes after revision {last}");
            last = change.revision;
            let values = keys.entry(&change.key).or_default();
            let before = values.insert(change.revision, change.value.as_ref());
            ensure!(before.is_none(), "{:?} changes twice at revision {last}", change.key);
        }
        ensure!(changes.first().is_none_or(|first| first.revision == 2), "the history begins at {:?}", changes.first());
        Ok(Self { changes, keys })
    }

    /// The newest revision.
    pub fn revision(&self) -> i64 {
        self.changes.last().map_or(1, |change| change.revision)
    }

    /// Value and revision of a key as of `at`.
    pub fn at(&self, key: &Bytes, at: i64) -> Option<(&'a Bytes, i64)> {
        let (revision, value) = self.keys.get(key)?.range(..=at).next_back()?;
        Some(((*value)?, *revision))
    }

    /// The change of a key at exactly this revision.
    fn change(&self, key: &Bytes, at: i64) -> Option<Option<&'a Bytes>> {
        self.keys.get(key)?.get(&at).copied()
    }

    /// All keys as the history leaves them.
    pub fn end(&self) -> BTreeMap<Bytes, (Bytes, i64)> {
        let end = self.revision();
        let found = self.keys.keys().filter_map(|key| self.at(key, end).map(|(value, at)| (key, value, at)));
        found.map(|(key, value, at)| ((*key).clone(), (value.clone(), at))).collect()
    }
}

/// Checks everything that the clients wrote down; `harm` is when harm was done, from and to.
pub fn book(book: &Book, history: &History<'_>, witnesses: &[&Seen], harm: &[(Instant, Instant)]) -> Result<Counts> {
    ensure!(book.wrong.is_empty(), "{:#?}", book.wrong);
    let mut counts = Counts::default();
    writes(&book.writes, history, &mut counts)?;
    for read in &book.reads {
        check_read(read, history).with_context(|| format!("{read:?}"))?;
    }
    counts.reads = book.reads.len();
    leases(&book.leases, witnesses, harm, &mut counts)?;
    Ok(counts)
}

fn writes(writes: &[Write], history: &History<'_>, counts: &mut Counts) -> Result<()> {
    // Where each value is found; no value is tried twice, so twice in the history is applied twice.
    let mut found = BTreeMap::<(&Bytes, &Bytes), i64>::new();
    for change in history.changes {
        if let Some(value) = &change.value {
            let twice = found.insert((&change.key, value), change.revision);
            ensure!(twice.is_none(), "applied twice, at {twice:?} and now: {change:?}");
        }
    }
    let mut deletes = BTreeSet::new();
    let mut unknown_deletes = BTreeMap::<&Bytes, usize>::new();
    for write in writes {
        let what = || format!("{write:?}, and the history of its keys: {:?}", near(write, history));
        match &write.outcome {
            Outcome::Wrote(at) => {
                ensure!(*at > write.after, "it is older than what was acknowledged before: {}", what());
                for (key, value) in changes(&write.what) {
                    ensure!(history.change(key, *at) == Some(value), "it is not in the history: {}", what());
                    match value {
                        Some(value) => drop(found.remove(&(key, value))),
                        None => ensure!(deletes.insert((key, *at)), "another delete did it: {}", what()),
                    }
                }
                if let What::Swap { guard, at: expected, .. } = &write.what {
                    ensure!(revision_at(history, guard, at - 1) == *expected, "its guard was false: {}", what());
                }
                counts.acknowledged += 1;
            }
            Outcome::Idle { at, found: guard_at } => {
                ensure!(*at >= write.after, "it was judged by an older state: {}", what());
                match &write.what {
                    What::Swap { guard, at: expected, .. } => {
                        let real = revision_at(history, guard, *at);
                        ensure!(real == *guard_at && real != *expected, "its guard was true: {}", what());
                    }
                    What::Delete { key } => ensure!(history.at(key, *at).is_none(), "the key was there: {}", what()),
                    What::Put { .. } => anyhow::bail!("a put always changes something: {}", what()),
                }
                ensure!(remove(&mut found, &write.what) == 0, "it did something: {}", what());
                counts.idle += 1;
            }
            Outcome::Refused(_) => {
                ensure!(remove(&mut found, &write.what) == 0, "it was refused and was done: {}", what());
                counts.refused += 1;
            }
            Outcome::Unknown(_) => {
                if let What::Delete { key } = &write.what {
                    *unknown_deletes.entry(key).or_default() += 1;
                }
                let done = remove(&mut found, &write.what);
                ensure!(done == 0 || done == changes(&write.what).len(), "it was done in part: {}", what());
                counts.unknown_done += usize::from(done > 0);
                counts.unknown += 1;
            }
        }
    }
    ensure!(found.is_empty(), "nobody tried these: {found:?}");
    for change in history.changes.iter().filter(|change| change.value.is_none()) {
        // Leases end their keys themselves, each once: its value is unique.
        if deletes.contains(&(&change.key, change.revision)) || change.key.starts_with(b"lease/") {
            continue;
        }
        let left = unknown_deletes.get_mut(&change.key).filter(|left| **left > 0);
        *left.with_context(|| format!("nobody tried this, or it was done twice: {change:?}"))? -= 1;
        counts.unknown_done += 1;
    }
    Ok(())
}

/// What an attempt changes: each key, and its value or `None` for a delete.
fn changes(what: &What) -> Vec<(&Bytes, Option<&Bytes>)> {
    match what {
        What::Put { key, value, .. } => vec![(key, Some(value))],
        What::Delete { key } => vec![(key, None)],
        What::Swap { guard, value, beside, .. } => vec![(guard, Some(value)), (beside, Some(value))],
    }
}

/// Strikes out what an attempt did; returns how many of its puts were found.
fn remove<'a>(found: &mut BTreeMap<(&'a Bytes, &'a Bytes), i64>, what: &'a What) -> usize {
    let puts = changes(what).into_iter().filter_map(|(key, value)| Some((key, value?)));
    puts.filter(|put| found.remove(put).is_some()).count()
}

fn revision_at(history: &History<'_>, key: &Bytes, at: i64) -> i64 {
    history.at(key, at).map_or(0, |(_, revision)| revision)
}

/// The last changes of an attempt's keys before and after what it was told.
fn near(write: &Write, history: &History<'_>) -> Vec<Change> {
    let at = match write.outcome {
        Outcome::Wrote(at) | Outcome::Idle { at, .. } => at,
        _ => write.after,
    };
    let keys: Vec<&Bytes> = changes(&write.what).into_iter().map(|(key, _)| key).collect();
    let close = |change: &&Change| (at - 200..=at + 200).contains(&change.revision) && keys.contains(&&change.key);
    history.changes.iter().filter(close).cloned().collect()
}

fn check_read(read: &Read, history: &History<'_>) -> Result<()> {
    ensure!(!read.is_linearizable || read.at >= read.after, "it shows less than was acknowledged before");
    let held = history.at(&read.key, read.at).map(|(value, at)| (value.clone(), at));
    ensure!(held == read.found, "the history holds {held:?}");
    Ok(())
}

fn leases(leases: &[Lease], witnesses: &[&Seen], harm: &[(Instant, Instant)], counts: &mut Counts) -> Result<()> {
    let mut overdue = Vec::new();
    for lease in leases {
        let ttl = Duration::from_secs(lease.ttl);
        let ended = witnesses.iter().filter_map(|seen| seen.ended.get(&lease.key)).min();
        let ended = ended.with_context(|| format!("it never ended: {lease:?}"))?;
        for seen in lease.gone.iter().chain([ended]) {
            for (sent, _) in &lease.promises {
                // It was renewed after the request was sent, so this is the earliest end that was promised.
                let early = (*sent + ttl).saturating_duration_since(*seen);
                ensure!(early <= CLOCK_SLACK, "it ended {early:?} before a promise's end: {lease:?}");
            }
        }
        let promised = lease.promises.iter().map(|(_, answered)| *answered + ttl).max().expect("the grant is one");
        // A new leader gives every lease its whole time anew, and there may be one as long as harm is done.
        let lived = harm.iter().filter(|(from, to)| from < ended && *to > lease.promises[0].0);
        let due = lived.map(|(_, to)| *to + ttl).fold(promised, Instant::max);
        if *ended >= due {
            let late = ended.duration_since(due);
            ensure!(late < OVERDUE_MAX, "it ended {late:?} late: {lease:?}");
            overdue.push(late);
        }
    }
    counts.due = overdue.len();
    overdue.sort();
    counts.leases = leases.len();
    counts.renewals = leases.iter().map(|lease| lease.promises.len() - 1).sum();
    counts.overdue_max = overdue.last().copied().unwrap_or_default();
    counts.overdue_p50 = overdue.get(overdue.len() / 2).copied().unwrap_or_default();
    Ok(())
}
