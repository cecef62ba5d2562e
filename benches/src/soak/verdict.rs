//! Whether a soak has shown what it should: flat memory, bounded disk, no error.

use super::{Record, Sample};

/// What memory may change over the judged time, of its mean.
const FLAT: f64 = 0.10;

/// What all members may take on disk, in live data of each.
const DISK: f64 = 4.0;

/// The verdict, with the figures that it rests on.
#[derive(Clone, Debug, PartialEq)]
pub struct Verdict {
    /// Seconds over which memory was judged.
    pub span: f64,
    /// Mean memory of all members after the settling, in bytes.
    pub memory: f64,
    /// What a straight line through the memory changes over the span, of the mean.
    pub drift: f64,
    /// The most less the least, of the mean.
    pub swing: f64,
    /// The most disk, in live data, from the first sample on.
    pub disk: f64,
    /// What is wrong, in words; empty if nothing is.
    pub wrong: Vec<String>,
}

/// Judges a record: memory after the settling; disk and errors from the first sample on.
pub fn judge(record: &Record) -> Verdict {
    let samples: Vec<&Sample> = record.samples.iter().filter(|sample| sample.at >= record.settling).collect();
    let memory = |sample: &Sample| (sample.anonymous + sample.file) as f64;
    let points: Vec<(f64, f64)> = samples.iter().map(|sample| (sample.at, memory(sample))).collect();
    let mean = points.iter().map(|point| point.1).sum::<f64>() / points.len().max(1) as f64;
    let span = points.last().map_or(0.0, |point| point.0) - points.first().map_or(0.0, |point| point.0);
    let part = |value: f64| if mean > 0.0 { value / mean } else { 0.0 };
    let drift = part(slope(&points) * span);
    let most = points.iter().map(|point| point.1).fold(0.0, f64::max);
    let least = points.iter().map(|point| point.1).fold(f64::MAX, f64::min);
    let live = (record.live_bytes * record.members as u64).max(1) as f64;
    let disk = record.samples.iter().map(|sample| sample.disk as f64 / live).fold(0.0, f64::max);
    let mut wrong = Vec::new();
    if drift.abs() > FLAT {
        wrong.push(format!(
            "memory changes by {:.1} % over {span:.0} s, more than {:.0} %",
            drift * 100.0,
            FLAT * 100.0
        ));
    }
    if disk > DISK {
        wrong.push(format!("disk reached {disk:.1} times the live data, more than {DISK} times"));
    }
    wrong.extend(record.error.as_ref().map(|error| format!("an error: {error}")));
    Verdict { span, memory: mean, drift, swing: part(most - least), disk, wrong }
}

/// The slope of the straight line with the least squares.
fn slope(points: &[(f64, f64)]) -> f64 {
    let count = points.len().max(1) as f64;
    let (x, y) = points.iter().fold((0.0, 0.0), |(x, y), point| (x + point.0 / count, y + point.1 / count));
    let over: f64 = points.iter().map(|point| (point.0 - x) * (point.1 - y)).sum();
    let under: f64 = points.iter().map(|point| (point.0 - x).powi(2)).sum();
    if under > 0.0 { over / under } else { 0.0 }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A hundred samples over 1,000 seconds, whose memory and disk are told by the time's share.
    fn record(memory: impl Fn(f64) -> f64, disk: impl Fn(f64) -> f64) -> Record {
        let sample = |n: i32| {
            let share = f64::from(n) / 100.0;
            Sample {
                at: share * 1_000.0,
                anonymous: memory(share) as u64,
                file: 0,
                members: Vec::new(),
                disk: disk(share) as u64,
                disk_parts: Default::default(),
                writes: 0.0,
                p50: 0.0,
                p99: 0.0,
                most: 0.0,
                cores: 0.0,
                load_average: 0.0,
            }
        };
        Record {
            command: String::new(),
            date: String::new(),
            machine: String::new(),
            server: String::new(),
            members: 3,
            rate: 1.0,
            maximum: None,
            live_bytes: 1_000,
            settling: 200.0,
            samples: (0..=100).map(sample).collect(),
            sides: Vec::new(),
            error: None,
        }
    }

    #[test]
    fn growth_is_told_from_settling_and_from_teeth() {
        let flat = |_| 5e6;
        assert_eq!(judge(&record(flat, |_| 9e3)).wrong, [""; 0]);
        let settling = |share: f64| 5e6 * (share / 0.2).min(1.0);
        assert_eq!(judge(&record(settling, |_| 9e3)).wrong, [""; 0]);
        let teeth = |share: f64| 5e6 + 1e6 * (share * 20.0).fract();
        let verdict = judge(&record(teeth, |_| 9e3));
        assert!(verdict.wrong.is_empty() && verdict.swing > 0.10, "{verdict:?}");
        let leak = |share: f64| 5e6 + 1e6 * share;
        let verdict = judge(&record(leak, |_| 9e3));
        assert!((verdict.drift - 0.8 / 5.6).abs() < 0.001 && verdict.wrong.len() == 1, "{verdict:?}");
    }

    #[test]
    fn disk_and_errors_count() {
        for at in [0.1, 0.5] {
            let peak = |share: f64| if share == at { 13e3 } else { 6e3 };
            let verdict = judge(&record(|_| 5e6, peak));
            assert!((verdict.disk - 13.0 / 3.0).abs() < 0.01 && verdict.wrong.len() == 1, "{verdict:?}");
        }
        let failed = Record { error: Some("broken".into()), ..record(|_| 5e6, |_| 1.0) };
        assert_eq!(judge(&failed).wrong, ["an error: broken"]);
    }
}
