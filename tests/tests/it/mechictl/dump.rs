//! A protobuf message without its schema, as text with ids masked.

use std::fmt::Write;

/// Varints above this are ids.
const NUMBER_MAX: u64 = 1 << 32;

/// The fields of a message, nested ones indented; `None` if the bytes are no message.
pub(super) fn dump(bytes: &[u8]) -> Option<String> {
    let text = fields(bytes)?;
    // A header: two ids, a revision perhaps, and the term.
    let is_header = text.starts_with("1: NUMBER\n2: NUMBER\n");
    let line =
        |line: &str| if is_header && line.starts_with("4: ") { "4: TERM\n".to_owned() } else { format!("{line}\n") };
    Some(text.lines().map(line).collect())
}

fn fields(mut bytes: &[u8]) -> Option<String> {
    let mut out = String::new();
    while !bytes.is_empty() {
        let tag = varint(&mut bytes)?;
        let field = tag >> 3;
        match tag & 7 {
            0 => {
                let number = varint(&mut bytes)?;
                let text = if number > NUMBER_MAX { "NUMBER".to_owned() } else { number.to_string() };
                writeln!(out, "{field}: {text}").expect("a string takes all writes");
            }
            2 => {
                let length = usize::try_from(varint(&mut bytes)?).ok()?;
                let (inner, rest) = bytes.split_at_checked(length)?;
                bytes = rest;
                match dump(inner).filter(|_| !inner.is_empty()) {
                    Some(nested) => {
                        let nested = nested.replace('\n', "\n  ");
                        writeln!(out, "{field}:\n  {}", nested.trim_end()).expect("a string takes all writes");
                    }
                    None => writeln!(out, "{field}: {:?}", String::from_utf8_lossy(inner))
                        .expect("a string takes all writes"),
                }
            }
            _ => return None,
        }
    }
    Some(out)
}

fn varint(bytes: &mut &[u8]) -> Option<u64> {
    let mut number = 0u64;
    for shift in (0..64).step_by(7) {
        let (&byte, rest) = bytes.split_first()?;
        *bytes = rest;
        number |= u64::from(byte & 0x7f) << shift;
        if byte < 0x80 {
            return Some(number);
        }
    }
    None
}
