//! One replica of a component: it follows the store, takes part in the election, and acts while it leads.
//!
//! Safety is in what is written: every transaction carries the fence and its own guards. Here is only what makes it live:
//! connections that break, answers that do not come, leases that are lost, are all survived by asking again.

use crate::clock::Clock;
use crate::follow::Follower;
use crate::limits::{
    BEHIND_MS_MAX, ELECTION_ANSWER_MAX, FAILURE_REST_MS, HAND_ON_MAX, MEASURE_MS, READ_MAX, UNKNOWN_RETRY_MAX,
    UNKNOWN_RETRY_MIN,
};
use crate::metrics::Metrics;
use mechi_controller::cache::Mirror;
use mechi_controller::control::Now;
use mechi_controller::elect::{self, Elector, TTL_MS};
use mechi_controller::keys::{self, ObjectKey};
use mechi_controller::kv::{Error, Guard, KeyValue, Kv, LeaseId, Outcome, Range, Revision, Txn};
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::{sleep, sleep_until, timeout};

/// A transaction, by the name under which its answer is told.
pub(crate) type Ask = (u64, Txn);

/// What follows from an answer.
pub(crate) enum Next {
    /// Nothing.
    Nothing,
    /// This is written next, under the same name.
    Then(Txn),
    /// The same again, after a moment: only it tells what became of it.
    Again,
    /// Nothing new is begun for a while.
    Rest,
}

/// What a component does while it leads.
pub(crate) trait Role: Send + 'static {
    /// Its copy of the store.
    type Copy: Mirror<Staged: Send, Changes: Send> + Default + Send;

    /// Whose election it is.
    const COMPONENT: &'static str;

    /// The election, as the copy has it.
    fn election(copy: &Self::Copy) -> Option<&KeyValue>;

    /// Something is new in the copy.
    fn heard(&mut self, copy: &mut Self::Copy, changes: <Self::Copy as Mirror>::Changes, is_list: bool, now: Now);

    /// It leads from now on, under this token, on a copy that is not older.
    fn begin(&mut self, copy: &mut Self::Copy, token: Revision);

    /// It leads no more: what is on its way is none of its business.
    fn end(&mut self, copy: &mut Self::Copy);

    /// The next transaction, if there is one.
    fn plan(&mut self, copy: &mut Self::Copy, now: Now) -> Option<Ask>;

    /// Objects that it wants to be read before it plans on; most roles want none.
    fn wants(&self) -> Option<Vec<ObjectKey>> {
        None
    }

    /// What the store has of them, of those that are there; nothing if it did not answer. The transaction that follows from it.
    fn read(&mut self, _: &mut Self::Copy, _: Vec<KeyValue>, _: Now) -> Option<Ask> {
        None
    }

    /// What became of a transaction.
    fn answered(&mut self, copy: &mut Self::Copy, ask: &Ask, answer: Result<Outcome, Error>, now: Now) -> Next;

    /// When there is something to do, if nothing is heard.
    fn due_ms(&self) -> Option<u64>;

    /// Tells how it is doing.
    fn measure(&self, metrics: &Metrics);
}

/// Something that was asked for, and its answer.
enum Done {
    Granted(Result<LeaseId, Error>, u64),
    KeptAlive(Result<(), Error>, u64),
    Campaigned(Result<Outcome, Error>),
    Wrote {
        term: u64,
        ask: Ask,
        answer: Result<Outcome, Error>,
    },
    /// What a role wanted to be read.
    Read {
        term: u64,
        items: Vec<KeyValue>,
    },
    /// What helps a copy that is behind.
    Helped,
}

struct Replica<K: Kv, R: Role> {
    kv: K,
    role: R,
    identity: String,
    metrics: Arc<Metrics>,
    clock: Clock,
    follower: Follower<K, R::Copy>,
    elector: Elector,
    jobs: JoinSet<Done>,
    /// A step of the election is on its way.
    is_electing: bool,
    /// What the role wants to know is being read.
    is_reading: bool,
    /// The token that it has prepared to act under.
    token: Option<Revision>,
    has_begun: bool,
    /// Counts leaderships, won and lost: answers of another one are nobody's.
    term: u64,
    rest_until_ms: u64,
    /// Transactions in a row that nobody answered: a store that is full, say, answers none for a while.
    unknown: u32,
    /// The newest revision of any answer.
    told: Revision,
    /// Since when the copy is behind that.
    behind_since_ms: Option<u64>,
    helped_at_ms: u64,
}

/// Takes part until it is told to stop; then hands the leadership on.
pub(crate) async fn run<K: Kv, R: Role>(
    kv: K,
    role: R,
    identity: String,
    metrics: Arc<Metrics>,
    mut stop: watch::Receiver<bool>,
) {
    let mut replica = Replica {
        follower: Follower::new(kv.clone(), R::COMPONENT, metrics.clone()),
        elector: Elector::new(R::COMPONENT, &identity, TTL_MS),
        kv,
        role,
        identity,
        metrics,
        clock: Clock::new(),
        jobs: JoinSet::new(),
        is_electing: false,
        is_reading: false,
        token: None,
        has_begun: false,
        term: 0,
        rest_until_ms: 0,
        unknown: 0,
        told: 0,
        behind_since_ms: None,
        helped_at_ms: 0,
    };
    let mut measured_ms = 0;
    while !*stop.borrow() {
        let now = replica.clock.now();
        replica.elect(now);
        replica.act(now);
        replica.help(now);
        if now.ms >= measured_ms + MEASURE_MS || measured_ms == 0 {
            measured_ms = now.ms;
            replica.measure(now);
        }
        let due_ms = replica.due_ms(now).min(measured_ms + MEASURE_MS);
        let until = replica.clock.at_ms(due_ms);
        tokio::select! {
            biased;
            // Whoever could tell it to stop is gone: that is an order, too.
            ended = stop.changed() => if ended.is_err() { break },
            heard = replica.follower.next() => {
                let now = replica.clock.now();
                replica.role.heard(&mut replica.follower.copy, heard.changes, heard.is_list, now);
                let mut taken = 0;
                while let Some(changes) = replica.follower.more(taken) {
                    replica.role.heard(&mut replica.follower.copy, changes, false, now);
                    taken += 1;
                }
            }
            Some(done) = replica.jobs.join_next() => replica.done(done),
            () = sleep_until(until) => {}
        }
        while let Some(done) = replica.jobs.try_join_next() {
            replica.done(done);
        }
    }
    replica.hand_on().await;
}

impl<K: Kv, R: Role> Replica<K, R> {
    /// Its part in the election, and what follows from the outcome.
    fn elect(&mut self, now: Now) {
        let copy = &self.follower.copy;
        let ask = self.elector.ask(R::election(copy), copy.at(), now.ms);
        if let Some(ask) = ask {
            self.is_electing = true;
            let (kv, asked_ms) = (self.kv.clone(), now.ms);
            let late = |_| Error::Unknown("no answer in time".to_owned());
            self.jobs.spawn(async move {
                match ask {
                    elect::Ask::Grant(ttl_ms) => {
                        let answer = timeout(ELECTION_ANSWER_MAX, kv.grant(Duration::from_millis(ttl_ms))).await;
                        Done::Granted(answer.map_err(late).and_then(|answer| answer), asked_ms)
                    }
                    elect::Ask::KeepAlive(lease) => {
                        let answer = timeout(ELECTION_ANSWER_MAX, kv.keep_alive(lease)).await;
                        Done::KeptAlive(answer.map_err(late).and_then(|answer| answer), asked_ms)
                    }
                    elect::Ask::Campaign(txn) => {
                        let answer = timeout(ELECTION_ANSWER_MAX, kv.txn(&txn)).await;
                        Done::Campaigned(answer.map_err(late).and_then(|answer| answer))
                    }
                }
            });
        }
        let token = self.elector.token();
        if token == self.token {
            return;
        }
        if let Some(lost) = self.token {
            tracing::warn!(component = R::COMPONENT, token = lost, "does not lead any more");
        }
        (self.token, self.has_begun) = (token, false);
        self.term += 1;
        self.role.end(&mut self.follower.copy);
        if let Some(won) = token {
            tracing::info!(component = R::COMPONENT, token = won, identity = self.identity, "leads");
            // What its predecessor wrote is below the token, and so in this list.
            self.follower.relist("election");
        }
    }

    /// Plans, and sends off what is planned.
    fn act(&mut self, now: Now) {
        let Some(token) = self.elector.active(now.ms).filter(|token| self.token == Some(*token)) else { return };
        if !self.follower.is_watching() || self.follower.copy.at() < token {
            return;
        }
        if !self.has_begun {
            self.has_begun = true;
            self.role.begin(&mut self.follower.copy, token);
        }
        if now.ms < self.rest_until_ms {
            return;
        }
        while let Some(ask) = self.role.plan(&mut self.follower.copy, now) {
            self.send(ask, Duration::ZERO);
        }
        if !self.is_reading
            && let Some(keys) = self.role.wants()
        {
            self.is_reading = true;
            let (kv, term) = (self.kv.clone(), self.term);
            self.jobs.spawn(async move {
                // What is not read is asked for again, when the role has rested.
                let items = timeout(READ_MAX, read(&kv, &keys)).await.ok().and_then(Result::ok).unwrap_or_default();
                Done::Read { term, items }
            });
        }
    }

    fn send(&mut self, ask: Ask, wait: Duration) {
        let (kv, term, metrics) = (self.kv.clone(), self.term, self.metrics.clone());
        let component = &[("component", R::COMPONENT)][..];
        metrics.observe("mechi_control_txn_guards", component, ask.1.guards().len() as f64);
        metrics.observe("mechi_control_txn_writes", component, ask.1.writes().len() as f64);
        self.jobs.spawn(async move {
            sleep(wait).await;
            let begun = Instant::now();
            let answer = kv.txn(&ask.1).await;
            let component = [("component", R::COMPONENT)];
            metrics.observe("mechi_control_txn_duration_seconds", &component, begun.elapsed().as_secs_f64());
            Done::Wrote { term, ask, answer }
        });
    }

    fn done(&mut self, done: Result<Done, tokio::task::JoinError>) {
        let now = self.clock.now();
        let done = match done {
            Ok(done) => done,
            Err(ended) if ended.is_panic() => std::panic::resume_unwind(ended.into_panic()),
            Err(_) => return,
        };
        match done {
            Done::Granted(answer, asked_ms) => {
                self.is_electing = false;
                self.elector.granted(answer, asked_ms, now.ms);
            }
            Done::KeptAlive(answer, asked_ms) => {
                self.is_electing = false;
                if let Err(error) = &answer {
                    tracing::warn!(component = R::COMPONENT, %error, "its lease was not renewed");
                }
                self.elector.kept_alive(answer, asked_ms, now.ms);
            }
            Done::Campaigned(answer) => {
                self.is_electing = false;
                self.elector.campaigned(answer, now.ms);
            }
            Done::Read { term, items } => {
                self.is_reading = false;
                let ask = (term == self.term).then(|| self.role.read(&mut self.follower.copy, items, now)).flatten();
                if let Some(ask) = ask {
                    self.send(ask, Duration::ZERO);
                }
            }
            Done::Helped => {}
            Done::Wrote { term, ask, answer } => {
                self.count(&ask.1, &answer);
                if term == self.term {
                    self.wrote(ask, answer, now);
                }
            }
        }
    }

    fn wrote(&mut self, ask: Ask, answer: Result<Outcome, Error>, now: Now) {
        let answer = answer.map(|outcome| sharpened(&ask.1, outcome));
        if let Ok(Outcome::Committed(revision) | Outcome::Refused { revision, .. }) = &answer {
            self.told = self.told.max(*revision);
            self.unknown = 0;
        } else {
            self.unknown = self.unknown.saturating_add(1);
        }
        match self.role.answered(&mut self.follower.copy, &ask, answer, now) {
            Next::Nothing => {}
            Next::Then(txn) => self.send((ask.0, txn), Duration::ZERO),
            Next::Again => self.send(ask, (UNKNOWN_RETRY_MIN * (1 << self.unknown.min(10))).min(UNKNOWN_RETRY_MAX)),
            Next::Rest => self.rest_until_ms = now.ms + FAILURE_REST_MS,
        }
    }

    fn count(&self, txn: &Txn, answer: &Result<Outcome, Error>) {
        let metrics = &self.metrics;
        let result = match answer {
            Ok(Outcome::Committed(_)) => "committed",
            Ok(Outcome::Refused { seen, .. }) => {
                for (guard, _) in txn.guards().iter().zip(seen).filter(|(guard, seen)| !guard.holds(seen)) {
                    let labels = [("component", R::COMPONENT), ("guard", guard.name())];
                    metrics.add("mechi_control_txn_conflicts_total", &labels, 1.0);
                    if matches!(guard, Guard::Fence { .. }) {
                        metrics.add("mechi_control_fence_rejections_total", &labels[..1], 1.0);
                    }
                }
                "refused"
            }
            Err(Error::Unknown(why)) => {
                tracing::debug!(component = R::COMPONENT, why, "the outcome of a transaction is unknown");
                "unknown"
            }
            Err(error) => {
                tracing::warn!(component = R::COMPONENT, %error, "a transaction was not done");
                "failed"
            }
        };
        metrics.add("mechi_control_txns_total", &[("component", R::COMPONENT), ("result", result)], 1.0);
    }

    /// Helps a copy that does not come to a revision that was answered, since that was of a key which nobody watches here: the
    /// leader signs its election anew, which everybody sees. A watch would tell otherwise only after minutes how far it is.
    fn help(&mut self, now: Now) {
        if self.follower.copy.at() >= self.told {
            self.behind_since_ms = None;
            return;
        }
        let since = *self.behind_since_ms.get_or_insert(now.ms);
        let (Some(token), Some(lease)) = (self.elector.active(now.ms), self.elector.lease()) else { return };
        if now.ms >= since.max(self.helped_at_ms) + BEHIND_MS_MAX {
            self.helped_at_ms = now.ms;
            let key = keys::election(R::COMPONENT);
            let txn = Txn::new().fenced(R::COMPONENT, token).put_leased(key, self.identity.clone(), lease);
            let kv = self.kv.clone();
            self.jobs.spawn(async move {
                // Whatever becomes of it, it is tried again while there is need.
                let _ = kv.txn(&txn).await;
                Done::Helped
            });
        }
    }

    /// When to look again, if nothing comes.
    fn due_ms(&self, now: Now) -> u64 {
        let election = (!self.is_electing).then(|| self.elector.due_ms());
        let acts = self.has_begun && self.follower.is_watching() && self.elector.active(now.ms).is_some();
        let role = self.role.due_ms().filter(|_| acts).map(|due_ms| due_ms.max(self.rest_until_ms));
        let rest = Some(self.rest_until_ms).filter(|until_ms| *until_ms > now.ms);
        let behind = self.behind_since_ms.map(|since| since.max(self.helped_at_ms) + BEHIND_MS_MAX);
        let due = [election, role, rest, behind].into_iter().flatten().min().unwrap_or(u64::MAX);
        // Whatever is due and cannot be done now must not keep a core busy.
        due.max(now.ms + 2)
    }

    fn measure(&self, now: Now) {
        let component = &[("component", R::COMPONENT)][..];
        let leads = self.elector.active(now.ms).is_some();
        self.metrics.set("leader_election_master_status", &[("name", R::COMPONENT)], f64::from(leads));
        let copy = &self.follower.copy;
        self.metrics.set("mechi_control_cache_revision", component, copy.at() as f64);
        self.metrics.set("mechi_control_cache_lag_revisions", component, (self.told - copy.at()).max(0) as f64);
        let behind_ms = self.behind_since_ms.map_or(0, |since| now.ms - since);
        self.metrics.set("mechi_control_cache_lag_seconds", component, behind_ms as f64 / 1_000.0);
        self.role.measure(&self.metrics);
    }

    /// Ends the lease, so that the next one leads at once. What is still on its way is refused from then on.
    async fn hand_on(self) {
        let Some(lease) = self.elector.lease() else { return };
        match timeout(HAND_ON_MAX, self.kv.revoke(lease)).await {
            Ok(Ok(())) if self.token.is_some() => {
                tracing::info!(component = R::COMPONENT, "has handed its leadership on")
            }
            Ok(Ok(())) => {}
            Ok(Err(error)) => tracing::warn!(component = R::COMPONENT, %error, "its lease runs out by itself"),
            Err(_) => tracing::warn!(component = R::COMPONENT, "no answer: its lease runs out by itself"),
        }
    }
}

/// Reads objects as they are now, those that are there.
///
/// - Errors: as [`Kv::range`], of the first that is not answered.
async fn read<K: Kv>(kv: &K, keys: &[ObjectKey]) -> Result<Vec<KeyValue>, Error> {
    let mut items = Vec::with_capacity(keys.len());
    for key in keys {
        let key = key.to_string();
        // The next key there can be.
        let end = format!("{key}\0").into();
        items.extend(kv.range(Range { key: key.into(), end, limit: 1, revision: 0 }).await?.items);
    }
    Ok(items)
}

/// A refusal, as of the revision that the copy must have come to before it is worth another try: the newest change that a guard
/// met. The store's own revision may be that of a key which the copy never hears of.
fn sharpened(txn: &Txn, outcome: Outcome) -> Outcome {
    let Outcome::Refused { revision, seen } = outcome else { return outcome };
    let met = txn.guards().iter().zip(&seen).filter(|(guard, seen)| !guard.holds(seen)).map(|(_, seen)| seen.modified);
    // Of a key that is gone it is not known since when.
    let newest = met.clone().max().filter(|_| met.clone().all(|modified| modified > 0));
    Outcome::Refused { revision: newest.unwrap_or(revision), seen }
}
