//! The arguments of `mechi dump`.

use anyhow::{Context, Result, bail, ensure};
use std::path::PathBuf;

/// How it is called.
pub(super) const USAGE: &str = "Usage:

  mechi dump [--data-dir DIR] [--wal] [--snapshots] [--store] [--keys] [--from-index N] [--limit N] [-w simple|json]
    Print what the files of a stopped member hold: its log, its snapshots and its working store. Nothing is written
    to the data directory. Damage is printed with its place, and makes the exit code 1.

  --data-dir DIR    the member's data directory (default.etcd)
  --wal             the log alone; --snapshots and --store likewise, together what is named (all three)
  --keys            list the newest version of each key, of the snapshot and of the store
  --from-index N    leave out the log's entries before N
  --limit N         at most N entries of the log, and N keys of each list (0, all)
  -w simple|json    lines for a person, or one JSON object per line (simple)

  The store's own library cannot read without writing, so the store is copied to the temporary folder (TMPDIR) first.
";

/// What is asked for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Asked {
    pub(super) data_dir: PathBuf,
    pub(super) wal: bool,
    pub(super) snapshots: bool,
    pub(super) store: bool,
    pub(super) keys: bool,
    pub(super) from_index: u64,
    /// 0 for all.
    pub(super) limit: u64,
    pub(super) is_json: bool,
}

impl Asked {
    /// Reads the arguments after `dump`; errors: a sentence.
    pub(super) fn parse(args: &[String]) -> Result<Self> {
        let mut asked = Self {
            data_dir: "default.etcd".into(),
            wal: false,
            snapshots: false,
            store: false,
            keys: false,
            from_index: 0,
            limit: 0,
            is_json: false,
        };
        let mut args = args.iter();
        while let Some(arg) = args.next() {
            ensure!(arg.starts_with('-'), "unknown argument {arg:?}");
            let name = arg.trim_start_matches('-');
            let (name, given) = match name.split_once('=') {
                Some((name, value)) => (name, Some(value.to_owned())),
                None => (name, None),
            };
            let switch = match name {
                "wal" => Some(&mut asked.wal),
                "snapshots" => Some(&mut asked.snapshots),
                "store" => Some(&mut asked.store),
                "keys" => Some(&mut asked.keys),
                _ => None,
            };
            if let Some(switch) = switch {
                ensure!(given.is_none(), "--{name} takes no value");
                *switch = true;
                continue;
            }
            ensure!(["data-dir", "from-index", "limit", "w", "write-out"].contains(&name), "unknown argument {arg:?}");
            let value = match given {
                Some(value) => value,
                None => args.next().with_context(|| format!("{arg} needs a value"))?.clone(),
            };
            let number = || value.parse().with_context(|| format!("--{name} must be a number (set to {value})"));
            match name {
                "data-dir" => asked.data_dir = value.into(),
                "from-index" => asked.from_index = number()?,
                "limit" => asked.limit = number()?,
                _ => {
                    asked.is_json = match value.as_str() {
                        "json" => true,
                        "simple" => false,
                        _ => bail!("-w must be simple or json (set to {value})"),
                    }
                }
            }
        }
        if !(asked.wal || asked.snapshots || asked.store) {
            (asked.wal, asked.snapshots, asked.store) = (true, true, true);
        }
        Ok(asked)
    }

    /// Whether so many of a list are enough.
    pub(super) fn is_enough(&self, printed: u64) -> bool {
        self.limit > 0 && printed >= self.limit
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(line: &str) -> Result<Asked> {
        Asked::parse(&line.split_whitespace().map(str::to_owned).collect::<Vec<_>>())
    }

    #[test]
    fn what_is_not_named_is_left_out_and_nothing_named_is_all() {
        let all = parse("").unwrap();
        assert!(all.wal && all.snapshots && all.store && !all.keys && !all.is_json);
        let some = parse("--data-dir=d --wal -w json --from-index 7 --limit=3").unwrap();
        assert!(some.wal && !some.snapshots && !some.store && some.is_json);
        assert_eq!((some.data_dir, some.from_index, some.limit), ("d".into(), 7, 3));
    }

    #[test]
    fn bad_arguments_are_named() {
        for (line, why) in [
            ("x", "unknown argument \"x\""),
            ("--xyz", "unknown argument \"--xyz\""),
            ("--limit", "--limit needs a value"),
            ("--limit=a", "--limit must be a number (set to a)"),
            ("-w yaml", "-w must be simple or json (set to yaml)"),
            ("--wal=1", "--wal takes no value"),
        ] {
            assert_eq!(parse(line).unwrap_err().to_string(), why);
        }
    }
}
