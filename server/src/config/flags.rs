//! What was typed: the command line, read by the rules of Go's `flag` package.
//!
//! Not clap: Go stops at the first word that is not a flag, lets a flag repeat (the last one wins), takes a boolean's
//! value only after `=`, and words its refusals in a way that clients' test suites match on.

use super::table::{self, Effect, Flag};
use super::value::Kind;
use std::collections::BTreeMap;

/// Flags as they were set, each checked against its kind. An alias is kept under the name that it stands for.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Flags {
    values: BTreeMap<&'static str, Typed>,
    /// Names as typed, for the rule that a flag and its variable exclude each other.
    typed: Vec<&'static str>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
struct Typed {
    value: String,
    typed_as: &'static str,
}

/// Why a command line was not read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Stop {
    /// `--help` was asked for.
    Help,
    /// A malformed flag; the text goes to stderr before the usage, and the exit code is 2.
    Usage(String),
    /// Anything else that ends the start, with exit code 1.
    Refuse(String),
}

impl Flags {
    /// Reads the arguments after the program's name.
    ///
    /// - Errors: [`Stop`]; its texts are Go's.
    /// - Source: Go `src/flag/flag.go`, `FlagSet.parseOne`.
    pub fn parse(args: &[String]) -> Result<Self, Stop> {
        let mut flags = Self::default();
        let mut args = args.iter();
        while let Some(arg) = args.next() {
            let Some(body) = arg.strip_prefix('-').filter(|body| !body.is_empty()) else {
                return Err(not_a_flag(arg));
            };
            let body = body.strip_prefix('-').unwrap_or(body);
            if body.is_empty() {
                // A bare `--` ends the flags; whatever follows is not one.
                return args.next().map_or(Ok(flags), |rest| Err(not_a_flag(rest)));
            }
            if body.starts_with(['-', '=']) {
                return Err(Stop::Usage(format!("bad flag syntax: {arg}")));
            }
            let (name, value) = match body.split_once('=') {
                Some((name, value)) => (name, Some(value.to_string())),
                None => (body, None),
            };
            let Some(flag) = table::find(name) else {
                return Err(match name {
                    "help" | "h" => Stop::Help,
                    _ => Stop::Usage(format!("flag provided but not defined: -{name}")),
                });
            };
            let boolean = flag.target().kind == Kind::Bool;
            let value = match value {
                Some(value) => value,
                None if boolean => "true".into(),
                None => match args.next() {
                    Some(value) => value.clone(),
                    None => return Err(Stop::Usage(format!("flag needs an argument: -{name}"))),
                },
            };
            flags.set(flag, &value).map_err(|reason| {
                Stop::Usage(match boolean {
                    true => format!("invalid boolean value {value:?} for -{name}: {reason}"),
                    false => format!("invalid value {value:?} for flag -{name}: {reason}"),
                })
            })?;
        }
        Ok(flags)
    }

    /// Sets one flag, replacing what was set before.
    ///
    /// - Errors: the reason why the value is not of the flag's kind.
    pub fn set(&mut self, flag: &'static Flag, value: &str) -> Result<(), String> {
        let target = flag.target();
        target.kind.check(value)?;
        self.typed.push(flag.name);
        self.values.insert(target.name, Typed { value: value.into(), typed_as: flag.name });
        Ok(())
    }

    /// Whether the flag was set under this very name.
    pub fn was_typed(&self, name: &str) -> bool {
        self.typed.contains(&name)
    }

    /// Whether the flag was set, under any of its names, to whatever value.
    pub fn is_set(&self, name: &str) -> bool {
        self.values.contains_key(name)
    }

    /// The flag's value, or its default.
    ///
    /// - Panics: on a name that is not in the table, which is a bug in the caller.
    pub fn get(&self, name: &str) -> &str {
        match self.values.get(name) {
            Some(typed) => &typed.value,
            None => table::find(name).expect("callers name flags of the table").default,
        }
    }

    /// Flags whose value differs from the default: the flag, the name it was typed as, the value.
    pub fn changed(&self) -> impl Iterator<Item = (&'static Flag, &'static str, &str)> {
        self.values.iter().filter_map(|(name, typed)| {
            let flag = table::find(name).expect("only flags of the table are set");
            let changed = match flag.effect {
                Effect::Ignored => true,
                _ => !flag.kind.same(&typed.value, flag.default),
            };
            changed.then_some((flag, typed.typed_as, &typed.value[..]))
        })
    }
}

fn not_a_flag(arg: &str) -> Stop {
    Stop::Refuse(format!("{arg:?} is not a valid flag"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(args: &[&str]) -> Result<Flags, Stop> {
        Flags::parse(&args.iter().map(ToString::to_string).collect::<Vec<_>>())
    }

    #[test]
    fn go_forms_are_read() {
        for (args, name, value) in [
            (&["--name", "a"][..], "name", "a"),
            (&["-name=a"], "name", "a"),
            (&["--name="], "name", ""),
            (&["--name=a=b"], "name", "a=b"),
            (&["--name", "--pre-vote"], "name", "--pre-vote"),
            (&["--name=a", "--name=b"], "name", "b"),
            (&["--pre-vote=F"], "pre-vote", "F"),
            (&["--socket-reuse-port"], "socket-reuse-port", "true"),
            (&["--socket-reuse-port", "--name=x"], "name", "x"),
            (&["--experimental-corrupt-check-time=1s"], "corrupt-check-time", "1s"),
            (&["--experimental-enable-distributed-tracing"], "enable-distributed-tracing", "true"),
            (&["--election-timeout=0x10"], "election-timeout", "0x10"),
            (&["--name=a", "--"], "name", "a"),
        ] {
            assert_eq!(parse(args).unwrap().get(name), value, "{args:?}");
        }
    }

    #[test]
    fn refusals_are_worded_as_go_words_them() {
        let usage = |text: &str| Err(Stop::Usage(text.into()));
        let refuse = |text: &str| Err(Stop::Refuse(text.into()));
        for (args, wanted) in [
            (&["--foo"][..], usage("flag provided but not defined: -foo")),
            (&["--foo=1"], usage("flag provided but not defined: -foo")),
            (&["--name"], usage("flag needs an argument: -name")),
            (&["--pre-vote=maybe"], usage("invalid boolean value \"maybe\" for -pre-vote: parse error")),
            (&["--heartbeat-interval=x"], usage("invalid value \"x\" for flag -heartbeat-interval: parse error")),
            (
                &["--grpc-keepalive-min-time=5"],
                usage("invalid value \"5\" for flag -grpc-keepalive-min-time: parse error"),
            ),
            (
                &["--max-concurrent-streams=-1"],
                usage(
                    "invalid value \"-1\" for flag -max-concurrent-streams: strconv.ParseUint: parsing \"-1\": invalid syntax",
                ),
            ),
            (
                &["--listen-client-urls=foo"],
                usage(
                    "invalid value \"foo\" for flag -listen-client-urls: URL scheme must be http, https, unix, or unixs: foo",
                ),
            ),
            (
                &["--initial-cluster-state=maybe"],
                usage("invalid value \"maybe\" for flag -initial-cluster-state: invalid value"),
            ),
            (
                &["--v2-deprecation", "not-yet"],
                usage("invalid value \"not-yet\" for flag -v2-deprecation: invalid value \"not-yet\""),
            ),
            (&["-=x"], usage("bad flag syntax: -=x")),
            (&["---x"], usage("bad flag syntax: ---x")),
            (&["x"], refuse("\"x\" is not a valid flag")),
            (&["-"], refuse("\"-\" is not a valid flag")),
            (&["--pre-vote", "false"], refuse("\"false\" is not a valid flag")),
            (&["--", "x"], refuse("\"x\" is not a valid flag")),
            (&["--help"], Err(Stop::Help)),
            (&["-h"], Err(Stop::Help)),
        ] {
            assert_eq!(parse(args), wanted, "{args:?}");
        }
    }

    #[test]
    fn a_default_typed_out_is_not_a_change() {
        let flags = parse(&["--client-cert-auth=F", "--grpc-keepalive-interval=120m", "--max-txn-ops=0x80"]).unwrap();
        assert_eq!(flags.changed().count(), 0);
        assert!(flags.is_set("max-txn-ops"));
    }
}
