//! The script's lines: what is called, with which words, variables and input, and which differences are listed.

/// A listed difference.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Differs {
    /// Mechi answers otherwise than etcd: the tools are compared on each.
    Server,
    /// mechictl does otherwise than etcdctl: the servers are compared for each.
    Tool,
    /// Both: the tools are compared on etcd.
    Both,
}

/// One call.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Call {
    pub(super) name: String,
    pub(super) differs: Option<(Differs, String)>,
    pub(super) variables: Vec<(String, String)>,
    pub(super) words: Vec<Vec<u8>>,
    pub(super) input: Vec<u8>,
    /// After how many lines of output it is ended.
    pub(super) lines: Option<usize>,
}

/// Reads a script; its syntax stands at its top.
pub(super) fn parse(text: &str) -> Vec<Call> {
    let mut calls: Vec<Call> = Vec::new();
    let mut differs = None;
    for line in text.lines().filter(|line| !line.is_empty() && !line.starts_with('#')) {
        if let Some(difference) = line.strip_prefix('%') {
            let (kind, why) = difference.split_once(' ').expect("a difference has a reason");
            let kind = match kind {
                "server" => Differs::Server,
                "tool" => Differs::Tool,
                "etcd" => Differs::Both,
                other => panic!("no such difference: {other}"),
            };
            differs = Some((kind, why.to_owned()));
            continue;
        }
        let (name, rest) = line.split_once(':').unwrap_or_else(|| panic!("a call has a name: {line}"));
        assert!(calls.iter().all(|call| call.name != name), "{name} is there twice");
        let mut call = Call { name: name.to_owned(), differs: differs.take(), ..Call::default() };
        let mut words = split(rest).into_iter().peekable();
        while let Some((word, is_quoted)) = words.next() {
            let text = String::from_utf8_lossy(&word).into_owned();
            match text.as_str() {
                "<" if !is_quoted => call.input = words.next().expect("an input follows").0,
                "~" if !is_quoted => {
                    let count = words.next().expect("a count follows").0;
                    call.lines = String::from_utf8_lossy(&count).parse().ok();
                }
                _ if call.words.is_empty() && text.starts_with("ETCDCTL_") => {
                    let (name, value) = text.split_once('=').expect("a variable has a value");
                    call.variables.push((name.to_owned(), value.to_owned()));
                }
                _ => call.words.push(word),
            }
        }
        calls.push(call);
    }
    calls
}

/// The words, and whether each was quoted.
fn split(line: &str) -> Vec<(Vec<u8>, bool)> {
    let mut words = Vec::new();
    let mut bytes = line.bytes().peekable();
    while let Some(first) = bytes.find(|&byte| byte != b' ') {
        let mut word = Vec::new();
        match first {
            b'\'' => word.extend(bytes.by_ref().take_while(|&byte| byte != b'\'')),
            b'"' => loop {
                match bytes.next().expect("a quote is closed") {
                    b'"' => break,
                    b'\\' => word.push(match bytes.next().expect("an escape follows") {
                        b'n' => b'\n',
                        b't' => b'\t',
                        b'x' => {
                            let digits = [bytes.next(), bytes.next()].map(|digit| digit.expect("two digits follow"));
                            let digits = std::str::from_utf8(&digits).expect("digits are text");
                            u8::from_str_radix(digits, 16).expect("two hexadecimal digits")
                        }
                        other => other,
                    }),
                    byte => word.push(byte),
                }
            },
            byte => {
                word.push(byte);
                while let Some(byte) = bytes.next_if(|&byte| byte != b' ') {
                    word.push(byte);
                }
            }
        }
        words.push((word, matches!(first, b'\'' | b'"')));
    }
    words
}

#[test]
fn a_line_is_words_variables_and_input() {
    let calls = parse("# nothing\n%tool because\na.b: ETCDCTL_X=1 get \"q\\x41\\n\" '' < \"in\" ~ 3\nc:\n");
    assert_eq!(calls[0].differs, Some((Differs::Tool, "because".to_owned())));
    assert_eq!(calls[0].variables, [("ETCDCTL_X".to_owned(), "1".to_owned())]);
    assert_eq!(calls[0].words, [b"get".to_vec(), b"qA\n".to_vec(), Vec::new()]);
    assert_eq!((calls[0].input.as_slice(), calls[0].lines), (&b"in"[..], Some(3)));
    assert_eq!(calls[1], Call { name: "c".to_owned(), ..Call::default() });
}
