//! Programs over a log on a simulated disk, the model of what they promised, and the judgement of images.

use bytes::Bytes;
use mechi_replica::disk::images::{self, Numbers};
use mechi_replica::disk::sim::{Fate, SimDisk};
use mechi_replica::disk::{self, Disk, File};
use mechi_replica::effect::{Entry, EntryKind, HardState};
use mechi_replica::outcome::Fatal;
use mechi_replica::types::{Index, Term};
use mechi_replica::wal::record::Record;
use mechi_replica::wal::{Error, Recovered, Wal, WalOptions};
use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

const OPTIONS: WalOptions = WalOptions { segment_bytes: 4096, reserve_segments: 1 };

/// Images per stop: all subsets up to this number, else so many samples.
const IMAGES_PER_STOP: u64 = 64;

/// Images with torn writes per stop.
const TORN_PER_STOP: u64 = 12;

/// One step of a program.
#[derive(Clone, Debug)]
pub(crate) enum Step {
    /// Append so many entries of so many bytes, the first one `back` below the next index, in a newer term if `back`.
    Append {
        entries: u64,
        bytes: usize,
        back: u64,
        vote: bool,
    },
    Sync,
    Mark,
    /// Write a snapshot at the newest acknowledged entry and say so in the log.
    Snapshot,
    Trim,
    /// The process ends without a word and the next one opens the log.
    Kill,
    /// The process closes cleanly and the next one opens the log.
    Close,
}

/// Steps, run after a first open.
#[derive(Clone, Debug)]
pub(crate) struct Program(Vec<Step>);

impl Program {
    /// All kinds of steps.
    pub(crate) fn random(seed: u64) -> Self {
        let mut numbers = Numbers::new(seed);
        let mut steps = Vec::new();
        for _ in 0..24 {
            steps.push(match numbers.below(20) {
                0 | 1 => Step::Mark,
                2 | 3 => Step::Snapshot,
                4 | 5 => Step::Trim,
                6 => Step::Kill,
                7 => Step::Close,
                8..=11 => Step::Sync,
                _ => Step::Append {
                    entries: numbers.below(4),
                    bytes: numbers.below(900) as usize,
                    back: if numbers.below(8) == 0 { numbers.below(3) } else { 0 },
                    vote: numbers.below(3) == 0,
                },
            });
        }
        Self(steps)
    }

    /// Appends only, each synced, and a mark at the end.
    pub(crate) fn appends(seed: u64) -> Self {
        let mut numbers = Numbers::new(seed);
        let mut steps = Vec::new();
        for _ in 0..12 {
            let (entries, bytes) = (1 + numbers.below(3), numbers.below(900) as usize);
            steps.extend([Step::Append { entries, bytes, back: 0, vote: true }, Step::Sync]);
        }
        steps.push(Step::Mark);
        Self(steps)
    }
}

/// What a log should hold.
#[derive(Clone, Debug, Default)]
struct State {
    entries: BTreeMap<Index, (Term, Bytes)>,
    hard_state: HardState,
    clean: Option<Index>,
}

impl State {
    fn last(&self) -> Index {
        self.entries.keys().next_back().copied().unwrap_or_default()
    }
}

/// What a program did until it ended or was stopped.
pub(crate) struct Run {
    pub(crate) disk: SimDisk,
    /// The states after each append since the last acknowledgement, that one first.
    states: Vec<State>,
    boot: u64,
    /// What it was doing at the end.
    kind: &'static str,
    opening: bool,
}

/// Distinct images by kind.
#[derive(Default)]
pub(crate) struct Counts {
    all: BTreeSet<u64>,
    kinds: BTreeMap<&'static str, usize>,
    judged: usize,
}

impl Counts {
    pub(crate) fn distinct(&self) -> usize {
        self.all.len()
    }

    pub(crate) fn of(&self, kind: &str) -> usize {
        self.kinds.get(kind).copied().unwrap_or_default()
    }

    /// Counts an image; tells whether it is new.
    pub(crate) fn add(&mut self, kind: &'static str, image: &SimDisk) -> bool {
        self.judged += 1;
        let new = self.all.insert(image.fingerprint());
        if new {
            *self.kinds.entry(kind).or_default() += 1;
        }
        new
    }
}

impl fmt::Display for Counts {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "crash images: {} distinct of {} made", self.distinct(), self.judged)?;
        self.kinds.iter().try_for_each(|(kind, count)| write!(f, "\n  {kind}: {count}"))
    }
}

/// Stops `program` at every operation and judges the images that each stop may leave.
pub(crate) fn judge_program(program: &Program, seed: u64, counts: &mut Counts) -> Result<(), String> {
    let mut numbers = Numbers::new(seed ^ 0xdead);
    let operations = run(program, &SimDisk::new()).disk.operations();
    for stop in 0..=operations {
        let disk = SimDisk::new();
        disk.halt_at(stop);
        let run = run(program, &disk);
        disk.heal();
        // The process was killed and the machine lives on: its successor reads what is in the page cache.
        run.judge(&disk.fork()).map_err(|why| format!("killed at operation {stop} ({}): {why}", run.kind))?;
        let mut result = Ok(());
        let mut again = Vec::new();
        images::power_cuts(&disk, &mut numbers.clone(), IMAGES_PER_STOP, TORN_PER_STOP, &mut |image| {
            if result.is_ok() && counts.add(run.kind, &image) {
                if again.is_empty() && stop.is_multiple_of(3) {
                    again.push(image.fork());
                }
                result = run.judge(&image).map_err(|why| format!("power cut at {stop} ({}): {why}", run.kind));
            }
        });
        result?;
        numbers.next_number();
        for image in again {
            judge_recovery(&run, &image, &mut numbers, counts).map_err(|why| format!("stop {stop}: {why}"))?;
        }
    }
    Ok(())
}

/// Stops the recovery from `image` at every operation, cuts the power, and judges again.
fn judge_recovery(run: &Run, image: &SimDisk, numbers: &mut Numbers, counts: &mut Counts) -> Result<(), String> {
    let whole = image.fork();
    let before = whole.operations();
    reopen(&whole).map_err(|fatal| fatal.to_string())?;
    for stop in before..=whole.operations() {
        let disk = image.fork();
        disk.halt_at(stop);
        // It fails by design, and what it returned in the last round is judged elsewhere.
        let _ = reopen(&disk);
        disk.heal();
        let run = Run { disk: disk.clone(), states: run.states.clone(), opening: true, ..*run };
        for image in [disk.power_cut(|_| Fate::Lost), images::torn_power_cut(&disk, numbers), disk.fork()] {
            if counts.add("during recovery", &image) {
                run.judge(&image).map_err(|why| format!("recovery stopped at {stop}: {why}"))?;
            }
        }
    }
    Ok(())
}

/// Opens the log of a disk with the newest verified snapshot that stands on it.
pub(crate) fn reopen(disk: &SimDisk) -> Result<Recovered, Fatal> {
    Ok(open(disk)?.1)
}

fn open(disk: &SimDisk) -> Result<(Wal<SimDisk>, Recovered), Fatal> {
    let snapshot = newest_snapshot(disk);
    if let Some((index, _)) = snapshot {
        // It may have been read from the page cache only.
        let file = disk.open(&format!("snap/{index:016x}")).and_then(|file| file.sync());
        file.and_then(|()| disk.sync_dir("snap")).map_err(disk::fatal("sync snapshot"))?;
    }
    Wal::open(disk.clone(), "wal", OPTIONS, snapshot)
}

/// Runs `program` on `disk` until its end or the first error.
pub(crate) fn run(program: &Program, disk: &SimDisk) -> Run {
    let mut run =
        Run { disk: disk.clone(), states: vec![State::default()], boot: 0, kind: "first start", opening: false };
    // The error is the planned stop, or a fault; what was promised before it is in `run`.
    let _ = run.all(&program.0);
    run
}

impl Run {
    fn all(&mut self, steps: &[Step]) -> Result<(), Error> {
        disk::ensure_dir(&self.disk, "snap").map_err(disk::fatal("create"))?;
        let mut wal = self.open()?;
        for step in steps {
            match step {
                Step::Append { .. } => {
                    let (records, state) = self.records(step);
                    // Promised nothing yet, but from here on it may be found.
                    self.states.push(state);
                    self.kind = self.kind_of_append(&wal, &records);
                    wal.append(&records)?;
                }
                Step::Sync => {
                    self.kind = "append";
                    wal.sync()?;
                    self.acknowledge();
                }
                Step::Mark => {
                    self.kind = "append";
                    wal.mark()?;
                }
                Step::Snapshot => self.snapshot(&mut wal)?,
                Step::Trim => {
                    self.kind = "trim";
                    wal.trim(Index::MAX)?;
                }
                Step::Kill => {
                    drop(wal);
                    wal = self.open()?;
                }
                Step::Close => {
                    self.kind = "append";
                    let last = self.newest().last();
                    let mut state = self.newest().clone();
                    state.clean = Some(last);
                    self.states.push(state);
                    wal.append(&[Record::Clean { applied: last }])?;
                    wal.sync()?;
                    self.acknowledge();
                    drop(wal);
                    wal = self.open()?;
                }
            }
        }
        Ok(())
    }

    fn open(&mut self) -> Result<Wal<SimDisk>, Fatal> {
        if self.boot > 0 {
            self.kind = "reopen";
        }
        self.opening = true;
        let (wal, recovered) = open(&self.disk)?;
        assert!(recovered.boot > self.boot, "boot {} after {}", recovered.boot, self.boot);
        self.boot = recovered.boot;
        // All that an open returns counts as durable: raft acts on it.
        let mut state = self.matching(&recovered).expect("a process that was killed loses nothing").clone();
        state.clean = None;
        self.states = vec![state];
        self.opening = false;
        Ok(wal)
    }

    fn newest(&self) -> &State {
        self.states.last().expect("there is always a state")
    }

    fn acknowledge(&mut self) {
        self.states.drain(..self.states.len() - 1);
    }

    /// Whether the append will go into the open segment, a new one or a recycled one.
    fn kind_of_append(&self, wal: &Wal<SimDisk>, records: &[Record]) -> &'static str {
        let bytes: usize =
            records.iter().map(|record| if let Record::Entry(e) = record { 24 + e.data.len() } else { 32 }).sum();
        let batch = (80 + bytes).next_multiple_of(512) as u64 + 512;
        // A file of the reserve that is not all zeros was a segment before.
        let recycled =
            self.disk.files().iter().any(|(path, bytes)| path.ends_with(".free") && bytes.iter().any(|b| *b != 0));
        if wal.end().offset + batch <= OPTIONS.segment_bytes {
            "append"
        } else if recycled {
            "recycle"
        } else {
            "rotate"
        }
    }

    fn records(&self, step: &Step) -> (Vec<Record>, State) {
        let Step::Append { entries, bytes, back, vote } = step else { unreachable!("only appends have records") };
        let mut state = self.newest().clone();
        state.clean = None;
        // What is committed is never replaced.
        let floor = newest_snapshot(&self.disk).map_or(0, |(index, _)| index).max(state.hard_state.commit);
        let first = (state.last() + 1 - (*back).min(state.last())).max(floor + 1);
        let term = state.hard_state.term.max(1) + u64::from(first <= state.last());
        let mut records = Vec::new();
        for index in first..first + entries {
            state.entries.retain(|held, _| *held < index);
            // Contents that tell any two entries apart.
            let data = Bytes::from(vec![(index * 31 + term * 7) as u8; *bytes]);
            state.entries.insert(index, (term, data.clone()));
            records.push(Record::Entry(Entry { index, term, kind: EntryKind::Normal, data }));
        }
        let hard_state = HardState { term, vote: 1, commit: first.saturating_sub(1) };
        if *vote || term != state.hard_state.term {
            state.hard_state = hard_state;
            records.push(Record::HardState(hard_state));
        }
        (records, state)
    }

    fn snapshot(&mut self, wal: &mut Wal<SimDisk>) -> Result<(), Error> {
        self.kind = "snapshot";
        let state = &self.states[0];
        let newest = newest_snapshot(&self.disk).map_or(0, |(index, _)| index);
        let index = state.last().min(state.hard_state.commit);
        let Some((term, _)) = state.entries.get(&index).filter(|_| index > newest) else { return Ok(()) };
        let (term, path) = (*term, format!("snap/{index:016x}"));
        let io = |error| Error::Fatal(disk::fatal("snapshot")(error));
        let temporary = format!("{path}.tmp");
        // What a stopped try left behind; it was never renamed.
        let _ = self.disk.unlink(&temporary);
        let file = self.disk.create(&temporary).map_err(io)?;
        file.write_at(&snapshot_bytes(index, term), 0).map_err(io)?;
        // Whoever asks too early must not get more than the log allows.
        wal.trim(index + 1)?;
        file.sync().map_err(io)?;
        self.disk.rename(&temporary, &path).map_err(io)?;
        self.disk.sync_dir("snap").map_err(io)?;
        let mut state = self.newest().clone();
        state.clean = None;
        self.states.push(state);
        wal.append(&[Record::Snapshot { index, term }])?;
        wal.sync()?;
        self.acknowledge();
        Ok(())
    }

    /// The state, from the last acknowledged one on, that was recovered.
    fn matching(&self, recovered: &Recovered) -> Option<&State> {
        self.states.iter().find(|state| {
            let entries = recovered.entries.iter().all(|entry| {
                state.entries.get(&entry.index).is_some_and(|held| *held == (entry.term, entry.data.clone()))
            });
            let clean = recovered.clean == state.clean || self.opening && recovered.clean.is_none();
            entries && clean && recovered.last_index == state.last() && recovered.hard_state == state.hard_state
        })
    }

    /// Judges what an open returned.
    pub(crate) fn judge_recovered(&self, recovered: &Recovered) -> Result<(), String> {
        if recovered.boot <= self.boot {
            return Err(format!("boot {} was given again", recovered.boot));
        }
        let lost = || {
            let (first, last) = (&self.states[0], self.newest());
            format!(
                "acknowledged up to {} with {:?}, written up to {}, recovered {}..={} with {:?} clean {:?} cut {:?}",
                first.last(),
                first.hard_state,
                last.last(),
                recovered.first_index,
                recovered.last_index,
                recovered.hard_state,
                recovered.clean,
                recovered.cut,
            )
        };
        self.matching(recovered).map(drop).ok_or_else(lost)
    }

    /// Reopens an image, judges it, cuts the power again and judges that the same comes back.
    pub(crate) fn judge(&self, image: &SimDisk) -> Result<(), String> {
        let recovered = reopen(image).map_err(|fatal| fatal.to_string())?;
        self.judge_recovered(&recovered)?;
        let again = reopen(&image.power_cut(|_| Fate::Lost)).map_err(|fatal| format!("second open: {fatal}"))?;
        if again.boot <= recovered.boot {
            return Err(format!("boot {} was given twice", recovered.boot));
        }
        let same = again.entries.iter().rev().zip(recovered.entries.iter().rev()).all(|(a, b)| a == b);
        if !same || (again.last_index, again.hard_state) != (recovered.last_index, recovered.hard_state) {
            return Err(format!(
                "an open returned entries up to {}, and after a power cut they were {}",
                recovered.last_index, again.last_index
            ));
        }
        Ok(())
    }
}

/// What happened on a disk that ran full.
pub(crate) struct Full {
    pub(crate) run: Run,
    pub(crate) refused: usize,
}

/// Appends until the disk, with `extra` bytes of room after the open, is full; frees space, and goes on.
pub(crate) fn run_until_full(disk: &SimDisk, extra: u64) -> Full {
    let mut run = run(&Program(Vec::new()), disk);
    let mut wal = run.open().expect("an empty disk");
    disk.set_capacity(Some(disk.used() + extra));
    let mut refused = 0;
    for _ in 0..40 {
        let (records, state) = run.records(&Step::Append { entries: 1, bytes: 700, back: 0, vote: true });
        while let Err(error) = wal.append(&records) {
            assert!(matches!(error, Error::Full(_)), "{error}");
            refused += 1;
            disk.set_capacity(Some(disk.used() + 4096));
        }
        run.states.push(state);
        wal.sync().expect("the space was there");
        run.acknowledge();
    }
    Full { run, refused }
}

fn snapshot_bytes(index: Index, term: Term) -> Vec<u8> {
    let mut bytes = [index.to_le_bytes(), term.to_le_bytes()].concat();
    bytes.extend(crc32fast::hash(&bytes).to_le_bytes());
    bytes
}

/// The newest snapshot file that reads back whole.
fn newest_snapshot(disk: &SimDisk) -> Option<(Index, Term)> {
    let names = disk.list("snap").ok()?;
    names.iter().rev().filter(|name| !name.ends_with(".tmp")).find_map(|name| {
        let bytes = disk::read(disk, &format!("snap/{name}")).ok()?;
        let index = Index::from_le_bytes(bytes.get(..8)?.try_into().ok()?);
        let term = Term::from_le_bytes(bytes.get(8..16)?.try_into().ok()?);
        (bytes == snapshot_bytes(index, term)).then_some((index, term))
    })
}
