//! `strconv`'s integers and booleans, with its error texts.

use super::quote::quote;

/// Parses a signed integer as `strconv.ParseInt(text, base, 64)` does; base 0 reads Go's prefixes and underscores.
pub(crate) fn parse_int(text: &str, base: u32) -> Result<i64, String> {
    let (negative, digits) = match text.as_bytes().first() {
        Some(b'-') => (true, &text[1..]),
        Some(b'+') => (false, &text[1..]),
        _ => (false, text),
    };
    let fail = |why: &str| format!("strconv.ParseInt: parsing {}: {why}", quote(text.as_bytes()));
    match magnitude(digits, base) {
        Ok(n) if negative => 0i64.checked_sub_unsigned(n).ok_or_else(|| fail(RANGE)),
        Ok(n) => i64::try_from(n).map_err(|_| fail(RANGE)),
        Err(why) => Err(fail(why)),
    }
}

/// Parses an unsigned integer as `strconv.ParseUint(text, base, 64)` does.
pub(crate) fn parse_uint(text: &str, base: u32) -> Result<u64, String> {
    magnitude(text, base).map_err(|why| format!("strconv.ParseUint: parsing {}: {why}", quote(text.as_bytes())))
}

/// Parses a boolean as `strconv.ParseBool` does.
pub(crate) fn parse_bool(text: &str) -> Result<bool, String> {
    match text {
        "1" | "t" | "T" | "true" | "TRUE" | "True" => Ok(true),
        "0" | "f" | "F" | "false" | "FALSE" | "False" => Ok(false),
        _ => Err(format!("strconv.ParseBool: parsing {}: {SYNTAX}", quote(text.as_bytes()))),
    }
}

const SYNTAX: &str = "invalid syntax";
const RANGE: &str = "value out of range";

fn magnitude(text: &str, base: u32) -> Result<u64, &'static str> {
    let lower = text.to_ascii_lowercase();
    let (radix, digits) = match base {
        0 => match lower.get(..2) {
            Some("0x") => (16, &lower[2..]),
            Some("0b") => (2, &lower[2..]),
            Some("0o") => (8, &lower[2..]),
            _ if lower.len() > 1 && lower.starts_with('0') => (8, &lower[1..]),
            _ => (10, lower.as_str()),
        },
        base => (base, lower.as_str()),
    };
    // An underscore may stand between digits, and between a base's prefix and the digits.
    let prefixed = base == 0 && radix != 10;
    let bad = digits.ends_with('_') || digits.contains("__") || digits.starts_with('_') && !prefixed;
    if digits.is_empty() || digits.contains('_') && (base != 0 || bad) {
        return Err(SYNTAX);
    }
    let digits: Vec<u32> = match digits.chars().filter(|&c| c != '_').map(|c| c.to_digit(radix)).collect() {
        Some(digits) => digits,
        None => return Err(SYNTAX),
    };
    let next = |n: u64, digit: u32| n.checked_mul(radix.into())?.checked_add(digit.into());
    digits.into_iter().try_fold(0, next).ok_or(RANGE)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn integers_are_gos() {
        for (text, base, want) in [
            ("12", 10, Ok(12)),
            ("-12", 10, Ok(-12)),
            ("+12", 10, Ok(12)),
            ("ff", 16, Ok(255)),
            ("0x1F", 0, Ok(31)),
            ("010", 0, Ok(8)),
            ("1_000", 0, Ok(1000)),
            ("-9223372036854775808", 10, Ok(i64::MIN)),
            ("9223372036854775808", 10, Err(RANGE)),
            ("1_000", 10, Err(SYNTAX)),
            ("", 10, Err(SYNTAX)),
            ("-", 10, Err(SYNTAX)),
            ("x", 10, Err(SYNTAX)),
            ("08", 0, Err(SYNTAX)),
        ] {
            let want = want.map_err(|why| format!("strconv.ParseInt: parsing {text:?}: {why}"));
            assert_eq!(parse_int(text, base), want, "{text}");
        }
        assert_eq!(parse_uint("-1", 16), Err("strconv.ParseUint: parsing \"-1\": invalid syntax".into()));
        assert_eq!(parse_uint("ffffffffffffffff", 16), Ok(u64::MAX));
    }
}
