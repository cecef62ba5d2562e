//! Writers at a steady pace, each on its own connection, and what they measured.

use crate::session::words;
use mechi_client::Client;
use std::collections::BTreeMap;
use std::hash::{BuildHasher, Hasher, RandomState};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep_until};

/// Hands out when the next request may start: at most `per_second`, none made up for later.
pub(super) struct Pace {
    gap: Duration,
    last: Mutex<Instant>,
}

impl Pace {
    pub(super) fn new(per_second: u32) -> Self {
        Self { gap: Duration::from_secs(1) / per_second, last: Mutex::new(Instant::now()) }
    }

    async fn turn(&self) {
        let slot = {
            let mut last = self.last.lock().expect("nobody panics with the lock");
            *last = (*last + self.gap).max(Instant::now());
            *last
        };
        sleep_until(slot).await;
    }
}

/// What to write, and until when.
pub(super) struct Load {
    pub(super) prefix: String,
    pub(super) key_bytes: usize,
    pub(super) value_bytes: usize,
    /// How many requests; `u64::MAX` for as many as the time allows.
    pub(super) requests_max: u64,
    pub(super) end: Option<Instant>,
    /// `None` for as fast as the writers can.
    pub(super) pace: Option<Pace>,
}

/// What became of the requests.
#[derive(Debug, Default, PartialEq)]
pub(super) struct Stats {
    /// Seconds that each request took.
    latencies: Vec<f64>,
    pub(super) errors: BTreeMap<String, u64>,
    seconds: f64,
}

impl Stats {
    pub(super) fn per_second(&self) -> f64 {
        self.latencies.len() as f64 / self.seconds
    }

    pub(super) fn slowest(&self) -> f64 {
        self.latencies.iter().copied().fold(0.0, f64::max)
    }

    pub(super) fn deviation(&self) -> f64 {
        let count = self.latencies.len() as f64;
        let mean = self.latencies.iter().sum::<f64>() / count;
        (self.latencies.iter().map(|latency| (latency - mean).powi(2)).sum::<f64>() / count).sqrt()
    }
}

/// Writes with all clients at once; `done` counts the answers.
pub(super) async fn run(clients: Vec<Client>, load: Load, done: Arc<AtomicU64>) -> Stats {
    let begun = Instant::now();
    let (load, next) = (Arc::new(load), Arc::new(AtomicU64::new(0)));
    let random = RandomState::new();
    let mut writers = JoinSet::new();
    for client in clients {
        writers.spawn(write(client, load.clone(), next.clone(), done.clone(), random.clone()));
    }
    let mut stats = Stats::default();
    while let Some(writer) = writers.join_next().await {
        let part = writer.expect("no writer panics or is aborted");
        stats.latencies.extend(part.latencies);
        for (error, count) in part.errors {
            *stats.errors.entry(error).or_default() += count;
        }
    }
    stats.seconds = begun.elapsed().as_secs_f64();
    stats
}

async fn write(
    client: Client,
    load: Arc<Load>,
    next: Arc<AtomicU64>,
    done: Arc<AtomicU64>,
    random: RandomState,
) -> Stats {
    let mut stats = Stats::default();
    let value = bytes::Bytes::from(vec![0; load.value_bytes]);
    loop {
        let number = next.fetch_add(1, Ordering::Relaxed);
        if number >= load.requests_max {
            return stats;
        }
        if let Some(pace) = &load.pace {
            pace.turn().await;
        }
        if load.end.is_some_and(|end| Instant::now() >= end) {
            return stats;
        }
        let mut hasher = random.build_hasher();
        hasher.write_u64(number);
        let begun = Instant::now();
        match client.put(key(&load, hasher.finish()), value.clone()).await {
            Ok(_) => stats.latencies.push(begun.elapsed().as_secs_f64()),
            Err(error) => *stats.errors.entry(words(&error)).or_default() += 1,
        }
        done.fetch_add(1, Ordering::Relaxed);
    }
}

/// The prefix, a random number in base 128, and zeros.
fn key(load: &Load, mut number: u64) -> Vec<u8> {
    let mut key = load.prefix.clone().into_bytes();
    key.resize(load.prefix.len() + load.key_bytes, 0);
    for byte in &mut key[load.prefix.len()..] {
        let more = number >= 0x80;
        *byte = (number & 0x7f) as u8 | if more { 0x80 } else { 0 };
        number >>= 7;
        if !more {
            break;
        }
    }
    key
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_deviation_is_that_of_all_requests() {
        let stats = Stats { latencies: vec![2.0, 4.0, 4.0, 4.0, 5.0, 5.0, 7.0, 9.0], seconds: 2.0, ..Stats::default() };
        assert_eq!((stats.deviation(), stats.slowest(), stats.per_second()), (2.0, 9.0, 4.0));
    }
}
