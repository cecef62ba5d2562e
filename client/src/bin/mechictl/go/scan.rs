//! The two readers of typed lines: `fmt.Sscanf("%q) %s %q")` of a comparison, and the words of a line.

use super::quote::unquote;

/// What one comparison's line held after its target; parts that were not reached are empty.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Comparison {
    /// How many of the three were read.
    pub(crate) read: usize,
    pub(crate) key: Vec<u8>,
    pub(crate) operator: String,
    pub(crate) value: Vec<u8>,
}

/// Reads `"key") operator "value"`; what follows is ignored, as Go ignores it.
pub(crate) fn comparison(text: &str) -> Comparison {
    let mut found = Comparison::default();
    let _ = fill(text, &mut found);
    found
}

fn fill(text: &str, found: &mut Comparison) -> Option<()> {
    let (key, rest) = quoted(text)?;
    found.key = key;
    found.read = 1;
    let rest = rest.strip_prefix(')')?.trim_start_matches([' ', '\t']);
    let end = rest.find(char::is_whitespace).unwrap_or(rest.len());
    if end == 0 {
        return None;
    }
    found.operator = rest[..end].to_owned();
    found.read = 2;
    let (value, _) = quoted(&rest[end..])?;
    found.value = value;
    found.read = 3;
    Some(())
}

/// A quoted string after spaces, and what follows it; back quotes take everything as it is.
fn quoted(text: &str) -> Option<(Vec<u8>, &str)> {
    let text = text.trim_start_matches([' ', '\t', '\r']);
    if let Some(raw) = text.strip_prefix('`') {
        let (inner, rest) = raw.split_once('`')?;
        return Some((inner.as_bytes().to_vec(), rest));
    }
    let end = closing_quote(text)?;
    Some((unquote(&text.as_bytes()[..end])?, &text[end..]))
}

/// Where a double-quoted string at the start of `text` has ended.
fn closing_quote(text: &str) -> Option<usize> {
    let bytes = text.as_bytes();
    if bytes.first() != Some(&b'"') {
        return None;
    }
    let mut at = 1;
    loop {
        match bytes.get(at)? {
            b'"' => return Some(at + 1),
            b'\\' => at += 2,
            _ => at += 1,
        }
    }
}

/// Splits a line into words: bare ones, `'quoted'` ones, and `"quoted"` ones with Go's escapes.
///
/// - Errors: a double-quoted word with an escape that Go does not know.
pub(crate) fn words(line: &str) -> Result<Vec<Vec<u8>>, String> {
    let mut words = Vec::new();
    let mut rest = line;
    while let Some(start) = rest.find(|c: char| !go_space(c)) {
        rest = &rest[start..];
        let end = word_end(rest);
        let (word, tail) = rest.split_at(end.unwrap_or_else(|| rest.chars().next().map_or(0, char::len_utf8)));
        rest = tail;
        if end.is_none() {
            // A quote that nothing closes is no word: what follows it is read on its own.
            continue;
        }
        words.push(match word.as_bytes()[0] {
            b'\'' => word.as_bytes()[1..word.len() - 1].to_vec(),
            b'"' => unquote(word.as_bytes()).ok_or("invalid syntax")?,
            _ => word.as_bytes().to_vec(),
        });
    }
    Ok(words)
}

/// Where the word at the start of `text` ends.
///
/// The pattern is `"(?:[^"\\]|\\.)*"|'[^']*'|[^'"\s]\S*[^'"\s]?`.
fn word_end(text: &str) -> Option<usize> {
    match text.as_bytes()[0] {
        b'"' => closing_quote(text).filter(|&end| end <= text.len() && text.is_char_boundary(end)),
        b'\'' => text[1..].find('\'').map(|end| end + 2),
        _ => Some(text.find(go_space).unwrap_or(text.len())),
    }
}

/// `\s` of Go's regular expressions.
fn go_space(c: char) -> bool {
    matches!(c, ' ' | '\t' | '\n' | '\x0c' | '\r')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn comparisons_are_read_as_far_as_they_go() {
        let found = comparison(r#""a\x00b") > "7" and more"#);
        assert_eq!(
            (found.read, &found.key[..], &found.operator[..], &found.value[..]),
            (3, &b"a\0b"[..], ">", &b"7"[..])
        );
        assert_eq!(comparison("key) = \"1\"").read, 0);
        assert_eq!(comparison("\"key\" = \"1\"").read, 1);
        assert_eq!(comparison("\"key\") = 1").read, 2);
        assert_eq!(comparison("`k`)=  \"1\"").read, 3);
    }

    #[test]
    fn words_are_split_at_spaces_outside_quotes() {
        let split = |line| {
            words(line)
                .map(|words| words.into_iter().map(|w| String::from_utf8_lossy(&w).into_owned()).collect::<Vec<_>>())
        };
        assert_eq!(split("put  a 'b c'").expect("words"), ["put", "a", "b c"]);
        assert_eq!(split(r#"put "a \"b\"" c'd"#).expect("words"), ["put", "a \"b\"", "c'd"]);
        assert_eq!(split("").expect("words"), Vec::<String>::new());
        assert_eq!(split("get ''").expect("words"), ["get", ""]);
        assert_eq!(split("get \"open x").expect("words"), ["get", "open", "x"]);
        assert!(split(r#"get "\q""#).is_err());
    }
}
