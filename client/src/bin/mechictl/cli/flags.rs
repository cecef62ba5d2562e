//! Flags and how they are read: pflag's rules and its words.

use crate::go::duration;
use crate::go::number::{parse_bool, parse_int};
use crate::go::quote::quote;

/// A flag's kind and its default.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Kind {
    Bool(bool),
    Text(&'static str),
    Number(i64),
    /// Nanoseconds.
    Duration(i64),
    /// Words between commas; the first use replaces the default, others append.
    List(&'static str),
}

/// One flag of a command.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Flag {
    pub(crate) name: &'static str,
    pub(crate) short: Option<char>,
    pub(crate) kind: Kind,
    pub(crate) help: &'static str,
}

impl Flag {
    pub(crate) const fn new(name: &'static str, kind: Kind, help: &'static str) -> Self {
        Self { name, short: None, kind, help }
    }

    pub(crate) const fn short(mut self, letter: char) -> Self {
        self.short = Some(letter);
        self
    }

    /// Whether `--flag` alone is enough; it then never takes the next word.
    pub(crate) fn is_bool(&self) -> bool {
        matches!(self.kind, Kind::Bool(_))
    }
}

/// What a flag holds.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Value {
    Bool(bool),
    Text(String),
    Number(i64),
    Duration(i64),
    List(Vec<String>),
}

/// The flags of one command, with their values, and what was no flag.
#[derive(Clone, Debug, Default)]
pub(crate) struct Flags {
    held: Vec<Held>,
    /// The words that are no flags.
    pub(crate) args: Vec<Vec<u8>>,
}

#[derive(Clone, Debug)]
struct Held {
    flag: Flag,
    value: Value,
    changed: bool,
}

/// Why words could not be parsed.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Malformed(pub(crate) String);

impl Flags {
    /// The flags at their defaults.
    pub(crate) fn new(flags: impl IntoIterator<Item = Flag>) -> Self {
        let held = |flag: Flag| {
            let value = match flag.kind {
                Kind::Bool(on) => Value::Bool(on),
                Kind::Text(text) => Value::Text(text.into()),
                Kind::Number(n) => Value::Number(n),
                Kind::Duration(nanos) => Value::Duration(nanos),
                Kind::List(words) => Value::List(vec![words.into()]),
            };
            Held { flag, value, changed: false }
        };
        Self { held: flags.into_iter().map(held).collect(), args: Vec::new() }
    }

    /// Parses `words`; flags and other words may alternate, and `--` ends the flags.
    pub(crate) fn parse(&mut self, words: &[Vec<u8>]) -> Result<(), Malformed> {
        self.args.clear();
        let mut rest = words;
        while let Some((word, tail)) = rest.split_first() {
            rest = tail;
            match word.as_slice() {
                b"--" => {
                    self.args.extend_from_slice(rest);
                    break;
                }
                [b'-', b'-', ..] => rest = self.long(word, rest)?,
                [b'-', _, ..] => rest = self.shorts(word, rest)?,
                _ => self.args.push(word.clone()),
            }
        }
        Ok(())
    }

    fn long<'a>(&mut self, word: &[u8], rest: &'a [Vec<u8>]) -> Result<&'a [Vec<u8>], Malformed> {
        let text = String::from_utf8_lossy(word);
        let body = &text[2..];
        if body.starts_with(['-', '=']) {
            return Err(Malformed(format!("bad flag syntax: {text}")));
        }
        let (name, given) = match body.split_once('=') {
            Some((name, value)) => (name, Some(value)),
            None => (body, None),
        };
        let Some(flag) = self.find(name).map(|held| held.flag) else {
            return Err(Malformed(format!("unknown flag: --{name}")));
        };
        let (value, rest) = match (given, rest.split_first()) {
            (Some(value), _) => (value.to_owned(), rest),
            (None, _) if flag.is_bool() => ("true".to_owned(), rest),
            (None, Some((next, rest))) => (String::from_utf8_lossy(next).into_owned(), rest),
            (None, None) => return Err(Malformed(format!("flag needs an argument: {text}"))),
        };
        self.set(flag.name, &value)?;
        Ok(rest)
    }

    /// One or more letters after one dash; the first that takes a value takes what follows it.
    fn shorts<'a>(&mut self, word: &[u8], mut rest: &'a [Vec<u8>]) -> Result<&'a [Vec<u8>], Malformed> {
        let text = String::from_utf8_lossy(&word[1..]).into_owned();
        let mut letters = text.as_str();
        while let Some(letter) = letters.chars().next() {
            let after = &letters[letter.len_utf8()..];
            let Some(flag) = self.held.iter().find(|held| held.flag.short == Some(letter)).map(|held| held.flag) else {
                return Err(Malformed(format!("unknown shorthand flag: '{letter}' in -{letters}")));
            };
            // pflag looks for a value after `=` only where one stands.
            let (value, left) = if let Some(value) = after.strip_prefix('=').filter(|value| !value.is_empty()) {
                (value.to_owned(), "")
            } else if flag.is_bool() {
                ("true".to_owned(), after)
            } else if !after.is_empty() {
                (after.to_owned(), "")
            } else if let Some((next, tail)) = rest.split_first() {
                rest = tail;
                (String::from_utf8_lossy(next).into_owned(), "")
            } else {
                return Err(Malformed(format!("flag needs an argument: '{letter}' in -{letters}")));
            };
            self.set(flag.name, &value)?;
            letters = left;
        }
        Ok(rest)
    }

    /// Sets one flag by its name.
    ///
    /// - Errors: the value is not of the flag's kind; the flag keeps what it had.
    pub(crate) fn set(&mut self, name: &str, given: &str) -> Result<(), Malformed> {
        let held = self.held.iter_mut().find(|held| held.flag.name == name).expect("the caller has found the flag");
        let value = match (&held.value, held.changed) {
            (Value::Bool(_), _) => parse_bool(given).map(Value::Bool),
            (Value::Text(_), _) => Ok(Value::Text(given.into())),
            (Value::Number(_), _) => parse_int(given, 0).map(Value::Number),
            (Value::Duration(_), _) => duration::parse(given).map(Value::Duration),
            (Value::List(_), false) => Ok(Value::List(list(given))),
            (Value::List(words), true) => Ok(Value::List([words.clone(), list(given)].concat())),
        };
        let flag = &held.flag;
        held.value = value.map_err(|why| {
            let name = flag.short.map_or(format!("--{}", flag.name), |short| format!("-{short}, --{}", flag.name));
            Malformed(format!("invalid argument {} for \"{name}\" flag: {why}", quote(given.as_bytes())))
        })?;
        held.changed = true;
        Ok(())
    }

    fn find(&self, name: &str) -> Option<&Held> {
        self.held.iter().find(|held| held.flag.name == name)
    }

    fn held(&self, name: &str) -> &Held {
        self.find(name).unwrap_or_else(|| panic!("the table has no flag {name} for this command"))
    }

    /// Whether the flag was given.
    pub(crate) fn changed(&self, name: &str) -> bool {
        self.held(name).changed
    }

    /// The value of a boolean.
    pub(crate) fn on(&self, name: &str) -> bool {
        matches!(self.held(name).value, Value::Bool(true))
    }

    /// The value of a text.
    pub(crate) fn text(&self, name: &str) -> &str {
        match &self.held(name).value {
            Value::Text(text) => text,
            other => panic!("--{name} is no text: {other:?}"),
        }
    }

    /// The value of a number.
    pub(crate) fn number(&self, name: &str) -> i64 {
        match self.held(name).value {
            Value::Number(n) => n,
            ref other => panic!("--{name} is no number: {other:?}"),
        }
    }

    /// The value of a duration; a negative one is over at once, as 0 is.
    pub(crate) fn duration(&self, name: &str) -> std::time::Duration {
        match self.held(name).value {
            Value::Duration(nanos) => std::time::Duration::from_nanos(nanos.try_into().unwrap_or(0)),
            ref other => panic!("--{name} is no duration: {other:?}"),
        }
    }

    /// The value of a list.
    pub(crate) fn list(&self, name: &str) -> &[String] {
        match &self.held(name).value {
            Value::List(words) => words,
            other => panic!("--{name} is no list: {other:?}"),
        }
    }

    /// A flag's value as Go prints it.
    pub(crate) fn printed(&self, name: &str) -> String {
        match &self.held(name).value {
            Value::Bool(on) => on.to_string(),
            Value::Text(text) => text.clone(),
            Value::Number(n) => n.to_string(),
            Value::Duration(nanos) => duration::text(*nanos),
            Value::List(words) => format!("[{}]", words.join(",")),
        }
    }
}

/// Words between commas, of which quoted ones may hold commas; nothing is no word.
fn list(text: &str) -> Vec<String> {
    let mut words = Vec::new();
    if text.is_empty() {
        return words;
    }
    let mut rest = text;
    loop {
        let quoted = rest.strip_prefix('"').and_then(|inner| inner.split_once('"'));
        if let Some((word, tail)) = quoted {
            words.push(word.to_owned());
            match tail.strip_prefix(',') {
                Some(tail) => rest = tail,
                None => return words,
            }
        } else if let Some((word, tail)) = rest.split_once(',') {
            words.push(word.to_owned());
            rest = tail;
        } else {
            words.push(rest.to_owned());
            return words;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn flags() -> Flags {
        Flags::new([
            Flag::new("prefix", Kind::Bool(false), ""),
            Flag::new("rev", Kind::Number(0), ""),
            Flag::new("write-out", Kind::Text("simple"), "").short('w'),
            Flag::new("interactive", Kind::Bool(false), "").short('i'),
            Flag::new("endpoints", Kind::List("127.0.0.1:2379"), ""),
        ])
    }

    fn parse(line: &str) -> Result<Flags, String> {
        let mut flags = flags();
        let words: Vec<Vec<u8>> = line.split_whitespace().map(|word| word.as_bytes().to_vec()).collect();
        flags.parse(&words).map(|()| flags).map_err(|Malformed(why)| why)
    }

    #[test]
    fn flags_and_words_alternate() {
        let flags = parse("a --rev 0x10 b -iwjson --prefix=F -- --rev").expect("well formed");
        assert_eq!(flags.args, [b"a".to_vec(), b"b".to_vec(), b"--rev".to_vec()]);
        assert_eq!((flags.number("rev"), flags.text("write-out")), (16, "json"));
        assert!(flags.on("interactive") && !flags.on("prefix") && flags.changed("prefix"));
    }

    #[test]
    fn a_list_replaces_its_default_and_then_grows() {
        assert_eq!(parse("x").expect("well formed").printed("endpoints"), "[127.0.0.1:2379]");
        let flags = parse("--endpoints=a,b --endpoints c").expect("well formed");
        assert_eq!(flags.list("endpoints"), ["a", "b", "c"]);
        assert!(parse("--endpoints=").expect("well formed").list("endpoints").is_empty());
    }

    #[test]
    fn mistakes_are_named_in_pflags_words() {
        for (line, want) in [
            ("--nope=1", "unknown flag: --nope"),
            ("---x", "bad flag syntax: ---x"),
            ("--=x", "bad flag syntax: --=x"),
            ("--rev", "flag needs an argument: --rev"),
            ("-iw", "flag needs an argument: 'w' in -w"),
            ("-iz", "unknown shorthand flag: 'z' in -z"),
            ("--rev=x", "invalid argument \"x\" for \"--rev\" flag: strconv.ParseInt: parsing \"x\": invalid syntax"),
            (
                "-i=x",
                "invalid argument \"x\" for \"-i, --interactive\" flag: strconv.ParseBool: parsing \"x\": invalid syntax",
            ),
        ] {
            assert_eq!(parse(line).expect_err("malformed"), want);
        }
    }
}
