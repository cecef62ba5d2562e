//! A watcher: one stream over one connection, everything that it hears written down as it comes.

use crate::cluster::Member;
use crate::recorder::Recorder;
use bytes::Bytes;
use mechi_checker::watch::{Event, Received, Request, Stream};
use mechi_proto::etcdserverpb as pb;
use mechi_proto::mvccpb::event::EventType;
use pb::watch_client::WatchClient;
use pb::watch_create_request::FilterType;
use pb::watch_request::RequestUnion;
use std::sync::atomic::{AtomicBool, AtomicI64, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;
use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use tokio::time::Instant;
use tokio_stream::wrappers::ReceiverStream;
use tonic::transport::Endpoint;

/// How long a connection may take.
const CONNECT_MAX: Duration = Duration::from_secs(1);

/// How often a stream is asked for its progress once nobody writes any more.
const SETTLED_PROGRESS: Duration = Duration::from_millis(300);

/// The watchers of a run.
#[derive(Default)]
pub struct Watchers {
    tasks: Mutex<Vec<JoinHandle<()>>>,
    stopped: AtomicBool,
    next: AtomicU64,
    /// The largest revision that any of them heard of.
    newest: AtomicI64,
    /// The streams that are open, and how far each is.
    open: Mutex<Vec<(u64, Arc<AtomicI64>)>>,
}

impl Watchers {
    /// Lets a watcher live until [`Watchers::stop`].
    pub(crate) fn keep(&self, task: JoinHandle<()>) {
        self.tasks.lock().expect("nobody panics with it").push(task);
    }

    /// Whether new watches are wanted; what is open goes on.
    pub(crate) fn is_stopped(&self) -> bool {
        self.stopped.load(Ordering::Relaxed)
    }

    /// No new watches from here on.
    pub(crate) fn settle(&self) {
        self.stopped.store(true, Ordering::Relaxed);
    }

    /// Ends all.
    pub(crate) fn stop(&self) {
        self.settle();
        self.tasks.lock().expect("nobody panics with it").drain(..).for_each(|task| task.abort());
    }

    /// Whether every open stream has heard everything up to `revision`.
    pub(crate) fn are_through(&self, revision: i64) -> bool {
        let open = self.open.lock().expect("nobody panics with it");
        open.iter().all(|(_, through)| through.load(Ordering::Relaxed) >= revision)
    }

    /// Somebody heard of a revision.
    pub(crate) fn heard(&self, revision: i64) {
        self.newest.fetch_max(revision, Ordering::Relaxed);
    }

    /// The largest revision that was heard of.
    pub(crate) fn newest(&self) -> i64 {
        self.newest.load(Ordering::Relaxed)
    }
}

/// How a watch is to end.
#[derive(Clone, Copy, Debug)]
pub struct Plan {
    /// When the watcher has seen enough; the last watch of a run goes on instead.
    pub until: Instant,
    /// How often it asks for progress.
    pub progress_every: Option<Duration>,
    /// Whether it takes its watch back, and does not just leave.
    pub cancels: bool,
}

/// How a watch ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ended {
    /// Everything up to here was heard.
    pub through: i64,
    /// Whether the server ended it because its revisions are compacted: up to which.
    pub compacted: Option<i64>,
    /// Whether the connection could not be made, or broke.
    pub broken: bool,
}

/// Watches, until the plan or the server ends it; writes down what comes.
///
/// - Shape: goes on until it is aborted if the run settles before the plan's end.
pub async fn watch(recorder: &Arc<Recorder>, member: &Member, request: Request, plan: Plan) -> Ended {
    let watchers = &recorder.watchers;
    let id = watchers.next.fetch_add(1, Ordering::Relaxed);
    let mut ended = Ended { through: (request.start_revision - 1).max(0), compacted: None, broken: false };
    let Some(client) = connect(member).await else {
        // Nothing was asked of anybody.
        return Ended { broken: true, ..ended };
    };
    let request = Request { asked_ns: recorder.now_ns(), ..request };
    let stream = Stream { id, node: member.name.clone(), request, received: vec![], closed_ns: None };
    recorder.stream(&stream);
    let through = Arc::new(AtomicI64::new(0));
    watchers.open.lock().expect("nobody panics with it").push((id, through.clone()));
    let mut walk = Walk { recorder, id, request: &stream.request, plan, through, watch_id: 0 };
    walk.run(client, &mut ended).await;
    watchers.open.lock().expect("nobody panics with it").retain(|(other, _)| *other != id);
    ended
}

async fn connect(member: &Member) -> Option<WatchClient<tonic::transport::Channel>> {
    let endpoint = Endpoint::from_shared(member.endpoint.clone()).ok()?.connect_timeout(CONNECT_MAX);
    let channel = tokio::time::timeout(CONNECT_MAX, endpoint.connect()).await.ok()?.ok()?;
    Some(WatchClient::new(channel).max_decoding_message_size(usize::MAX))
}

/// One watch while it goes on.
struct Walk<'a> {
    recorder: &'a Arc<Recorder>,
    id: u64,
    request: &'a Request,
    plan: Plan,
    through: Arc<AtomicI64>,
    /// What the server called it: what a cancel must name.
    watch_id: i64,
}

impl Walk<'_> {
    async fn run(&mut self, mut client: WatchClient<tonic::transport::Channel>, ended: &mut Ended) {
        let (tx, rx) = mpsc::channel(16);
        let ask = |request| tx.try_send(pb::WatchRequest { request_union: Some(request) });
        if ask(RequestUnion::CreateRequest(create(self.request))).is_err() {
            return;
        }
        // The answer's head may come with the first message only, so that the plan bounds this too.
        let opened = tokio::time::timeout_at(self.plan.until, client.watch(ReceiverStream::new(rx))).await;
        let Ok(Ok(answers)) = opened else {
            ended.broken = true;
            return self.recorder.closed(self.id);
        };
        let mut answers = answers.into_inner();
        let every = self.plan.progress_every.unwrap_or(SETTLED_PROGRESS);
        let mut tick = tokio::time::interval_at(Instant::now() + every, every);
        let mut taken_back = false;
        loop {
            tokio::select! {
                biased;
                message = answers.message() => match message {
                    Ok(Some(response)) => {
                        if self.hear(&response, ended) {
                            return;
                        }
                    }
                    Ok(None) | Err(_) => {
                        ended.broken = true;
                        return self.recorder.closed(self.id);
                    }
                },
                _ = tick.tick() => {
                    // At the end of a run all are asked how far they are.
                    if self.plan.progress_every.is_some() || self.recorder.watchers.is_stopped() {
                        let _ = ask(RequestUnion::ProgressRequest(pb::WatchProgressRequest {}));
                    }
                }
                () = tokio::time::sleep_until(self.plan.until) => {
                    if taken_back || (!self.plan.cancels && !self.recorder.watchers.is_stopped()) {
                        return self.recorder.closed(self.id);
                    }
                    self.plan.until += Duration::from_secs(2);
                    if !self.recorder.watchers.is_stopped() {
                        // Who takes its watch back still hears that it was.
                        taken_back = true;
                        let _ = ask(RequestUnion::CancelRequest(pb::WatchCancelRequest { watch_id: self.watch_id }));
                    }
                }
            }
        }
    }

    /// Writes down one response; returns whether it was the last.
    fn hear(&mut self, response: &pb::WatchResponse, ended: &mut Ended) -> bool {
        let watchers = &self.recorder.watchers;
        let revision = response.header.as_ref().map_or(0, |header| header.revision);
        let received = received(response, revision);
        watchers.heard(revision);
        self.recorder.received(self.id, &received);
        match &received {
            Received::Created { .. } => {
                self.watch_id = response.watch_id;
                if self.request.start_revision <= 0 {
                    ended.through = ended.through.max(revision);
                }
            }
            Received::Events { events, fragment, .. } => {
                let last = events.last().map_or(0, |event| event.kv.mod_revision);
                // The rest of a revision that came in parts is still to come.
                ended.through = ended.through.max(if *fragment { last - 1 } else { last });
            }
            Received::Progress { .. } => ended.through = ended.through.max(revision),
            Received::Cancelled { compact_revision, .. } => {
                ended.compacted = (*compact_revision > 0).then_some(*compact_revision);
            }
        }
        self.through.store(ended.through, Ordering::Relaxed);
        matches!(received, Received::Cancelled { .. })
    }
}

fn create(request: &Request) -> pb::WatchCreateRequest {
    let mut filters = Vec::new();
    if request.no_put {
        filters.push(FilterType::Noput as i32);
    }
    if request.no_delete {
        filters.push(FilterType::Nodelete as i32);
    }
    pb::WatchCreateRequest {
        key: request.key.clone(),
        range_end: request.range_end.clone(),
        start_revision: request.start_revision,
        progress_notify: true,
        filters,
        prev_kv: request.prev_kv,
        fragment: request.fragment,
        ..Default::default()
    }
}

fn received(response: &pb::WatchResponse, revision: i64) -> Received {
    if response.canceled {
        let (compact_revision, reason) = (response.compact_revision, response.cancel_reason.clone());
        return Received::Cancelled { revision, compact_revision, reason };
    }
    if response.created {
        return Received::Created { revision };
    }
    if response.events.is_empty() {
        return Received::Progress { revision };
    }
    let event = |event: &mechi_proto::mvccpb::Event| Event {
        delete: event.r#type == EventType::Delete as i32,
        kv: event.kv.clone().unwrap_or_default(),
        prev_kv: event.prev_kv.clone(),
    };
    Received::Events { revision, fragment: response.fragment, events: response.events.iter().map(event).collect() }
}

/// The end of the range of all keys that begin with `prefix`.
pub fn prefix_end(prefix: &str) -> Bytes {
    let mut end = prefix.as_bytes().to_vec();
    if let Some(last) = end.last_mut() {
        // Prefixes are letters and slashes: the next byte is one too.
        *last += 1;
    }
    end.into()
}
