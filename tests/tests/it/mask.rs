//! What differs between two clusters by nature is taken out of a program's output: ids, addresses, times, terms.

/// The output with endpoints, ids, times and log lines' details masked.
pub(crate) fn mask(text: &str, endpoints: &str) -> String {
    let text = endpoints.split(',').fold(text.to_owned(), |text, endpoint| text.replace(endpoint, "ENDPOINT"));
    let mut out = String::new();
    for line in text.lines() {
        let line = log_line(line).unwrap_or_else(|| line.to_owned());
        let line = match line.find("took = ").or_else(|| line.find("took ")) {
            Some(at) => &line[..at],
            None => &line,
        };
        out += &durations(&table(&numbers(line)));
        out.push('\n');
    }
    out
}

/// etcdctl's own log lines carry times and places in its source: what matters is what was said, and of what.
fn log_line(line: &str) -> Option<String> {
    if !line.starts_with("{\"level\":") {
        return None;
    }
    let fields: serde_json::Value = serde_json::from_str(line).ok()?;
    let field = |name: &str| fields[name].as_str().unwrap_or_default().to_owned();
    Some(["level", "msg", "error", "environment-variable"].map(field).join(" | "))
}

/// Ids, terms and ports differ between clusters: numbers of five or more digits, hexadecimal ones too, and raft terms.
fn numbers(line: &str) -> String {
    let is_number = |word: &str| {
        word.len() >= 5 && word.chars().all(|c| c.is_ascii_hexdigit()) && word.contains(|c: char| c.is_ascii_digit())
    };
    let mut out = words(line, |word| if is_number(word) { "NUMBER".to_owned() } else { word.to_owned() });
    for term in ["\"raft_term\":", "\"RaftTerm\" : "] {
        if let Some(at) = out.find(term) {
            digits(&mut out, at + term.len(), "TERM");
        }
    }
    out
}

/// The line with each run of letters and digits changed.
fn words(line: &str, change: impl Fn(&str) -> String) -> String {
    let mut out = String::new();
    let mut rest = line;
    while let Some(start) = rest.find(|c: char| c.is_ascii_alphanumeric()) {
        out.push_str(&rest[..start]);
        rest = &rest[start..];
        let end = rest.find(|c: char| !c.is_ascii_alphanumeric()).unwrap_or(rest.len());
        out.push_str(&change(&rest[..end]));
        rest = &rest[end..];
    }
    out + rest
}

/// Replaces the digits at `at`.
pub(crate) fn digits(text: &mut String, at: usize, with: &str) {
    let count = text[at..].chars().take_while(char::is_ascii_digit).count();
    text.replace_range(at..at + count, with);
}

/// A table's columns are as wide as its ids and times: its spaces and rules count as one each.
fn table(line: &str) -> String {
    if !line.starts_with(['+', '|']) {
        return line.to_owned();
    }
    let mut out = String::new();
    for c in line.chars() {
        if !(matches!(c, ' ' | '-') && out.ends_with(c)) {
            out.push(c);
        }
    }
    out
}

/// Times in Go's form, as `"took"` has them.
fn durations(line: &str) -> String {
    let is_time = |word: &str| {
        let units = ["µs", "ms", "s"].iter().find_map(|unit| word.strip_suffix(unit));
        units.is_some_and(|number| number.contains('.') && number.chars().all(|c| c.is_ascii_digit() || c == '.'))
    };
    let masked = |word: &str| if is_time(word) { "TIME".to_owned() } else { word.to_owned() };
    line.split('"').map(|part| part.split(' ').map(masked).collect::<Vec<_>>().join(" ")).collect::<Vec<_>>().join("\"")
}
