//! The apply thread: the only writer of the state. Committed entries go in; answers, lease events and revisions come out.

use crate::driver::{Committed, DriverHandle};
use crate::failpoint::failpoint;
use crate::mailbox::Letters;
use crate::propose::Pending;
#[cfg(feature = "failpoints")]
use mechi_replica::apply::LeaseEvent;
use mechi_replica::apply::state::State;
use mechi_replica::apply::{self, Answer, Outcomes};
use mechi_replica::effect::Entry;
use mechi_replica::mvcc::Mvcc;
use mechi_replica::outcome::Fatal;
use mechi_replica::store::Values;
use parking_lot::RwLock;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};
use std::thread::JoinHandle;
use std::time::Instant;

/// How far this member is, readable without a lock.
#[derive(Debug, Default)]
pub struct Progress {
    /// The newest entry known to be committed.
    pub committed_index: AtomicU64,
    /// The newest applied entry.
    pub applied_index: AtomicU64,
    /// The store's revision.
    pub revision: AtomicI64,
}

impl Progress {
    /// Starts where the state stands.
    pub fn at(state: &State) -> Self {
        Self {
            committed_index: state.applied_index.into(),
            applied_index: state.applied_index.into(),
            revision: state.mvcc.revision().into(),
        }
    }
}

/// Hears of one applied entry: the keys, the first revision that may be new, and the seconds it took.
pub type Counted = dyn Fn(&Mvcc, i64, f64) + Send;

/// Hears what came of a batch, and the seconds that it took.
pub type Observe = Box<dyn Fn(&Outcomes, f64) + Send>;

/// What the apply thread works with and whom it tells.
pub struct Applying {
    /// The replicated state.
    pub state: Arc<RwLock<State>>,
    /// Where values are that left memory.
    pub values: Arc<dyn Values + Send + Sync>,
    /// Whose clients wait on this member.
    pub answer: Answer,
    /// Where they wait.
    pub pending: Pending,
    /// Told after each batch, before its clients are.
    pub driver: DriverHandle,
    /// Where this member's progress is shown.
    pub progress: Arc<Progress>,
    /// Waits while memory is far above its budget.
    pub backpressure: Box<dyn Fn() + Send>,
    /// Told of every batch and the seconds it took: revisions, compactions, alarms, members.
    pub observe: Observe,
    /// Told of every entry, under the lock.
    pub counted: Box<Counted>,
    /// Told when the state can no longer be trusted: the member must stop.
    pub fatal: Arc<dyn Fn(&Fatal) + Send + Sync>,
}

/// Starts the thread; it ends after [`Committed::Stop`].
pub fn spawn(applying: Applying, committed: Letters<Committed>) -> std::io::Result<JoinHandle<()>> {
    std::thread::Builder::new().name("apply".to_owned()).spawn(move || applying.run(&committed))
}

impl Applying {
    fn run(self, committed: &Letters<Committed>) {
        let mut letters = Vec::new();
        loop {
            committed.take(&mut letters, None);
            for letter in letters.drain(..) {
                match letter {
                    Committed::Stop => return,
                    Committed::Entries(entries) => {
                        if let Err(fatal) = self.apply(&entries) {
                            (self.fatal)(&fatal);
                            return;
                        }
                    }
                }
            }
        }
    }

    /// Applies the entries of one letter, the lock held for one entry at a time, and then tells everyone once.
    fn apply(&self, entries: &[Entry]) -> Result<(), Fatal> {
        let Some(last) = entries.last() else { return Ok(()) };
        self.progress.committed_index.fetch_max(last.index, Ordering::Relaxed);
        (self.backpressure)();
        failpoint!("apply_before");
        let mut out = Outcomes::default();
        let mut revision = 0;
        let batch_began = Instant::now();
        for entry in entries {
            failpoint!(if entry.index > entries[0].index, "apply_mid_batch");
            let began = Instant::now();
            let mut state = self.state.write();
            let before = state.mvcc.revision();
            apply::apply(&mut state, entry, self.answer, &*self.values, &mut out)?;
            revision = state.mvcc.revision();
            (self.counted)(&state.mvcc, before + 1, began.elapsed().as_secs_f64());
        }
        failpoint!("apply_after");
        failpoint!(if tells(&out, |event| matches!(event, LeaseEvent::Revoked { .. })), "lease_before_revoke");
        failpoint!(if tells(&out, |event| matches!(event, LeaseEvent::Checkpointed { .. })), "lease_before_checkpoint");
        failpoint!(if out.compaction.is_some(), "compact_after_mark");
        self.progress.revision.fetch_max(revision, Ordering::Relaxed);
        self.progress.applied_index.fetch_max(last.index, Ordering::Relaxed);
        (self.observe)(&out, batch_began.elapsed().as_secs_f64());
        // The driver before the clients: who was granted a lease may renew it at once.
        let (lease_events, digests) = (std::mem::take(&mut out.lease_events), std::mem::take(&mut out.digests));
        self.driver.applied(last.index, lease_events, digests, std::mem::take(&mut out.moved));
        self.pending.answer(out.answers.drain(..));
        Ok(())
    }
}

#[cfg(feature = "failpoints")]
fn tells(out: &Outcomes, what: impl Fn(&LeaseEvent) -> bool) -> bool {
    out.lease_events.iter().any(what)
}
