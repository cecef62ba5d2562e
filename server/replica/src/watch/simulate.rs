//! Random writes, compactions, watches and slow clients, checked against the plain list of all changes.
//!
//! The checks are the guarantees of etcd's watch: ordered, unique, atomic per revision, without gaps from the start on,
//! never older than the start, honest about compaction, with the right previous version; and progress never ahead.

use super::testing::{World, create, small};
use super::{Config, Input, StreamId};
use crate::types::KeyRange;
use mechi_proto::etcdserverpb as pb;
use mechi_proto::mvccpb::event::EventType;
use mechi_proto::mvccpb::{Event, KeyValue};
use pb::watch_request::RequestUnion;
use proptest::prelude::*;
use std::collections::BTreeMap;

const KEYS: [&str; 5] = ["a", "b", "ba", "c", "d"];
const STREAMS: u64 = 3;

#[derive(Clone, Debug)]
enum Op {
    /// One transaction: a value's length, or a deletion.
    Write(Vec<(usize, Option<usize>)>),
    /// Back from the newest revision.
    Compact(i64),
    Sweep,
    /// Stream, key, end, start relative to the newest revision (none: 0), prev_kv, no_put, no_delete, fragment.
    Watch(u64, usize, Option<usize>, Option<i64>, [bool; 4]),
    Cancel(u64, i64),
    Progress(u64),
    Take(u64),
    Step,
    Quiet(bool),
}

fn op() -> impl Strategy<Value = Op> {
    let change = (0..KEYS.len(), prop::option::weighted(0.7, 0usize..150));
    let end = prop::option::of(0..=KEYS.len());
    let start = prop::option::of(-12i64..5);
    prop_oneof![
        8 => prop::collection::vec(change, 1..4).prop_map(Op::Write),
        1 => (0i64..10).prop_map(Op::Compact),
        1 => Just(Op::Sweep),
        4 => (0..STREAMS, 0..KEYS.len(), end, start, any::<[bool; 4]>())
            .prop_map(|(stream, key, end, start, flags)| Op::Watch(stream, key, end, start, flags)),
        1 => (0..STREAMS, 0i64..6).prop_map(|(stream, id)| Op::Cancel(stream, id)),
        2 => (0..STREAMS).prop_map(Op::Progress),
        3 => (0..STREAMS).prop_map(Op::Take),
        6 => Just(Op::Step),
        1 => any::<bool>().prop_map(Op::Quiet),
    ]
}

/// One change of the plain list.
#[derive(Clone)]
struct Plain {
    revision: i64,
    event: Event,
    previous: Option<KeyValue>,
}

/// What the model knows of one watch.
struct Watch {
    range: KeyRange,
    start: i64,
    flags: [bool; 4],
    got: Vec<Event>,
    /// The newest revision that its responses or a progress notification have vouched for.
    vouched: i64,
    /// Fragments that wait for their last.
    open_fragment: bool,
}

#[derive(Default)]
struct Model {
    changes: Vec<Plain>,
    live: BTreeMap<String, KeyValue>,
    asked: BTreeMap<u64, std::collections::VecDeque<pb::WatchCreateRequest>>,
    watches: BTreeMap<(u64, i64), Watch>,
}

impl Model {
    fn write(&mut self, world: &mut World, changes: &[(usize, Option<usize>)]) {
        // A transaction touches a key once, as etcd demands.
        let changes: BTreeMap<usize, Option<usize>> = changes.iter().copied().collect();
        let values: Vec<(&str, Option<String>)> =
            changes.iter().map(|(key, len)| (KEYS[*key], len.map(|len| "x".repeat(len)))).collect();
        let before = world.mvcc.revision();
        let revision = world.write(&values.iter().map(|(key, value)| (*key, value.as_deref())).collect::<Vec<_>>());
        for (key, value) in values {
            let previous = self.live.get(key).cloned();
            let (kind, kv) = match value {
                Some(value) => {
                    let kv = KeyValue {
                        key: key.into(),
                        value: value.into(),
                        mod_revision: revision,
                        create_revision: previous.as_ref().map_or(revision, |kv| kv.create_revision),
                        version: previous.as_ref().map_or(1, |kv| kv.version + 1),
                        lease: 0,
                    };
                    self.live.insert(key.to_owned(), kv.clone());
                    (EventType::Put, kv)
                }
                None if previous.is_none() => continue,
                None => {
                    self.live.remove(key);
                    (EventType::Delete, KeyValue { key: key.into(), mod_revision: revision, ..Default::default() })
                }
            };
            assert_eq!(revision, before + 1);
            let event = Event { r#type: kind as i32, kv: Some(kv), prev_kv: None };
            self.changes.push(Plain { revision, event, previous });
        }
    }

    fn wanted<'a>(&'a self, watch: &'a Watch) -> impl Iterator<Item = &'a Plain> + 'a {
        let [_, no_put, no_delete, _] = watch.flags;
        self.changes.iter().filter(move |plain| {
            let kv = plain.event.kv.as_ref().unwrap();
            let unwanted = if plain.event.r#type() == EventType::Put { no_put } else { no_delete };
            plain.revision >= watch.start && watch.range.contains(&kv.key) && !unwanted
        })
    }

    fn check(&mut self, world: &World, stream: u64, response: pb::WatchResponse) {
        let revision = response.header.as_ref().unwrap().revision;
        if response.created {
            let request =
                self.asked.get_mut(&stream).and_then(|asked| asked.pop_front()).expect("created was asked for");
            assert_eq!(revision, world.mvcc.revision());
            let range = KeyRange::new(&request.key, &request.range_end);
            assert_eq!(response.canceled, range.is_empty() || request.start_revision < 0);
            if response.canceled {
                assert_eq!(response.watch_id, -1);
                return;
            }
            let start = match request.start_revision {
                0 => revision + 1,
                start => start,
            };
            let has = |kind: i32| request.filters.contains(&kind);
            let flags = [request.prev_kv, has(0), has(1), request.fragment];
            let watch = Watch { range, start, flags, got: Vec::new(), vouched: 0, open_fragment: false };
            assert!(self.watches.insert((stream, response.watch_id), watch).is_none(), "an id is given once");
            return;
        }
        if response.canceled {
            let watch = self.watches.remove(&(stream, response.watch_id)).expect("canceled once, after created");
            if response.compact_revision != 0 {
                assert_eq!((revision, response.compact_revision), (0, world.mvcc.compact_revision()));
                let next = watch.got.last().map_or(watch.start, |event| event.kv.as_ref().unwrap().mod_revision + 1);
                assert!(next < response.compact_revision, "nothing that it needed was compacted");
            }
            return;
        }
        if response.events.is_empty() {
            // A progress notification covers everything up to its revision, for every watch of the stream.
            assert_eq!(response.watch_id, -1, "no interval passes here");
            let ids: Vec<(u64, i64)> = self.watches.keys().copied().filter(|(other, _)| *other == stream).collect();
            for id in ids {
                let wanted = self.wanted(&self.watches[&id]).filter(|plain| plain.revision <= revision).count();
                let watch = self.watches.get_mut(&id).unwrap();
                assert_eq!(watch.got.len(), wanted, "progress at {revision} ran ahead of events");
                assert!(revision >= watch.start - 1 && revision >= watch.vouched);
                watch.vouched = revision;
            }
            return;
        }
        let mut watch = self.watches.remove(&(stream, response.watch_id)).expect("events come after created");
        let first = response.events[0].kv.as_ref().unwrap().mod_revision;
        if !watch.open_fragment {
            let last = watch.got.last().map_or(0, |event| event.kv.as_ref().unwrap().mod_revision);
            assert!(first > last, "a revision is in one response");
            assert!(first > watch.vouched, "an event comes after the header that vouched for it");
        }
        assert!(!response.fragment || watch.flags[3]);
        for event in response.events {
            let position = watch.got.len();
            let plain = self.wanted(&watch).nth(position).expect("the event happened").clone();
            assert_eq!((event.r#type, &event.kv), (plain.event.r#type, &plain.event.kv), "ordered, unique, no gap");
            match (&event.prev_kv, watch.flags[0]) {
                (None, false) => {}
                // It may be absent only if the revision before was not readable when the event left.
                (None, true) => assert!(plain.previous.is_none() || plain.revision <= world.mvcc.compact_revision()),
                (Some(_), wanted) => assert!(wanted && event.prev_kv == plain.previous),
            }
            watch.got.push(event);
        }
        assert!(revision >= watch.vouched && revision <= world.mvcc.revision());
        watch.open_fragment = response.fragment;
        if !response.fragment {
            let complete = self.wanted(&watch).filter(|plain| plain.revision <= revision).count();
            assert_eq!(complete, watch.got.len(), "the header says {revision}, the watch was not sent all of that");
            watch.vouched = revision;
        }
        self.watches.insert((stream, response.watch_id), watch);
    }
}

fn run(config: Config, ops: Vec<Op>) -> usize {
    let (mut world, mut model) = (World::new(config), Model::default());
    (0..STREAMS).for_each(|stream| world.open(stream));
    for op in ops {
        match op {
            Op::Write(changes) => model.write(&mut world, &changes),
            Op::Compact(back) => {
                // A revision that cannot be compacted is refused, which is not this test's matter.
                let _ = world.mvcc.compact(world.mvcc.revision() - back);
            }
            Op::Sweep => {
                world.mvcc.sweep(i64::MAX, 1_000);
            }
            Op::Watch(stream, key, end, start, flags) => {
                let end = match end {
                    None => "",
                    Some(end) => KEYS.get(end).copied().unwrap_or("\0"),
                };
                let mut request = create(KEYS[key], end);
                request.start_revision = start.map_or(0, |start| (world.mvcc.revision() + start).max(-1));
                request.prev_kv = flags[0];
                request.filters =
                    [(flags[1], 0), (flags[2], 1)].iter().filter(|(on, _)| *on).map(|(_, kind)| *kind).collect();
                request.fragment = flags[3];
                model.asked.entry(stream).or_default().push_back(request.clone());
                world.ask(stream, RequestUnion::CreateRequest(request));
            }
            Op::Cancel(stream, watch_id) => {
                world.ask(stream, RequestUnion::CancelRequest(pb::WatchCancelRequest { watch_id }));
            }
            Op::Progress(stream) => world.ask(stream, RequestUnion::ProgressRequest(pb::WatchProgressRequest {})),
            Op::Take(stream) => world.take(StreamId(stream)),
            Op::Step => {
                let (_, responses) = world.step();
                responses.into_iter().for_each(|(stream, response)| model.check(&world, stream, response));
            }
            Op::Quiet(quiet) => {
                world.quiet = quiet;
                world.announce();
            }
        }
    }
    // All clients read now: whoever was not told of a compaction gets everything.
    world.quiet = false;
    world.announce();
    (0..STREAMS).for_each(|stream| world.take(StreamId(stream)));
    world.settle().into_iter().for_each(|(stream, response)| model.check(&world, stream, response));
    for watch in model.watches.values() {
        assert_eq!(watch.got.len(), model.wanted(watch).count(), "a living watch misses nothing");
    }
    let counters = world.hub.counters();
    assert_eq!((counters.watchers, counters.slow_watchers), (model.watches.len(), 0));
    (0..STREAMS).for_each(|stream| world.hub.feed(Input::Close(StreamId(stream))));
    assert_eq!((world.hub.counters().streams, world.hub.counters().watchers), (0, 0));
    model.watches.values().map(|watch| watch.got.len()).sum()
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 1_500, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn watches_keep_their_guarantees(ops in prop::collection::vec(op(), 1..120)) {
        run(small(), ops);
    }

    #[test]
    fn watches_keep_their_guarantees_with_the_bounds_of_production(ops in prop::collection::vec(op(), 1..80)) {
        run(Config::default(), ops);
    }
}

#[test]
fn ten_thousand_watchers_on_one_key_each_get_each_event_once() {
    let mut world = World::new(Config::default());
    for stream in 0..100 {
        world.open(stream);
        for _ in 0..100 {
            world.ask(stream, RequestUnion::CreateRequest(create("k", "")));
        }
    }
    assert_eq!(world.settle().len(), 10_000);
    for revision in 2..12 {
        world.write(&[("k", Some("v")), ("other", Some("v"))]);
        let sent = world.settle();
        assert_eq!(sent.len(), 10_000);
        assert!(sent.iter().all(|(_, response)| {
            response.events.len() == 1 && response.events[0].kv.as_ref().unwrap().mod_revision == revision
        }));
    }
}

#[test]
fn a_crowd_that_lags_does_not_starve_one_watcher() {
    let mut world = World::new(small());
    world.open(1);
    world.open(2);
    (0..400).for_each(|_| {
        world.write(&[("k", Some("value"))]);
    });
    let crowd = pb::WatchCreateRequest { start_revision: 2, ..create("k", "") };
    (0..2_000).for_each(|_| world.ask(1, RequestUnion::CreateRequest(crowd.clone())));
    let one = pb::WatchCreateRequest { start_revision: 300, ..create("k", "") };
    world.ask(2, RequestUnion::CreateRequest(one));
    let (mut got, mut steps) = (0, 0);
    while got < 102 {
        let (_, responses) = world.step();
        got += responses.iter().filter(|(stream, _)| *stream == 2).map(|(_, r)| r.events.len()).sum::<usize>();
        world.take(StreamId(1));
        world.take(StreamId(2));
        steps += 1;
        assert!(steps < 1_000, "the one watcher got {got} events in {steps} slices");
    }
}
