//! One member's log, as `mechi dump` prints it.

use super::Entry;
use anyhow::{Context, Result, bail};
use bytes::Bytes;
use mechi_proto::mechipb::Command as Logged;
use prost::Message;
use serde_json::Value;
use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Read};
use std::path::Path;
use std::process::{Command, Stdio};

/// A member's log.
#[derive(Clone, Debug, PartialEq, Default)]
pub(super) struct Member {
    pub(super) name: String,
    /// What it holds, by index; entries behind the commit may still be another's.
    pub(super) entries: BTreeMap<u64, Entry>,
    /// The last index that it knew to be committed.
    pub(super) committed: u64,
}

/// Runs the dump and reads it; damage in the log is left out, as the member itself would.
pub(super) fn read(mechi: &Path, name: &str, data_dir: &Path) -> Result<Member> {
    let mut command = Command::new(mechi);
    command.args(["dump", "--wal", "-w", "json", "--data-dir"]).arg(data_dir);
    let mut child = command
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .with_context(|| format!("run {}", mechi.display()))?;
    let out = child.stdout.take().context("the dump has an output")?;
    let mut reading =
        Reading { member: Member { name: name.to_owned(), ..Member::default() }, dead: false, gone: false };
    let mut facts = 0;
    for line in BufReader::new(out).lines() {
        let fact: Value = serde_json::from_str(&line?).context("a line of the dump is no object")?;
        reading.fact(&fact)?;
        facts += 1;
    }
    let mut told = String::new();
    if let Some(mut errors) = child.stderr.take() {
        errors.read_to_string(&mut told)?;
    }
    let status = child.wait()?;
    // Damage makes the exit code 1, and is no reason not to use what is whole.
    if facts == 0 {
        bail!("the dump of {} ended with {status}: {}", data_dir.display(), told.trim());
    }
    Ok(reading.member)
}

/// Facts come in the order of the files.
struct Reading {
    member: Member,
    /// Whether the segment, or the batch, is no part of the log any more.
    dead: bool,
    gone: bool,
}

impl Reading {
    fn fact(&mut self, fact: &Value) -> Result<()> {
        let number = |name: &str| fact[name].as_u64();
        match fact["kind"].as_str().unwrap_or_default() {
            "log" => {
                let clean = number("closed_cleanly_at").unwrap_or(0);
                self.member.committed = number("commit").unwrap_or(0).max(clean);
            }
            "segment" => {
                self.dead = fact["note"].is_string();
                self.gone = false;
            }
            "batch" => self.gone = fact["note"].as_str() == Some("given up"),
            "entry" if !self.dead && !self.gone => {
                let index = number("index").context("an entry without an index")?;
                // A leader that has overruled another one writes its own entries over the other's.
                self.member.entries.split_off(&index);
                let batch = match (fact["member"].as_str(), number("its_boot"), number("number")) {
                    (Some(member), Some(boot), Some(number)) => Some((member.to_owned(), boot, number)),
                    _ => None,
                };
                let entry = Entry { term: number("term").unwrap_or(0), batch, commands: vec![] };
                self.member.entries.insert(index, entry);
            }
            "command" if !self.dead && !self.gone => {
                let index = number("index").context("a command without an index")?;
                let message = fact["message"].as_str().context("this mechi's dump does not show whole commands")?;
                let command = Logged::decode(bytes_of(message).context("no hexadecimal digits")?)?;
                let entry = self.member.entries.get_mut(&index).context("a command without its entry")?;
                entry.commands.extend(command.request);
            }
            _ => {}
        }
        Ok(())
    }
}

fn bytes_of(hex: &str) -> Option<Bytes> {
    let digit = |at: usize| u8::from_str_radix(hex.get(at..at + 2)?, 16).ok();
    (0..hex.len()).step_by(2).map(digit).collect::<Option<Vec<u8>>>().map(Bytes::from)
}

#[cfg(test)]
pub(super) fn of_facts(name: &str, facts: &[Value]) -> Member {
    let mut reading =
        Reading { member: Member { name: name.to_owned(), ..Member::default() }, dead: false, gone: false };
    facts.iter().for_each(|fact| reading.fact(fact).expect("is a fact"));
    reading.member
}
