//! The driver with a log in memory and a state machine that only counts: what clients see, and when.

use super::*;
use crate::deliver::Deliveries;
use crate::wal_thread::{Log, Written};
use mechi_proto::etcdserverpb::PutRequest;
use mechi_proto::mechipb;
use mechi_replica::conf::Configuration;
use mechi_replica::limits::LOG_MEMORY_BYTES_MAX;
use mechi_replica::replica::{LogTail, ReplicaConfig};
use mechi_replica::wal::record::Record;
use parking_lot::Mutex;
use std::sync::mpsc;

/// A log whose fsync waits for permission while `gate` is held.
#[derive(Clone, Default)]
struct MemoryLog {
    records: Arc<Mutex<Vec<Record>>>,
    gate: Arc<tokio::sync::Mutex<()>>,
}

impl Log for MemoryLog {
    fn append(&mut self, records: &[Record]) -> Result<Written, Fatal> {
        self.records.lock().extend_from_slice(records);
        Ok(Written::Whole)
    }
    fn sync(&mut self) -> Result<(), Fatal> {
        drop(self.gate.blocking_lock());
        Ok(())
    }
    fn mark(&mut self) -> Result<(), Fatal> {
        Ok(())
    }
    fn trim(&mut self, _: Index) -> Result<(), Fatal> {
        Ok(())
    }
    fn close_clean(&mut self, applied: Index) -> Result<(), Fatal> {
        self.records.lock().push(Record::Clean { applied });
        Ok(())
    }
    fn bytes(&self) -> u64 {
        0
    }
    fn bytes_since(&self, _: Index) -> u64 {
        0
    }
}

struct Fixture {
    handle: DriverHandle,
    wal: WalHandle,
    log: MemoryLog,
    threads: Vec<JoinHandle<()>>,
    fatal: mpsc::Receiver<String>,
}

/// Starts a single member with an apply thread that answers every command and grants lease 7 with `grant_ttl`.
fn start_single(leases: Vec<mechipb::Lease>) -> Fixture {
    let log = MemoryLog::default();
    let pending = Pending::default();
    let (fatal_sender, fatal) = mpsc::channel();
    let config = DriverConfig {
        member: MemberConfig {
            replica: ReplicaConfig {
                member: MemberId(1),
                conf: Configuration::founding([MemberId(1)]),
                boot: 1,
                seed: 1,
                tick_ms: 10,
                heartbeat_ticks: 1,
                election_ticks: 10,
                log_memory_bytes: LOG_MEMORY_BYTES_MAX,
            },
            tail: LogTail::default(),
            applied: 0,
            snapshot: (0, 0),
            leases,
            lease_checkpoint_ms: 300_000,
        },
        request_timeout: Duration::from_secs(20),
    };
    let hooks = DriverHooks {
        free_space: Box::new(|| {}),
        fatal: Arc::new(move |error| {
            let _ = fatal_sender.send(error.to_string());
        }),
        send: Box::new(|_, _| {}),
        build_snapshot: Box::new(|| {}),
        diverged: Box::new(|_| {}),
    };
    let Driver { handle, wal, committed, driver_thread, wal_thread } =
        start(config, log.clone(), hooks, pending.clone(), Deliveries::default()).unwrap();
    let applier = handle.clone();
    let apply_thread = std::thread::spawn(move || {
        let mut taken = Vec::new();
        loop {
            committed.take(&mut taken, None);
            for committed in taken.drain(..) {
                let Committed::Entries(entries) = committed else { return };
                apply(&applier, &pending, &entries);
            }
        }
    });
    Fixture { handle, wal, log, threads: vec![driver_thread, wal_thread, apply_thread], fatal }
}

fn apply(handle: &DriverHandle, pending: &Pending, entries: &[Entry]) {
    for entry in entries {
        let mut events = Vec::new();
        let mut answers = Vec::new();
        if !entry.data.is_empty() {
            for command in mechi_replica::command::decode(&entry.data).unwrap().commands {
                if let Some(Request::LeaseExpire(wish)) = &command.request {
                    events.push(LeaseEvent::Revoked { id: LeaseId(wish.id), grant_index: wish.grant_index });
                }
                if let Some(Request::LeaseCheckpoint(request)) = &command.request {
                    for note in &request.checkpoints {
                        events.push(LeaseEvent::Checkpointed {
                            id: LeaseId(note.id),
                            grant_index: 0,
                            remaining_ttl: note.remaining_ttl,
                        });
                    }
                }
                answers.push((command.id, Ok(Response::Internal)));
            }
        }
        handle.applied(entry.index, events, Vec::new(), Vec::new());
        pending.answer(answers);
    }
}

impl Fixture {
    async fn stop(self) {
        self.handle.stop();
        self.wal.close_clean(9).await;
        for thread in self.threads {
            thread.join().unwrap();
        }
        assert!(self.fatal.try_recv().is_err());
        assert_eq!(self.log.records.lock().last(), Some(&Record::Clean { applied: 9 }));
    }
}

fn put() -> Request {
    Request::Put(PutRequest { key: "k".into(), ..Default::default() })
}

/// Waits until this member judges leases.
async fn judges(handle: &DriverHandle) {
    while handle.time_to_live(LeaseId(5)).await == Err(Error::NotLeader) {
        tokio::task::yield_now().await;
    }
}

#[tokio::test]
async fn a_command_is_answered_and_a_read_covers_it() {
    let fixture = start_single(Vec::new());
    fixture.handle.role_changes().wait_for(|role| role.settled).await.unwrap();
    assert_eq!(fixture.handle.propose(put()).await, Ok(Response::Internal));
    assert!(fixture.handle.read().await.unwrap() >= 2);
    assert_eq!(fixture.handle.role().leader, Some(MemberId(1)));
    fixture.stop().await;
}

/// etcd #14370: a single member acknowledged as soon as it had proposed, and lost the write in a power cut.
#[tokio::test]
async fn reg_14370_single_node_ack_after_fsync() {
    let fixture = start_single(Vec::new());
    fixture.handle.role_changes().wait_for(|role| role.settled).await.unwrap();
    let gate = fixture.log.gate.clone();
    let held = gate.lock().await;
    let handle = fixture.handle.clone();
    let client = tokio::spawn(async move { handle.propose(put()).await });
    // The write reaches the log while its fsync cannot return.
    while !fixture.log.records.lock().iter().any(|record| matches!(record, Record::Entry(entry) if entry.index == 2)) {
        tokio::task::yield_now().await;
    }
    assert!(fixture.handle.read().await.unwrap() < 2);
    assert!(!client.is_finished());
    drop(held);
    assert_eq!(client.await.unwrap(), Ok(Response::Internal));
    fixture.stop().await;
}

#[tokio::test]
async fn a_lease_is_renewed_cleared_of_its_note_and_ended_through_the_log() {
    let lease = |id, ttl, remaining_ttl| mechipb::Lease { id, ttl, remaining_ttl, grant_index: 0 };
    let fixture = start_single(vec![lease(7, 600, 0), lease(8, 600, 300), lease(9, 1, 0)]);
    let handle = fixture.handle.clone();
    judges(&handle).await;
    assert_eq!(handle.leases().await.unwrap(), [LeaseId(9), LeaseId(8), LeaseId(7)]);
    assert_eq!(handle.keep_alive(LeaseId(7)).await, Ok(600));
    assert_eq!(handle.keep_alive(LeaseId(8)).await, Ok(600));
    assert_eq!(handle.keep_alive(LeaseId(5)).await, Ok(0));
    assert_eq!(handle.time_to_live(LeaseId(5)).await, Ok(None));
    let left = handle.time_to_live(LeaseId(8)).await.unwrap().unwrap();
    assert!(left.granted_ttl == 600 && left.ttl >= 590, "{left:?}");
    while handle.time_to_live(LeaseId(9)).await.unwrap().is_some() {
        tokio::task::yield_now().await;
    }
    assert_eq!(handle.keep_alive(LeaseId(9)).await, Ok(0));
    fixture.stop().await;
}

#[tokio::test]
async fn a_stopped_driver_says_so() {
    let fixture = start_single(Vec::new());
    let handle = fixture.handle.clone();
    fixture.stop().await;
    assert_eq!(handle.propose(put()).await, Err(Error::Stopped));
    assert_eq!(handle.read().await, Err(Error::Stopped));
}
