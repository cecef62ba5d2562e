//! Go's `encoding/json` of a struct: fields in order, zero fields left out where the struct says so.

use std::fmt::{Display, Write};

/// An object under construction.
pub(crate) struct Object {
    text: String,
}

impl Object {
    /// An object without fields.
    pub(crate) fn new() -> Self {
        Self { text: "{".into() }
    }

    /// A field with ready JSON.
    pub(crate) fn raw(mut self, name: &str, json: impl Display) -> Self {
        if self.text.len() > 1 {
            self.text.push(',');
        }
        write!(self.text, "\"{name}\":{json}").expect("a string takes all writes");
        self
    }

    /// `omitempty` of a number.
    pub(crate) fn number<T: Display + Default + PartialEq>(self, name: &str, value: T) -> Self {
        if value == T::default() { self } else { self.raw(name, value) }
    }

    /// `omitempty` of a boolean.
    pub(crate) fn flag(self, name: &str, value: bool) -> Self {
        if value { self.raw(name, true) } else { self }
    }

    /// `omitempty` of a string.
    pub(crate) fn text(self, name: &str, value: &str) -> Self {
        if value.is_empty() { self } else { self.raw(name, string(value)) }
    }

    /// `omitempty` of a byte slice.
    pub(crate) fn bytes(self, name: &str, value: &[u8]) -> Self {
        if value.is_empty() { self } else { self.raw(name, base64(value)) }
    }

    /// `omitempty` of a pointer.
    pub(crate) fn some<T>(self, name: &str, value: Option<&T>, json: impl Fn(&T) -> String) -> Self {
        match value {
            Some(value) => self.raw(name, json(value)),
            None => self,
        }
    }

    /// `omitempty` of a slice.
    pub(crate) fn list<T>(self, name: &str, values: &[T], json: impl Fn(&T) -> String) -> Self {
        if values.is_empty() { self } else { self.raw(name, list(values, json)) }
    }

    /// The object's text.
    pub(crate) fn end(mut self) -> String {
        self.text.push('}');
        self.text
    }
}

/// An array.
pub(crate) fn list<T>(values: &[T], json: impl Fn(&T) -> String) -> String {
    format!("[{}]", values.iter().map(json).collect::<Vec<_>>().join(","))
}

/// A slice that a nil pointer stands for when it is empty.
pub(crate) fn list_or_null<T>(values: &[T], json: impl Fn(&T) -> String) -> String {
    if values.is_empty() { "null".into() } else { list(values, json) }
}

/// A string; Go escapes what HTML could misread, and two separators that JavaScript could.
pub(crate) fn string(text: &str) -> String {
    let mut out = String::from("\"");
    for c in text.chars() {
        match c {
            '"' | '\\' => {
                out.push('\\');
                out.push(c);
            }
            '\n' => out.push_str("\\n"),
            '\r' => out.push_str("\\r"),
            '\t' => out.push_str("\\t"),
            '<' | '>' | '&' | '\u{2028}' | '\u{2029}' | '\0'..' ' => {
                write!(out, "\\u{:04x}", u32::from(c)).expect("a string takes all writes");
            }
            c => out.push(c),
        }
    }
    out.push('"');
    out
}

/// Bytes as a string of standard base64 with padding.
pub(crate) fn base64(bytes: &[u8]) -> String {
    const DIGITS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut out = String::from("\"");
    for chunk in bytes.chunks(3) {
        let mut word = [0; 4];
        word[1..=chunk.len()].copy_from_slice(chunk);
        let word = u32::from_be_bytes(word);
        for digit in 0..4 {
            let index = (word >> (18 - 6 * digit)) & 63;
            out.push(if digit <= chunk.len() { char::from(DIGITS[index as usize]) } else { '=' });
        }
    }
    out.push('"');
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn zero_fields_are_left_out_in_order() {
        let object = Object::new().number("a", 0u64).number("b", -1i64).flag("c", false).text("d", "<x>\n");
        assert_eq!(object.bytes("e", b"").end(), "{\"b\":-1,\"d\":\"\\u003cx\\u003e\\n\"}");
    }

    #[test]
    fn base64_has_its_padding() {
        for (bytes, want) in [("", "\"\""), ("f", "\"Zg==\""), ("fo", "\"Zm8=\""), ("foo", "\"Zm9v\"")] {
            assert_eq!(base64(bytes.as_bytes()), want);
        }
        assert_eq!(base64(&[0xfb, 0xff, 0xfe]), "\"+//+\"");
    }
}
