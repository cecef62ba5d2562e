//! Runs the goldenscripts in `testscripts/watch`.
//!
//! Commands: `open S`, `close S`, `watch S KEY [END] [start=] [id=] [prev] [notify] [fragment] [noput] [nodelete]`,
//! `cancel S ID`, `progress S`, `refuse S REASON`, `write KEY=VALUE KEY ...` (one transaction; a bare key is deleted),
//! `fill KEY BYTES COUNT`, `compact REVISION`, `stall S`, `take S` (reads again), `tick MS`, `quiet`, `announce`,
//! `restored REVISION`, `counters`. Each prints what clients are sent, as `stream/watch at header-revision: ...`.

use super::testing::{self, World, show, small};
use super::{Config, Input, StreamId};
use goldenscript::Argument;
use mechi_proto::etcdserverpb as pb;
use pb::watch_request::RequestUnion;
use std::error::Error;

struct Script(World);

impl goldenscript::Runner for Script {
    type Command = goldenscript::Command;

    fn run(&mut self, command: &Self::Command, _: &goldenscript::Context) -> Result<String, Box<dyn Error>> {
        let Self(world) = self;
        let mut args = command.consume_args();
        let mut number =
            || -> Result<i64, Box<dyn Error>> { Ok(args.next_pos().ok_or("a number is missing")?.parse()?) };
        match command.name.as_str() {
            "open" => world.open(number()? as u64),
            "close" => world.hub.feed(Input::Close(StreamId(number()? as u64))),
            "tick" => world.tick(number()? as u64),
            "progress" => world.ask(number()? as u64, RequestUnion::ProgressRequest(pb::WatchProgressRequest {})),
            "cancel" => {
                let (stream, watch_id) = (number()? as u64, number()?);
                world.ask(stream, RequestUnion::CancelRequest(pb::WatchCancelRequest { watch_id }));
            }
            "compact" => world.mvcc.compact(number()?)?,
            "stall" => {
                world.stalled.insert(StreamId(number()? as u64));
            }
            "take" => {
                let stream = StreamId(number()? as u64);
                world.stalled.remove(&stream);
                world.take(stream);
            }
            "quiet" => world.quiet = true,
            "announce" => {
                world.quiet = false;
                world.announce();
            }
            "restored" => world.hub.feed(Input::Restored(number()?)),
            "counters" => return Ok(format!("{:?}", world.hub.counters())),
            "refuse" => {
                let stream = StreamId(number()? as u64);
                let reason = args.next_pos().ok_or("a reason is missing")?.to_owned();
                world.hub.feed(Input::Refuse(stream, reason));
            }
            "fill" => {
                let key = args.next_pos().ok_or("a key is missing")?;
                let bytes: usize = args.next_pos().ok_or("bytes are missing")?.parse()?;
                let count: usize = args.next_pos().ok_or("a count is missing")?.parse()?;
                (0..count).for_each(|_| {
                    world.write(&[(key, Some(&"x".repeat(bytes)))]);
                });
            }
            "write" => {
                let changes: Vec<(&str, Option<String>)> = command
                    .args
                    .iter()
                    .map(|arg| match arg {
                        Argument::KeyValue(key, value) => match value.strip_prefix('*') {
                            Some(len) => Ok((key.as_str(), Some("x".repeat(len.parse()?)))),
                            None => Ok((key.as_str(), Some(value.clone()))),
                        },
                        Argument::Positional(key) => Ok((key.as_str(), None)),
                        _ => Err("unknown argument".into()),
                    })
                    .collect::<Result<_, Box<dyn Error>>>()?;
                let changes: Vec<(&str, Option<&str>)> =
                    changes.iter().map(|(key, value)| (*key, value.as_deref())).collect();
                world.write(&changes);
                while args.next().is_some() {}
            }
            "watch" => {
                let stream = number()? as u64;
                let key = args.next_pos().ok_or("a key is missing")?;
                let mut request = testing::create(key, "");
                request.start_revision = args.take_key("start").unwrap_or("0").parse()?;
                request.watch_id = args.take_key("id").unwrap_or("0").parse()?;
                if let Some(end) = args.take_key("end") {
                    request.range_end = end.to_owned().into();
                }
                while let Some(flag) = args.next_pos() {
                    match flag {
                        "prev" => request.prev_kv = true,
                        "notify" => request.progress_notify = true,
                        "fragment" => request.fragment = true,
                        "noput" => request.filters.push(0),
                        "nodelete" => request.filters.push(1),
                        flag => return Err(format!("unknown flag {flag}").into()),
                    }
                }
                world.ask(stream, RequestUnion::CreateRequest(request));
            }
            name => return Err(format!("unknown command {name}").into()),
        }
        args.reject_next()?;
        let lines: Vec<String> = world.settle().iter().map(|(stream, response)| show(*stream, response)).collect();
        Ok(lines.join("\n"))
    }
}

macro_rules! scripts {
    ($($name:ident $config:expr,)*) => {
        $(#[test]
        fn $name() {
            let path = concat!(env!("CARGO_MANIFEST_DIR"), "/testscripts/watch/", stringify!($name));
            goldenscript::run(&mut Script(World::new($config)), path).expect("the script runs");
        })*
    };
}

scripts! {
    create Config::default(),
    replay small(),
    filters Config::default(),
    prev_kv Config::default(),
    fragment small(),
    progress small(),
    compacted Config::default(),
    future Config::default(),
    slow_consumer small(),
    reg_15220_progress_after_events small(),
    reg_15271_snapshot_watch small(),
    reg_17247_unique small(),
    reg_17529_slow_watcher_compaction small(),
    reg_18089 small(),
    reg_19179 small(),
    reg_20221_future_watch small(),
}
