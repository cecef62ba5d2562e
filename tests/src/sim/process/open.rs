//! How a process comes up: the shell's open procedure over a simulated machine, with a look at what is found.

use super::*;

/// How a process came up.
pub(in crate::sim) struct Opened {
    /// It.
    pub(in crate::sim) process: Process,
    /// Why its store was rebuilt.
    pub(in crate::sim) rebuilt: Option<Unusable>,
    /// What it applied from its log before its raft started.
    pub(in crate::sim) replayed: u64,
}

impl Process {
    /// Opens a member from what its machine holds, as the shell does, and checks what it finds.
    pub(in crate::sim) fn open(
        id: u64,
        machine: &mut Machine,
        options: &Options,
        ledger: &mut Ledger,
        now: u64,
        killed: bool,
    ) -> Result<Opened, String> {
        let disk = machine.disk.clone();
        let struck = disk.struck();
        for path in [WAL_DIR, SNAP_DIR] {
            mechi_replica::disk::ensure_dir(&disk, path).map_err(say_io("create a directory"))?;
        }
        let layout = WalOptions { segment_bytes: options.segment_bytes, reserve_segments: 1 };
        let base = open_base(&disk, WAL_DIR, SNAP_DIR, layout).map_err(say("D1: open"))?;
        if let Some(damaged) = base.damaged.first().filter(|_| machine.damages.is_empty()) {
            return Err(format!("D2: a snapshot is damaged: {damaged}"));
        }
        let committed = usize::try_from(base.snapshot_index()).expect("a run is short");
        let Some(terms) = ledger.terms.get(..committed) else {
            return Err(format!("A2: a snapshot at {committed}, where nothing is committed"));
        };
        machine.shadow.reopened(&base.recovered, terms, killed)?;
        for entry in &base.recovered.entries {
            ledger.appends(id, entry)?;
        }

        let boot_name = machine.boot_name();
        let (stood, rebuilt) = match reuse(machine.folder.take(), &boot_name, &base) {
            Ok((store, state, flusher)) => ((store, state, flusher), None),
            Err(why) => {
                base.check_meets().map_err(say("D1: rebuild"))?;
                let store = SimStore::default();
                let (state, flusher) = match &base.snapshot {
                    None => (State::empty(), Flusher::new(None)),
                    Some(manifest) if manifest.index() < options.store_from => {
                        let state = restore::from_snapshot(&disk, SNAP_DIR, manifest).map_err(say("D1: restore"))?;
                        (state, Flusher::new(None))
                    }
                    Some(manifest) => {
                        let applied =
                            restore::rebuild(&store, &disk, SNAP_DIR, manifest).map_err(say("D1: rebuild"))?;
                        restore::restore(&store, &applied, u64::MAX).map_err(say("D1: restore"))?
                    }
                };
                ((store, state, flusher), Some(why))
            }
        };
        let (store, mut state, mut flusher) = stood;
        machine.folder = Some(StoreFolder { store: store.clone(), made_in: boot_name });
        machine.closed = false;
        // What the cluster began with counts only for a state that holds nothing yet.
        state.found((1..=options.members).map(MemberId));
        ledger.applies(id, now, &state)?;
        let newest = base.snapshot_index();
        let snapshot = base.snapshot.as_ref().map_or((0, 0), |manifest| (manifest.index(), manifest.term()));
        let (mut snapshots, _) = snapshot::list(&disk, SNAP_DIR).map_err(say("list snapshots"))?;
        snapshots.retain(|manifest| manifest.index() <= newest);
        let boot = base.recovered.boot;
        let Base { wal, recovered, .. } = base;
        let tail = tail(recovered, state.applied_index, state.applied_term).map_err(say("D1: tail"))?;
        let (entries, hard_state) = (tail.entries, tail.hard_state);
        let base = state.applied_index;
        for entry in entries.iter().filter(|entry| base < entry.index && entry.index <= hard_state.commit) {
            // Others may not have heard of it yet; that a quorum holds it was known to whoever wrote the commit index.
            ledger.commits((id, hard_state.term), now, entry, |_| true)?;
        }
        let replayed = hard_state.commit.saturating_sub(state.applied_index);
        replay(&mut state, &store, &mut flusher, &entries, hard_state.commit, u64::MAX).map_err(say("replay"))?;
        if state.applied_index > hard_state.commit {
            return Err(format!("R9: applied {} above commit {}", state.applied_index, hard_state.commit));
        }
        ledger.applies(id, now, &state)?;
        ledger.holds(id, &machine.shadow.durable, hard_state.commit)?;

        let config = MemberConfig {
            replica: ReplicaConfig {
                member: MemberId(id),
                conf: state.conf.clone(),
                boot,
                seed: options.seed,
                tick_ms: options.tick_ms,
                heartbeat_ticks: 1,
                election_ticks: options.election_ticks as usize,
                log_memory_bytes: options.log_memory_bytes,
            },
            tail: LogTail { before: tail.before, entries, hard_state },
            applied: state.applied_index,
            snapshot,
            leases: state.leases.to_meta(),
            lease_checkpoint_ms: options.checkpoint_ms,
        };
        let conf = state.conf.clone();
        let core = Member::new(config).map_err(say("start raft"))?;
        let header = Header { cluster_id: 1, member_id: id, raft_term: hard_state.term };
        let bounds = Config {
            stream_bytes_max: 8 << 10,
            slice_changes_max: 16,
            response_bytes_target: 512,
            ..Config::default()
        };
        let process = Self {
            id,
            boot,
            hub: WatchHub::new(bounds, header, state.mvcc.revision()),
            state,
            core,
            disk,
            wal,
            store,
            flusher,
            snapshots,
            wal_queue: Vec::new(),
            unwritten: None,
            struck,
            round: None,
            to_apply: VecDeque::new(),
            reads: BTreeMap::new(),
            renewals: BTreeMap::new(),
            caught_up: false,
            flush: None,
            builder: None,
            wants_snapshot: false,
            patience: 0,
            fetching: false,
            hash: None,
            evictions: 0,
            export: None,
            flush_entries: options.flush_entries,
            store_from: options.store_from,
            snapshot_entries: options.snapshot_entries,
            snapshots_kept: options.snapshots_kept,
            effects: Vec::new(),
            conf_before: conf.clone(),
            conf_settled: conf,
        };
        Ok(Opened { process, rebuilt, replayed })
    }
}

/// The state in a store that is there, if it may be used.
fn reuse(
    folder: Option<StoreFolder>,
    boot: &str,
    base: &Base<SimDisk>,
) -> Result<(SimStore, State, Flusher), Unusable> {
    let damaged = |error: Fatal| Unusable::Damaged(error.to_string());
    let found = folder.ok_or(Unusable::Absent)?;
    let recovered = &base.recovered;
    usable::folder(&Folder { made_in: &found.made_in, boot, clean: recovered.clean })?;
    let applied = Applied::load(&found.store).map_err(damaged)?;
    let applied = usable::applied(applied.as_ref(), recovered.clean, recovered.first_index, base.last_index())?;
    if let Some(term) = term_at(recovered, applied.index).filter(|term| *term != applied.term) {
        return Err(Unusable::Damaged(format!("its term {} is not the log's {term}", applied.term)));
    }
    let (state, flusher) = restore::restore(&found.store, &applied, u64::MAX).map_err(damaged)?;
    Ok((found.store, state, flusher))
}
