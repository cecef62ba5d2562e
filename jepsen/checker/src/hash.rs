//! H1: members that hold the same revisions hold the same bytes, and one that cannot answer has failed.
//!
//! - Source: etcd's post-mortem of its 3.5 data inconsistency: a check that skipped who did not answer saw nothing.

use crate::edn::Edn;
use crate::verdict::{Finding, Verdict};
use std::collections::BTreeMap;

/// What a member answered when it was asked for its hash; `hash` is none if it could not.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Answer {
    /// Who.
    pub node: String,
    /// Up to which revision.
    pub revision: i64,
    /// From which.
    pub compact_revision: i64,
    /// The hash, or why there is none.
    pub hash: Result<u32, String>,
}

impl Answer {
    /// From a line `{:node "n1", :revision 7, :compact-revision 2, :hash 99}`, or one with an `:error`.
    pub fn from_edn(edn: &Edn) -> Result<Self, String> {
        let hash = match edn.get("hash").unsigned() {
            Some(hash) => Ok(u32::try_from(hash).map_err(|_| format!("{hash} is no hash"))?),
            None => Err(edn.get("error").name().unwrap_or("no answer").to_owned()),
        };
        Ok(Self {
            node: edn.get("node").name().ok_or_else(|| format!("{edn} names no node"))?.to_owned(),
            revision: edn.get("revision").int().unwrap_or(0),
            compact_revision: edn.get("compact-revision").int().unwrap_or(0),
            hash,
        })
    }
}

/// Compares one round of answers, asked of all of `members` once nothing was written any more.
pub fn check(answers: &[Answer], members: &[String]) -> Verdict {
    let mut findings = Vec::new();
    for member in members {
        match answers.iter().rfind(|answer| answer.node == *member) {
            Some(Answer { hash: Ok(_), .. }) => {}
            Some(Answer { hash: Err(why), .. }) => {
                findings.push(Finding::new("H1", format!("{member} could not say its hash: {why}"), []));
            }
            None => findings.push(Finding::new("H1", format!("{member} was not heard"), [])),
        }
    }
    let mut groups: BTreeMap<(i64, i64), Vec<(&str, u32)>> = BTreeMap::new();
    for answer in answers {
        if let Ok(hash) = answer.hash {
            groups.entry((answer.revision, answer.compact_revision)).or_default().push((&answer.node, hash));
        }
    }
    for ((revision, compacted), hashes) in &groups {
        if hashes.iter().any(|(_, hash)| *hash != hashes[0].1) {
            let all: Vec<_> = hashes.iter().map(|(node, hash)| format!("{node} has {hash:08x}")).collect();
            let text = format!("at revision {revision}, compacted at {compacted}: {}", all.join(", "));
            findings.push(Finding::new("H1", text, []));
        }
    }
    let compared = groups.values().any(|hashes| {
        let nodes: std::collections::BTreeSet<_> = hashes.iter().map(|(node, _)| node).collect();
        nodes.len() == members.len()
    });
    if findings.is_empty() && !compared {
        return Verdict::Unknown(vec!["no revision has the hash of every member".into()]);
    }
    Verdict::of(findings)
}
