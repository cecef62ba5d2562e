//! Fuzzing without a fuzzer: inputs of the corpus, changed at random from a seed, one target at a time.
//!
//! It sees no coverage, so it finds less than a fuzzer in the same time; but it runs wherever tests run, and what it finds
//! is found again by the same seed.

use super::Target;
use crate::rng::Rng;
use std::panic::{AssertUnwindSafe, catch_unwind};

/// Changes of one input.
const CHANGES_MAX: u64 = 6;

/// Bytes that an input grows to.
const BYTES_MAX: usize = 256 << 10;

/// Numbers at which readers go wrong.
const ODD: [u64; 10] = [0, 1, 0x7f, 0x80, 0xff, 0xffff, 0x7fff_ffff, 0xffff_ffff, i64::MAX as u64, u64::MAX];

/// An input that a target did not stand.
#[derive(Clone, Debug)]
pub struct Found {
    /// The input.
    pub input: Vec<u8>,
    /// What the target said.
    pub why: String,
}

/// Runs a target on one input; a panic is what it found.
pub fn run(target: Target, input: &[u8]) -> Result<(), Found> {
    catch_unwind(AssertUnwindSafe(|| target(input))).map_err(|panic| {
        let text = panic.downcast_ref::<&str>().copied();
        let text = text.or_else(|| panic.downcast_ref::<String>().map(String::as_str));
        Found { input: input.to_vec(), why: text.unwrap_or("it panicked without a word").to_owned() }
    })
}

/// Runs a target on `rounds` inputs drawn from `corpus`; returns the first that it does not stand.
pub fn rounds(target: Target, corpus: &[Vec<u8>], seed: u64, rounds: u64) -> Result<(), Found> {
    let mut rng = Rng::new(seed);
    for _ in 0..rounds {
        run(target, &draw(corpus, &mut rng))?;
    }
    Ok(())
}

/// Draws an input of the corpus and changes it.
pub fn draw(corpus: &[Vec<u8>], rng: &mut Rng) -> Vec<u8> {
    let mut input = rng.pick(corpus).clone();
    for _ in 0..=rng.below(CHANGES_MAX) {
        change(&mut input, corpus, rng);
    }
    input.truncate(BYTES_MAX);
    input
}

fn change(input: &mut Vec<u8>, corpus: &[Vec<u8>], rng: &mut Rng) {
    if input.is_empty() {
        input.push(rng.below(256) as u8);
        return;
    }
    let length = input.len() as u64;
    let at = rng.below(length) as usize;
    let end = at + rng.below((length - at as u64).min(64) + 1) as usize;
    match rng.below(10) {
        0 | 1 => input[at] ^= 1 << rng.below(8),
        2 => input[at] = rng.below(256) as u8,
        3 | 4 => {
            let number = rng.pick(&ODD).to_le_bytes();
            let bytes = (1 << rng.below(4)).min(input.len() - at);
            input[at..at + bytes].copy_from_slice(&number[..bytes]);
        }
        // A varint that says the odd.
        5 => {
            let mut number = Vec::new();
            prost::encoding::encode_varint(*rng.pick(&ODD), &mut number);
            drop(input.splice(at..at + 1, number));
        }
        6 => drop(input.drain(at..end)),
        7 => {
            let piece = input[at..end].to_vec();
            let to = rng.below(length) as usize;
            drop(input.splice(to..to, piece));
        }
        8 => {
            let other = rng.pick(corpus);
            let from = rng.below(other.len() as u64 + 1) as usize;
            let to = (from + 512).min(other.len());
            drop(input.splice(at..end, other[from..to].iter().copied()));
        }
        _ => {
            // A whole sector takes the place of another one.
            let sectors = (length / 512).max(1);
            let (from, to) = (rng.below(sectors) as usize * 512, rng.below(sectors) as usize * 512);
            let piece: Vec<u8> = input[from.min(input.len())..(from + 512).min(input.len())].to_vec();
            let to_end = (to + 512).min(input.len());
            drop(input.splice(to.min(to_end)..to_end, piece));
        }
    }
}
