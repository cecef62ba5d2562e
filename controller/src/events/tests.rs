//! A recorder and a store.

use super::*;
use crate::control::About;
use crate::keys::{ObjectKey, prefix_end};
use crate::kv::Range;
use crate::kv::memory::Memory;
use crate::types::time::Time;

fn about(name: &str) -> About {
    About { key: ObjectKey::new(Kind::Pod, "a", name), uid: "u".to_owned(), resource_version: "7".to_owned() }
}

fn note(name: &str, reason: &'static str, message: &str) -> Note {
    Note { about: Some(about(name)), is_warning: false, reason, message: message.to_owned() }
}

fn at(ms: u64) -> Now {
    Now { ms, time: Time(1_800_000_000 + (ms / 1_000) as i64) }
}

/// Asks until there is nothing to ask, as a store would answer.
fn flush(recorder: &mut Recorder, store: &mut Memory, ms: u64) {
    store.expire(ms);
    while let Some(ask) = recorder.ask(ms) {
        match ask {
            Ask::Grant(ttl) => recorder.granted(Ok(store.grant(ttl, ms)), ms, ms),
            Ask::Write(txn) => recorder.written(&store.txn(&txn), ms),
        }
    }
}

fn events(store: &Memory) -> Vec<Event> {
    let range = Range { key: EVENTS.into(), end: prefix_end(EVENTS).into(), ..Range::default() };
    let page = store.range(&range).expect("now");
    page.items.iter().map(|item| serde_json::from_slice(&item.value).expect("an event")).collect()
}

#[test]
fn what_happens_again_is_counted_in_its_event() {
    let (mut recorder, mut store) = (Recorder::new("one"), Memory::new(1));
    recorder.record("scheduler", &[note("p", "Scheduled", "to n1"), note("q", "Scheduled", "to n1")], at(0));
    flush(&mut recorder, &mut store, 0);
    recorder.record("scheduler", &[note("p", "Scheduled", "to n1")], at(90_000));
    flush(&mut recorder, &mut store, 90_000);
    let all = events(&store);
    assert_eq!(all.len(), 2);
    let p = all.iter().find(|event| event.involved_object.name == "p").expect("p's");
    assert_eq!((p.count, p.first_timestamp, p.last_timestamp), (2, Some(at(0).time), Some(at(90_000).time)));
    assert_eq!((p.reason.as_str(), p.message.as_str(), p.r#type.as_str()), ("Scheduled", "to n1", "Normal"));
    assert_eq!((p.source.component.as_str(), p.metadata.namespace.as_str()), ("scheduler", "a"));
    assert!(p.metadata.name.starts_with("p."));
}

#[test]
fn events_share_a_lease_for_a_minute_and_go_after_an_hour() {
    let (mut recorder, mut store) = (Recorder::new("one"), Memory::new(1));
    recorder.record("c", &[note("p", "A", "m")], at(0));
    assert_eq!(recorder.ask(0), Some(Ask::Grant(3_660_000)));
    assert_eq!(recorder.ask(0), None, "the answer is still to come");
    recorder.granted(Ok(store.grant(3_660_000, 0)), 0, 0);
    flush(&mut recorder, &mut store, 0);
    recorder.record("c", &[note("q", "A", "m")], at(59_999));
    let Some(Ask::Write(txn)) = recorder.ask(59_999) else { panic!("the lease serves") };
    recorder.written(&store.txn(&txn), 59_999);
    recorder.record("c", &[note("r", "A", "m")], at(60_000));
    assert!(matches!(recorder.ask(60_000), Some(Ask::Grant(_))));
    recorder.granted(Ok(store.grant(3_660_000, 60_000)), 60_000, 60_000);
    flush(&mut recorder, &mut store, 60_000);
    store.expire(3_660_000);
    assert_eq!(events(&store).len(), 1);
    // What is gone is written as new if it happens again.
    recorder.record("c", &[note("p", "A", "m")], at(3_700_000));
    flush(&mut recorder, &mut store, 3_700_000);
    assert_eq!(events(&store).iter().map(|event| event.count).max(), Some(2));
}

#[test]
fn an_answer_that_is_lost_makes_no_second_event() {
    let (mut recorder, mut store) = (Recorder::new("one"), Memory::new(1));
    recorder.record("c", &[note("p", "A", "m")], at(0));
    let Some(Ask::Grant(ttl)) = recorder.ask(0) else { panic!("a lease first") };
    recorder.granted(Ok(store.grant(ttl, 0)), 0, 0);
    let Some(Ask::Write(txn)) = recorder.ask(0) else { panic!("the event then") };
    store.txn(&txn).expect("written");
    recorder.written(&Err(Error::Unknown("lost".to_owned())), 0);
    assert_eq!(recorder.ask(999), None);
    flush(&mut recorder, &mut store, 1_000);
    assert_eq!((events(&store).len(), recorder.waiting(), recorder.dropped()), (1, 0, 0));
}

#[test]
fn what_is_told_in_too_many_words_is_told_in_one_event() {
    let (mut recorder, mut store) = (Recorder::new("one"), Memory::new(1));
    for n in 0..20 {
        recorder.record("c", &[note("p", "Made", &format!("pod {n}"))], at(0));
    }
    flush(&mut recorder, &mut store, 0);
    let all = events(&store);
    assert_eq!(all.len(), 10);
    let combined = all.iter().find(|event| event.count > 1).expect("one stands for the rest");
    assert_eq!((combined.message.as_str(), combined.count), ("(combined from similar events): pod 19", 11));
}

#[test]
fn who_never_stops_is_not_listened_to_and_nobody_fills_the_queue() {
    let mut recorder = Recorder::new("one");
    for n in 0..100 {
        recorder.record("c", &[note("p", "Again", "m")], at(n));
    }
    assert_eq!((recorder.dropped(), recorder.waiting()), (75, 1));
    recorder.record("c", &[note("p", "Again", "m")], at(300_000));
    assert_eq!(recorder.dropped(), 75);
    for n in 0..2 * EVENTS_KNOWN_MAX {
        recorder.record("c", &[note(&format!("q{n}"), "Made", "m")], at(300_000));
    }
    assert_eq!(recorder.waiting(), EVENTS_WAITING_MAX);
    assert!(recorder.known.len() <= EVENTS_KNOWN_MAX && recorder.same.is_bounded());
}

#[test]
fn a_store_that_does_not_take_an_event_is_not_asked_for_ever() {
    let (mut recorder, store) = (Recorder::new("one"), Memory::new(1));
    recorder.record("c", &[note("p", "A", "m")], at(0));
    recorder.ask(0);
    recorder.granted(Ok(9), 0, 0);
    let mut ms = 0;
    for _ in 0..EVENT_TRIES_MAX {
        assert!(matches!(recorder.ask(ms), Some(Ask::Write(_))));
        recorder.written(&Err(Error::Refused("no".to_owned())), ms);
        ms += 1_000;
    }
    assert_eq!((recorder.ask(ms), recorder.dropped(), events(&store).len()), (None, 1, 0));
}
