//! What a run does and finds, written down as it happens: lines of a file, faults with their effects, findings.

use crate::limits::CONTROL_FINDINGS_MAX;
use anyhow::{Context, Result};
use std::collections::BTreeMap;
use std::fs::File;
use std::io::Write;
use std::path::Path;
use std::sync::{Mutex, MutexGuard};
use std::time::Instant;

/// The file, in the run's folder.
pub(super) const TRACE: &str = "trace.log";

/// How often a kind of fault was done, and how often something was seen to follow from it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Tally {
    pub(super) rounds: u64,
    pub(super) effects: u64,
}

/// The record of one run.
pub(super) struct Trace {
    begun: Instant,
    inner: Mutex<Inner>,
}

struct Inner {
    file: File,
    faults: BTreeMap<&'static str, Tally>,
    findings: Vec<String>,
    more: usize,
}

impl Trace {
    /// Begins it.
    ///
    /// - Errors: the file cannot be made.
    pub(super) fn create(dir: &Path) -> Result<Self> {
        let path = dir.join(TRACE);
        let file = File::create(&path).with_context(|| format!("create {}", path.display()))?;
        let inner = Inner { file, faults: BTreeMap::new(), findings: Vec::new(), more: 0 };
        Ok(Self { begun: Instant::now(), inner: Mutex::new(inner) })
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().expect("nobody panics with it")
    }

    /// Seconds since the run began.
    pub(super) fn seconds(&self) -> f64 {
        self.begun.elapsed().as_secs_f64()
    }

    fn write(&self, inner: &mut Inner, text: &str) {
        // A run whose folder cannot be written to fails at its end, where the result is written.
        let _ = writeln!(inner.file, "{:9.3} {text}", self.seconds());
    }

    /// A line of the file.
    pub(super) fn say(&self, text: &str) {
        self.write(&mut self.lock(), text);
    }

    /// A fault begins.
    pub(super) fn fault(&self, kind: &'static str, about: &str) {
        let mut inner = self.lock();
        inner.faults.entry(kind).or_default().rounds += 1;
        self.write(&mut inner, &format!("{kind}: {about}"));
    }

    /// A fault was seen to have an effect.
    pub(super) fn effect(&self, kind: &'static str, what: &str) {
        let mut inner = self.lock();
        inner.faults.entry(kind).or_default().effects += 1;
        self.write(&mut inner, &format!("{kind}: {what}"));
    }

    /// Something is wrong.
    pub(super) fn finding(&self, text: String) {
        let mut inner = self.lock();
        self.write(&mut inner, &format!("FINDING {text}"));
        if inner.findings.len() < CONTROL_FINDINGS_MAX {
            inner.findings.push(text);
        } else {
            inner.more += 1;
        }
    }

    /// Faults, by their kind.
    pub(super) fn faults(&self) -> BTreeMap<&'static str, Tally> {
        self.lock().faults.clone()
    }

    /// What was found, and how much more there was.
    pub(super) fn findings(&self) -> (Vec<String>, usize) {
        let inner = self.lock();
        (inner.findings.clone(), inner.more)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn faults_are_counted_by_kind_and_findings_are_bounded() {
        let home = tempfile::tempdir().expect("a folder");
        let trace = Trace::create(home.path()).expect("begins");
        trace.fault("kill-store", "n1");
        trace.fault("kill-store", "n2");
        trace.effect("kill-store", "n2 was down");
        assert_eq!(trace.faults(), BTreeMap::from([("kill-store", Tally { rounds: 2, effects: 1 })]));
        (0..CONTROL_FINDINGS_MAX + 3).for_each(|n| trace.finding(n.to_string()));
        let (findings, more) = trace.findings();
        assert_eq!((findings.len(), more), (CONTROL_FINDINGS_MAX, 3));
        let text = std::fs::read_to_string(home.path().join(TRACE)).expect("is there");
        assert_eq!(text.lines().count(), 3 + CONTROL_FINDINGS_MAX + 3);
        assert!(text.contains("kill-store: n2 was down"), "{text}");
    }
}
