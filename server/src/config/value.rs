//! What the values of flags look like, with the texts of Go's `flag` package for those that do not.

use super::urls;
use std::time::Duration;

/// The kind of a flag's value.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Bare, or `=true`, `=false` in one of Go's spellings.
    Bool,
    /// A signed 64-bit number.
    Int,
    /// An unsigned 64-bit number.
    Uint,
    /// An unsigned 32-bit number.
    Uint32,
    /// Go's duration: `300ms`, `1h30m`.
    Duration,
    /// Anything.
    Text,
    /// Texts separated by commas.
    Strings,
    /// URLs separated by commas.
    Urls,
    /// URLs separated by commas, or `*`.
    UrlsOrStar,
    /// One of these.
    Choice(&'static [&'static str]),
    /// One of these; the refusal repeats the value.
    QuotedChoice(&'static [&'static str]),
    /// A number of bytes: `1024`, `512MiB`, `2GiB`; empty means the default.
    Bytes,
}

impl Kind {
    /// Checks a value's form.
    ///
    /// - Errors: the reason, as Go's `flag` or etcd's own value types word it.
    pub fn check(self, value: &str) -> Result<(), String> {
        match self {
            Self::Bool => parse_bool(value).map(drop).ok_or_else(|| "parse error".into()),
            Self::Int => parse_int(value).map(drop),
            Self::Uint => parse_uint(value).map(drop),
            Self::Uint32 => match parse_uint(value) {
                Ok(number) if u32::try_from(number).is_ok() => Ok(()),
                Ok(_) => Err(format!("strconv.ParseUint: parsing {value:?}: value out of range")),
                Err(reason) => {
                    let reason = if reason == "parse error" { "invalid syntax" } else { &reason };
                    Err(format!("strconv.ParseUint: parsing {value:?}: {reason}"))
                }
            },
            Self::Duration => parse_duration(value).map(drop).ok_or_else(|| "parse error".into()),
            Self::Text | Self::Strings => Ok(()),
            Self::Urls => urls::parse_list(value).map(drop),
            Self::UrlsOrStar if value == "*" => Ok(()),
            Self::UrlsOrStar => urls::parse_list(value).map(drop),
            Self::Choice(values) if values.contains(&value) => Ok(()),
            Self::Choice(_) => Err("invalid value".into()),
            Self::QuotedChoice(values) if values.contains(&value) => Ok(()),
            Self::QuotedChoice(_) => Err(format!("invalid value {value:?}")),
            Self::Bytes if value.is_empty() => Ok(()),
            Self::Bytes => parse_bytes(value).map(drop),
        }
    }

    /// Tells whether two checked values mean the same, so that a default typed differently is still the default.
    pub fn same(self, a: &str, b: &str) -> bool {
        match self {
            Self::Bool => parse_bool(a) == parse_bool(b),
            Self::Int => parse_int(a) == parse_int(b),
            Self::Uint | Self::Uint32 => parse_uint(a) == parse_uint(b),
            Self::Duration => parse_duration(a) == parse_duration(b),
            Self::Urls | Self::UrlsOrStar if a != "*" && b != "*" => urls::parse_list(a) == urls::parse_list(b),
            _ => a == b,
        }
    }
}

/// Reads a boolean in one of Go's spellings.
pub fn parse_bool(value: &str) -> Option<bool> {
    match value {
        "1" | "t" | "T" | "true" | "TRUE" | "True" => Some(true),
        "0" | "f" | "F" | "false" | "FALSE" | "False" => Some(false),
        _ => None,
    }
}

/// Reads a number as Go does with base 0: decimal, `0x`, `0o`, `0b`, a leading 0 for octal, `_` between digits.
///
/// - Errors: `parse error` or `value out of range`.
pub fn parse_uint(value: &str) -> Result<u64, String> {
    let number = magnitude(value)?;
    u64::try_from(number).map_err(|_| "value out of range".into())
}

/// Reads a signed number; see [`parse_uint`].
pub fn parse_int(value: &str) -> Result<i64, String> {
    let (negative, digits) = match value.as_bytes().first() {
        Some(b'-') => (true, &value[1..]),
        Some(b'+') => (false, &value[1..]),
        _ => (false, value),
    };
    let number = i128::try_from(magnitude(digits)?).map_err(|_| "value out of range".to_string())?;
    i64::try_from(if negative { -number } else { number }).map_err(|_| "value out of range".into())
}

fn magnitude(text: &str) -> Result<u128, String> {
    let lower = text.to_ascii_lowercase();
    let (radix, digits, prefixed) = match lower.as_bytes() {
        [b'0', b'x', ..] => (16, &lower[2..], true),
        [b'0', b'o', ..] => (8, &lower[2..], true),
        [b'0', b'b', ..] => (2, &lower[2..], true),
        [b'0', _, ..] => (8, &lower[1..], true),
        _ => (10, &lower[..], false),
    };
    // Go allows an underscore only between digits, or between the prefix and a digit.
    let doubled = digits.contains("__") || digits.ends_with('_') || (digits.starts_with('_') && !prefixed);
    let bare: String = digits.chars().filter(|c| *c != '_').collect();
    if doubled || bare.is_empty() || !bare.chars().all(|c| c.is_digit(radix)) {
        return Err("parse error".into());
    }
    u128::from_str_radix(&bare, radix).map_err(|_| "value out of range".into())
}

/// Reads Go's duration (`300ms`, `-1.5h`, `1h30m`, `0`), in nanoseconds.
pub fn parse_duration(value: &str) -> Option<i64> {
    let (sign, mut rest) = match value.as_bytes().first()? {
        b'-' => (-1, &value[1..]),
        b'+' => (1, &value[1..]),
        _ => (1, value),
    };
    if rest == "0" {
        return Some(0);
    }
    if rest.is_empty() {
        return None;
    }
    let mut total: i128 = 0;
    while !rest.is_empty() {
        let number_end = rest.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(rest.len());
        let (number, tail) = rest.split_at(number_end);
        let unit_end = tail.find(|c: char| c.is_ascii_digit() || c == '.').unwrap_or(tail.len());
        let (unit, tail) = tail.split_at(unit_end);
        let scale: i128 = match unit {
            "ns" => 1,
            "us" | "µs" | "μs" => 1_000,
            "ms" => 1_000_000,
            "s" => 1_000_000_000,
            "m" => 60_000_000_000,
            "h" => 3_600_000_000_000,
            _ => return None,
        };
        let (whole, fraction) = number.split_once('.').unwrap_or((number, ""));
        if whole.is_empty() && fraction.is_empty() || fraction.contains('.') {
            return None;
        }
        let whole: i128 = if whole.is_empty() { 0 } else { whole.parse().ok()? };
        total = total.checked_add(whole.checked_mul(scale)?)?;
        let mut place = scale;
        for digit in fraction.bytes() {
            place /= 10;
            total += i128::from(digit - b'0') * place;
        }
        rest = tail;
    }
    i64::try_from(sign * total).ok()
}

/// Reads a duration that cannot be negative.
///
/// - Errors: a negative or unreadable value, in a sentence.
pub fn duration(name: &str, value: &str) -> Result<Duration, String> {
    let nanos =
        parse_duration(value).ok_or_else(|| format!("invalid value {value:?} for flag -{name}: parse error"))?;
    u64::try_from(nanos)
        .map(Duration::from_nanos)
        .map_err(|_| format!("--{name} must not be negative (set to {value})"))
}

/// Reads a number of bytes: bare, or with KiB, MiB, GiB, TiB (`K`, `M`, `G`, `T` mean the same).
///
/// - Errors: a sentence naming the forms.
pub fn parse_bytes(value: &str) -> Result<u64, String> {
    let digits_end = value.find(|c: char| !c.is_ascii_digit()).unwrap_or(value.len());
    let (digits, unit) = value.split_at(digits_end);
    let shift = match unit.trim().to_ascii_lowercase().as_str() {
        "" | "b" => 0,
        "k" | "ki" | "kib" => 10,
        "m" | "mi" | "mib" => 20,
        "g" | "gi" | "gib" => 30,
        "t" | "ti" | "tib" => 40,
        _ => return Err("must be a number of bytes such as 1073741824, 512MiB or 2GiB".into()),
    };
    let number: u64 =
        digits.parse().map_err(|_| "must be a number of bytes such as 1073741824, 512MiB or 2GiB".to_string())?;
    number.checked_mul(1 << shift).ok_or_else(|| "value out of range".into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_read_as_go_reads_them() {
        for (text, nanos) in [
            ("0", Some(0)),
            ("0s", Some(0)),
            ("300ms", Some(300_000_000)),
            ("1h30m", Some(5_400_000_000_000)),
            ("1.5s", Some(1_500_000_000)),
            ("-.5s", Some(-500_000_000)),
            ("1us", Some(1_000)),
            ("5", None),
            ("", None),
            ("-", None),
            ("s", None),
            ("1.2.3s", None),
            ("1d", None),
            ("9999999999h", None),
        ] {
            assert_eq!(parse_duration(text), nanos, "{text:?}");
        }
    }

    #[test]
    fn numbers_read_as_go_reads_them() {
        for (text, number) in [
            ("0", Ok(0)),
            ("0x10", Ok(16)),
            ("010", Ok(8)),
            ("0b11", Ok(3)),
            ("1_000", Ok(1000)),
            ("18446744073709551615", Ok(u64::MAX)),
            ("18446744073709551616", Err("value out of range")),
            ("", Err("parse error")),
            ("-1", Err("parse error")),
            ("1__0", Err("parse error")),
            ("_1", Err("parse error")),
            ("09", Err("parse error")),
            ("x", Err("parse error")),
        ] {
            assert_eq!(parse_uint(text), number.map_err(String::from), "{text:?}");
        }
        assert_eq!(parse_int("-9223372036854775808"), Ok(i64::MIN));
        assert_eq!(parse_int("9223372036854775808"), Err("value out of range".into()));
    }

    #[test]
    fn sizes_read_with_binary_units() {
        assert_eq!(parse_bytes("512MiB"), Ok(512 << 20));
        assert_eq!(parse_bytes("2G"), Ok(2 << 30));
        assert_eq!(parse_bytes("4096"), Ok(4096));
        assert!(parse_bytes("much").is_err());
        assert!(parse_bytes("-1").is_err());
        assert!(parse_bytes("99999999999TiB").is_err());
    }
}
