//! What happened, written down as it happens: one clock, dense indexes, and one file per kind of thing.
//!
//! Clients of most workloads do something that takes several requests (a list is read and then written under a guard).
//! Both levels are histories of their own: what a client did is in `history.edn`, each single request in
//! `requests.edn`. A workload that sends nothing but single requests has only the latter, which then is renamed.

use crate::pulse::Pulse;
use crate::watcher::Watchers;
use anyhow::{Context, Result};
use mechi_checker::edn::Edn;
use mechi_checker::history::file::{self, Form};
use mechi_checker::history::value::Value;
use mechi_checker::history::{Kind, Op, Process};
use mechi_checker::watch::{self, Received, Stream};
use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Instant;

/// What a process's number grows by when it is retired: more than there are threads of clients.
const CONCURRENCY: u64 = 32;

/// What clients did.
pub const HISTORY: &str = "history.edn";
/// Each single request, if clients did something larger.
pub const REQUESTS: &str = "requests.edn";
/// What watchers saw.
pub const WATCH: &str = "watch.edn";
/// When faults ended, and what they did.
pub const RUN: &str = "run.edn";

/// Which of the two histories is meant.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Level {
    /// What clients did.
    Operation,
    /// Each single request.
    Request,
}

/// The outcome of an operation.
#[derive(Clone, Debug)]
pub struct Done {
    /// `Ok`, `Fail` or `Info`.
    pub kind: Kind,
    /// What was answered, or asked again.
    pub value: Value,
    /// Who was asked.
    pub node: Option<String>,
    /// The answer's revision.
    pub revision: Option<i64>,
    /// The answer's term.
    pub raft_term: Option<u64>,
    /// Why it was refused, or why nobody knows.
    pub error: Option<String>,
}

impl Done {
    /// An outcome without the details of an answer.
    pub fn new(kind: Kind, value: Value) -> Self {
        Self { kind, value, node: None, revision: None, raft_term: None, error: None }
    }

    /// The same with a reason.
    pub fn because(kind: Kind, value: Value, error: impl Into<String>) -> Self {
        Self { error: Some(error.into()), ..Self::new(kind, value) }
    }
}

/// Writes down what clients, watchers and the nemesis do.
pub struct Recorder {
    start: Instant,
    dir: PathBuf,
    operations: Mutex<Book>,
    requests: Mutex<Book>,
    streams: Mutex<File>,
    facts: Mutex<Facts>,
    pulse: Pulse,
    pub(crate) watchers: Watchers,
}

/// One history that is being written.
struct Book {
    file: File,
    next: u64,
    /// The number under which each thread acts now.
    processes: BTreeMap<u64, u64>,
    /// What each thread has open.
    open: BTreeMap<u64, Op>,
    clients: u64,
    /// Written at the end: a full disk is no reason to lose the rest of a run.
    failed: Option<std::io::Error>,
}

/// What only the runner knows.
#[derive(Debug, Default)]
struct Facts {
    effects: Vec<(u64, String)>,
    healed_ns: Option<u64>,
    quiet_ns: Option<u64>,
}

impl Recorder {
    /// Begins the files of a run in `dir`; the clock starts now.
    pub fn create(dir: &Path) -> Result<Arc<Self>> {
        fs::create_dir_all(dir).with_context(|| format!("create {}", dir.display()))?;
        let file = |name: &str| {
            let path = dir.join(name);
            File::create(&path).with_context(|| format!("create {}", path.display()))
        };
        Ok(Arc::new(Self {
            start: Instant::now(),
            dir: dir.to_owned(),
            operations: Mutex::new(Book::new(file(HISTORY)?)),
            requests: Mutex::new(Book::new(file(REQUESTS)?)),
            streams: Mutex::new(file(WATCH)?),
            facts: Mutex::default(),
            pulse: Pulse::start(),
            watchers: Watchers::default(),
        }))
    }

    /// Where the files are.
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// Nanoseconds since the beginning.
    pub fn now_ns(&self) -> u64 {
        u64::try_from(self.start.elapsed().as_nanos()).unwrap_or(u64::MAX)
    }

    /// Notes what the nemesis does, in both histories.
    pub fn nemesis(&self, f: &str, value: Edn) {
        for level in [Level::Operation, Level::Request] {
            let mut book = self.book(level);
            let value = Value::Other { f: f.to_owned(), value: value.clone() };
            let op = Op::new(self.now_ns(), Kind::Info, Process::Nemesis, value);
            book.write(op);
        }
    }

    /// Notes that a fault was seen to do something.
    pub fn effect(&self, what: &str) {
        let at = self.now_ns();
        self.facts().effects.push((at, what.to_owned()));
    }

    /// Effects so far.
    pub fn effects(&self) -> usize {
        self.facts().effects.len()
    }

    /// Notes that all faults are over.
    pub fn healed(&self) {
        let at = self.now_ns();
        self.facts().healed_ns.get_or_insert(at);
    }

    /// Notes that nobody writes any more and all is healed.
    pub(crate) fn quiet(&self) {
        let at = self.now_ns();
        self.facts().quiet_ns.get_or_insert(at);
    }

    /// A thread begins something; returns when.
    pub fn invoke(&self, level: Level, thread: u64, value: Value, node: Option<&str>) -> u64 {
        let mut book = self.book(level);
        let at = self.now_ns();
        let process = *book.processes.entry(thread).or_insert(thread);
        let mut op = Op::new(at, Kind::Invoke, Process::Client(process), value);
        op.node = node.map(str::to_owned);
        book.clients += 1;
        let before = book.open.insert(thread, op.clone());
        assert!(before.is_none(), "thread {thread} does one thing at a time");
        book.write(op);
        at
    }

    /// What a thread began has an outcome.
    pub fn complete(&self, level: Level, thread: u64, done: Done) {
        let mut book = self.book(level);
        let at = self.now_ns();
        let Some(begun) = book.open.remove(&thread) else { return };
        let op = Op {
            index: 0,
            time_ns: at,
            kind: done.kind,
            process: begun.process,
            value: done.value,
            node: done.node.or(begun.node),
            revision: done.revision,
            raft_term: done.raft_term,
            error: done.error,
        };
        if done.kind == Kind::Info {
            *book.processes.entry(thread).or_insert(thread) += CONCURRENCY;
        }
        book.write(op);
    }

    /// A watcher asks.
    pub(crate) fn stream(&self, stream: &Stream) {
        self.stream_line(&watch::request_line(stream));
    }

    /// A watcher hears.
    pub(crate) fn received(&self, id: u64, received: &Received) {
        self.stream_line(&watch::received_line(id, self.now_ns(), received));
    }

    /// A watcher ends, or its connection did.
    pub(crate) fn closed(&self, id: u64) {
        self.stream_line(&watch::closed_line(id, self.now_ns()));
    }

    /// Ends the run: watchers stop, what is open is completed as unknown.
    ///
    /// - Errors: those of the files, also of any line before.
    pub fn finish(&self) -> Result<()> {
        self.watchers.stop();
        let ended = self.now_ns();
        for level in [Level::Operation, Level::Request] {
            let mut book = self.book(level);
            for (_, op) in std::mem::take(&mut book.open) {
                let error = Some("the run ended".to_owned());
                let op = Op { time_ns: self.now_ns(), kind: Kind::Info, error, ..op };
                book.write(op);
            }
            if let Some(error) = book.failed.take() {
                return Err(error).with_context(|| format!("write the histories in {}", self.dir.display()));
            }
        }
        if self.book(Level::Operation).clients == 0 {
            fs::rename(self.dir.join(REQUESTS), self.dir.join(HISTORY)).context("name the history")?;
        }
        let facts = self.facts();
        let effects = facts.effects.iter().map(|(at, what)| Edn::Vector(vec![(*at).into(), Edn::text(what)]));
        let some = |at: Option<u64>| at.map_or(Edn::Nil, Edn::from);
        let run = Edn::map([
            ("effects", Edn::Vector(effects.collect())),
            ("healed", some(facts.healed_ns)),
            ("quiet", some(facts.quiet_ns)),
            ("ended", ended.into()),
            ("late", self.pulse.late_ns().into()),
        ]);
        fs::write(self.dir.join(RUN), format!("{run}\n")).context("write run.edn")
    }

    fn book(&self, level: Level) -> MutexGuard<'_, Book> {
        let book = match level {
            Level::Operation => &self.operations,
            Level::Request => &self.requests,
        };
        book.lock().expect("nobody panics with it")
    }

    fn facts(&self) -> MutexGuard<'_, Facts> {
        self.facts.lock().expect("nobody panics with it")
    }

    fn stream_line(&self, line: &Edn) {
        let mut file = self.streams.lock().expect("nobody panics with it");
        if let Err(error) = writeln!(file, "{line}") {
            self.book(Level::Request).failed.get_or_insert(error);
        }
    }
}

impl Book {
    fn new(file: File) -> Self {
        Self { file, next: 0, processes: BTreeMap::new(), open: BTreeMap::new(), clients: 0, failed: None }
    }

    /// Numbers a line and writes it in one piece.
    fn write(&mut self, mut op: Op) {
        op.index = self.next;
        self.next += 1;
        let mut line = file::line(&op, Form::Plain);
        line.push('\n');
        if let Err(error) = self.file.write_all(line.as_bytes()) {
            self.failed.get_or_insert(error);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use mechi_checker::history::value::{Register, RegisterCall, Set};
    use std::io::BufReader;

    fn read(dir: &Path, name: &str) -> mechi_checker::history::History {
        file::read(BufReader::new(File::open(dir.join(name)).expect("is there"))).expect("is a history")
    }

    #[test]
    fn threads_go_on_under_another_number_and_everything_is_completed() {
        let home = tempfile::tempdir().expect("a folder");
        let recorder = Recorder::create(home.path()).expect("begins");
        let add = |n| Value::Set(Set::Add(n));
        recorder.invoke(Level::Operation, 3, add(1), Some("n1"));
        recorder.complete(Level::Operation, 3, Done::because(Kind::Info, add(1), "timed out"));
        recorder.nemesis("kill", Edn::Nil);
        recorder.invoke(Level::Operation, 3, add(2), Some("n1"));
        recorder.finish().expect("writes");
        let history = read(home.path(), HISTORY);
        let processes: Vec<_> = history.ops().iter().map(|op| (op.process, op.kind)).collect();
        let (first, second) = (Process::Client(3), Process::Client(3 + CONCURRENCY));
        assert_eq!(
            processes,
            [
                (first, Kind::Invoke),
                (first, Kind::Info),
                (Process::Nemesis, Kind::Info),
                (second, Kind::Invoke),
                (second, Kind::Info)
            ]
        );
        assert_eq!(history.ops()[4].error.as_deref(), Some("the run ended"));
        assert_eq!(read(home.path(), REQUESTS).ops().len(), 1, "the nemesis is in both");
    }

    #[test]
    fn a_run_of_single_requests_has_one_history() {
        let home = tempfile::tempdir().expect("a folder");
        let recorder = Recorder::create(home.path()).expect("begins");
        let read_it = Value::Register(Register { key: 1, call: RegisterCall::Read, seen: None });
        recorder.invoke(Level::Request, 0, read_it.clone(), None);
        recorder.complete(Level::Request, 0, Done::new(Kind::Fail, read_it));
        recorder.effect("the leader changed");
        recorder.healed();
        recorder.finish().expect("writes");
        assert_eq!(read(home.path(), HISTORY).ops().len(), 2);
        assert!(!home.path().join(REQUESTS).exists());
        let run = fs::read_to_string(home.path().join(RUN)).expect("is there");
        assert!(run.contains("\"the leader changed\"") && run.contains(":quiet nil"), "{run}");
    }
}
