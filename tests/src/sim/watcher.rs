//! A client that watches a range for the whole run, at one member after another, and notes what it was told.

use crate::rng::Rng;
use bytes::Bytes;
use mechi_proto::etcdserverpb as pb;
use mechi_proto::mvccpb::Event;
use mechi_replica::types::KeyRange;
use pb::watch_request::RequestUnion;
use prost::Message;

/// A stretch of history that a watcher was told without a gap.
#[derive(Clone, Debug)]
pub(super) struct Stretch {
    /// The first revision that it wanted.
    pub(super) start: i64,
    /// Everything up to here was told: by events, a progress notification, or a response's header.
    pub(super) through: i64,
    /// The events, in order.
    pub(super) events: Vec<Event>,
    /// How it ended: with a compaction at this revision.
    pub(super) compacted: Option<i64>,
}

/// The client.
#[derive(Debug)]
pub(super) struct Watcher {
    /// What it watches.
    pub(super) range: KeyRange,
    key: Bytes,
    range_end: Bytes,
    /// Whether it asks for previous values.
    pub(super) prev_kv: bool,
    /// Whether deletions are filtered out.
    pub(super) no_delete: bool,
    /// The stream that it is on now, by its number, and the member.
    pub(super) stream: Option<(u64, u64)>,
    /// Counts its streams, so that what an old one still brings is ignored.
    pub(super) session: u64,
    created: bool,
    /// The newest header on this stream.
    header: i64,
    /// All that it was told.
    pub(super) stretches: Vec<Stretch>,
    /// What it does not take from its stream for a while: (message, cost).
    pub(super) stalled: bool,
    /// Costs of messages that it received while stalled.
    pub(super) owed: usize,
    open_fragment: bool,
}

/// What a response brought about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Taken {
    /// More may follow.
    Going,
    /// The watch is canceled: begin anew.
    Canceled,
}

impl Watcher {
    /// A watcher that begins with revision 1.
    pub(super) fn new(rng: &mut Rng, keys: u64) -> Self {
        let (key, range_end): (Bytes, Bytes) = match rng.below(3) {
            0 => (Bytes::from_static(b"k"), Bytes::from_static(b"l")),
            1 => (format!("k{:02}", rng.below(keys)).into(), Bytes::new()),
            _ => {
                let from = rng.below(keys);
                (format!("k{from:02}").into(), format!("k{:02}", from + 1 + rng.below(keys)).into())
            }
        };
        Self {
            range: KeyRange::new(&key, &range_end),
            key,
            range_end,
            prev_kv: rng.chance(40),
            no_delete: rng.chance(20),
            stream: None,
            session: 0,
            created: false,
            header: 0,
            stretches: vec![Stretch { start: 1, through: 0, events: Vec::new(), compacted: None }],
            stalled: false,
            owed: 0,
            open_fragment: false,
        }
    }

    fn stretch(&mut self) -> &mut Stretch {
        self.stretches.last_mut().expect("there is always one")
    }

    /// The revision up to which it was told everything.
    pub(super) fn through(&self) -> i64 {
        self.stretches.last().map_or(0, |stretch| stretch.through)
    }

    /// Begins a new stream; returns the request that goes first.
    ///
    /// It resumes after what it was last vouched for, or after its last event, as clients of either kind do.
    pub(super) fn begin(&mut self, stream: u64, member: u64, after_event: bool) -> pb::WatchRequest {
        self.session += 1;
        (self.created, self.header, self.open_fragment) = (false, 0, false);
        (self.stalled, self.owed) = (false, 0);
        self.stream = Some((stream, member));
        let stretch = self.stretch();
        if after_event {
            let last = stretch.events.last().and_then(|event| event.kv.as_ref()).map_or(0, |kv| kv.mod_revision);
            stretch.through = last.max(stretch.start - 1);
        }
        let start_revision = stretch.through.max(stretch.start - 1) + 1;
        stretch.through = start_revision - 1;
        let filters = if self.no_delete { vec![pb::watch_create_request::FilterType::Nodelete as i32] } else { vec![] };
        pb::WatchRequest {
            request_union: Some(RequestUnion::CreateRequest(pb::WatchCreateRequest {
                key: self.key.clone(),
                range_end: self.range_end.clone(),
                start_revision,
                prev_kv: self.prev_kv,
                filters,
                ..Default::default()
            })),
        }
    }

    /// Takes a response; checks what can be checked without the history.
    pub(super) fn take(&mut self, message: &Bytes) -> Result<Taken, String> {
        let response =
            pb::WatchResponse::decode(message.clone()).map_err(|error| format!("W: no response: {error}"))?;
        let revision = response.header.as_ref().ok_or("W: a response without a header")?.revision;
        if response.created {
            if self.created || response.canceled {
                return Err("W11: created twice, or refused".into());
            }
            self.created = true;
            return Ok(Taken::Going);
        }
        if !self.created {
            return Err("W11: something came before created".into());
        }
        if response.canceled {
            if response.compact_revision == 0 {
                return Err(format!("W9: canceled because {:?}", response.cancel_reason));
            }
            let at = response.compact_revision;
            let stretch = self.stretch();
            if stretch.through + 1 >= at {
                return Err(format!(
                    "W9: canceled by compaction {at}, and the next revision is {}",
                    stretch.through + 1
                ));
            }
            stretch.compacted = Some(at);
            self.stretches.push(Stretch { start: at, through: at - 1, events: Vec::new(), compacted: None });
            self.stream = None;
            return Ok(Taken::Canceled);
        }
        if revision < self.header {
            return Err(format!("W12: a header with {revision} after one with {}", self.header));
        }
        self.header = revision;
        if response.events.is_empty() {
            // Progress: everything up to here was sent.
            let stretch = self.stretch();
            stretch.through = stretch.through.max(revision);
            return Ok(Taken::Going);
        }
        for event in response.events {
            let at = event.kv.as_ref().ok_or("W: an event without a key")?.mod_revision;
            let stretch = self.stretch();
            if at <= stretch.through {
                return Err(format!("W3: revision {at} after everything up to {} was told", stretch.through));
            }
            stretch.events.push(event);
        }
        if !response.fragment {
            let stretch = self.stretch();
            stretch.through = stretch.through.max(revision);
        }
        Ok(Taken::Going)
    }

    /// Asks how far the stream is.
    pub(super) fn ask_progress() -> pb::WatchRequest {
        pb::WatchRequest { request_union: Some(RequestUnion::ProgressRequest(pb::WatchProgressRequest {})) }
    }
}
