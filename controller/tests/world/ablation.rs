//! Guards that are left out, one at a time, and what finds it.
//!
//! A guard is left out of a transaction on its way to the store: the core knows nothing of it, and there is no switch in
//! it. What is left out must be found by the statement that the table says, or the test fails: a guard that nobody misses
//! is redundant, and says why, or the worlds are too tame.

use super::{Run, Setting, attempt, variable};
use mechi_controller::keys::{Kind, ObjectKey};
use mechi_controller::kv::{Guard, Txn, Write};
use std::fmt::Write as _;

/// Worlds in which a missing guard must be found, if nobody says otherwise.
const SEEDS: u64 = 10_000;

/// Worlds that show that a redundant one is missed by nobody.
const SEEDS_REDUNDANT: u64 = 100;

/// The tables.
const DOCUMENT: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/ablations.md");

/// Something that is left out.
pub(crate) struct Ablation {
    /// Whose it is, and what.
    pub(crate) name: &'static str,
    /// The statements that find it; none if it is redundant.
    pub(crate) rules: &'static [&'static str],
    /// What goes wrong without it, or why nothing does.
    pub(crate) why: &'static str,
    pub(crate) without: Without,
}

/// How it is told from everything else.
pub(crate) enum Without {
    /// A guard of a transaction.
    Guard(fn(&Part<'_>) -> bool),
    /// A write beside others.
    Write(fn(&Part<'_>) -> bool),
    /// Something that whoever holds the core does, by its name.
    Step(&'static str),
}

/// A guard or a write of somebody's transaction.
pub(crate) struct Part<'a> {
    /// A controller, `scheduler`, `elector`, or `user` for everybody else.
    pub(crate) by: &'a str,
    pub(crate) txn: &'a Txn,
    pub(crate) guard: Option<&'a Guard>,
    key: &'a [u8],
}

impl Part<'_> {
    /// The kind of the object that it is about; none for elections and placements.
    pub(crate) fn kind(&self) -> Option<Kind> {
        ObjectKey::parse(self.key).map(|key| key.kind)
    }

    /// Whether it is somebody's guard of a kind: `seen`, `alive`, `absent`, `version`, `fence`.
    pub(crate) fn is(&self, by: &str, guard: &str, kind: Kind) -> bool {
        self.by == by && self.guard.is_some_and(|of| of.name() == guard) && self.kind() == Some(kind)
    }

    /// Whether it is about a placement.
    pub(crate) fn is_placement(&self) -> bool {
        self.key.starts_with(b"/registry/_coord/alloc/")
    }

    /// Whether it is about a node's heartbeat.
    pub(crate) fn is_heartbeat(&self) -> bool {
        self.key.starts_with(b"/registry/_coord/node/")
    }

    /// Whether it is about a zone's brake.
    pub(crate) fn is_brake(&self) -> bool {
        self.key.starts_with(b"/registry/_coord/brake/")
    }

    /// Whether the transaction makes the object, as far as it knows.
    pub(crate) fn makes(&self, kind: Kind) -> bool {
        let absent = self.txn.guards().iter().filter(|guard| matches!(guard, Guard::Absent { .. }));
        absent.filter_map(|guard| ObjectKey::parse(guard.key())).any(|key| key.kind == kind)
    }

    /// What the transaction puts there; `None` if it puts nothing.
    pub(crate) fn puts(&self) -> Option<serde_json::Value> {
        self.txn.writes().iter().find_map(|write| match write {
            Write::Put { key, value, .. } if *key == self.key => serde_json::from_slice(value).ok(),
            _ => None,
        })
    }

    /// Whether the transaction writes there at all.
    pub(crate) fn writes(&self) -> bool {
        self.txn.writes().iter().any(|write| *write.key() == self.key)
    }
}

impl Ablation {
    /// What is left of somebody's transaction.
    pub(crate) fn strip(&self, by: &str, txn: &Txn) -> Txn {
        let leaves_out = |guard: Option<&Guard>, key: &[u8]| {
            let part = Part { by, txn, guard, key };
            match (&self.without, guard) {
                (Without::Guard(is), Some(_)) | (Without::Write(is), None) => is(&part),
                _ => false,
            }
        };
        let guards = txn.guards().iter().filter(|guard| !leaves_out(Some(*guard), guard.key()));
        let left = guards.fold(Txn::new(), |left, guard| left.guard(guard.clone()));
        let writes = txn.writes().iter().filter(|write| !leaves_out(None, write.key()));
        writes.fold(left, |left, write| left.write(write.clone()))
    }
}

/// Leaves each out until it is found; prints the table, and holds the one that is committed against it.
///
/// - Shape: `MECHI_CONTROL_WRITE=1` writes the part of `docs/ablations.md` under this title.
/// - Panics: if one is not found, or by another statement than it says, or a redundant one is.
pub(crate) fn ablations(title: &str, run: Run, all: &'static [Ablation]) {
    let seeds = variable("MECHI_CONTROL_SEEDS").unwrap_or(SEEDS);
    let (mut table, mut wrong) = (String::new(), Vec::new());
    for ablation in all {
        let seeds = if ablation.rules.is_empty() { seeds.min(SEEDS_REDUNDANT) } else { seeds };
        let setting = |seed| Setting { seed, talks: false, without: Some(ablation) };
        // Some are missed in one world of thousands: the one that is committed is looked at first.
        let known = known(title, ablation.name).filter(|_| !ablation.rules.is_empty());
        let worlds = known.into_iter().chain(0..seeds);
        let found =
            worlds.map(|seed| (seed, attempt(run, setting(seed)))).find_map(|(seed, done)| Some((seed, done.err()?)));
        let Ablation { name, rules, why, .. } = ablation;
        match &found {
            Some((seed, caught)) => {
                let when = caught.ms.map_or("in the end".to_owned(), |ms| format!("{ms} ms"));
                let _ = writeln!(table, "| {name} | {why} | {} | {seed} | {when} |", caught.rule);
                if !rules.contains(&caught.rule.as_str()) {
                    wrong.push(format!(
                        "{name}: world {seed} finds {}: {}, and not {rules:?}",
                        caught.rule, caught.text
                    ));
                }
            }
            None => {
                let _ = writeln!(table, "| {name} | redundant: {why} | nobody | {seeds} worlds | |");
                if !rules.is_empty() {
                    wrong.push(format!("{name}: nobody finds it in {seeds} worlds"));
                }
            }
        }
        println!("{}", table.lines().last().unwrap_or_default());
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    let head = "| left out | what goes wrong | found by | in world | after |\n| --- | --- | --- | --- | --- |\n";
    compare(title, &format!("{head}{table}"));
}

/// The world in which the committed table says that something was missed.
fn known(title: &str, name: &str) -> Option<u64> {
    let text = std::fs::read_to_string(DOCUMENT).expect("the document is there");
    let rows = text.split("\n## ").find_map(|part| part.trim_start_matches("## ").strip_prefix(title))?;
    let row = rows.lines().find_map(|line| line.strip_prefix(&format!("| {name} |")))?;
    row.split('|').nth(2)?.trim().parse().ok()
}

/// Holds the committed table against what was found, or writes it. Worlds and times may differ: they are other ones after
/// any change of what happens in a world.
fn compare(title: &str, table: &str) {
    let path = DOCUMENT;
    let text = std::fs::read_to_string(path).expect("the document is there");
    let head = format!("## {title}\n\n");
    let begin = text.find(&head).map(|at| at + head.len()).unwrap_or_else(|| panic!("no {head:?} in {path}"));
    let end = text[begin..].find("\n## ").map_or(text.len(), |at| begin + at);
    if variable("MECHI_CONTROL_WRITE").is_some() {
        std::fs::write(path, format!("{}{table}{}", &text[..begin], &text[end..]))
            .expect("the document can be written");
        return;
    }
    let says = |table: &str| -> Vec<String> {
        let cells = |line: &str| line.split('|').take(4).collect::<Vec<_>>().join("|");
        table.lines().filter(|line| line.starts_with('|')).map(cells).collect()
    };
    assert_eq!(says(&text[begin..end]), says(table), "docs/ablations.md is not what was found: MECHI_CONTROL_WRITE=1");
}
