//! One run as the report needs it: its verdict, its numbers, and what happened when.

use crate::judge::{OPTIONS, REQUESTS_TIMELINE, RESULTS, TIMELINE};
use crate::recorder::{HISTORY, REQUESTS, RUN};
use crate::resolve::map_of;
use anyhow::{Context, Result};
use mechi_checker::edn::Edn;
use mechi_checker::history::{History, Kind, file};
use mechi_checker::timeline;
use std::fs::{self, File};
use std::io::BufReader;
use std::path::{Path, PathBuf};

pub(super) const SECOND_NS: u64 = 1_000_000_000;

/// The judgement in a word.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Word {
    Valid,
    Invalid,
    Unknown,
    /// The run did not come to a verdict.
    Missing,
}

/// One run.
#[derive(Clone, Debug)]
pub(super) struct Run {
    pub(super) dir: PathBuf,
    pub(super) options: Edn,
    pub(super) results: Edn,
    pub(super) facts: Edn,
    pub(super) word: Word,
    /// Why it could not be read.
    pub(super) error: Option<String>,
    pub(super) load: Load,
    /// Drawn findings.
    pub(super) pictures: Vec<String>,
}

/// What the clients got, over time.
#[derive(Clone, Debug, Default)]
pub(super) struct Load {
    /// (when it was asked, how long it took, whether it succeeded) of each request.
    pub(super) requests: Vec<(u64, u64, bool)>,
    /// Each fault: from, till, name.
    pub(super) bands: Vec<(u64, u64, String)>,
}

impl Run {
    /// Reads what there is of a run.
    pub(super) fn read(dir: &Path) -> Self {
        let map = |name: &str| map_of(&dir.join(name)).unwrap_or(Edn::Nil);
        let (options, results, facts) = (map(OPTIONS), map(RESULTS), map(RUN));
        let word = match results.get("valid?") {
            Edn::Bool(true) => Word::Valid,
            Edn::Bool(false) => Word::Invalid,
            Edn::Nil => Word::Missing,
            _ => Word::Unknown,
        };
        let (load, error) = match Load::read(dir) {
            Ok(load) => (load, None),
            Err(error) => (Load::default(), Some(format!("{error:#}"))),
        };
        let pictures = [TIMELINE, REQUESTS_TIMELINE].iter().filter_map(|name| fs::read_to_string(dir.join(name)).ok());
        Self { dir: dir.to_owned(), options, results, facts, word, error, load, pictures: pictures.collect() }
    }

    /// An option as a text.
    pub(super) fn option(&self, name: &str) -> String {
        match self.options.get(name) {
            Edn::Nil => String::new(),
            edn => edn.name().map_or_else(|| edn.to_string(), str::to_owned),
        }
    }

    /// A count of the results: `operations` or `requests`, and which.
    pub(super) fn count(&self, of: &str, what: &str) -> u64 {
        self.results.get(of).get(what).unsigned().unwrap_or(0)
    }

    /// What each checker says: name, word, and what is wrong or open.
    pub(super) fn checkers(&self) -> Vec<(String, Word, Vec<String>)> {
        let Edn::Map(checkers) = self.results.get("checkers") else { return vec![] };
        let each = checkers.iter().map(|(name, verdict)| {
            let texts = |name: &str| verdict.get(name).items().unwrap_or_default().to_vec();
            let findings = texts("findings").into_iter().map(|finding| {
                let text = |name: &str| finding.get(name).name().unwrap_or_default().to_owned();
                format!("{}: {}", text("rule"), text("text"))
            });
            let open = texts("why").into_iter().map(|why| why.name().unwrap_or_default().to_owned());
            let word = match verdict.get("valid?") {
                Edn::Bool(true) => Word::Valid,
                Edn::Bool(false) => Word::Invalid,
                _ => Word::Unknown,
            };
            (name.name().unwrap_or_default().to_owned(), word, findings.chain(open).collect())
        });
        each.collect()
    }
}

impl Load {
    fn read(dir: &Path) -> Result<Self> {
        let name = if dir.join(REQUESTS).exists() { REQUESTS } else { HISTORY };
        let path = dir.join(name);
        let file = File::open(&path).with_context(|| format!("open {}", path.display()))?;
        let history = file::read(BufReader::new(file)).with_context(|| format!("read {}", path.display()))?;
        Ok(Self::of(&history))
    }

    pub(super) fn of(history: &History) -> Self {
        let pairs = history.pairs().unwrap_or_default();
        let request = |pair: &mechi_checker::history::Pair<'_>| {
            let took = pair.done.time_ns.saturating_sub(pair.invoke.time_ns);
            (pair.invoke.time_ns, took, pair.done.kind == Kind::Ok)
        };
        let mut requests: Vec<_> = pairs.iter().map(request).collect();
        requests.sort_unstable();
        Self { requests, bands: timeline::bands(history) }
    }

    /// When the last request was answered.
    pub(super) fn end_ns(&self) -> u64 {
        self.requests.iter().map(|(at, took, _)| at + took).max().unwrap_or(0)
    }

    /// The longest time in which nothing succeeded, while clients tried: how long, and from when.
    pub(super) fn longest_silence(&self) -> (u64, u64) {
        let mut successes: Vec<u64> =
            self.requests.iter().filter(|(.., ok)| *ok).map(|(at, took, _)| at + took).collect();
        successes.sort_unstable();
        let mut longest = (0, 0);
        let mut last = self.requests.first().map_or(0, |(at, ..)| *at);
        for at in successes {
            longest = longest.max((at.saturating_sub(last), last));
            last = at;
        }
        longest
    }

    /// Quantiles of how long successes took, in nanoseconds, of those asked for within a span.
    pub(super) fn quantiles(&self, from_ns: u64, till_ns: u64, per_mille: &[usize]) -> Option<Vec<u64>> {
        let mut took: Vec<u64> = self
            .requests
            .iter()
            .filter(|(at, _, ok)| *ok && (from_ns..till_ns).contains(at))
            .map(|(_, took, _)| *took)
            .collect();
        if took.is_empty() {
            return None;
        }
        took.sort_unstable();
        Some(per_mille.iter().map(|share| took[(took.len() * share / 1_000).min(took.len() - 1)]).collect())
    }

    /// Successes of which each second.
    pub(super) fn per_second(&self) -> Vec<u64> {
        let seconds = usize::try_from(self.end_ns() / SECOND_NS).unwrap_or(0) + 1;
        let mut counts = vec![0; seconds];
        for (at, took, _) in self.requests.iter().filter(|(.., ok)| *ok) {
            let second = usize::try_from((at + took) / SECOND_NS).unwrap_or(0);
            if let Some(count) = counts.get_mut(second) {
                *count += 1;
            }
        }
        counts
    }
}
