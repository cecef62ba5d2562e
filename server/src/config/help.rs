//! The texts of `--version`, `--help` and of the usage that follows a malformed flag.

use super::ETCD_VERSION;
use super::table::{FLAGS, Group};
use std::fmt::Write;

/// etcd's four lines; the second says which server this really is.
pub fn version() -> String {
    let arch = match std::env::consts::ARCH {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        other => other,
    };
    format!(
        "etcd Version: {ETCD_VERSION}\nGit SHA: mechi-{}\nGo Version: none (Rust)\nGo OS/Arch: {}/{arch}\n",
        env!("CARGO_PKG_VERSION"),
        std::env::consts::OS,
    )
}

/// How the program is called.
pub fn usage() -> String {
    "Usage:

  mechi [flags]
    Start a member of a Mechi cluster, which speaks etcd's API.

  mechi local [--members N] [--dir DIR]
    Run a whole cluster on this machine; mechi local --help says more.

  mechi dump [--data-dir DIR]
    Print what a stopped member's files hold; mechi dump --help says more.

  mechi --version
    Show the version of etcd that it stands for, and its own.

  mechi -h | --help
    Show all flags.

  mechi --config-file PATH
    Read the configuration from a YAML or JSON file; all other flags and ETCD_* variables are then ignored.
"
    .into()
}

/// The usage and all flags by group.
pub fn help() -> String {
    let mut text = usage();
    text.push_str("\nEvery flag has a variable: --data-dir is ETCD_DATA_DIR. Setting both is an error.\n");
    for (group, title) in [
        (Group::Member, "Member"),
        (Group::Clustering, "Clustering"),
        (Group::Security, "Security"),
        (Group::Auth, "Auth"),
        (Group::Profiling, "Profiling and Monitoring"),
        (Group::Logging, "Logging"),
        (Group::Tracing, "Distributed tracing"),
        (Group::Features, "Features"),
        (Group::Mechi, "Mechi's own"),
        (Group::Unsafe, "Unsafe feature"),
        (Group::Misc, "Misc"),
    ] {
        write!(text, "\n{title}:\n").expect("writing to a string does not fail");
        for flag in FLAGS.iter().filter(|flag| flag.group == group) {
            let note = match flag.effect {
                super::table::Effect::Inert => " (accepted, does not act)",
                super::table::Effect::Refused(_) => " (refused)",
                _ => "",
            };
            write!(text, "  --{} '{}'\n    {}{note}\n", flag.name, flag.default, flag.help)
                .expect("writing to a string does not fail");
        }
    }
    text
}
