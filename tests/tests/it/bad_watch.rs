//! Watch streams that ask for what cannot be had, response by response against a real etcd 3.5.1.

use mechi_proto::etcdserverpb as pb;
use mechi_tests::client::Client;
use mechi_tests::process::{Kind, Server};
use mechi_tests::watching::{Watching, create};
use pb::watch_request::RequestUnion;

/// One step on the stream: a request (or one that says nothing), how many responses follow it, and, where etcd 3.5.1
/// answers otherwise, its number of responses and the reason.
struct Step(&'static str, Option<RequestUnion>, usize, Option<(usize, &'static str)>);

fn watch(what: &'static str, request: pb::WatchCreateRequest, responses: usize) -> Step {
    Step(what, Some(RequestUnion::CreateRequest(request)), responses, None)
}

fn cancel(what: &'static str, watch_id: i64, responses: usize) -> Step {
    Step(what, Some(cancel_of(watch_id)), responses, None)
}

fn cancel_of(watch_id: i64) -> RequestUnion {
    RequestUnion::CancelRequest(pb::WatchCancelRequest { watch_id })
}

fn progress(what: &'static str) -> Step {
    Step(what, Some(RequestUnion::ProgressRequest(pb::WatchProgressRequest {})), 1, None)
}

/// The script; the store is at revision 5 and compacted at 4.
fn script() -> Vec<Step> {
    let a = || create(b"a", b"");
    let with_id = |watch_id| pb::WatchCreateRequest { watch_id, ..a() };
    let from = |start_revision| pb::WatchCreateRequest { start_revision, ..a() };
    let negative = "etcd 3.7 refuses a negative start with the create; 3.5.1 creates the watch and then cancels it";
    let ended = "in every etcd a watch that compaction has ended keeps its id until it is canceled once more; in Mechi it \
         is gone, as the client was told";
    vec![
        watch("the first id is 0", a(), 1),
        progress("progress, while all watches are synced"),
        watch("an id of the client's", with_id(7), 1),
        watch("an id that is in use", with_id(7), 1),
        watch("id 0 in a request asks for any", with_id(0), 1),
        watch("a negative id is an id", with_id(-5), 1),
        watch("no key is the smallest key", create(b"", b""), 1),
        watch("no key with an end", create(b"", b"b"), 1),
        watch("an empty range", create(b"b", b"a"), 1),
        watch("a range that ends where it begins", create(b"a", b"a"), 1),
        watch("everything from a key", create(b"a", b"\0"), 1),
        watch("a start in the future", from(1 << 40), 1),
        watch("a start at the compact revision", pb::WatchCreateRequest { start_revision: 4, ..create(b"zz", b"") }, 1),
        watch("a start before it: created, then canceled", from(3), 2),
        watch("a filter that does not exist", pb::WatchCreateRequest { filters: vec![9], ..a() }, 1),
        Step("a request that says nothing", None, 0, None),
        cancel("an id that is not there", 404, 0),
        cancel("a watch", 7, 1),
        cancel("the same watch again", 7, 0),
        watch("an id that is free again", with_id(7), 1),
        Step("the cancel of a watch that compaction has ended", Some(cancel_of(9)), 0, Some((1, ended))),
        cancel("the watch with a start in the future", 6, 1),
        Step("a negative start", Some(RequestUnion::CreateRequest(from(-3))), 1, Some((2, negative))),
    ]
}

async fn start(kind: Kind) -> (Server, Client) {
    let server = Server::start(kind, &[]).expect("starts");
    let mut client = Client::connect(&server.endpoint()).await.expect("answers");
    for key in ["a", "b", "c", "d"] {
        client.put(key, "1").await.expect("puts");
    }
    client.kv.compact(pb::CompactionRequest { revision: 4, physical: true }).await.expect("compacts");
    (server, client)
}

#[tokio::test(flavor = "multi_thread")]
async fn watch_failures_are_etcds_messages() {
    let ((_mechi, mut ours), (_etcd, mut theirs)) = (start(Kind::Mechi).await, start(Kind::Etcd).await);
    let first = || [RequestUnion::CreateRequest(create(b"first", b""))];
    let (mut mine, mut real) = (Watching::open(&mut ours, first()).await, Watching::open(&mut theirs, first()).await);
    assert_eq!(mine.next().await, real.next().await);
    let (mut same, mut wrong) = (0, Vec::new());
    for Step(what, request, responses, reason) in script() {
        let mut all = [Vec::new(), Vec::new()];
        let theirs = reason.map_or(responses, |(theirs, _)| theirs);
        for (watching, answers, responses) in [(&mut mine, 0, responses), (&mut real, 1, theirs)] {
            watching.ask(request.clone()).await;
            // A step that is answered by nothing is followed by one that is answered: what comes first shows it.
            for _ in 0..responses {
                all[answers].push(watching.next().await);
            }
        }
        let [mine, real] = all;
        match reason {
            Some((_, reason)) => println!("watch: {what}\n  mechi {mine:?}\n  etcd  {real:?}\n  {reason}"),
            None if mine == real => same += 1,
            None => wrong.push(format!("{what}\n  mechi {mine:?}\n  etcd  {real:?}")),
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    println!("watch: {same} steps equal");
}
