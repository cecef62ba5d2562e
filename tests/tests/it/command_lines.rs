//! The command lines that are ours alone: help is whole, and a wrong one is refused by name before anything is done.

use mechi_tests::oracle;
use mechi_tests::usage::{helps, refuses};
use std::path::Path;

#[test]
fn mechi_local_and_mechi_dump_help_and_refuse() {
    let mechi = oracle::mechi();
    helps(
        &mechi,
        &["local"],
        &["--members <N>", "[default: 3]", "--dir <DIR>", "--base-port <PORT>", "[default: 2379]"],
    );
    let options = ["--data-dir <DIR>", "[default: default.etcd]", "--wal", "--snapshots", "--store", "--keys"];
    helps(
        &mechi,
        &["dump"],
        &[&options[..], &["--from-index <INDEX>", "--limit <N>", "-w, --write-out <FORM>"]].concat(),
    );
    refuses(
        &mechi,
        &[
            ("local --members 0", "invalid value '0' for '--members <N>': 0 is not in 1..=7"),
            ("local --base-port=-1", "invalid value '-1' for '--base-port <PORT>': -1 is not in 0..=65535"),
            ("local --dir", "a value is required for '--dir <DIR>' but none was supplied"),
            ("local --log-level=debug", "unexpected argument '--log-level' found"),
            ("dump --limit many", "invalid value 'many' for '--limit <N>'"),
            ("dump --nonsense", "unexpected argument '--nonsense' found"),
            ("dump -w yaml", "invalid value 'yaml' for '--write-out <FORM>'\n  [possible values: simple, json]"),
        ],
    );
}

#[test]
fn the_simulator_helps_and_refuses() {
    let sim = Path::new(env!("CARGO_BIN_EXE_sim"));
    let options =
        ["Usage: cargo sim", "--seed <N>", "--seeds <A..B|N>", "[default: 0..10]", "--verbose", "--threads <N>"];
    let parts =
        ["--shrink", "--page <FILE>", "--without <CLASS,...>", "--from <MS>", "--until <MS>", "--faults <LIST>"];
    helps(sim, &[], &[&options[..], &parts].concat());
    refuses(
        sim,
        &[
            ("--seed x", "invalid value 'x' for '--seed <N>'"),
            ("--seed 18446744073709551615", "invalid value '18446744073709551615' for '--seed <N>'"),
            ("--seeds 5..3", "invalid value '5..3' for '--seeds <A..B|N>': it must be A..B with A below B"),
            ("--seeds 0", "invalid value '0' for '--seeds <A..B|N>': it must be A..B with A below B"),
            ("--seed 1 --seeds 1..2", "the argument '--seed <N>' cannot be used with '--seeds <A..B|N>'"),
            ("--seeds 3 --shrink", "the argument '--seeds <A..B|N>' cannot be used with '--shrink'"),
            (
                "--seed 1 --without Meteor",
                "invalid value 'Meteor' for '--without <CLASS,...>': there are Kill, PowerCut",
            ),
            ("--seed 1 --faults 5..1", "invalid value '5..1' for '--faults <LIST>': it must be \"none\" or a list"),
            ("--seed 1 --until x", "invalid value 'x' for '--until <MS>'"),
            ("--threads 0", "invalid value '0' for '--threads <N>': 0 is not in 1..=1024"),
            ("--mutant no_such_bug", "invalid value 'no_such_bug' for '--mutant <NAME>': "),
        ],
    );
}

#[test]
fn fuzzing_helps_and_refuses() {
    let fuzz = Path::new(env!("CARGO_BIN_EXE_fuzz"));
    let commands =
        ["Usage: cargo fuzz-long <COMMAND>", "run ", "replay ", "corpus ", "cargo fuzz-long run --target peer"];
    helps(fuzz, &[], &commands);
    refuses(
        fuzz,
        &[
            ("run --seconds x", "invalid value 'x' for '--seconds <N>'"),
            (
                "run --target disk",
                "invalid value 'disk' for '--target <NAME>'\n  [possible values: wal, snapshot, peer, request]",
            ),
            ("replay wal", "the following required arguments were not provided:\n  <FILE>"),
        ],
    );
}

#[test]
fn failover_helps_and_refuses() {
    let failover = Path::new(env!("CARGO_BIN_EXE_failover"));
    helps(failover, &[], &["--rounds <N>", "[default: 50]", "[default: mechi,etcd]", "[default: kill,term]"]);
    refuses(
        failover,
        &[
            ("--rounds 0", "invalid value '0' for '--rounds <N>': 0 is not in 1..=10000"),
            ("--kinds mechi,zk", "invalid value 'zk' for '--kinds <KIND,...>'\n  [possible values: mechi, etcd]"),
            ("--ends stop", "invalid value 'stop' for '--ends <END,...>'\n  [possible values: kill, term]"),
        ],
    );
}

#[test]
fn service_helps_and_refuses() {
    let service = Path::new(env!("CARGO_BIN_EXE_service"));
    helps(service, &[], &["--rounds <N>", "[default: 10]", "[default: mechi,etcd]", "--mib <N>", "[default: 1024]"]);
    refuses(
        service,
        &[
            ("--rounds 0", "invalid value '0' for '--rounds <N>': 0 is not in 1..=10000"),
            ("--mib 5000", "invalid value '5000' for '--mib <N>': 5000 is not in 0..=4096"),
            ("--kinds zk", "invalid value 'zk' for '--kinds <KIND,...>'\n  [possible values: mechi, etcd]"),
        ],
    );
}
