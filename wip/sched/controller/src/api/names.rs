//! What names, labels and their values may look like.

use super::status::FieldError;
use crate::limits::ANNOTATIONS_BYTES_MAX;
use crate::types::selector::Labels;

/// Bytes of a label's value, of a label's name without its prefix, and of a name that is one word.
const WORD_MAX: usize = 63;

/// Bytes of a name of several words.
const SUBDOMAIN_MAX: usize = 253;

const LABEL: &str = "a lowercase RFC 1123 label must consist of lower case alphanumeric characters or '-', and must start and end \
     with an alphanumeric character (e.g. 'my-name',  or '123-abc', regex used for validation is '[a-z0-9]([-a-z0-9]*[a-z0-9])?')";

const SUBDOMAIN: &str = "a lowercase RFC 1123 subdomain must consist of lower case alphanumeric characters, '-' or '.', and must \
     start and end with an alphanumeric character (e.g. 'example.com', regex used for validation is \
     '[a-z0-9]([-a-z0-9]*[a-z0-9])?(\\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*')";

const QUALIFIED: &str = "name part must consist of alphanumeric characters, '-', '_' or '.', and must start and end with an alphanumeric \
     character (e.g. 'MyName',  or 'my.name',  or '123-abc', regex used for validation is '([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9]')";

const VALUE: &str = "a valid label must be an empty string or consist of alphanumeric characters, '-', '_' or '.', and must start and \
     end with an alphanumeric character (e.g. 'MyValue',  or 'my_value',  or '12345', regex used for validation is \
     '(([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9])?')";

fn is_word(text: &str, first_and_last: fn(u8) -> bool, within: fn(u8) -> bool) -> bool {
    match text.as_bytes() {
        [] => false,
        [one] => first_and_last(*one),
        [first, middle @ .., last] => {
            first_and_last(*first) && first_and_last(*last) && middle.iter().all(|at| within(*at))
        }
    }
}

fn is_label(text: &str) -> bool {
    let end = |at: u8| at.is_ascii_lowercase() || at.is_ascii_digit();
    is_word(text, end, |at| at.is_ascii_lowercase() || at.is_ascii_digit() || at == b'-')
}

fn is_qualified(text: &str) -> bool {
    is_word(text, |at| at.is_ascii_alphanumeric(), |at| at.is_ascii_alphanumeric() || b"-_.".contains(&at))
}

/// Checks a name that is one word: of a namespace, of a container.
pub fn label(path: &str, name: &str, errors: &mut Vec<FieldError>) {
    if name.len() > WORD_MAX {
        errors.push(FieldError::invalid(path, format!("{name:?}"), &format!("must be no more than {WORD_MAX} bytes")));
    }
    if !is_label(name) {
        errors.push(FieldError::invalid(path, format!("{name:?}"), LABEL));
    }
}

/// Checks a name that may be several words: of anything else.
pub fn subdomain(path: &str, name: &str, errors: &mut Vec<FieldError>) {
    if name.len() > SUBDOMAIN_MAX {
        errors.push(FieldError::invalid(
            path,
            format!("{name:?}"),
            &format!("must be no more than {SUBDOMAIN_MAX} bytes"),
        ));
    }
    if !name.split('.').all(is_label) {
        errors.push(FieldError::invalid(path, format!("{name:?}"), SUBDOMAIN));
    }
}

/// Checks a name with an optional prefix: of a label, an annotation, a taint, a resource.
pub fn qualified(path: &str, name: &str, errors: &mut Vec<FieldError>) {
    let (prefix, word) = name.split_once('/').map_or((None, name), |(prefix, word)| (Some(prefix), word));
    if let Some(prefix) = prefix {
        let mut wrong = Vec::new();
        subdomain(path, prefix, &mut wrong);
        if !wrong.is_empty() {
            errors.push(FieldError::invalid(path, format!("{name:?}"), &format!("prefix part {SUBDOMAIN}")));
        }
    }
    if word.len() > WORD_MAX {
        errors.push(FieldError::invalid(
            path,
            format!("{name:?}"),
            &format!("name part must be no more than {WORD_MAX} bytes"),
        ));
    }
    if !is_qualified(word) {
        errors.push(FieldError::invalid(path, format!("{name:?}"), QUALIFIED));
    }
}

/// Checks the value of a label.
pub fn value(path: &str, value: &str, errors: &mut Vec<FieldError>) {
    if value.len() > WORD_MAX {
        errors.push(FieldError::invalid(path, format!("{value:?}"), &format!("must be no more than {WORD_MAX} bytes")));
    }
    if !value.is_empty() && !is_qualified(value) {
        errors.push(FieldError::invalid(path, format!("{value:?}"), VALUE));
    }
}

/// Checks labels.
pub fn labels(path: &str, labels: &Labels, errors: &mut Vec<FieldError>) {
    for (name, text) in labels {
        qualified(path, name, errors);
        value(path, text, errors);
    }
}

/// Checks annotations.
pub fn annotations(path: &str, annotations: &Labels, errors: &mut Vec<FieldError>) {
    annotations.keys().for_each(|name| qualified(path, &name.to_lowercase(), errors));
    let bytes: usize = annotations.iter().map(|(name, value)| name.len() + value.len()).sum();
    if bytes > ANNOTATIONS_BYTES_MAX {
        errors.push(FieldError::too_long(path, ANNOTATIONS_BYTES_MAX));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn told(check: fn(&str, &str, &mut Vec<FieldError>), text: &str) -> usize {
        let mut errors = Vec::new();
        check("metadata.name", text, &mut errors);
        errors.len()
    }

    #[test]
    fn names_are_what_kubernetes_lets_them_be() {
        for name in ["a", "0", "web-1", "a--b", &"a".repeat(63)] {
            assert_eq!(told(label, name), 0, "{name}");
        }
        for name in ["", "-a", "a-", "A", "a.b", "a_b", "ä", &"a".repeat(64)] {
            assert_eq!(told(label, name), 1, "{name}");
        }
        for (name, wrong) in [("a.b-c.d", 0), ("a..b", 1), (".a", 1), ("a.B", 1), ("", 1)] {
            assert_eq!(told(subdomain, name), wrong, "{name}");
        }
        for (name, wrong) in
            [("app", 0), ("example.com/App_1.x", 0), ("/app", 1), ("a/b/c", 1), ("Ex.com/a", 1), ("a/", 1), ("-", 1)]
        {
            assert_eq!(told(qualified, name), wrong, "{name}");
        }
        for (text, wrong) in [("", 0), ("Web_1.2-x", 0), ("a b", 1), ("-", 1), ("_x", 1)] {
            assert_eq!(told(value, text), wrong, "{text}");
        }
    }
}
