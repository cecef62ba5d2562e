//! The fuzz targets as ordinary tests: the whole corpus, and a bounded number of changed inputs from a seed.

use mechi_tests::fuzz::corpus::{self, MADE};
use mechi_tests::fuzz::{TARGETS, mutate};

/// Changed inputs of each target; `MECHI_FUZZ_ROUNDS` asks for others.
const ROUNDS: u64 = 500;

/// Bytes that all inputs together may have in the repository.
const CORPUS_BYTES: usize = 200 << 10;

fn setting(name: &str, otherwise: u64) -> u64 {
    std::env::var(name).ok().and_then(|n| n.parse().ok()).unwrap_or(otherwise)
}

#[test]
fn every_input_of_the_corpus_is_stood() {
    let mut bytes = 0;
    for (name, target) in TARGETS {
        let inputs = corpus::read(name).expect("the corpus is in the repository");
        assert!(inputs.len() >= 5, "{name} has {} inputs", inputs.len());
        bytes += inputs.values().map(Vec::len).sum::<usize>();
        for (input, content) in inputs {
            mutate::run(target, &content).unwrap_or_else(|found| panic!("{name}/{input}: {}", found.why));
        }
    }
    assert!(bytes < CORPUS_BYTES, "the corpus has {bytes} bytes");
}

#[test]
fn the_made_inputs_are_those_that_are_made_today() {
    for (name, _) in TARGETS {
        let mut there = corpus::read(name).expect("the corpus is in the repository");
        there.retain(|input, _| input.starts_with(MADE));
        let made = corpus::made(name);
        assert!(there.keys().eq(made.keys()), "{name}: `cargo fuzz-long corpus` makes other inputs");
        for (input, content) in made {
            assert!(there[&input] == content, "{name}/{input}: `cargo fuzz-long corpus` makes another");
        }
    }
}

#[test]
fn changed_inputs_are_stood() {
    let (seed, rounds) = (setting("MECHI_FUZZ_SEED", 1), setting("MECHI_FUZZ_ROUNDS", ROUNDS));
    for (name, target) in TARGETS {
        let corpus: Vec<_> = corpus::read(name).expect("the corpus is in the repository").into_values().collect();
        if let Err(found) = mutate::rounds(target, &corpus, seed, rounds) {
            let path = std::env::temp_dir().join(format!("mechi-fuzz-{name}-{seed}"));
            std::fs::write(&path, &found.input).expect("the input is kept");
            panic!("{name}, MECHI_FUZZ_SEED={seed}: {}; cargo fuzz-long replay {name} {}", found.why, path.display());
        }
    }
    println!("fuzz: {rounds} changed inputs of each of {} targets, seed {seed}", TARGETS.len());
}

/// A target that panics is seen to: this one would not be worth its name otherwise.
#[test]
fn a_target_that_panics_is_told() {
    let found = mutate::rounds(|input| assert!(input.len() < 20, "too long"), &[vec![0; 19]], 1, 1_000).unwrap_err();
    assert!(found.why == "too long" && found.input.len() >= 20);
}
