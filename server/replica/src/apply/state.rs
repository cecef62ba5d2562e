//! All that is replicated: keys with their history, leases, alarms, members, and how far it was applied.

use super::alarm::Alarms;
use super::dedupe::Windows;
use super::lease::Leases;
use crate::conf::Configuration;
use crate::mvcc::Mvcc;
use crate::outcome::Fatal;
use crate::store::Values;
use crate::types::{Index, LeaseId, MemberId, Term};
use mechi_proto::etcdserverpb as pb;
use mechi_proto::mechipb;
use std::collections::{BTreeMap, BTreeSet};

/// The replicated state; equal on every member that applied the same entries.
pub struct State {
    /// Keys and their retained versions.
    pub mvcc: Mvcc,
    /// Leases and the keys attached to them.
    pub leases: Leases,
    /// Raised alarms.
    pub alarms: Alarms,
    /// Members by id.
    pub members: BTreeMap<u64, pb::Member>,
    /// Ids that must never come back.
    pub members_removed: BTreeSet<u64>,
    /// Who votes and who learns, as of `applied_index`.
    pub conf: Configuration,
    /// Which batches were applied.
    pub windows: Windows,
    /// The cluster's id; 0 before its first entry.
    pub cluster_id: u64,
    /// The last applied entry.
    pub applied_index: Index,
    /// Its term.
    pub applied_term: Term,
    /// The sum over all that was applied, and what came of it.
    pub chain_digest: u64,
    /// What every voter understands; rises only through the log.
    pub feature_level: u32,
}

impl Default for State {
    fn default() -> Self {
        Self::empty()
    }
}

impl State {
    /// Makes the state of a cluster before its first entry.
    pub fn empty() -> Self {
        Self {
            mvcc: Mvcc::new(),
            leases: Leases::default(),
            alarms: Alarms::default(),
            members: BTreeMap::new(),
            members_removed: BTreeSet::new(),
            conf: Configuration::default(),
            windows: Windows::default(),
            cluster_id: 0,
            applied_index: 0,
            applied_term: 0,
            chain_digest: 0,
            feature_level: 0,
        }
    }

    /// Begins with the cluster's first voters, unless this state has a configuration: what was changed since then is only
    /// known here.
    pub fn found(&mut self, voters: impl IntoIterator<Item = MemberId>) {
        if self.conf.is_empty() {
            self.conf = Configuration::founding(voters);
        }
    }

    /// Everything beside keys and values, in its stored form.
    pub fn to_meta(&self) -> mechipb::StateMeta {
        mechipb::StateMeta {
            applied_index: self.applied_index,
            applied_term: self.applied_term,
            revision: self.mvcc.revision(),
            compact_revision: self.mvcc.compact_revision(),
            chain_digest: self.chain_digest,
            content_sum: self.mvcc.content_sum(),
            feature_level: self.feature_level,
            cluster_id: self.cluster_id,
            leases: self.leases.to_meta(),
            alarms: self.alarms.list(pb::AlarmType::None),
            members: self.members.values().cloned().collect(),
            windows: self.windows.to_meta(),
            conf_state: Some(self.conf.to_meta()),
            members_removed: self.members_removed.iter().copied().collect(),
        }
    }

    /// Puts a state together from its stored form and the restored keys. No key is attached to its lease yet: feed
    /// the live records to [`State::attach`], or else call [`State::attach_from_mvcc`].
    ///
    /// - Errors: [`Fatal::EngineLost`] if the keys are not those that `meta` was stored with;
    ///   [`Fatal::Bug`] if a list in `meta` is malformed.
    pub fn from_meta(meta: mechipb::StateMeta, mvcc: Mvcc) -> Result<Self, Fatal> {
        #[cfg(feature = "mutants")]
        let meta = Self::forgetful(meta);
        let found = (mvcc.revision(), mvcc.compact_revision(), mvcc.content_sum());
        let wanted = (meta.revision, meta.compact_revision, meta.content_sum);
        if found != wanted {
            return Err(Fatal::EngineLost(format!(
                "applied record {} wants revision {}, compact revision {} and content sum {:016x}, found {}, {} and {:016x}",
                meta.applied_index, wanted.0, wanted.1, wanted.2, found.0, found.1, found.2
            )));
        }
        Ok(Self {
            mvcc,
            leases: Leases::from_meta(meta.leases)?,
            alarms: Alarms::from_meta(meta.alarms)?,
            members: meta.members.into_iter().map(|member| (member.id, member)).collect(),
            members_removed: meta.members_removed.into_iter().collect(),
            conf: Configuration::from_meta(&meta.conf_state.unwrap_or_default())?,
            windows: Windows::from_meta(meta.windows)?,
            cluster_id: meta.cluster_id,
            applied_index: meta.applied_index,
            applied_term: meta.applied_term,
            chain_digest: meta.chain_digest,
            feature_level: meta.feature_level,
        })
    }

    /// What bugs leave of a stored state.
    #[cfg(feature = "mutants")]
    fn forgetful(mut meta: mechipb::StateMeta) -> mechipb::StateMeta {
        if crate::mutants::active("snapshot_conf_ignored") {
            meta.conf_state = None;
        }
        if crate::mutants::active("dedupe_forgotten_at_open") {
            meta.windows.clear();
        }
        meta
    }

    /// Attaches a live key to the lease in its newest record (0: none), during a restore.
    pub fn attach(&mut self, key: &[u8], lease: i64) {
        self.leases.attach(key, LeaseId(lease));
    }

    /// Attaches every live key to its lease by reading the records, from memory or else from `values`.
    pub fn attach_from_mvcc(&mut self, values: &dyn Values) -> Result<(), Fatal> {
        self.leases.attach_from_mvcc(&self.mvcc, values)
    }
}
