//! The arguments of `mechi dump`.

use clap::{Parser, ValueEnum};
use std::path::PathBuf;

const EXAMPLES: &str = "\
Nothing is written to the data directory. Damage is printed with its place, and makes the exit code 1.
The store's own library cannot read without writing, so the store is first copied to the temporary folder (TMPDIR).

Examples:
  mechi dump --data-dir default.etcd
  mechi dump --data-dir default.etcd --wal --from-index 1000 --limit 20 -w json";

/// Print what the files of a stopped member hold: its log, its snapshots and its working store
#[derive(Clone, Debug, PartialEq, Eq, Parser)]
#[command(bin_name = "mechi dump", no_binary_name = true, allow_negative_numbers = true, after_help = EXAMPLES)]
pub(super) struct Asked {
    /// The member's data directory
    #[arg(long, value_name = "DIR", default_value = "default.etcd")]
    pub(super) data_dir: PathBuf,
    /// Print the log; of --wal, --snapshots and --store what is named, and all three if none is
    #[arg(long)]
    wal: bool,
    /// Print the snapshots
    #[arg(long)]
    snapshots: bool,
    /// Print the working store
    #[arg(long)]
    store: bool,
    /// List the newest version of each key, of the snapshot and of the store
    #[arg(long)]
    pub(super) keys: bool,
    /// Leave out the log's entries before the one with this index
    #[arg(long, value_name = "INDEX", default_value_t = 0)]
    pub(super) from_index: u64,
    /// Print at most so many entries of the log, and keys of each list; 0 for all
    #[arg(long, value_name = "N", default_value_t = 0)]
    limit: u64,
    /// For a person, or JSON with whole commands (in hex)
    #[arg(short = 'w', long, value_name = "FORM", default_value = "simple")]
    write_out: Form,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Form {
    Simple,
    Json,
}

impl Asked {
    /// Whether the log is to be printed.
    pub(super) fn wal(&self) -> bool {
        self.wal || self.names_no_part()
    }

    /// Whether the snapshots are to be printed.
    pub(super) fn snapshots(&self) -> bool {
        self.snapshots || self.names_no_part()
    }

    /// Whether the working store is to be printed.
    pub(super) fn store(&self) -> bool {
        self.store || self.names_no_part()
    }

    fn names_no_part(&self) -> bool {
        !(self.wal || self.snapshots || self.store)
    }

    /// Whether it is for a program to read.
    pub(super) fn is_json(&self) -> bool {
        self.write_out == Form::Json
    }

    /// Whether so many of a list are enough.
    pub(super) fn is_enough(&self, printed: u64) -> bool {
        self.limit > 0 && printed >= self.limit
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(line: &str) -> Result<Asked, clap::Error> {
        Asked::try_parse_from(line.split_whitespace())
    }

    #[test]
    fn what_is_not_named_is_left_out_and_nothing_named_is_all() {
        let all = parse("").unwrap();
        assert!(all.wal() && all.snapshots() && all.store() && !all.keys && !all.is_json());
        assert_eq!((all.data_dir, all.from_index, all.limit), ("default.etcd".into(), 0, 0));
        let some = parse("--data-dir=d --wal -w json --from-index 7 --limit=3").unwrap();
        assert!(some.wal() && !some.snapshots() && !some.store() && some.is_json());
        assert!(!some.is_enough(2) && some.is_enough(3));
        assert_eq!((some.data_dir, some.from_index, some.limit), ("d".into(), 7, 3));
        let two = parse("--store --snapshots").unwrap();
        assert!(!two.wal() && two.snapshots() && two.store());
    }

    #[test]
    fn bad_arguments_are_named() {
        for (line, why) in [
            ("x", "unexpected argument 'x' found"),
            ("--xyz", "unexpected argument '--xyz' found"),
            ("--limit", "a value is required for '--limit <N>'"),
            ("--limit=a", "invalid value 'a' for '--limit <N>'"),
            ("--from-index -1", "invalid value '-1' for '--from-index <INDEX>'"),
            ("-w yaml", "invalid value 'yaml' for '--write-out <FORM>'\n  [possible values: simple, json]"),
            ("--wal=1", "unexpected value '1' for '--wal' found"),
        ] {
            let error = parse(line).unwrap_err();
            assert!(error.to_string().starts_with(&format!("error: {why}")), "{line}: {error}");
            assert_eq!(error.exit_code(), 2, "{line}");
        }
    }
}
