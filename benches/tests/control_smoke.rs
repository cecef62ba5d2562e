//! Every scenario of the control plane, tiny, on one member of Mechi: all figures are there. Nothing is said about speed.

use mechi_benches::control::scenario::{self, Setting};
use mechi_benches::control::{FIGURES, SCENARIOS, Scale};
use mechi_benches::servers::Programs;
use mechi_tests::oracle;
use mechi_tests::process::Kind;

#[test]
fn bench_the_control_plane_gives_every_figure() {
    let programs = Programs::find(oracle::etcd(), oracle::mechi()).expect("both programs run");
    let setting = Setting { programs, control: oracle::mechi_control(), scale: Scale::SMOKE };
    let mut given = Vec::new();
    for name in SCENARIOS {
        let samples = scenario::run(&setting, name, Kind::Mechi, 1).unwrap_or_else(|error| panic!("{name}: {error:#}"));
        for sample in samples {
            assert!(sample.value.is_finite() && sample.value >= 0.0, "{sample:?}");
            given.push(sample.metric);
        }
    }
    for figure in FIGURES {
        let name = format!("{}_1", figure.name);
        assert_eq!(given.iter().filter(|metric| **metric == name).count(), 1, "{name}");
    }
}
