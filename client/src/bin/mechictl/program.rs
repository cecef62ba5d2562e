//! Who this program is: itself, or etcdctl when it is called so.

use crate::cli::command::Command;
use crate::cli::table::{ETCDCTL, MECHICTL};
use std::ffi::OsStr;
use std::path::Path;

/// The release of etcdctl whose behaviour this program has.
const ETCDCTL_VERSION: &str = "3.5.1";
const API_VERSION: &str = "3.5";

/// The name, the version and the commands of this run.
pub(crate) struct Program {
    /// `mechictl` or `etcdctl`.
    pub(crate) name: &'static str,
    pub(crate) version: &'static str,
    pub(crate) api_version: &'static str,
    pub(crate) root: &'static Command,
}

impl Program {
    /// Decides by the name the program was called by.
    pub(crate) fn called(argv0: Option<&OsStr>) -> Self {
        let name = argv0.and_then(|path| Path::new(path).file_stem());
        if name.is_some_and(|name| name == "etcdctl") {
            return Self { name: "etcdctl", version: ETCDCTL_VERSION, api_version: API_VERSION, root: &ETCDCTL };
        }
        Self { name: "mechictl", version: env!("CARGO_PKG_VERSION"), api_version: API_VERSION, root: &MECHICTL }
    }

    /// Whether it has to be etcdctl throughout.
    pub(crate) fn is_etcdctl(&self) -> bool {
        self.name == "etcdctl"
    }
}
