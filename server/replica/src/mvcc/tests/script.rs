//! Runs the scripts in `testscripts/mvcc`: puts, deletes and compactions in, what readers and watches see out.

use super::super::{HashJob, Mvcc};
use super::{finish, sweep_all};
use crate::types::{KeyRange, Revision};
use bytes::Bytes;
use goldenscript::{Command, Context};
use std::error::Error;
use std::fmt::Write as _;

#[test]
fn scripts_show_what_readers_see() {
    let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/testscripts/mvcc");
    let mut scripts = Vec::new();
    for file in std::fs::read_dir(folder).expect("the scripts lie beside the code") {
        scripts.push(file.expect("readable").path());
    }
    scripts.sort();
    assert!(!scripts.is_empty());
    for script in scripts {
        goldenscript::run(&mut Runner::default(), &script).unwrap_or_else(|error| panic!("{script:?}: {error}"));
    }
}

#[derive(Default)]
struct Runner {
    mvcc: Mvcc,
}

impl goldenscript::Runner for Runner {
    type Command = Command;

    fn run(&mut self, command: &Command, _: &Context) -> Result<String, Box<dyn Error>> {
        let mut args = command.consume_args();
        let at = args.take_key("at").map(str::parse::<i64>).transpose()?.unwrap_or(0);
        let output = match command.name.as_str() {
            // put KEY=VALUE...: one transaction.
            "put" => {
                let mut write = self.mvcc.write();
                while let Some((key, value)) = args.next_key() {
                    write.put(key.as_bytes(), value.as_bytes(), 0);
                }
                format!("revision {}", write.revision())
            }
            // delete KEY...: one transaction.
            "delete" => {
                let mut write = self.mvcc.write();
                let mut deleted = 0;
                while let Some(key) = args.next_pos() {
                    deleted += u32::from(write.delete(key.as_bytes()));
                }
                format!("deleted {deleted}, revision {}", write.revision())
            }
            // txn [KEY=VALUE | KEY]...: puts, then deletes, as one transaction.
            "txn" => {
                let mut write = self.mvcc.write();
                while let Some((key, value)) = args.next_key() {
                    write.put(key.as_bytes(), value.as_bytes(), 0);
                }
                while let Some(key) = args.next_pos() {
                    write.delete(key.as_bytes());
                }
                format!("revision {}, {} changes", write.revision(), write.changes())
            }
            // range [FROM [TO]] [at=REVISION]
            "range" => {
                let from = Bytes::copy_from_slice(args.next_pos().unwrap_or("\0").as_bytes());
                let to = Bytes::copy_from_slice(args.next_pos().unwrap_or("\0").as_bytes());
                self.range(&KeyRange::new(&from, &to), at)?
            }
            "compact" => {
                let at = args.next_pos().ok_or("which revision?")?.parse()?;
                self.mvcc.compact(at).map_err(|error| error.to_string())?;
                format!("live {} bytes, unreclaimed {}", self.mvcc.live_bytes(), self.mvcc.unreclaimed_bytes())
            }
            "sweep" => {
                let removed: Vec<String> = sweep_all(&mut self.mvcc).iter().map(Revision::to_string).collect();
                let left = (self.mvcc.live_bytes(), self.mvcc.unreclaimed_bytes());
                format!("removed [{}]; live {} bytes, unreclaimed {}", removed.join(", "), left.0, left.1)
            }
            // versions: what the index holds, by key; generations are split by |.
            "versions" => self.versions(),
            // changes FROM: what a watch from there sees.
            "changes" => {
                let from = args.next_pos().ok_or("from which revision?")?.parse()?;
                let line = |change: &super::super::Change| {
                    let kind = if change.tombstone { "DELETE" } else { "PUT" };
                    format!("{} {kind} {}\n", change.revision, String::from_utf8_lossy(change.key()))
                };
                self.mvcc.changes(from).map(line).collect()
            }
            "hash" => {
                let job = HashJob::new(&self.mvcc, at).map_err(|error| error.to_string())?;
                let hash = finish(&self.mvcc, job);
                format!("{:08x}, compacted at {}, up to {}", hash.hash, hash.compact_revision, hash.hash_revision)
            }
            name => return Err(format!("no command {name}").into()),
        };
        args.reject_next()?;
        Ok(output)
    }
}

impl Runner {
    fn range(&self, range: &KeyRange, at: i64) -> Result<String, Box<dyn Error>> {
        let at = self.mvcc.readable(at).map_err(|error| error.to_string())?;
        let totals = self.mvcc.totals_at(range, at).ok_or("too many changes")?;
        let mut out = format!("count {} in {} bytes\n", totals.keys, totals.framed_bytes);
        self.mvcc.scan(range, at, &mut |item| {
            let fields = item.head.fields().unwrap_or_default();
            let (key, value) = (String::from_utf8_lossy(fields.key), String::from_utf8_lossy(fields.value));
            let (create, version) = (fields.create_revision, fields.version);
            let _ = writeln!(out, "{key}={value} create {create} mod {} version {version}", item.mod_revision);
            true
        });
        Ok(out)
    }

    fn versions(&self) -> String {
        let mut out = String::new();
        for entry in self.mvcc.keys.iter_from(&[]) {
            out += &String::from_utf8_lossy(entry.latest.head.key());
            out += ":";
            for version in entry.versions() {
                let _ = write!(out, " {}{}", version.revision(), if version.tombstone { "t |" } else { "" });
            }
            out += "\n";
        }
        out
    }
}
