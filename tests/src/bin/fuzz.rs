//! `cargo fuzz-long`: fuzzing without a fuzzer for as long as one likes, and making the corpus anew.

use anyhow::{Context, Result, bail};
use clap::{Parser, Subcommand};
use mechi_tests::fuzz::corpus::{self, MADE};
use mechi_tests::fuzz::{TARGETS, mutate, target};
use mechi_tests::rng::Rng;
use std::time::{Duration, Instant};

const EXAMPLES: &str = "\
The exit code is 1 if a target does not stand an input; the input is then in a file that is named.

Examples:
  cargo fuzz-long run --seconds 3600 --seed 7
  cargo fuzz-long run --target peer
  cargo fuzz-long replay peer /tmp/mechi-fuzz-peer-7-4711";

/// The targets' names, for the command line.
const NAMES: [&str; 4] = ["wal", "snapshot", "peer", "request"];

/// Change inputs of the corpus at random and feed them to what reads foreign bytes
#[derive(Debug, Parser)]
#[command(bin_name = "cargo fuzz-long", after_help = EXAMPLES)]
struct Wanted {
    #[command(subcommand)]
    what: What,
}

#[derive(Debug, Subcommand)]
enum What {
    /// Run targets by turns until the time is over; what one does not stand is written to a file
    Run {
        /// Run this target alone
        #[arg(long, value_name = "NAME", value_parser = NAMES)]
        target: Option<String>,
        /// Stop after so many seconds
        #[arg(long, value_name = "N", default_value_t = 60)]
        seconds: u64,
        /// Draw from this seed
        #[arg(long, value_name = "N", default_value_t = 1)]
        seed: u64,
    },
    /// Run one input that was found
    Replay {
        /// Its target
        #[arg(value_parser = NAMES)]
        target: String,
        /// Its file
        file: std::path::PathBuf,
    },
    /// Make the inputs of the corpus again that are made
    Corpus,
}

fn main() -> Result<()> {
    match Wanted::parse().what {
        What::Run { target, seconds, seed } => fuzz(target.as_deref(), Duration::from_secs(seconds), seed),
        What::Replay { target: name, file } => {
            let target = target(&name).with_context(|| format!("no target is called {name}"))?;
            target(&std::fs::read(&file).with_context(|| format!("read {}", file.display()))?);
            println!("{name} stands {}", file.display());
            Ok(())
        }
        What::Corpus => make(),
    }
}

fn fuzz(wanted: Option<&str>, time: Duration, seed: u64) -> Result<()> {
    let targets: Vec<_> = TARGETS.into_iter().filter(|(name, _)| wanted.is_none_or(|wanted| wanted == *name)).collect();
    if targets.is_empty() {
        bail!("no target is called {}", wanted.unwrap_or_default());
    }
    let corpora = targets.iter().map(|(name, _)| Ok(corpus::read(name)?.into_values().collect::<Vec<_>>()));
    let corpora: Vec<Vec<Vec<u8>>> = corpora.collect::<Result<_>>()?;
    // A finding is told below, with its input.
    std::panic::set_hook(Box::new(|_| ()));
    let (mut rng, began, mut runs) = (Rng::new(seed), Instant::now(), 0_u64);
    while began.elapsed() < time {
        for ((name, target), corpus) in targets.iter().zip(&corpora) {
            let input = mutate::draw(corpus, &mut rng);
            runs += 1;
            if let Err(found) = mutate::run(*target, &input) {
                let path = std::env::temp_dir().join(format!("mechi-fuzz-{name}-{seed}-{runs}"));
                std::fs::write(&path, &found.input).with_context(|| format!("write {}", path.display()))?;
                bail!("{name} does not stand {}: {}", path.display(), found.why);
            }
        }
    }
    println!("fuzz: {runs} inputs in {:.0?}, seed {seed}", began.elapsed());
    Ok(())
}

fn make() -> Result<()> {
    let mut bytes = 0;
    for (name, _) in TARGETS {
        let folder = corpus::folder().join(name);
        std::fs::create_dir_all(&folder)?;
        for old in corpus::read(name)?.into_keys().filter(|old| old.starts_with(MADE)) {
            std::fs::remove_file(folder.join(old))?;
        }
        for (input, content) in corpus::made(name) {
            bytes += content.len();
            std::fs::write(folder.join(input), content)?;
        }
    }
    println!("{bytes} bytes in {}", corpus::folder().display());
    Ok(())
}
