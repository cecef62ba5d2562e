//! The endpoints: which one is used, and which are set aside for a while.
//!
//! One endpoint is used at a time, for calls and streams alike, and kept until it fails; clientv3 sends each call to the
//! next one instead. Any member serves any request, so one connection is enough; serializable reads of one client then never go back
//! in time, and a client's watch sees what its writes did on the same member. Load is spread over the members by the
//! clients, each of which begins at an endpoint drawn by its jitter.

use crate::backoff::Jitter;
use crate::call::Failure;
use crate::config::Config;
use crate::connection::Connection;
use crate::endpoint::Endpoint;
use crate::error::{Code, Error};
use crate::kind::Kind;
use crate::limits;
use crate::tls::Secure;
use futures_util::FutureExt;
use futures_util::future::{BoxFuture, Shared};
use parking_lot::Mutex;
use std::sync::Arc;
use tokio::time::Instant;
use tonic::Status;

type Dialling = Shared<BoxFuture<'static, Result<Connection, String>>>;

/// The endpoints of one client.
pub(crate) struct Pool {
    pub(crate) config: Arc<Config>,
    secure: Option<Arc<Secure>>,
    state: Mutex<State>,
}

struct State {
    slots: Vec<Slot>,
    current: usize,
    jitter: Jitter,
}

struct Slot {
    endpoint: Arc<Endpoint>,
    connection: Option<Connection>,
    /// A connection that is being made; whoever needs one waits for the same.
    dialling: Option<Dialling>,
    /// Failures in a row.
    failures: u32,
    /// Not used before, unless all are set aside.
    aside_until: Option<Instant>,
}

/// What is to be done to get a connection.
enum Next {
    Use(Connection),
    Dial(usize, Dialling),
    Wait(Instant),
}

impl Pool {
    /// Checks the configuration; connects to nothing.
    pub(crate) fn new(config: Config) -> Result<Self, Error> {
        if config.endpoints.is_empty() {
            return Err(Error::Config("no endpoint".to_owned()));
        }
        if config.endpoints.len() > limits::ENDPOINTS_MAX {
            return Err(Error::Config(format!("more than {} endpoints", limits::ENDPOINTS_MAX)));
        }
        let endpoints =
            config.endpoints.iter().map(|text| Endpoint::parse(text).map(Arc::new)).collect::<Result<Vec<_>, _>>()?;
        let secure = match endpoints.iter().any(|endpoint| endpoint.is_secure) {
            true => Some(Arc::new(Secure::new(&config.tls.clone().unwrap_or_default())?)),
            false => None,
        };
        let (jitter, current) = match config.seed {
            Some(seed) => (Jitter::new(seed), 0),
            None => {
                let mut jitter = Jitter::any();
                let first = jitter.below(endpoints.len());
                (jitter, first)
            }
        };
        let slots = endpoints
            .into_iter()
            .map(|endpoint| Slot { endpoint, connection: None, dialling: None, failures: 0, aside_until: None })
            .collect();
        Ok(Self { config: Arc::new(config), secure, state: Mutex::new(State { slots, current, jitter }) })
    }

    /// The connection that is used now, or a new one; fails over to other endpoints, each tried once.
    ///
    /// - Errors: how the last attempt failed; the endpoints are set aside then, and the next call waits that long.
    pub(crate) async fn connection(&self) -> Result<Connection, String> {
        let mut tries = self.state.lock().slots.len();
        loop {
            // The lock ends with this statement: nothing below waits with it.
            let next = self.next();
            match next {
                Next::Use(connection) => return Ok(connection),
                Next::Wait(until) => tokio::time::sleep_until(until).await,
                Next::Dial(slot, dialling) => {
                    let dialled = dialling.clone().await;
                    self.dialled(slot, &dialling, &dialled);
                    tries -= 1;
                    match dialled {
                        Ok(connection) => return Ok(connection),
                        Err(why) if tries == 0 => return Err(why),
                        Err(_) => {}
                    }
                }
            }
        }
    }

    fn next(&self) -> Next {
        let mut state = self.state.lock();
        let now = Instant::now();
        let count = state.slots.len();
        let order = (0..count).map(|n| (state.current + n) % count);
        let ready = |slot: &Slot| slot.aside_until.is_none_or(|until| until <= now);
        let Some(chosen) = order.clone().find(|n| ready(&state.slots[*n])) else {
            let soonest = state.slots.iter().filter_map(|slot| slot.aside_until).min();
            return Next::Wait(soonest.expect("every slot is set aside until some time"));
        };
        state.current = chosen;
        let slot = &mut state.slots[chosen];
        if let Some(connection) = slot.connection.as_ref().filter(|connection| connection.is_open()) {
            return Next::Use(connection.clone());
        }
        slot.connection = None;
        let dialling = slot.dialling.get_or_insert_with(|| {
            let made = Connection::dial(slot.endpoint.clone(), chosen, self.config.clone(), self.secure.clone());
            // A task of its own, so that a caller that gives up does not take the connection from the others.
            let task = tokio::spawn(made);
            async move { task.await.unwrap_or_else(|_| Err("the runtime ends".to_owned())) }.boxed().shared()
        });
        Next::Dial(chosen, dialling.clone())
    }

    /// Notes how a dialling ended; the first of those who waited for it does.
    fn dialled(&self, slot: usize, dialling: &Dialling, dialled: &Result<Connection, String>) {
        let mut state = self.state.lock();
        let State { slots, jitter, .. } = &mut *state;
        let slot = &mut slots[slot];
        if !slot.dialling.as_ref().is_some_and(|current| current.ptr_eq(dialling)) {
            return;
        }
        slot.dialling = None;
        match dialled {
            Ok(connection) => slot.connection = Some(connection.clone()),
            Err(_) => slot.set_aside(jitter),
        }
    }

    /// Sets the endpoint of `connection` aside, since it failed or has no leader; `is_broken` also forgets the connection.
    pub(crate) fn set_aside(&self, connection: &Connection, is_broken: bool) {
        let mut state = self.state.lock();
        let State { slots, jitter, .. } = &mut *state;
        let slot = &mut slots[connection.slot];
        let is_current = slot.connection.as_ref().is_some_and(|current| current.is(connection));
        if !is_current {
            // Others have met the same failure before, and it counts once.
            return;
        }
        if is_broken {
            slot.connection = None;
        } else if slot.aside_until.is_some_and(|until| until > Instant::now()) {
            return;
        }
        slot.set_aside(jitter);
    }

    /// Reads a failure, and sets its endpoint aside if the endpoint is to blame.
    pub(crate) fn failed(&self, status: &Status, connection: &Connection) -> Failure {
        let failure = Failure::of(status, connection);
        match &failure {
            Failure::NotSent(_) | Failure::Broken(_) => self.set_aside(connection, true),
            Failure::Server(error) if error.code == Code::Unavailable || error.kind == Kind::LearnerUnsupported => {
                self.set_aside(connection, false);
            }
            Failure::Server(_) => {}
        }
        failure
    }

    /// Notes a good answer: failures before it count no more.
    pub(crate) fn succeeded(&self, connection: &Connection) {
        let mut state = self.state.lock();
        let slot = &mut state.slots[connection.slot];
        if slot.failures > 0 && slot.connection.as_ref().is_some_and(|current| current.is(connection)) {
            (slot.failures, slot.aside_until) = (0, None);
        }
    }
}

impl Slot {
    fn set_aside(&mut self, jitter: &mut Jitter) {
        self.failures = self.failures.saturating_add(1);
        self.aside_until = Some(Instant::now() + jitter.back_off(self.failures));
    }
}
