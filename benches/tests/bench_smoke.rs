//! Every scenario and a short soak, tiny, on Mechi: the figures are there and nothing fails. Nothing is said about speed.

use mechi_benches::metrics::{METRICS, find};
use mechi_benches::results::{Results, Run};
use mechi_benches::scenario::{SCENARIOS, Scale, Setting};
use mechi_benches::servers::Programs;
use mechi_benches::soak::{self, Plan};
use mechi_benches::{plot, table};
use mechi_tests::oracle;
use mechi_tests::process::Kind;
use std::time::Duration;

fn programs() -> Programs {
    Programs::find(oracle::etcd(), oracle::mechi()).expect("both programs run")
}

#[test]
fn bench_every_scenario_gives_its_figures() {
    let setting = Setting { programs: programs(), scale: Scale::SMOKE, half_rate: Some(200.0) };
    let mut runs = Vec::new();
    for scenario in SCENARIOS {
        let samples =
            (scenario.run)(&setting, Kind::Mechi).unwrap_or_else(|error| panic!("{}: {error:#}", scenario.name));
        for sample in &samples {
            assert!(find(&sample.metric).is_some(), "{} gives {}, which no table shows", scenario.name, sample.metric);
            assert!(sample.value.is_finite() && sample.value >= 0.0, "{sample:?}");
            if let (Some(_), Some(client_us)) = (sample.server_us, sample.client_us) {
                assert!(sample.value > 0.0 && client_us > 0.0, "nothing was done: {sample:?}");
            }
        }
        let server = "mechi".to_owned();
        runs.push(Run {
            round: 1,
            scenario: scenario.name.into(),
            server,
            load_average: [0.0; 3],
            seconds: 0.0,
            samples,
        });
    }
    for metric in METRICS {
        let given = runs.iter().flat_map(|run| &run.samples).filter(|sample| sample.metric == metric.name).count();
        assert_eq!(given, 1, "{} is measured by {given} scenarios", metric.name);
    }
    let text = String::new;
    let mut results = Results {
        command: text(),
        date: text(),
        machine: text(),
        etcd: text(),
        mechi: text(),
        commit: text(),
        half_rate: None,
        runs,
    };
    let twin: Vec<Run> = results.runs.iter().map(|run| Run { server: "etcd".into(), ..run.clone() }).collect();
    results.runs.extend(twin);
    let page = table::page(&results);
    for metric in METRICS {
        assert!(page.contains(metric.title), "{} is missing in the table", metric.title);
    }
    assert!(plot::ratios(&results).contains(METRICS[0].title));
}

#[test]
fn bench_a_soak_ends_without_an_error() {
    let plan = Plan {
        kind: Kind::Mechi,
        members: 3,
        keys: 1_000,
        settling: Duration::from_secs(1),
        time: Duration::from_secs(2),
        interval: Duration::from_secs(1),
        rate: Some(100.0),
        flags: vec!["--auto-compaction-mode=revision".into(), "--auto-compaction-retention=100".into()],
    };
    let folder = tempfile::tempdir().expect("a folder");
    let record = soak::run(&programs(), &plan, |record| soak::write(record, folder.path())).expect("it begins");
    assert_eq!(record.error, None);
    assert!(record.samples.len() >= 2 && record.samples.iter().all(|sample| sample.disk > 0 && sample.anonymous > 0));
    for (name, done) in &record.sides {
        assert!(*done > 0, "{name} did nothing");
    }
    assert!(folder.path().join("SOAK.md").exists() && folder.path().join("soak-memory.svg").exists());
}
