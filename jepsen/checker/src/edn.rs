//! The part of EDN that Jepsen's files use, written and read.
//!
//! Source: github.com/edn-format/edn. Left out on purpose: characters. A tag is read and dropped, and so is what
//! `#_` precedes. A number that is no integer is kept as a symbol, by its text: the checkers compute with none.

use crate::limits::{EDN_DEPTH_MAX, EDN_FORM_BYTES_MAX};
use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::io::{self, BufRead};

/// One EDN form.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
#[allow(missing_docs)]
pub enum Edn {
    Nil,
    Bool(bool),
    /// Clojure reads one that does not fit into 64 bits as a BigInt, so that a member's id needs no sign.
    Int(i128),
    Str(String),
    /// Without its colon.
    Keyword(String),
    /// Anything else that is one token.
    Symbol(String),
    List(Vec<Edn>),
    Vector(Vec<Edn>),
    Set(BTreeSet<Edn>),
    Map(BTreeMap<Edn, Edn>),
}

/// Text that is no EDN, and where.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("byte {at}: {what}")]
pub struct Error {
    /// Bytes before the place.
    pub at: usize,
    /// What is wrong there.
    pub what: String,
}

impl Edn {
    /// A keyword.
    pub fn keyword(name: &str) -> Self {
        Self::Keyword(name.to_owned())
    }

    /// A text.
    pub fn text(text: impl Into<String>) -> Self {
        Self::Str(text.into())
    }

    /// A map whose keys are keywords.
    pub fn map<'a>(entries: impl IntoIterator<Item = (&'a str, Edn)>) -> Self {
        Self::Map(entries.into_iter().map(|(key, value)| (Self::keyword(key), value)).collect())
    }

    /// The value at a keyword of a map; nil where there is none.
    pub fn get(&self, key: &str) -> &Edn {
        match self {
            Self::Map(map) => map.get(&Self::keyword(key)).unwrap_or(&Self::Nil),
            _ => &Self::Nil,
        }
    }

    /// An integer that fits.
    pub fn int(&self) -> Option<i64> {
        match self {
            Self::Int(int) => i64::try_from(*int).ok(),
            _ => None,
        }
    }

    /// An integer without a sign.
    pub fn unsigned(&self) -> Option<u64> {
        match self {
            Self::Int(int) => u64::try_from(*int).ok(),
            _ => None,
        }
    }

    /// A text, or the name of a keyword or symbol: Jepsen uses all three for names.
    pub fn name(&self) -> Option<&str> {
        match self {
            Self::Str(text) | Self::Keyword(text) | Self::Symbol(text) => Some(text),
            _ => None,
        }
    }

    /// The items of a vector or a list.
    pub fn items(&self) -> Option<&[Edn]> {
        match self {
            Self::Vector(items) | Self::List(items) => Some(items),
            _ => None,
        }
    }
}

impl From<i64> for Edn {
    fn from(int: i64) -> Self {
        Self::Int(int.into())
    }
}

impl From<u64> for Edn {
    fn from(int: u64) -> Self {
        Self::Int(int.into())
    }
}

impl From<Option<i64>> for Edn {
    fn from(int: Option<i64>) -> Self {
        int.map_or(Self::Nil, Self::from)
    }
}

impl fmt::Display for Edn {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fn all<'a>(
            f: &mut fmt::Formatter<'_>,
            open: &str,
            items: impl Iterator<Item = &'a Edn>,
            close: &str,
        ) -> fmt::Result {
            f.write_str(open)?;
            for (place, item) in items.enumerate() {
                write!(f, "{}{item}", if place > 0 { " " } else { "" })?;
            }
            f.write_str(close)
        }
        match self {
            Self::Nil => f.write_str("nil"),
            Self::Bool(bool) => write!(f, "{bool}"),
            Self::Int(int) => write!(f, "{int}"),
            Self::Str(text) => quote(f, text),
            Self::Keyword(name) => write!(f, ":{name}"),
            Self::Symbol(name) => f.write_str(name),
            Self::List(items) => all(f, "(", items.iter(), ")"),
            Self::Vector(items) => all(f, "[", items.iter(), "]"),
            Self::Set(items) => all(f, "#{", items.iter(), "}"),
            Self::Map(map) => {
                f.write_str("{")?;
                for (place, (key, value)) in map.iter().enumerate() {
                    write!(f, "{}{key} {value}", if place > 0 { ", " } else { "" })?;
                }
                f.write_str("}")
            }
        }
    }
}

fn quote(f: &mut fmt::Formatter<'_>, text: &str) -> fmt::Result {
    f.write_str("\"")?;
    for letter in text.chars() {
        match letter {
            '"' => f.write_str("\\\"")?,
            '\\' => f.write_str("\\\\")?,
            '\n' => f.write_str("\\n")?,
            '\r' => f.write_str("\\r")?,
            '\t' => f.write_str("\\t")?,
            letter if letter.is_control() && u32::from(letter) < 0x1_0000 => write!(f, "\\u{:04x}", u32::from(letter))?,
            letter => write!(f, "{letter}")?,
        }
    }
    f.write_str("\"")
}

/// Reads every form of a text.
pub fn parse_all(text: &str) -> Result<Vec<Edn>, Error> {
    let mut parser = Parser { text, at: 0 };
    let mut forms = Vec::new();
    while parser.skip_blank()? {
        if let Some(form) = parser.form(0)? {
            forms.push(form);
        }
    }
    Ok(forms)
}

/// Reads a text that is one form.
pub fn parse(text: &str) -> Result<Edn, Error> {
    let mut forms = parse_all(text)?;
    match (forms.pop(), forms.is_empty()) {
        (Some(form), true) => Ok(form),
        _ => Err(Error { at: 0, what: "wanted exactly one form".into() }),
    }
}

/// Hands the forms of a file, one per line, to `each`; with a vector around all of them, its items.
///
/// - Errors: those of the file and of the text, with the line's number; whatever `each` answers.
pub fn read_lines(input: impl BufRead, mut each: impl FnMut(Edn) -> io::Result<()>) -> io::Result<()> {
    let bad = |line: usize, what: String| io::Error::new(io::ErrorKind::InvalidData, format!("line {line}: {what}"));
    // A form that goes over several lines, such as a person writes, is collected until it is whole.
    let (mut open, mut first) = (String::new(), 1);
    for (line, number) in input.lines().zip(1..) {
        let line = line?;
        if open.is_empty() {
            first = number;
        }
        open.push_str(&line);
        open.push('\n');
        if open.len() > EDN_FORM_BYTES_MAX {
            return Err(bad(first, format!("a form of more than {EDN_FORM_BYTES_MAX} bytes")));
        }
        match parse_all(&open) {
            Ok(forms) => {
                open.clear();
                for form in forms {
                    match form {
                        Edn::Vector(items) | Edn::List(items) => items.into_iter().try_for_each(&mut each)?,
                        form => each(form)?,
                    }
                }
            }
            Err(error) if error.at >= open.len() => {}
            Err(error) => return Err(bad(first, error.to_string())),
        }
    }
    if open.trim().is_empty() { Ok(()) } else { Err(bad(first, "a form without its end".into())) }
}

struct Parser<'a> {
    text: &'a str,
    at: usize,
}

impl Parser<'_> {
    fn error<T>(&self, what: impl Into<String>) -> Result<T, Error> {
        Err(Error { at: self.at, what: what.into() })
    }

    fn peek(&self) -> Option<char> {
        self.text[self.at..].chars().next()
    }

    /// Goes to the next form; false at the end.
    fn skip_blank(&mut self) -> Result<bool, Error> {
        while let Some(letter) = self.peek() {
            match letter {
                ';' => self.at += self.text[self.at..].find('\n').unwrap_or(self.text.len() - self.at),
                ',' => self.at += 1,
                letter if letter.is_whitespace() => self.at += letter.len_utf8(),
                _ => return Ok(true),
            }
        }
        Ok(false)
    }

    /// One form; `None` for what `#_` removes.
    fn form(&mut self, depth: usize) -> Result<Option<Edn>, Error> {
        if depth > EDN_DEPTH_MAX {
            return self.error("brackets too deep");
        }
        let Some(letter) = self.peek() else { return self.error("a form is missing") };
        match letter {
            '(' => self.items(depth, ')').map(|items| Some(Edn::List(items))),
            '[' => self.items(depth, ']').map(|items| Some(Edn::Vector(items))),
            '{' => self.pairs(depth).map(Some),
            '"' => self.string().map(Some),
            '#' => self.tagged(depth),
            ')' | ']' | '}' => self.error(format!("{letter} closes nothing")),
            _ => self.token().map(Some),
        }
    }

    fn items(&mut self, depth: usize, close: char) -> Result<Vec<Edn>, Error> {
        self.at += 1;
        let mut items = Vec::new();
        loop {
            if !self.skip_blank()? {
                return self.error(format!("{close} is missing"));
            }
            if self.peek() == Some(close) {
                self.at += 1;
                return Ok(items);
            }
            items.extend(self.form(depth + 1)?);
        }
    }

    fn pairs(&mut self, depth: usize) -> Result<Edn, Error> {
        let start = self.at;
        let mut items = self.items(depth, '}')?.into_iter();
        let mut map = BTreeMap::new();
        while let Some(key) = items.next() {
            let Some(value) = items.next() else {
                return Err(Error { at: start, what: format!("the key {key} has no value") });
            };
            if map.insert(key.clone(), value).is_some() {
                return Err(Error { at: start, what: format!("the key {key} stands twice") });
            }
        }
        Ok(Edn::Map(map))
    }

    fn tagged(&mut self, depth: usize) -> Result<Option<Edn>, Error> {
        self.at += 1;
        match self.peek() {
            Some('{') => self.items(depth, '}').map(|items| Some(Edn::Set(items.into_iter().collect()))),
            Some('_') => {
                self.at += 1;
                if !self.skip_blank()? {
                    return self.error("a form is missing");
                }
                self.form(depth + 1).map(|_| None)
            }
            Some(letter) if letter.is_alphabetic() => {
                self.token()?;
                if !self.skip_blank()? {
                    return self.error("a form is missing");
                }
                self.form(depth + 1)
            }
            Some(_) => self.error("an unknown kind of form"),
            None => self.error("a form is missing"),
        }
    }

    fn string(&mut self) -> Result<Edn, Error> {
        self.at += 1;
        let mut text = String::new();
        loop {
            let Some(letter) = self.peek() else { return self.error("a text without its end") };
            self.at += letter.len_utf8();
            match letter {
                '"' => return Ok(Edn::Str(text)),
                '\\' => {
                    let Some(escaped) = self.peek() else { return self.error("a text without its end") };
                    self.at += escaped.len_utf8();
                    text.push(match escaped {
                        'n' => '\n',
                        'r' => '\r',
                        't' => '\t',
                        'b' => '\u{8}',
                        'f' => '\u{c}',
                        '"' | '\\' => escaped,
                        'u' => self.code()?,
                        _ => return self.error(format!("unknown escape \\{escaped}")),
                    });
                }
                letter => text.push(letter),
            }
        }
    }

    fn code(&mut self) -> Result<char, Error> {
        let digits = self.text.get(self.at..self.at + 4);
        let code = digits.and_then(|digits| u32::from_str_radix(digits, 16).ok()).and_then(char::from_u32);
        let Some(code) = code else { return self.error("\\u wants four digits of a character") };
        self.at += 4;
        Ok(code)
    }

    fn token(&mut self) -> Result<Edn, Error> {
        let rest = &self.text[self.at..];
        let ends = |letter: char| letter.is_whitespace() || "()[]{}\",;".contains(letter);
        let token = &rest[..rest.find(ends).unwrap_or(rest.len())];
        if token.starts_with('\\') {
            return self.error("characters are not read");
        }
        self.at += token.len();
        let digits = token.strip_suffix('N').unwrap_or(token);
        let number = token.starts_with(|letter: char| letter.is_ascii_digit())
            || token.starts_with(['-', '+']) && token[1..].starts_with(|letter: char| letter.is_ascii_digit());
        Ok(match token {
            "nil" => Edn::Nil,
            "true" => Edn::Bool(true),
            "false" => Edn::Bool(false),
            _ if number => digits.parse().map_or_else(|_| Edn::Symbol(token.to_owned()), Edn::Int),
            _ => match token.strip_prefix(':') {
                Some("") => return self.error("a keyword without a name"),
                Some(name) => Edn::keyword(name),
                None => Edn::Symbol(token.to_owned()),
            },
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn forms() -> impl Strategy<Value = Edn> {
        let leaf = prop_oneof![
            Just(Edn::Nil),
            any::<bool>().prop_map(Edn::Bool),
            any::<i64>().prop_map(Edn::from),
            any::<u64>().prop_map(Edn::from),
            any::<String>().prop_map(Edn::Str),
            "[a-z][a-z0-9?!-]{0,8}".prop_map(Edn::Keyword),
            Just(Edn::Symbol("1.5".into())),
        ];
        leaf.prop_recursive(4, 40, 6, |inner| {
            prop_oneof![
                prop::collection::vec(inner.clone(), 0..6).prop_map(Edn::Vector),
                prop::collection::vec(inner.clone(), 0..6).prop_map(Edn::List),
                prop::collection::btree_set(inner.clone(), 0..6).prop_map(Edn::Set),
                prop::collection::btree_map(inner.clone(), inner, 0..6).prop_map(Edn::Map),
            ]
        })
    }

    proptest! {
        #[test]
        fn what_is_written_is_read_as_it_was(form in forms()) {
            prop_assert_eq!(parse(&form.to_string()), Ok(form));
        }

        #[test]
        fn no_text_makes_the_reader_panic(text in "[\\[\\]{}()#\"\\\\:;_a0-9 \\n-]{0,60}") {
            let _ = parse_all(&text);
            let _ = read_lines(text.as_bytes(), |_| Ok(()));
        }
    }

    #[test]
    fn the_forms_of_jepsens_files_are_read() {
        let text = "{:type :ok, :process 3 ; as Jepsen prints it\n :f :txn :value [[:append 7 12] [:r 9 nil]], :set #{1 2}\n \
                    :error [:timeout \"a\\\"\\u0041\"] #_ :gone #inst \"2026\" #jepsen.history.Op{:n 18446744073709551615N}}";
        let form = parse(text).unwrap();
        assert_eq!(form.get("process").int(), Some(3));
        assert_eq!(form.get("value").to_string(), "[[:append 7 12] [:r 9 nil]]");
        assert_eq!(form.get("error").to_string(), "[:timeout \"a\\\"A\"]");
        let Edn::Map(map) = &form else { panic!("{form}") };
        assert_eq!(map[&Edn::text("2026")].get("n").unsigned(), Some(u64::MAX));
    }

    #[test]
    fn a_bad_text_is_refused_with_its_place() {
        for (text, at) in [("[1 2", 4), ("{:a}", 0), ("]", 0), ("\"abc", 4), ("{:a 1 :a 2}", 0), (": ", 1), ("\\a", 0)]
        {
            assert_eq!(parse(text).unwrap_err().at, at, "{text}");
        }
        let deep = "[".repeat(EDN_DEPTH_MAX + 2);
        assert!(parse(&deep).unwrap_err().what.contains("deep"));
    }

    #[test]
    fn a_file_may_break_its_forms_over_lines_and_hold_them_in_one_vector() {
        for text in ["{:a 1}\n{:a\n 2}\n", "[{:a 1}\n ; two\n{:a 2}]"] {
            let mut seen = vec![];
            read_lines(text.as_bytes(), |form| {
                seen.push(form.get("a").int());
                Ok(())
            })
            .unwrap();
            assert_eq!(seen, [Some(1), Some(2)]);
        }
        let error = read_lines("{:a 1}\n{:a\n".as_bytes(), |_| Ok(())).unwrap_err();
        assert_eq!(error.to_string(), "line 2: a form without its end");
    }
}
