//! One call of the program: which command, with which flags and words.

use crate::cli::environment;
use crate::cli::find::Path;
use crate::cli::flags::Flags;
use crate::exit::Exit;
use crate::printers::Printer;
use crate::program::Program;
use crate::style;
use std::collections::BTreeMap;
use std::sync::Arc;

/// What the command line said.
pub(crate) struct Call {
    pub(crate) program: Arc<Program>,
    pub(crate) path: Path,
    pub(crate) flags: Flags,
    /// All words, the program's name first; `watch` reads them itself.
    pub(crate) words: Vec<Vec<u8>>,
    /// The variables that begin with `ETCDCTL_`.
    pub(crate) variables: BTreeMap<String, String>,
    is_environment_read: bool,
}

impl Call {
    pub(crate) fn new(program: Arc<Program>, path: Path, flags: Flags, words: Vec<Vec<u8>>) -> Self {
        let variables = environment::variables();
        Self { program, path, flags, words, variables, is_environment_read: false }
    }

    /// The words that are no flags.
    pub(crate) fn args(&self) -> &[Vec<u8>] {
        &self.flags.args
    }

    /// A word as text; what is not UTF-8 in it is replaced.
    pub(crate) fn text(&self, n: usize) -> String {
        String::from_utf8_lossy(&self.args()[n]).into_owned()
    }

    /// Gives the flags that were not given the environment's values, once.
    pub(crate) fn read_environment(&mut self) -> Result<(), Exit> {
        if !std::mem::replace(&mut self.is_environment_read, true) {
            environment::apply(&self.program, &self.path, &mut self.flags, &self.variables)?;
        }
        Ok(())
    }

    /// The printer that the flags choose.
    pub(crate) fn printer(&self) -> Result<Printer, Exit> {
        let terminal = !self.program.is_etcdctl() && style::allowed(&std::io::stdout());
        Printer::new(self.flags.text("write-out"), self.flags.on("hex"), terminal)
    }
}
