//! The journal of fake nodes in a file, a line of JSON each, in the system's hands before what it tells of is done.

use anyhow::{Context as _, Result};
use mechi_controller::audit::journals::Entry;
use std::fs::File;
use std::io::{Read as _, Seek as _, SeekFrom, Write as _};
use std::path::Path;

/// A file that is written to at its end.
pub(crate) struct Journal {
    file: File,
}

impl Journal {
    /// Opens a journal, or begins one. A last line that its writer did not come to the end of stays a line of its own.
    ///
    /// - Errors: the file cannot be opened, read or written.
    pub(crate) fn open(path: &Path) -> Result<Self> {
        let open = || -> std::io::Result<File> {
            let mut file = File::options().read(true).append(true).create(true).open(path)?;
            if file.metadata()?.len() > 0 {
                let mut last = [0];
                file.seek(SeekFrom::End(-1))?;
                file.read_exact(&mut last)?;
                if last != *b"\n" {
                    file.write_all(b"\n")?;
                }
            }
            Ok(file)
        };
        Ok(Self { file: open().with_context(|| format!("open the journal {}", path.display()))? })
    }

    /// Appends lines; a process that is killed afterwards does not lose them.
    ///
    /// - Errors: they are not written, or not all: nothing may be done of which they tell.
    pub(crate) fn append(&mut self, entries: &[Entry]) -> Result<()> {
        let mut lines = Vec::new();
        for entry in entries {
            serde_json::to_writer(&mut lines, entry)?;
            lines.push(b'\n');
        }
        self.file.write_all(&lines).context("write the journal")
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use mechi_controller::audit::journals::Line;

    #[test]
    fn a_line_that_was_cut_off_spoils_no_other() {
        let path = std::env::temp_dir().join(format!("mechi-journal-{}", std::process::id()));
        let entry = Entry { node: "n".to_owned(), line: Line::Booted };
        Journal::open(&path).and_then(|mut journal| journal.append(std::slice::from_ref(&entry))).expect("is written");
        let mut cut = std::fs::read(&path).expect("is there");
        cut.extend_from_slice(b"{\"node\":");
        std::fs::write(&path, cut).expect("is written");
        Journal::open(&path).and_then(|mut journal| journal.append(std::slice::from_ref(&entry))).expect("is written");
        let text = std::fs::read_to_string(&path).expect("is there");
        std::fs::remove_file(&path).expect("is there");
        let read: Vec<_> = text.lines().map(|line| serde_json::from_str::<Entry>(line).ok()).collect();
        assert_eq!(read, [Some(entry.clone()), None, Some(entry)]);
    }
}
