//! The arguments of `mechi local`.

use crate::config::limits::MEMBERS_MAX;
use clap::Parser;
use clap::builder::RangedU64ValueParser;
use std::path::PathBuf;

/// Members, if nobody says how many.
pub const MEMBERS: usize = 3;

/// The first member's client port, if nobody says which: etcd's.
pub const BASE_PORT: u16 = 2379;

const EXAMPLES: &str = "\
A second start with the same --dir finds its members, data and ports again.

Examples:
  mechi local
  mechi local --members 5 --dir ./cluster --base-port 0 -- --log-level=debug --snapshot-log-bytes=1MiB";

/// Run a whole cluster on this machine's loopback until Ctrl-C, each member a process of its own
#[derive(Clone, Debug, Default, PartialEq, Eq, Parser)]
#[command(bin_name = "mechi local", no_binary_name = true, allow_negative_numbers = true, after_help = EXAMPLES)]
pub struct Asked {
    /// How many members; `None` leaves it to the cluster that `dir` holds.
    #[arg(
        long,
        value_name = "N",
        value_parser = RangedU64ValueParser::<usize>::new().range(1..=MEMBERS_MAX as u64),
        help = format!("How many members, 1 to {MEMBERS_MAX} [default: {MEMBERS}]")
    )]
    pub members: Option<usize>,
    /// Where data and logs are kept [default: a temporary folder, removed at the end]
    #[arg(long)]
    pub dir: Option<PathBuf>,
    /// The first port; `None` leaves it to the cluster that `dir` holds.
    #[arg(
        long,
        value_name = "PORT",
        help = format!("The first of two ports per member, 0 for any free ones [default: {BASE_PORT}]")
    )]
    pub base_port: Option<u16>,
    /// Given to every member as they are: `mechi --help` lists them
    #[arg(last = true)]
    pub flags: Vec<String>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn arguments_are_read_in_both_forms_and_those_behind_two_dashes_are_the_members() {
        let both = ["--members", "5", "--dir=/d", "--base-port", "0", "--", "--log-level=debug", "--help"];
        let flags = vec!["--log-level=debug".to_owned(), "--help".to_owned()];
        let wanted = Asked { members: Some(5), dir: Some("/d".into()), base_port: Some(0), flags };
        assert_eq!(Asked::try_parse_from(both).unwrap(), wanted);
        assert_eq!(Asked::try_parse_from([""; 0]).unwrap(), Asked::default());
    }

    #[test]
    fn wrong_arguments_are_named_with_their_bounds() {
        for (arg, sentence) in [
            ("--members=8", "invalid value '8' for '--members <N>': 8 is not in 1..=7"),
            ("--members=0", "invalid value '0' for '--members <N>': 0 is not in 1..=7"),
            ("--members", "a value is required for '--members <N>' but none was supplied"),
            ("--base-port=99999", "invalid value '99999' for '--base-port <PORT>': 99999 is not in 0..=65535"),
            ("--name=x", "unexpected argument '--name' found"),
            ("3", "unexpected argument '3' found"),
        ] {
            let error = Asked::try_parse_from([arg]).unwrap_err();
            assert!(error.to_string().starts_with(&format!("error: {sentence}\n")), "{arg}: {error}");
            assert_eq!(error.exit_code(), 2, "{arg}");
        }
    }
}
