//! What a member does whose state is not what its log says: it keeps the store for people to look at, and rebuilds it,
//! once.
//!
//! The rebuilt state comes from the member's own snapshot and log, so what only the store or memory had wrong is gone.
//! If the member differs again, snapshot or log are wrong, or the program is; to go on would spread it.

use crate::limits::EVIDENCE_YOUNG;
use crate::recovery::folder;
use anyhow::{Result, bail};
use mechi_replica::types::Index;
use std::path::Path;

/// The divergences of this process.
#[derive(Debug, Default)]
pub struct Evidence {
    diverged_at: Option<Index>,
}

impl Evidence {
    /// Sets the store aside as evidence of a divergence at `index`; the next opening rebuilds it.
    ///
    /// - Shape: the member is stopped.
    /// - Errors: it diverged before, in this process or within [`EVIDENCE_YOUNG`]; the sentence says what to do.
    pub fn set_aside(&mut self, data_dir: &Path, index: Index) -> Result<()> {
        let member = data_dir.join("member");
        let young = folder::evidence(&member)?.into_iter().find(|(_, age)| *age < EVIDENCE_YOUNG);
        if self.diverged_at.is_some() || young.is_some() {
            bail!(
                "this member's state differs from the majority's again, at index {index}, after it was rebuilt from its \
                 own snapshot and log: they cannot be trusted. Keep {} for the developers, then remove the directory's \
                 contents and add the member to the cluster as a new one",
                data_dir.display()
            );
        }
        self.diverged_at = Some(index);
        let kept = folder::keep_evidence(&member, index)?;
        tracing::error!(
            index,
            kept = kept.map(|path| path.display().to_string()),
            "this member's state differs from the majority's; it is rebuilt from its own snapshot and log"
        );
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;

    #[test]
    fn the_store_is_kept_once_and_the_second_divergence_ends_the_member() {
        let dir = tempfile::tempdir().unwrap();
        let member = dir.path().join("member");
        fs::create_dir_all(member.join("store-b")).unwrap();
        fs::create_dir_all(member.join("evidence-7")).unwrap();
        let old = fs::File::open(member.join("evidence-7")).unwrap();
        old.set_modified(std::time::UNIX_EPOCH).unwrap();
        let mut evidence = Evidence::default();
        evidence.set_aside(dir.path(), 1024).unwrap();
        assert!(!member.join("store-b").exists() && !member.join("evidence-7").exists());
        assert!(member.join("evidence-1024").is_dir());
        fs::create_dir_all(member.join("store-b")).unwrap();
        let again = evidence.set_aside(dir.path(), 2048).unwrap_err().to_string();
        assert!(again.contains("differs from the majority's again, at index 2048"), "{again}");
        let after_a_restart = Evidence::default().set_aside(dir.path(), 2048).unwrap_err().to_string();
        assert!(after_a_restart.contains("again"), "{after_a_restart}");
        assert!(member.join("store-b").exists(), "a refused divergence changes nothing");
    }
}
