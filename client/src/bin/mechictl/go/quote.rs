//! Go's double-quoted strings: `strconv.Quote` and `strconv.Unquote`.

use std::fmt::Write;

/// Quotes bytes as `%q` does; bytes that are not UTF-8 become `\x` escapes.
pub(crate) fn quote(bytes: &[u8]) -> String {
    let mut out = String::from("\"");
    for chunk in bytes.utf8_chunks() {
        chunk.valid().chars().for_each(|c| push(&mut out, c));
        for byte in chunk.invalid() {
            write!(out, "\\x{byte:02x}").expect("a string takes all writes");
        }
    }
    out.push('"');
    out
}

fn push(out: &mut String, c: char) {
    match c {
        '"' | '\\' => {
            out.push('\\');
            out.push(c);
        }
        '\x07' => out.push_str("\\a"),
        '\x08' => out.push_str("\\b"),
        '\x0c' => out.push_str("\\f"),
        '\n' => out.push_str("\\n"),
        '\r' => out.push_str("\\r"),
        '\t' => out.push_str("\\t"),
        '\x0b' => out.push_str("\\v"),
        c if printable(c) => out.push(c),
        c if c < ' ' => write!(out, "\\x{:02x}", u32::from(c)).expect("a string takes all writes"),
        c if u32::from(c) < 0x10000 => write!(out, "\\u{:04x}", u32::from(c)).expect("a string takes all writes"),
        c => write!(out, "\\U{:08x}", u32::from(c)).expect("a string takes all writes"),
    }
}

/// Whether Go prints the character as it is: letters, marks, numbers, punctuation, symbols and the ASCII space.
fn printable(c: char) -> bool {
    // After a first character, `escape_debug` escapes just what has no glyph (and quotes, which the caller has handled).
    c == '\'' || format!("a{c}").escape_debug().nth(1) == Some(c)
}

/// Quotes as `%#q` does: between back quotes if they can hold it, else as [`quote`] does.
pub(crate) fn backquoted(bytes: &[u8]) -> String {
    let plain = |text: &str| text.chars().all(|c| c == '\t' || c != '`' && c != '\u{feff}' && !c.is_control());
    match std::str::from_utf8(bytes) {
        Ok(text) if plain(text) => format!("`{text}`"),
        _ => quote(bytes),
    }
}

/// The bytes that a double-quoted string (with its quotes) stands for; `None` if it is no such string.
pub(crate) fn unquote(quoted: &[u8]) -> Option<Vec<u8>> {
    let mut rest = quoted.strip_prefix(b"\"")?.strip_suffix(b"\"")?;
    let mut out = Vec::with_capacity(rest.len());
    while let Some((&byte, tail)) = rest.split_first() {
        rest = tail;
        match byte {
            b'"' | b'\n' => return None,
            b'\\' => rest = escape(tail, &mut out)?,
            byte => out.push(byte),
        }
    }
    Some(out)
}

/// Reads one escape after its backslash, appends what it means, and returns what follows it.
fn escape<'a>(text: &'a [u8], out: &mut Vec<u8>) -> Option<&'a [u8]> {
    let (&kind, tail) = text.split_first()?;
    let simple = match kind {
        b'a' => 0x07,
        b'b' => 0x08,
        b'f' => 0x0c,
        b'n' => b'\n',
        b'r' => b'\r',
        b't' => b'\t',
        b'v' => 0x0b,
        b'\\' | b'"' => kind,
        b'x' => {
            let (digits, rest) = tail.split_at_checked(2)?;
            out.push(u8::try_from(number(digits, 16)?).ok()?);
            return Some(rest);
        }
        b'u' | b'U' => {
            let (digits, rest) = tail.split_at_checked(if kind == b'u' { 4 } else { 8 })?;
            let c = char::from_u32(number(digits, 16)?)?;
            out.extend_from_slice(c.encode_utf8(&mut [0; 4]).as_bytes());
            return Some(rest);
        }
        b'0'..=b'7' => {
            let (digits, rest) = text.split_at_checked(3)?;
            out.push(u8::try_from(number(digits, 8)?).ok()?);
            return Some(rest);
        }
        _ => return None,
    };
    out.push(simple);
    Some(tail)
}

fn number(digits: &[u8], radix: u32) -> Option<u32> {
    digits.iter().try_fold(0u32, |n, &digit| n.checked_mul(radix)?.checked_add(char::from(digit).to_digit(radix)?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quotes_as_go_does() {
        for (bytes, want) in [
            (&b"plain 'text'"[..], r#""plain 'text'""#),
            (b"\"\\", r#""\"\\""#),
            (b"\x00\x07\x08\t\n\x0b\x0c\r\x1f\x7f", r#""\x00\a\b\t\n\v\f\r\x1f\u007f""#),
            (b"\xff\xc3\x28\xe2\x82", r#""\xff\xc3(\xe2\x82""#),
            ("é世\u{200b}\u{ad}\u{a0}".as_bytes(), r#""é世\u200b\u00ad\u00a0""#),
            ("\u{10ffff}e\u{301}\u{fffd}😀".as_bytes(), "\"\\U0010ffffe\u{301}\u{fffd}😀\""),
        ] {
            assert_eq!(quote(bytes), want);
        }
    }

    #[test]
    fn unquotes_as_go_does() {
        for (quoted, want) in [
            (r#""a\tb""#, Some(&b"a\tb"[..])),
            (r#""\x00\377\u00e9\U0001f600""#, Some("\0\u{ff}é😀".as_bytes())),
            (r#""\"""#, Some(b"\"")),
            (r#""\'""#, None),
            (r#""\q""#, None),
            (r#""\x0""#, None),
            (r#""a"b""#, None),
            ("plain", None),
            ("\"", None),
        ] {
            let want = want.map(|bytes| {
                // `\377` is one byte, which a Rust string cannot hold.
                String::from_utf8_lossy(bytes).into_owned().replace('\u{ff}', "\u{fffd}")
            });
            let got = unquote(quoted.as_bytes()).map(|bytes| String::from_utf8_lossy(&bytes).into_owned());
            assert_eq!(got, want, "{quoted}");
        }
    }
}
