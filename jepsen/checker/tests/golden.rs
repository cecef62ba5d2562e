//! Small histories whose verdict is known: the good ones must pass, each bad one must be objected to by the checker, and
//! with the finding, that its first line names.
//!
//! A file is EDN, one map per line. Lines with a `:stream` are a watcher's, `:type :hash` is a member's hash, `:type
//! :log` a line of a server's log, `:type :run` what only the runner knows; all others are the history.

use mechi_checker::edn::{Edn, parse_all};
use mechi_checker::history::{History, file};
use mechi_checker::judge::{Evidence, judge};
use mechi_checker::lease::Bounds;
use mechi_checker::verdict::Results;
use mechi_checker::watch::{self, Ending};
use mechi_checker::{hash, logs, stats, timeline};
use std::fs;
use std::path::{Path, PathBuf};

fn files(kind: &str) -> Vec<(PathBuf, String)> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("golden").join(kind);
    let entries = fs::read_dir(&folder).expect("the golden histories are there");
    let mut paths: Vec<_> = entries.map(|entry| entry.expect("a file").path()).collect();
    paths.sort();
    paths.into_iter().map(|path| (path.clone(), fs::read_to_string(path).expect("a text"))).collect()
}

/// What every checker says of one file.
fn verdicts(path: &Path, text: &str) -> (History, Results) {
    let forms = parse_all(text).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    let (mut history, mut streams, mut hashes, mut log) = (String::new(), String::new(), Vec::new(), String::new());
    let mut run = Edn::Nil;
    for form in forms {
        match form.get("type").name() {
            _ if form.get("stream") != &Edn::Nil => streams.push_str(&format!("{form}\n")),
            Some("hash") => hashes.push(hash::Answer::from_edn(&form).expect("a hash")),
            Some("log") => log.push_str(&format!("{}\n", form.get("text").name().expect("a text"))),
            Some("run") => run = form,
            _ => history.push_str(&format!("{form}\n")),
        }
    }
    let history = file::read(history.as_bytes()).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    let streams = watch::read(streams.as_bytes()).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    // What is written is read as it was.
    let mut written = Vec::new();
    file::write(&history, file::Form::Plain, &mut written).expect("memory takes every byte");
    assert_eq!(file::read(&written[..]).expect("as written"), history, "{}", path.display());
    let mut written = Vec::new();
    watch::write(&streams, &mut written).expect("memory takes every byte");
    assert_eq!(watch::read(&written[..]).expect("as written"), streams, "{}", path.display());

    let members: Vec<String> = ["n1", "n2", "n3"].map(str::to_owned).to_vec();
    let int = |name: &str| run.get(name).unsigned();
    let evidence = Evidence {
        streams: &streams,
        hashes: (!hashes.is_empty()).then_some((&hashes, &members)),
        leases: Bounds { late_ns: 3_000_000_000, leaderless_ns: vec![] },
        ending: Ending { healed_ns: int("watch-healed"), catch_up_ns: 100 },
        ..Evidence::of(&history)
    };
    let mut results = judge(&evidence).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    results.note("logs", logs::check("n1", log.as_bytes(), &["asked for"]).expect("memory is readable"));
    if let Some(ended_ns) = int("ended") {
        let facts = stats::Run {
            effects: int("effects").unwrap_or(5),
            healed_ns: int("healed").unwrap_or(0),
            ended_ns,
            judged: int("judged").unwrap_or(100),
            unknown: int("unknown").unwrap_or(0),
        };
        results.note("stats", stats::check(&history, &facts, &stats::Wanted::default()).expect("a history"));
    }
    (history, results)
}

#[test]
fn good_histories_pass_and_bad_ones_are_objected_to_for_the_right_reason() {
    for (path, text) in files("good") {
        let (_, results) = verdicts(&path, &text);
        assert!(results.verdict().is_valid(), "{}: {}", path.display(), results.to_edn());
    }
    let mut wrong = Vec::new();
    for (path, text) in files("bad") {
        let first = text.lines().next().unwrap_or_default();
        let words: Vec<&str> = first.trim_start_matches("; ").split(' ').take(2).collect();
        let [checker, rule] = words[..] else { panic!("{} names no finding: {first}", path.display()) };
        let rule = rule.trim_end_matches(':');
        let (history, results) = verdicts(&path, &text);
        let found = results
            .each()
            .any(|(name, verdict)| name == checker && verdict.findings().iter().any(|finding| finding.rule == rule));
        if !found {
            wrong.push(format!("{}: wanted {checker} {rule}, found {}", path.display(), results.to_edn()));
        }
        // Nobody else objects, but for what the first line says after a plus.
        for (name, verdict) in results.each().filter(|(name, verdict)| *name != checker && !verdict.is_valid()) {
            if !first.contains(&format!("+{name}")) {
                wrong.push(format!("{}: {name} objects too: {verdict:?}", path.display()));
            }
        }
        let picture = timeline::svg(&history, &results);
        assert!(picture.ends_with("</svg>\n"), "{}", path.display());
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn every_rule_that_a_history_can_break_has_a_bad_history() {
    let all: Vec<String> =
        files("bad").into_iter().map(|(_, text)| text.lines().next().unwrap_or_default().to_owned()).collect();
    let rules = "K1 K2 K3 K4 K5 K6 K7 K8 W1 W2 W3 W4 W5 W7 W8 W9 W10 W11 W12 W13 L1 L2 L3 L4 L5 L7 X3 X4 X5 X6 H1 G0 G1a G1b G1c G-single \
                 G2-item G-single-realtime lost-update incompatible-order linearizable lost stale validity panic lost-log";
    for rule in rules.split(' ') {
        let there =
            all.iter().any(|line| line.split(' ').nth(2).is_some_and(|word| word.trim_end_matches(':') == rule));
        assert!(there, "no golden history breaks {rule}");
    }
}
