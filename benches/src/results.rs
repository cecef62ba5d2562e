//! What a comparison has measured so far: `results.json`, written after every run, so that an interrupted one goes on.

use crate::scenario::Sample;
use anyhow::{Context, Result, ensure};
use serde::{Deserialize, Serialize};
use std::fs;
use std::path::Path;

/// One scenario with one server in one round.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Run {
    /// From 1 on.
    pub round: usize,
    /// A scenario's name.
    pub scenario: String,
    /// `etcd` or `mechi`.
    pub server: String,
    /// The load average of the machine before it.
    pub load_average: [f64; 3],
    /// How long it took, with start and stop of the servers.
    pub seconds: f64,
    /// What it gave.
    pub samples: Vec<Sample>,
}

/// Everything that a table says.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Results {
    /// The command that began it.
    pub command: String,
    /// When it began, in UTC.
    pub date: String,
    /// Processor, memory, kernel.
    pub machine: String,
    /// What etcd says of itself.
    pub etcd: String,
    /// What Mechi says of itself.
    pub mechi: String,
    /// The commit of the working directory, if there is one.
    pub commit: String,
    /// Puts in a second of the open loop.
    pub half_rate: Option<f64>,
    /// The runs in their order.
    pub runs: Vec<Run>,
}

impl Results {
    /// Reads the results of an interrupted comparison.
    ///
    /// - Errors: also if they were measured with other programs.
    pub fn resume(path: &Path, now: &Results) -> Result<Self> {
        let text = fs::read_to_string(path).with_context(|| format!("read {}", path.display()))?;
        let before: Results = serde_json::from_str(&text).with_context(|| format!("parse {}", path.display()))?;
        let same = before.etcd == now.etcd && before.mechi == now.mechi && before.machine == now.machine;
        ensure!(same, "{} was measured with other programs or on another machine", path.display());
        Ok(before)
    }

    /// Writes them, whole or not at all.
    pub fn save(&self, path: &Path) -> Result<()> {
        let next = path.with_extension("json.next");
        fs::write(&next, serde_json::to_string_pretty(self)? + "\n")?;
        fs::rename(&next, path).with_context(|| format!("write {}", path.display()))
    }

    /// Whether this run is done.
    pub fn has(&self, round: usize, scenario: &str, server: &str) -> bool {
        self.runs.iter().any(|run| run.round == round && run.scenario == scenario && run.server == server)
    }

    /// All samples of one figure of one server, in the order of the rounds.
    pub fn samples(&self, metric: &str, server: &str) -> Vec<&Sample> {
        let runs = self.runs.iter().filter(|run| run.server == server);
        runs.flat_map(|run| &run.samples).filter(|sample| sample.metric == metric).collect()
    }
}

/// The middle of some numbers; of two middles their mean. `None` of none.
pub fn median(values: impl IntoIterator<Item = f64>) -> Option<f64> {
    let mut values: Vec<f64> = values.into_iter().collect();
    values.sort_unstable_by(f64::total_cmp);
    let middle = values.len() / 2;
    match values.len() {
        0 => None,
        odd if odd % 2 == 1 => Some(values[middle]),
        _ => Some(f64::midpoint(values[middle - 1], values[middle])),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn results() -> Results {
        let sample = |value| Sample { metric: "put_1".into(), value, server_us: Some(9.0), client_us: None };
        let run = |round, server: &str, value| Run {
            round,
            scenario: "put_1".into(),
            server: server.into(),
            load_average: [0.5, 1.0, 1.5],
            seconds: 2.0,
            samples: vec![sample(value)],
        };
        Results {
            command: "compare".into(),
            date: "today".into(),
            machine: "m".into(),
            etcd: "3.5.1".into(),
            mechi: "0.1".into(),
            commit: "c".into(),
            half_rate: None,
            runs: vec![run(1, "etcd", 1.0), run(1, "mechi", 4.0), run(2, "mechi", 5.0)],
        }
    }

    #[test]
    fn an_interrupted_comparison_goes_on_where_it_was() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("results.json");
        let results = results();
        results.save(&path).expect("written");
        let again = Results::resume(&path, &Results { runs: Vec::new(), ..results.clone() }).expect("read");
        assert_eq!(again, results);
        assert!(again.has(1, "put_1", "etcd") && !again.has(2, "put_1", "etcd"));
        let values: Vec<f64> = again.samples("put_1", "mechi").iter().map(|sample| sample.value).collect();
        assert_eq!(values, [4.0, 5.0]);
        let other = Results { etcd: "3.6.0".into(), ..results };
        Results::resume(&path, &other).expect_err("another rival");
    }

    #[test]
    fn medians() {
        assert_eq!(median([]), None);
        assert_eq!(median([3.0, 1.0, 2.0]), Some(2.0));
        assert_eq!(median([4.0, 1.0, 2.0, 3.0]), Some(2.5));
    }
}
