//! The book against a server that is played here, answer by answer.

use super::*;
use crate::limits::WATCH_BATCHES_MAX;
use std::task::{Context, Poll, Waker};

/// A reader of one watch.
struct Reader {
    queue: Queue,
    confirmed: oneshot::Receiver<Result<(), Error>>,
}

impl Reader {
    /// What waits: revisions of events, `p` for progress, `c` for created, or the error.
    fn read(&self, book: &mut Book, key: WatchKey) -> Vec<String> {
        let mut told = Vec::new();
        let mut is_drained = false;
        while let Poll::Ready(Some(next)) =
            self.queue.poll(&mut Context::from_waker(Waker::noop()), || is_drained = true)
        {
            told.push(match next {
                Ok(batch) if batch.is_progress() => format!("p{}", batch.revision()),
                Ok(batch) if batch.0.created => "c".to_owned(),
                Ok(batch) => {
                    let revisions = batch.events().iter().map(|event| event.kv.as_ref().unwrap().mod_revision);
                    revisions.map(|revision| revision.to_string()).collect::<Vec<_>>().join("+")
                }
                Err(error) => error.to_string(),
            });
        }
        if is_drained {
            book.unpark(key);
        }
        told
    }
}

fn add(book: &mut Book, key: WatchKey, start_revision: i64) -> Reader {
    let queue = Queue::default();
    let (confirm, confirmed) = oneshot::channel();
    let request = pb::WatchCreateRequest { key: "k".into(), start_revision, ..Default::default() };
    book.add(key, Wanted { request, tells_created: false, queue: queue.clone(), confirm });
    Reader { queue, confirmed }
}

/// What goes to the server: `+REVISION` for a create, `-ID` for a cancel, `p` for progress.
fn sent(book: &mut Book) -> Vec<String> {
    std::iter::from_fn(|| book.take_message())
        .map(|message| match message.request_union.unwrap() {
            RequestUnion::CreateRequest(create) => format!("+{}", create.start_revision),
            RequestUnion::CancelRequest(cancel) => format!("-{}", cancel.watch_id),
            RequestUnion::ProgressRequest(_) => "p".to_owned(),
        })
        .collect()
}

fn header(revision: i64) -> Option<pb::ResponseHeader> {
    Some(pb::ResponseHeader { revision, ..Default::default() })
}

fn created(watch_id: i64, revision: i64) -> pb::WatchResponse {
    pb::WatchResponse { watch_id, header: header(revision), created: true, ..Default::default() }
}

fn events(watch_id: i64, revisions: &[i64]) -> pb::WatchResponse {
    let event = |mod_revision: &i64| mvccpb::Event {
        kv: Some(mvccpb::KeyValue { key: "k".into(), mod_revision: *mod_revision, ..Default::default() }),
        ..Default::default()
    };
    let last = revisions.last().copied().unwrap_or_default();
    pb::WatchResponse {
        watch_id,
        header: header(last),
        events: revisions.iter().map(event).collect(),
        ..Default::default()
    }
}

fn part(watch_id: i64, revisions: &[i64]) -> pb::WatchResponse {
    pb::WatchResponse { fragment: true, ..events(watch_id, revisions) }
}

fn progress(watch_id: i64, revision: i64) -> pb::WatchResponse {
    pb::WatchResponse { watch_id, header: header(revision), ..Default::default() }
}

/// A book with one watch from now on, on the server under id 7, when the store is at revision 10.
fn live() -> (Book, Reader) {
    let mut book = Book::default();
    let mut reader = add(&mut book, 0, 0);
    assert_eq!(sent(&mut book), ["+0"]);
    assert_eq!(book.answer(created(7, 10)), After::Confirmed);
    assert!(matches!(reader.confirmed.try_recv(), Ok(Ok(()))));
    (book, reader)
}

#[test]
fn a_watch_goes_on_behind_its_last_event() {
    let (mut book, reader) = live();
    book.answer(events(7, &[11, 11, 12]));
    book.begin_stream();
    assert_eq!(sent(&mut book), ["+13"]);
    // The old id is another's, or nobody's, on the new stream.
    book.answer(events(7, &[13]));
    book.answer(created(0, 20));
    book.answer(events(0, &[13, 14]));
    assert_eq!(reader.read(&mut book, 0), ["11+11+12", "13+14"]);
}

#[test]
fn a_watch_without_events_goes_on_from_where_it_was_made() {
    let (mut book, _reader) = live();
    book.begin_stream();
    assert_eq!(sent(&mut book), ["+11"], "not from now: events may have come between the streams");
}

#[test]
fn what_was_delivered_is_not_delivered_again() {
    let (mut book, reader) = live();
    book.answer(events(7, &[11, 12]));
    book.answer(events(7, &[11, 12, 13]));
    book.answer(events(7, &[12]));
    assert_eq!(reader.read(&mut book, 0), ["11+12", "13"]);
}

#[test]
fn progress_moves_a_watch_on_but_not_that_of_the_whole_stream() {
    let (mut book, reader) = live();
    book.answer(progress(-1, 15));
    book.begin_stream();
    assert_eq!(sent(&mut book), ["+11"]);
    book.answer(created(0, 20));
    book.answer(progress(0, 20));
    book.begin_stream();
    assert_eq!(sent(&mut book), ["+21"]);
    assert_eq!(reader.read(&mut book, 0), ["p15", "p20"]);
}

#[test]
fn progress_does_not_take_a_watch_of_the_future_back() {
    let mut book = Book::default();
    let _reader = add(&mut book, 0, 100);
    sent(&mut book);
    book.answer(created(0, 10));
    book.answer(progress(0, 20));
    book.begin_stream();
    assert_eq!(sent(&mut book), ["+100"]);
}

#[test]
fn parts_are_put_together_by_revision() {
    let (mut book, reader) = live();
    book.answer(part(7, &[11, 12]));
    book.answer(part(7, &[12, 12]));
    book.answer(part(7, &[12, 13]));
    assert_eq!(reader.read(&mut book, 0), ["11", "12+12+12+12"], "13 may have more");
    book.answer(events(7, &[13, 14]));
    assert_eq!(reader.read(&mut book, 0), ["13+13+14"]);
}

#[test]
fn half_a_revision_is_asked_for_again_on_the_next_stream() {
    let (mut book, reader) = live();
    book.answer(part(7, &[11, 12]));
    book.begin_stream();
    assert_eq!(sent(&mut book), ["+12"]);
    book.answer(created(0, 20));
    book.answer(events(0, &[12, 12]));
    assert_eq!(reader.read(&mut book, 0), ["11", "12+12"]);
}

#[test]
fn a_slow_reader_takes_its_watch_off_the_server_and_misses_nothing() {
    let (mut book, reader) = live();
    let end = 11 + WATCH_BATCHES_MAX as i64;
    for revision in 11..=end + 3 {
        book.answer(events(7, &[revision]));
    }
    assert_eq!(sent(&mut book), ["-7"], "canceled once; what was under way is nobody's");
    book.begin_stream();
    assert_eq!(sent(&mut book), Vec::<String>::new(), "a new stream does not bring it back either");
    assert_eq!(reader.read(&mut book, 0).len(), WATCH_BATCHES_MAX);
    assert_eq!(sent(&mut book), [format!("+{end}")]);
}

#[test]
fn compaction_ends_a_watch_behind_what_waits() {
    let (mut book, reader) = live();
    book.answer(events(7, &[11]));
    let compacted = pb::WatchResponse { watch_id: 7, canceled: true, compact_revision: 30, ..Default::default() };
    book.answer(compacted);
    assert!(book.is_empty());
    let told = reader.read(&mut book, 0);
    assert_eq!(told[0], "11");
    assert!(told[1].contains("required revision has been compacted (compact revision 30)"), "{told:?}");
    assert_eq!(told.len(), 2);
}

#[test]
fn answers_belong_to_asks_in_their_order_also_where_a_reader_has_gone() {
    let mut book = Book::default();
    let (first, second, third) = (add(&mut book, 0, 1), add(&mut book, 1, 2), add(&mut book, 2, 3));
    assert_eq!(sent(&mut book), ["+1", "+2", "+3"]);
    book.remove(1);
    let refused = pb::WatchResponse {
        watch_id: -1,
        created: true,
        canceled: true,
        cancel_reason: "no".to_owned(),
        ..Default::default()
    };
    assert_eq!(book.answer(refused), After::Refused("no".to_owned()));
    book.fail_first_pending("no".to_owned());
    book.answer(created(0, 10));
    book.answer(created(1, 10));
    assert_eq!(sent(&mut book), ["-0"], "the watch whose reader has gone");
    book.answer(events(1, &[3]));
    assert_eq!(third.read(&mut book, 2), ["3"]);
    assert!(second.read(&mut book, 1).is_empty());
    let Ok(Err(error)) = first.confirmed.blocking_recv() else { panic!("it was refused") };
    assert_eq!(error.to_string(), "watch canceled: no");
}

#[test]
fn an_answer_to_no_ask_is_nonsense() {
    let mut book = Book::default();
    assert!(matches!(book.answer(created(0, 1)), After::Nonsense(_)));
    assert_eq!(book.answer(events(5, &[1])), After::GoOn, "an event of a canceled watch is not");
}
