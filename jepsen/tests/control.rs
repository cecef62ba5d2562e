//! A short run of the control plane under faults, and what the command that makes long ones says and refuses.
//!
//! `MECHI_CONTROL_SECONDS` and `MECHI_CONTROL_SEED` choose another length and another course.

use mechi_jepsen::control::{self, ControlOptions, PAGE, RESULT, Verdict};
use mechi_tests::usage;
use std::path::Path;
use std::time::Duration;

/// How often a run is done that saw too little: the machine may have much else to do. The last time it is a warning.
const TRIES: u64 = 2;

fn variable(name: &str, default: u64) -> u64 {
    std::env::var(name).ok().and_then(|text| text.parse().ok()).unwrap_or(default)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_control_plane_outlives_faults_and_its_history_is_clean() {
    let home = tempfile::tempdir().expect("a folder");
    for attempt in 0..TRIES {
        let options = ControlOptions {
            server: "mechi".to_owned(),
            load: Duration::from_secs(variable("MECHI_CONTROL_SECONDS", 20)),
            nodes: 20,
            people: 2,
            seed: variable("MECHI_CONTROL_SEED", 11) + attempt,
            dir: home.path().join(attempt.to_string()),
        };
        let outcome = match control::run(&options).await {
            Ok(outcome) => outcome,
            Err(error) => panic!("{}: {error:#}", options.command()),
        };
        println!("{}: {}", outcome.word(), options.command());
        assert!(options.dir.join(RESULT).exists() && options.dir.join(PAGE).exists());
        match outcome.verdict() {
            Verdict::Valid => return,
            Verdict::Unknown => eprintln!("warning: {} said nothing: {}", options.command(), outcome.gaps.join("; ")),
            Verdict::Wrong => {
                println!("everything is kept in {}", home.keep().display());
                panic!("{}: {}", options.command(), outcome.findings.join("\n"));
            }
        }
    }
}

#[test]
fn the_command_says_what_it_takes_and_refuses_the_rest() {
    let jepsen = Path::new(env!("CARGO_BIN_EXE_jepsen"));
    let options =
        ["--minutes", "[default: 10]", "--server", "--etcd", "--nodes", "[default: 200]", "--people", "--seed"];
    usage::helps(jepsen, &["control"], &options);
    usage::refuses(
        jepsen,
        &[
            ("control --minutes 0", "invalid value '0' for '--minutes <N>': it must be a number from 0.2 to 1440"),
            ("control --nodes 1", "invalid value '1' for '--nodes <N>': 1 is not in 20..=5000"),
            ("control --people 0", "invalid value '0' for '--people <N>': 0 is not in 1..=8"),
            ("control --etcd x --server y", "the argument '--etcd <PATH>' cannot be used with '--server <NAME>'"),
        ],
    );
}
