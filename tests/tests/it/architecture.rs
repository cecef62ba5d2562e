//! The borders of `ARCHITECTURE.md`, read off the sources: what may be named where, and that nothing lies about unused.

use mechi_tests::oracle;
use mechi_tests::usage::words_in;
use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

/// Lines of one file, above which it holds a second idea.
const LINES_MAX: usize = 700;

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("the workspace is above its crates").to_owned()
}

/// Every Rust file of the project by its path from the root.
fn sources() -> BTreeMap<String, String> {
    fn walk(folder: &Path, root: &Path, found: &mut BTreeMap<String, String>) {
        for entry in fs::read_dir(folder).expect("a source folder is readable") {
            let path = entry.expect("a source folder is readable").path();
            if path.is_dir() {
                walk(&path, root, found);
            } else if path.extension().is_some_and(|kind| kind == "rs") {
                let name = path.strip_prefix(root).expect("found below it").display().to_string();
                found.insert(name, fs::read_to_string(&path).expect("a source is text"));
            }
        }
    }
    let root = root();
    let mut found = BTreeMap::new();
    let folders = [
        "proto/src",
        "server/src",
        "server/replica/src",
        "server/replica/tests",
        "client/src",
        "client/examples",
        "jepsen/src",
        "jepsen/tests",
        "jepsen/checker/src",
        "jepsen/checker/tests",
        "tests/src",
        "tests/tests",
        "benches/src",
        "benches/tests",
        "controller/src",
        "controller/tests",
    ];
    for folder in folders {
        walk(&root.join(folder), &root, &mut found);
    }
    assert!(found.len() > 100, "only {} files found", found.len());
    found
}

/// The code of a line, without its comment; a `//` within a text cuts too much and never too little.
fn code(line: &str) -> &str {
    line.split("//").next().unwrap_or_default()
}

fn is_word(letter: char) -> bool {
    letter.is_alphanumeric() || letter == '_'
}

/// Whether `line` has `word` as a word of its own; with `path`, as the first name of a path into another crate.
fn names(line: &str, word: &str, path: bool) -> bool {
    line.match_indices(word).any(|(at, _)| {
        let (before, after) = (&line[..at], &line[at + word.len()..]);
        let starts = !before.ends_with(is_word);
        let ends = !after.starts_with(is_word);
        starts && ends && (!path || after.starts_with("::") && !before.ends_with("::"))
    })
}

/// Every place where a crate of `words` is named below `folder` and not below one of `allowed`.
fn strangers(sources: &BTreeMap<String, String>, folder: &str, allowed: &[&str], words: &[&str]) -> Vec<String> {
    let below = sources.iter().filter(|(file, _)| file.starts_with(folder));
    let outside = below.filter(|(file, _)| !allowed.iter().any(|allowed| file.starts_with(allowed)));
    outside
        .flat_map(|(file, text)| text.lines().enumerate().map(move |(line, text)| (file, line + 1, text)))
        .filter(|(_, _, line)| words.iter().any(|word| names(code(line), word, true)))
        .map(|(file, line, text)| format!("{file}:{line}: {}", text.trim()))
        .collect()
}

#[test]
fn each_foreign_type_stays_behind_its_own_border() {
    let sources = sources();
    let none: [String; 0] = [];
    assert_eq!(
        strangers(&sources, "client/", &[], &["mechi_server", "mechi_replica"]),
        none,
        "the client knows the servers by their wire alone"
    );
    assert_eq!(
        strangers(&sources, "jepsen/checker/", &[], &["mechi_server", "mechi_replica", "mechi_client"]),
        none,
        "the checkers share no code with what they judge"
    );
    let raft = ["raft", "raft_proto", "eraftpb", "protobuf"];
    assert_eq!(
        strangers(&sources, "server/replica/src/", &["server/replica/src/raft/"], &raft),
        none,
        "raft-rs's types are translated in raft/convert.rs"
    );
    assert_eq!(strangers(&sources, "server/src/", &[], &raft), none, "the shell knows the heart's words alone");
    assert_eq!(
        strangers(&sources, "server/", &["server/src/store/sled.rs"], &["sled"]),
        none,
        "sled is used through the trait Store"
    );
    assert_eq!(
        strangers(&sources, "server/", &["server/src/grpc/", "server/src/peer/"], &["tonic"]),
        none,
        "a gRPC status is made at the two edges; behind them there is outcome::Error"
    );
}

#[test]
fn the_heart_has_no_clock_thread_lock_or_io() {
    let sources = sources();
    let banned =
        ["Instant", "SystemTime", "HashMap", "HashSet", "Mutex", "RwLock", "Condvar", "thread_rng", "tokio", "rand"];
    let parts = ["std::thread", "std::net", "std::env", "std::process"];
    for (file, text) in sources.iter().filter(|(file, _)| file.starts_with("server/replica/src/")) {
        for (number, line) in text.lines().enumerate() {
            let line = code(line);
            let found = banned.iter().find(|word| names(line, word, false));
            let found = found.or(parts.iter().find(|part| line.contains(*part)));
            assert_eq!(found, None, "{file}:{}: {line}", number + 1);
        }
    }
    // The checkers too: equal histories get equal verdicts. Their measurements, which are ignored tests, read a clock.
    let banned = ["SystemTime", "HashMap", "HashSet", "Mutex", "RwLock", "thread_rng", "tokio", "rand"];
    for (file, text) in sources.iter().filter(|(file, _)| file.starts_with("jepsen/checker/src/")) {
        for (number, line) in text.lines().enumerate() {
            let line = code(line);
            let found = banned.iter().find(|word| names(line, word, false));
            let found = found.or(parts.iter().find(|part| line.contains(*part)));
            assert_eq!(found, None, "{file}:{}: {line}", number + 1);
        }
    }
    // The lint that sees what a reader overlooks, such as a method call; tests/purity.sh shows that it bites.
    let lint = fs::read_to_string(root().join("server/replica/clippy.toml")).expect("the heart has its own lints");
    for path in ["std::time::Instant", "std::time::SystemTime::now", "std::collections::HashMap", "std::thread::spawn"]
    {
        assert!(lint.contains(&format!("{{ path = \"{path}\"")), "{path} is not banned");
    }
    let manifest = fs::read_to_string(root().join("server/replica/Cargo.toml")).expect("a manifest");
    let foreign: Vec<_> = dependencies(&manifest, "[dependencies]");
    let known = "bytes crc32c crc32fast lz4_flex mechi-proto prost protobuf raft slog thiserror";
    assert_eq!(foreign, known.split(' ').collect::<Vec<_>>(), "a new dependency of the heart is a decision");
}

#[test]
fn every_file_says_its_one_idea_first() {
    for (file, text) in &sources() {
        let first = text.lines().next().unwrap_or_default();
        assert!(first.starts_with("//! ") && first.len() > 10, "{file} begins with {first:?}");
        let lines = text.lines().count();
        assert!(lines <= LINES_MAX, "{file} has {lines} lines: look for its second idea");
    }
}

#[test]
fn bounds_live_in_limits_and_each_is_used() {
    let sources = sources();
    let source = |file: &str| {
        ["server/", "client/src/", "jepsen/checker/src/"].iter().any(|folder| file.starts_with(folder))
            && !file.contains("/tests")
    };
    let sources: Vec<_> = sources.iter().filter(|(file, _)| source(file)).collect();
    let mut bounds = 0;
    for (file, text) in &sources {
        for (number, line) in text.lines().enumerate() {
            let Some((name, kind)) = code(line).split_once("const ").and_then(|(_, rest)| rest.split_once(": ")) else {
                continue;
            };
            let counts = ["usize", "u64", "u32", "i64"].iter().any(|integer| kind.starts_with(&format!("{integer} =")));
            if file.ends_with("/limits.rs") {
                let used = |(_, text): &&(&String, &String)| text.lines().any(|line| names(code(line), name, false));
                let places = sources.iter().filter(|(other, _)| other != file).filter(used).count();
                assert!(places > 0, "{file}: nothing keeps to {name}");
                bounds += 1;
            } else {
                let bound = name.ends_with("_MAX") && counts;
                assert!(!bound, "{file}:{}: the bound {name} belongs into a limits.rs", number + 1);
            }
        }
    }
    assert!(bounds > 50, "only {bounds} bounds found");
}

/// Every place that `failpoint!` names, in the order of the sources.
fn failpoints(sources: &BTreeMap<String, String>) -> Vec<String> {
    let shell = sources.iter().filter(|(file, _)| file.starts_with("server/") && !file.contains("/failpoint"));
    let mut places = Vec::new();
    for (file, text) in shell {
        // A call may go over several lines: its name is the next text between quotes.
        for (at, _) in text.match_indices("failpoint!(") {
            assert!(!file.starts_with("server/replica/"), "{file}: the heart has no failpoints");
            let name = text[at..].split('"').nth(1).expect("a place has a name");
            places.push(name.to_owned());
        }
    }
    places
}

#[test]
fn every_failpoint_is_listed_told_of_and_not_in_the_program() {
    let sources = sources();
    let used: BTreeSet<String> = failpoints(&sources).into_iter().collect();
    assert!(used.len() > 30, "only {} places found", used.len());
    let list = &sources["server/src/failpoint/sites.rs"];
    let (_, list) = list.split_once("pub const SITES").expect("the list of places");
    let (list, _) = list.split_once("];").expect("its end");
    let listed: BTreeSet<String> = list.split('"').skip(1).step_by(2).map(str::to_owned).collect();
    assert_eq!(used, listed);
    let page = fs::read_to_string(root().join("docs/failpoints.md")).expect("the page is there");
    for place in &used {
        assert!(page.contains(&format!("| `{place}` |")), "docs/failpoints.md does not tell of {place}");
    }
    // The test of the failpoints themselves finds all of these in the program that has them.
    let control = "wal_fsync_duration_seconds";
    let words: Vec<&str> = used.iter().map(String::as_str).chain(["FAILPOINTS", control]).collect();
    let held = words_in(&oracle::mechi(), &words);
    assert_eq!(held, BTreeSet::from([control]), "the ordinary program has failpoints");
}

/// Whether a text names a test: a rule's by number, or a sentence.
fn is_test_name(word: &str) -> bool {
    let lower = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_';
    word.chars().all(lower) && (word.starts_with("reg_") || word.matches('_').count() > 3)
}

#[test]
fn every_regression_of_the_page_is_a_test_and_every_such_test_is_on_it() {
    let page = fs::read_to_string(root().join("docs/regressions.md")).expect("the page is there");
    let named: BTreeSet<&str> = page.split('`').skip(1).step_by(2).filter(|word| is_test_name(word)).collect();
    // A test is a function, or a script that a macro makes one of.
    let sources = sources();
    let (mut tests, mut scripts) = (BTreeSet::new(), BTreeSet::new());
    for text in sources.values() {
        for (at, _) in text.match_indices("fn ") {
            tests.extend(text[at + 3..].split(['(', '<']).next().filter(|name| is_test_name(name)));
        }
        if let Some((_, listed)) = text.split_once("\nscripts! {") {
            scripts.extend(listed.split_whitespace().take_while(|word| *word != "}").filter(|name| is_test_name(name)));
        }
    }
    for name in &named {
        assert!(tests.contains(name) || scripts.contains(name), "docs/regressions.md: no test is called {name}");
    }
    let regressions: BTreeSet<&str> =
        tests.union(&scripts).copied().filter(|name| name.starts_with("reg_") && !name.ends_with('_')).collect();
    assert!(regressions.len() > 15, "only {} found", regressions.len());
    let untold: Vec<_> = regressions.difference(&named).collect();
    assert!(untold.is_empty(), "docs/regressions.md does not tell of {untold:?}");
    // Every rule has a test, or says why it needs none.
    for row in page.lines().filter(|line| line.contains("github.com/etcd-io")) {
        let last = row.trim_end_matches('|').rsplit('|').next().expect("a row has cells");
        let has_test = last.split('`').any(is_test_name);
        assert!(has_test || last.contains("not applicable because"), "{row}");
    }
}

/// The names below one heading of a manifest.
fn dependencies<'a>(manifest: &'a str, heading: &str) -> Vec<&'a str> {
    let lines = manifest.lines().skip_while(|line| *line != heading).skip(1).take_while(|line| !line.starts_with('['));
    let entries = lines.filter(|line| line.starts_with(|letter: char| letter.is_ascii_lowercase()));
    let mut names: Vec<_> = entries.filter_map(|line| line.split(['.', ' ', '=']).next()).collect();
    names.sort_unstable();
    names
}

#[test]
fn no_dependency_is_listed_and_unused() {
    let root = root();
    let manifest = |path: &str| fs::read_to_string(root.join(path)).expect("a manifest");
    let crates: [(&str, &[&str]); 9] = [
        ("proto/", &["proto/build.rs"]),
        // Its tests read tests/src/model.rs in.
        ("server/replica/", &["server/replica/src/", "server/replica/tests/", "tests/src/model.rs"]),
        ("server/", &["server/src/"]),
        ("client/", &["client/src/", "client/examples/"]),
        ("jepsen/", &["jepsen/src/", "jepsen/tests/"]),
        ("jepsen/checker/", &["jepsen/checker/src/", "jepsen/checker/tests/"]),
        ("tests/", &["tests/src/", "tests/tests/"]),
        ("benches/", &["benches/src/", "benches/tests/"]),
        ("controller/", &["controller/src/", "controller/tests/"]),
    ];
    // Used by what build.rs generates: messages, services and their clients.
    let generated = ["bytes", "prost", "tonic", "tonic-prost"];
    let mut sources = sources();
    sources.insert("proto/build.rs".into(), manifest("proto/build.rs"));
    let mut listed = Vec::new();
    for (folder, places) in crates {
        let text = manifest(&format!("{folder}Cargo.toml"));
        for heading in ["[dependencies]", "[dev-dependencies]", "[build-dependencies]"] {
            for name in dependencies(&text, heading) {
                let word = name.replace('-', "_");
                let own = sources.iter().filter(|(file, _)| places.iter().any(|place| file.starts_with(place)));
                let used = own.flat_map(|(_, text)| text.lines()).any(|line| names(code(line), &word, true));
                let generated = folder == "proto/" && generated.contains(&name);
                assert!(used || generated, "{folder}Cargo.toml lists {name}, which nothing there uses");
                listed.push(name.to_owned());
            }
        }
    }
    for name in dependencies(&manifest("Cargo.toml"), "[workspace.dependencies]") {
        assert!(listed.iter().any(|listed| listed == name), "no crate of the workspace uses {name}");
    }
}
