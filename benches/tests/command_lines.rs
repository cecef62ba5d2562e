//! The command lines of the measuring programs: help is whole, and a wrong one is refused by name before anything starts.

use mechi_tests::usage::{helps, refuses};
use std::path::Path;

#[test]
fn bench_compare_helps_and_refuses() {
    let compare = Path::new(env!("CARGO_BIN_EXE_compare"));
    let options = ["--etcd <PATH>", "--mechi <PATH>", "--rounds <N>", "[default: 5]", "--only <NAME,...>", "--resume"];
    helps(compare, &[], &[&options[..], &["[default: target/compare]", "list_300k"]].concat());
    refuses(
        compare,
        &[
            ("--rounds 0", "invalid value '0' for '--rounds <N>': 0 is not in 1..=10000"),
            ("--only put_1,put_2", "invalid value 'put_2' for '--only <NAME,...>'\n  [possible values: put_1, "),
            ("--out", "a value is required for '--out <DIR>' but none was supplied"),
            ("put_1", "unexpected argument 'put_1' found"),
        ],
    );
}

#[test]
fn bench_load_helps_and_refuses() {
    let load = Path::new(env!("CARGO_BIN_EXE_load"));
    let options =
        ["--endpoints <HOST:PORT,...>", "127.0.0.1:2379]", "--work <WORK>", "put-random", "[default: 100000]"];
    helps(load, &[], &[&options[..], &["[default: 256]", "[default: 16x16]", "[default: 5]", "--pids"]].concat());
    refuses(
        load,
        &[
            ("--work delete", "invalid value 'delete' for '--work <WORK>'\n  [possible values: put, put-one, "),
            (
                "--shape 16",
                "invalid value '16' for '--shape <CxS>': it must be CxS, such as 16x16, with C times S from 1 to 50000",
            ),
            ("--seconds -1", "invalid value '-1' for '--seconds <SECONDS>': it must be a number from 0.1 to 86400"),
            ("--rate 0", "invalid value '0' for '--rate <N>': it must be a number from 0.1 to 1000000"),
            ("--value-bytes 2", "invalid value '2' for '--value-bytes <BYTES>': 2 is not in 8..=1048576"),
            ("--keys 0", "invalid value '0' for '--keys <N>': 0 is not in 1..=100000000"),
            ("--pids 1,x", "invalid value 'x' for '--pids <PID,...>'"),
        ],
    );
}

#[test]
fn bench_soak_helps_and_refuses() {
    let soak = Path::new(env!("CARGO_BIN_EXE_soak"));
    let options = ["--minutes <MINUTES>", "[default: 60]", "--server <KIND>", "[default: mechi]", "--members <N>"];
    helps(soak, &[], &[&options[..], &["[default: 1000000]", "--rate <N>", "[default: target/soak]"]].concat());
    refuses(
        soak,
        &[
            ("--minutes 0", "invalid value '0' for '--minutes <MINUTES>': it must be a number from 0.2 to 10080"),
            ("--server consul", "invalid value 'consul' for '--server <KIND>'\n  [possible values: mechi, etcd]"),
            ("--members 9", "invalid value '9' for '--members <N>': 9 is not in 1..=7"),
            ("--rate NaN", "invalid value 'NaN' for '--rate <N>': it must be a number from 0.1 to 1000000"),
        ],
    );
}

#[test]
fn bench_instructions_helps_and_refuses() {
    let instructions = Path::new(env!("CARGO_BIN_EXE_instructions"));
    helps(instructions, &[], &["--mechi <PATH>", "[default: 2000]", "[default: target/instructions]", "valgrind"]);
    refuses(instructions, &[("--operations 0", "invalid value '0' for '--operations <N>': 0 is not in 1..=100000000")]);
}

#[test]
fn bench_control_helps_and_refuses() {
    let control = Path::new(env!("CARGO_BIN_EXE_control"));
    helps(control, &[], &["--control <PATH>", "[default: 5]", "--members <N,...>", "[default: target/control]"]);
    refuses(
        control,
        &[
            ("--members 2", "invalid value '2' for '--members <N,...>'\n  [possible values: 1, 3]"),
            ("--nodes 0", "invalid value '0' for '--nodes <N>': 0 is not in 1..=1000000"),
        ],
    );
}
