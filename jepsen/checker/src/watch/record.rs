//! What one watcher asked and received, and how that is written to `watch.edn`: one line per request and per response.

use crate::edn::{Edn, read_lines};
use crate::history::store::{bytes_edn, bytes_of, kv_edn, kv_of};
use bytes::Bytes;
use mechi_proto::mvccpb::KeyValue;
use std::collections::BTreeMap;
use std::io::{self, BufRead, Write};

/// One watcher, from its request to its end.
#[derive(Clone, Debug, PartialEq)]
pub struct Stream {
    /// Its number in this run: a watcher that goes on elsewhere is another one.
    pub id: u64,
    /// The member that it watches.
    pub node: String,
    /// What it asked.
    pub request: Request,
    /// What it received, in order.
    pub received: Vec<(u64, Received)>,
    /// When the watcher's side ended it or lost the connection; `None` if it was open to the end.
    pub closed_ns: Option<u64>,
}

/// What is asked of a watch.
#[derive(Clone, Debug, PartialEq, Default)]
pub struct Request {
    /// When it was asked.
    pub asked_ns: u64,
    /// The first key.
    pub key: Bytes,
    /// The end of the range, as etcd means it.
    pub range_end: Bytes,
    /// The first revision; 0 is "from now".
    pub start_revision: i64,
    /// Whether the version before each event is wanted.
    pub prev_kv: bool,
    /// Whether puts are filtered out.
    pub no_put: bool,
    /// Whether deletes are filtered out.
    pub no_delete: bool,
    /// Whether a large revision may come in parts.
    pub fragment: bool,
}

/// One event as it was received.
#[derive(Clone, Debug, PartialEq)]
pub struct Event {
    /// Whether it is a delete.
    pub delete: bool,
    /// The key's new version; of a deleted key the name and the revision.
    pub kv: KeyValue,
    /// The version before.
    pub prev_kv: Option<KeyValue>,
}

/// One response.
#[derive(Clone, Debug, PartialEq)]
#[allow(missing_docs)]
pub enum Received {
    Created {
        revision: i64,
    },
    /// `fragment` says that more of the same revision follows.
    Events {
        revision: i64,
        fragment: bool,
        events: Vec<Event>,
    },
    Progress {
        revision: i64,
    },
    /// `compact_revision` is 0 if the reason is another one.
    Cancelled {
        revision: i64,
        compact_revision: i64,
        reason: String,
    },
}

impl Received {
    /// The header's revision.
    pub fn revision(&self) -> i64 {
        match self {
            Self::Created { revision }
            | Self::Events { revision, .. }
            | Self::Progress { revision }
            | Self::Cancelled { revision, .. } => *revision,
        }
    }
}

/// Writes streams, one after another.
pub fn write(streams: &[Stream], out: &mut impl Write) -> io::Result<()> {
    for stream in streams {
        writeln!(out, "{}", request_line(stream))?;
        for (at, received) in &stream.received {
            writeln!(out, "{}", received_line(stream.id, *at, received))?;
        }
        if let Some(at) = stream.closed_ns {
            writeln!(out, "{}", closed_line(stream.id, at))?;
        }
    }
    Ok(())
}

/// The line that begins a stream.
pub fn request_line(stream: &Stream) -> Edn {
    let request = &stream.request;
    let start = [
        ("stream", Edn::from(stream.id)),
        ("time", request.asked_ns.into()),
        ("type", Edn::keyword("request")),
        ("node", Edn::text(&stream.node)),
        ("key", bytes_edn(&request.key)),
        ("end", bytes_edn(&request.range_end)),
        ("start", request.start_revision.into()),
    ];
    let flags = [
        ("prev-kv", request.prev_kv),
        ("no-put", request.no_put),
        ("no-delete", request.no_delete),
        ("fragment", request.fragment),
    ];
    let flags = flags.into_iter().filter(|(_, set)| *set).map(|(name, _)| (name, Edn::Bool(true)));
    Edn::map(start.into_iter().chain(flags))
}

/// The line of one response to stream `id`.
pub fn received_line(id: u64, at_ns: u64, received: &Received) -> Edn {
    let mut line = vec![("stream", Edn::from(id)), ("time", at_ns.into()), ("revision", received.revision().into())];
    match received {
        Received::Created { .. } => line.push(("type", Edn::keyword("created"))),
        Received::Progress { .. } => line.push(("type", Edn::keyword("progress"))),
        Received::Events { fragment, events, .. } => {
            line.push(("type", Edn::keyword("events")));
            line.push(("events", Edn::Vector(events.iter().map(event_edn).collect())));
            if *fragment {
                line.push(("fragment", Edn::Bool(true)));
            }
        }
        Received::Cancelled { compact_revision, reason, .. } => {
            line.push(("type", Edn::keyword("cancelled")));
            line.push(("compact-revision", (*compact_revision).into()));
            line.push(("reason", Edn::text(reason)));
        }
    }
    Edn::map(line)
}

/// The line that ends stream `id` from the watcher's side.
pub fn closed_line(id: u64, at_ns: u64) -> Edn {
    Edn::map([("stream", Edn::from(id)), ("time", at_ns.into()), ("type", Edn::keyword("closed"))])
}

fn event_edn(event: &Event) -> Edn {
    let kind = if event.delete { "delete" } else { "put" };
    let prev = event.prev_kv.iter().map(|kv| ("prev", kv_edn(kv)));
    Edn::map([("type", Edn::keyword(kind)), ("kv", kv_edn(&event.kv))].into_iter().chain(prev))
}

fn event_of(edn: &Edn) -> Result<Event, String> {
    let prev_kv = match edn.get("prev") {
        Edn::Nil => None,
        prev => Some(kv_of(prev)?),
    };
    Ok(Event { delete: edn.get("type").name() == Some("delete"), kv: kv_of(edn.get("kv"))?, prev_kv })
}

/// Reads streams; lines of several may be mixed.
pub fn read(input: impl BufRead) -> io::Result<Vec<Stream>> {
    let mut streams: BTreeMap<u64, Stream> = BTreeMap::new();
    read_lines(input, |line| {
        take(&line, &mut streams).map_err(|what| io::Error::new(io::ErrorKind::InvalidData, format!("{line}: {what}")))
    })?;
    Ok(streams.into_values().collect())
}

fn take(line: &Edn, streams: &mut BTreeMap<u64, Stream>) -> Result<(), String> {
    let id = line.get("stream").unsigned().ok_or(":stream is missing")?;
    let at = line.get("time").unsigned().ok_or(":time is missing")?;
    let int = |name: &str| line.get(name).int().unwrap_or(0);
    let flag = |name: &str| *line.get(name) == Edn::Bool(true);
    let kind = line.get("type").name().unwrap_or_default();
    if kind == "request" {
        let request = Request {
            asked_ns: at,
            key: bytes_of(line.get("key"))?,
            range_end: if line.get("end") == &Edn::Nil { Bytes::new() } else { bytes_of(line.get("end"))? },
            start_revision: int("start"),
            prev_kv: flag("prev-kv"),
            no_put: flag("no-put"),
            no_delete: flag("no-delete"),
            fragment: flag("fragment"),
        };
        let node = line.get("node").name().unwrap_or_default().to_owned();
        let stream = Stream { id, node, request, received: vec![], closed_ns: None };
        return match streams.insert(id, stream) {
            None => Ok(()),
            Some(_) => Err("the stream was asked for before".into()),
        };
    }
    let stream = streams.get_mut(&id).ok_or("the stream was not asked for")?;
    let revision = int("revision");
    let received = match kind {
        "created" => Received::Created { revision },
        "progress" => Received::Progress { revision },
        "events" => {
            let events = line.get("events").items().ok_or(":events are missing")?;
            let events = events.iter().map(event_of).collect::<Result<_, _>>()?;
            Received::Events { revision, fragment: flag("fragment"), events }
        }
        "cancelled" => {
            let reason = line.get("reason").name().unwrap_or_default().to_owned();
            Received::Cancelled { revision, compact_revision: int("compact-revision"), reason }
        }
        "closed" => {
            stream.closed_ns = Some(at);
            return Ok(());
        }
        _ => return Err("the :type is unknown".into()),
    };
    stream.received.push((at, received));
    Ok(())
}
