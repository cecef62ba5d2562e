//! The same random history against Mechi and against a real etcd 3.5.1, answer by answer.
//!
//! Where etcd's own versions differ, [`explained`] names the version and the reason; anything else fails, with the
//! seed and the number of the operation. Now and then watches of the past and `HashKV` of past revisions are compared,
//! and at the end what a watch saw that was open all the time. Three members each are held against each other likewise:
//! each operation goes to the member of both clusters that the seed picks.

use bytes::Bytes;
use mechi_proto::etcdserverpb as pb;
use mechi_proto::mvccpb::Event;
use mechi_tests::client::Client;
use mechi_tests::cluster::{Cluster, NO_ELECTIONS};
use mechi_tests::generate::{self, Known, Op};
use mechi_tests::process::{Kind, Server};
use mechi_tests::rng::Rng;
use mechi_tests::run::{Answer, run};
use mechi_tests::watching::{Watching, create};
use pb::watch_create_request::FilterType;
use std::collections::{BTreeMap, BTreeSet};

/// More histories: `MECHI_DIFF_SEEDS`, from `MECHI_DIFF_FIRST` on.
const SEEDS: u64 = 4;
/// The same of three members.
const CLUSTER_SEEDS: u64 = 1;
const OPS: usize = 2_500;
/// Operations between two looks at the past.
const LOOK_EVERY: usize = 250;
/// Histories at once: a history mostly waits for its servers.
const TOGETHER: usize = 2;

const KEYS_ONLY: &str = "etcd 3.7 answers keys_only from its index, without the lease; 3.5 and 3.6 show the lease";
const HASH_REVISION: &str = "etcd 3.6 and later say in hash_revision what they hashed; 3.5.1 does not know the field";
const COMPACTION_HASH: &str = "etcd 3.5.5 and later answer HashKV of a compaction's revision with the hash that the \
     compaction stored; 3.5.1 refuses it";
const CHECKED_IN_ORDER: &str = "etcd 3.6 and later check the steps of a txn in their order, 3.5.1 all puts before all \
     ranges; 3.7 looks for a put's lease before the key whose value it keeps, 3.5.1 and 3.6 after it";
const TIES: &str = "etcd sorts with Go's sort.Sort, which orders ties as it happens: in 3.5.1 (Go 1.16) from 7 keys on, \
     in 3.7 from 13 on; Mechi orders them by key";

/// What one history came to.
#[derive(Default)]
struct Count {
    operations: usize,
    refused: usize,
    /// Not sent, since they would stop a real etcd, or make its members differ.
    deadly: usize,
    watched: usize,
    hashes: usize,
    explained: BTreeMap<&'static str, usize>,
}

#[tokio::test(flavor = "multi_thread")]
async fn answers_are_etcds_operation_by_operation() {
    compare(1, SEEDS, TOGETHER).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn answers_of_three_members_are_those_of_three_etcds() {
    compare(3, CLUSTER_SEEDS, 1).await;
}

async fn compare(members: usize, seeds: u64, together: usize) {
    let number = |name, default| std::env::var(name).ok().and_then(|n| n.parse().ok()).unwrap_or(default);
    let (first, seeds) = (number("MECHI_DIFF_FIRST", 1), number("MECHI_DIFF_SEEDS", seeds));
    let mut total = Count::default();
    let all: Vec<u64> = (first..first + seeds).collect();
    for seeds in all.chunks(together) {
        let histories: Vec<_> = seeds.iter().map(|&seed| tokio::spawn(history(members, seed))).collect();
        for history in histories {
            let count = history.await.expect("the history is etcd's");
            total.operations += count.operations;
            total.refused += count.refused;
            total.deadly += count.deadly;
            total.watched += count.watched;
            total.hashes += count.hashes;
            for (reason, times) in count.explained {
                *total.explained.entry(reason).or_default() += times;
            }
        }
    }
    let Count { operations, refused, deadly, watched, hashes, explained } = total;
    println!(
        "differential, {members} members: {seeds} seeds, {operations} operations, {refused} of them refused by both"
    );
    println!(
        "differential: {deadly} txns not sent: they delete a key and then keep its value, which stops a real etcd, or \
         read the past, which makes the members of a real cluster differ"
    );
    println!("differential: {watched} watched events and {hashes} hashes of past revisions equal");
    for (reason, times) in explained {
        println!("differential: {times} times: {reason}");
    }
    assert!(operations > 0 && refused * 2 < operations, "most operations must do something");
    assert!(watched > 0 && hashes > 0);
}

/// The members of one kind, and a client of each.
struct Side {
    clients: Vec<Client>,
    _one: Option<Server>,
    _cluster: Option<Cluster>,
}

impl Side {
    async fn start(kind: Kind, members: usize) -> Self {
        let mut flags = Vec::new();
        if members > 1 {
            flags.extend(NO_ELECTIONS);
        }
        if kind == Kind::Etcd {
            // What etcd answers does not depend on its disk, and it is not killed here.
            flags.push("--unsafe-no-fsync");
        }
        let one = (members == 1).then(|| Server::start(kind, &flags).expect("a server starts"));
        let cluster = (members > 1).then(|| Cluster::start(kind, members, &flags).expect("the members start"));
        let all = one.iter().chain(cluster.iter().flat_map(|cluster| &cluster.members));
        let mut clients = Vec::new();
        for endpoint in all.map(Server::endpoint) {
            clients.push(Client::connect(&endpoint).await.expect("it answers"));
        }
        Self { clients, _one: one, _cluster: cluster }
    }

    /// Waits until every member has applied what any of them has acknowledged.
    async fn catch_up(&mut self) {
        if self.clients.len() > 1 {
            for client in &mut self.clients {
                client.get("nothing").await.expect("a linearizable read");
            }
        }
    }
}

/// Whether a member answers from what it has applied itself, or a leader does that may not have applied all it committed.
fn is_local(op: &Op) -> bool {
    match op {
        Op::Range(request) => request.serializable,
        // One that only reads, and only what a member has, is not proposed.
        Op::Txn(_) | Op::TimeToLive(_) | Op::Leases | Op::HashKv(_) => true,
        _ => false,
    }
}

async fn history(members: usize, seed: u64) -> Count {
    let (mut mechi, mut etcd) = (Side::start(Kind::Mechi, members).await, Side::start(Kind::Etcd, members).await);
    let mut ours = mechi.clients[0].clone();
    let mut theirs = etcd.clients[0].clone();
    let (mut rng, mut turns) = (Rng::new(seed), Rng::new(!seed));
    let (mut known, mut compactions) = (Known { revision: 1, compacted: 0 }, BTreeSet::new());
    let mut count = Count::default();
    let (mut our_live, mut their_live) = (everything(&mut ours).await, everything(&mut theirs).await);
    for n in 0..OPS {
        let op = generate::op(&mut rng, known);
        if generate::stops_etcd(&op) || members > 1 && generate::splits_etcd(&op) {
            count.deadly += 1;
            continue;
        }
        let turn = turns.below(members as u64) as usize;
        (ours, theirs) = (mechi.clients[turn].clone(), etcd.clients[turn].clone());
        if is_local(&op) {
            tokio::join!(mechi.catch_up(), etcd.catch_up());
        }
        let (mine, real) = tokio::join!(run(&mut ours, &op), run(&mut theirs, &op));
        if mine != real {
            match explained(&op, &mine, &real, known, &compactions) {
                Some(reasons) => reasons.into_iter().for_each(|why| *count.explained.entry(why).or_default() += 1),
                None => {
                    panic!("seed {seed}, operation {n} at member {turn}: {op:#?}\nmechi: {mine:#?}\netcd:  {real:#?}")
                }
            }
        }
        count.operations += 1;
        count.refused += usize::from(matches!(real, Answer::Refused(..)));
        real.teach(&op, &mut known);
        if let (Op::Compact(request), Answer::Compact(_)) = (&op, &real) {
            compactions.insert(request.revision);
        }
        if n % LOOK_EVERY == LOOK_EVERY - 1 {
            let place = format!("seed {seed}, after operation {n}");
            known.revision = end_of_history(&mut ours, &mut theirs).await;
            tokio::join!(mechi.catch_up(), etcd.catch_up());
            count.watched += compare_watches(&mut ours, &mut theirs, known, &mut rng, &place).await;
            count.hashes += compare_hashes(&mut ours, &mut theirs, known, &compactions, &mut rng, &place).await;
        }
    }
    let (mine, real) = tokio::join!(our_live.until(known.revision), their_live.until(known.revision));
    assert!(mine == real, "seed {seed}: what an open watch saw: {}", first_difference(&mine, &real));
    count.watched += mine.len();
    count
}

type Reasons = BTreeSet<&'static str>;

/// Looks for a difference in the table of known ones; each names the etcd version that behaves as Mechi does.
fn explained(op: &Op, mine: &Answer, real: &Answer, known: Known, compactions: &BTreeSet<i64>) -> Option<Reasons> {
    let mut reasons = Reasons::new();
    match (op, mine, real) {
        (Op::Range(request), Answer::Range(mine), Answer::Range(real)) => {
            let mut real = real.clone();
            explain_range(request, mine, &mut real, &mut reasons);
            (*mine == real).then_some(reasons)
        }
        (Op::Txn(request), Answer::Txn(mine), Answer::Txn(real)) => {
            let mut real = real.clone();
            explain_txn(request, mine, &mut real, &mut reasons);
            (*mine == real).then_some(reasons)
        }
        (Op::Txn(_), Answer::Refused(5 | 11, _), Answer::Refused(3 | 5, text))
            if text.ends_with("key not found") || text.ends_with("requested lease not found") =>
        {
            Some(Reasons::from([CHECKED_IN_ORDER]))
        }
        (Op::HashKv(request), Answer::HashKv(mine), Answer::HashKv(real)) => {
            let hashed = if request.revision == 0 { known.revision } else { request.revision };
            let real = pb::HashKvResponse { hash_revision: hashed, ..*real };
            (*mine == real).then(|| Reasons::from([HASH_REVISION]))
        }
        (Op::HashKv(request), Answer::HashKv(mine), Answer::Refused(11, _)) => {
            let before = compactions.range(..request.revision).next_back();
            let stored = compactions.contains(&request.revision)
                && mine.hash_revision == request.revision
                && mine.compact_revision == before.copied().unwrap_or(-1);
            stored.then(|| Reasons::from([COMPACTION_HASH]))
        }
        _ => None,
    }
}

/// Brings etcd 3.5.1's answer to a range into the form of 3.7, as far as a reason allows it.
fn explain_range(
    request: &pb::RangeRequest,
    mine: &pb::RangeResponse,
    real: &mut pb::RangeResponse,
    reasons: &mut Reasons,
) {
    use pb::range_request::SortTarget;
    if request.keys_only && request.sort_target != SortTarget::Value as i32 && real.kvs.iter().any(|kv| kv.lease != 0) {
        real.kvs.iter_mut().for_each(|kv| kv.lease = 0);
        reasons.insert(KEYS_ONLY);
    }
    if request.sort_target != SortTarget::Key as i32 && *mine != *real && ties_differ(request, mine, real) {
        real.kvs.clone_from(&mine.kvs);
        reasons.insert(TIES);
    }
}

/// Whether two sorted answers differ only by the order of ties, and by which of them a limit cut off.
///
/// Values are gone from an answer of keys alone, so there any order of the same length counts: `it/model_history.rs`
/// holds Mechi's order against the model's.
fn ties_differ(request: &pb::RangeRequest, mine: &pb::RangeResponse, real: &pb::RangeResponse) -> bool {
    type Kv = mechi_proto::mvccpb::KeyValue;
    let sorted_by = |kv: &Kv| match request.sort_target {
        1 => kv.version.to_be_bytes().to_vec(),
        2 => kv.create_revision.to_be_bytes().to_vec(),
        3 => kv.mod_revision.to_be_bytes().to_vec(),
        _ => kv.value.to_vec(),
    };
    let by = |kvs: &[Kv]| kvs.iter().map(sorted_by).collect::<Vec<_>>();
    if by(&mine.kvs) != by(&real.kvs) {
        return false;
    }
    // The last group of ties may be cut; every other one holds the same key-values.
    let cut = mine.more && real.more;
    let last = mine.kvs.last().map(sorted_by);
    let whole = |kvs: &[Kv]| {
        let kvs = kvs.iter().filter(|kv| !cut || Some(sorted_by(kv)) != last);
        kvs.map(|kv| (kv.key.clone(), kv.clone())).collect::<BTreeMap<_, _>>()
    };
    whole(&mine.kvs) == whole(&real.kvs)
}

/// The same for each range of a txn, at any depth.
fn explain_txn(request: &pb::TxnRequest, mine: &pb::TxnResponse, real: &mut pb::TxnResponse, reasons: &mut Reasons) {
    use pb::request_op::Request;
    use pb::response_op::Response;
    let branch = if real.succeeded { &request.success } else { &request.failure };
    for ((op, mine), real) in branch.iter().zip(&mine.responses).zip(&mut real.responses) {
        match (&op.request, &mine.response, &mut real.response) {
            (
                Some(Request::RequestRange(request)),
                Some(Response::ResponseRange(mine)),
                Some(Response::ResponseRange(real)),
            ) => explain_range(request, mine, real, reasons),
            (
                Some(Request::RequestTxn(request)),
                Some(Response::ResponseTxn(mine)),
                Some(Response::ResponseTxn(real)),
            ) => explain_txn(request, mine, real, reasons),
            _ => {}
        }
    }
}

/// A key that no operation touches: its put and its delete are the last two events of whatever watch asks.
const LAST: &[u8] = b"\xff\xffthe end";

async fn end_of_history(ours: &mut Client, theirs: &mut Client) -> i64 {
    let mut ends = Vec::new();
    for client in [ours, theirs] {
        client.put(LAST, "now").await.expect("a put");
        let delete = pb::DeleteRangeRequest { key: Bytes::from_static(LAST), ..Default::default() };
        let deleted = client.kv.delete_range(delete).await.expect("a delete").into_inner();
        ends.push(mechi_tests::client::revision(deleted.header));
    }
    assert_eq!(ends[0], ends[1], "both histories are at the same revision");
    ends[0]
}

async fn everything(client: &mut Client) -> Watching {
    let mut live = Watching::create(client, create(&[0], &[0])).await;
    assert!(live.next().await.created);
    live
}

/// Watches from the compact revision and from later ones: everything, ranges, filtered, with predecessors.
async fn compare_watches(ours: &mut Client, theirs: &mut Client, known: Known, rng: &mut Rng, place: &str) -> usize {
    let first = known.compacted + 1;
    let later = first + rng.below((known.revision - first) as u64) as i64;
    let (no_put, no_delete) = (FilterType::Noput as i32, FilterType::Nodelete as i32);
    let mut watches = Vec::new();
    for start in [first, later] {
        for (key, filter, prev_kv) in [
            (&b"\0"[..], None, true),
            (b"\0", None, false),
            (b"a/", Some(no_put), true),
            (b"a/", Some(no_delete), true),
            (b"b/1", Some(no_delete), false),
            (b"d\xff", None, true),
        ] {
            let filters = filter.into_iter().collect();
            let request = create(key, &[0]);
            watches.push(pb::WatchCreateRequest { start_revision: start, filters, prev_kv, ..request });
        }
    }
    let mut events = 0;
    for request in watches {
        // The last event is the delete of `LAST`, or its put where deletes are not wanted.
        let end = known.revision - i64::from(request.filters.contains(&no_delete));
        let (mine, real) = tokio::join!(seen(ours, &request, end), seen(theirs, &request, end));
        assert!(mine == real, "{place}: {request:?}: {}", first_difference(&mine, &real));
        events += mine.len();
    }
    if known.compacted > 1 {
        let request = pb::WatchCreateRequest { start_revision: known.compacted - 1, ..create(&[0], &[0]) };
        let (mine, real) = (refused(ours, &request).await, refused(theirs, &request).await);
        assert_eq!(mine, real, "{place}: a watch from before the compaction");
    }
    events
}

async fn seen(client: &mut Client, request: &pb::WatchCreateRequest, end: i64) -> Vec<Event> {
    Watching::create(client, request.clone()).await.until(end).await
}

/// The two responses to a watch that comes too late, without what tells clusters apart.
async fn refused(client: &mut Client, request: &pb::WatchCreateRequest) -> Vec<pb::WatchResponse> {
    let mut watching = Watching::create(client, request.clone()).await;
    vec![watching.next().await, watching.next().await]
}

fn first_difference(mine: &[Event], real: &[Event]) -> String {
    let at = mine.iter().zip(real).take_while(|(mine, real)| mine == real).count();
    let (ours, theirs) = (mine.get(at), real.get(at));
    format!("{} and {} events, at {at}:\nmechi: {ours:#?}\netcd:  {theirs:#?}", mine.len(), real.len())
}

/// `HashKV` at revisions between the last compaction and now.
async fn compare_hashes(
    ours: &mut Client,
    theirs: &mut Client,
    known: Known,
    compactions: &BTreeSet<i64>,
    rng: &mut Rng,
    place: &str,
) -> usize {
    let mut revisions = vec![0, known.revision, known.compacted, known.compacted + 1];
    revisions.extend(compactions.iter().rev().take(3));
    revisions.extend((0..6).map(|_| known.compacted + rng.below((known.revision - known.compacted) as u64) as i64));
    let mut equal = 0;
    for revision in revisions {
        let op = Op::HashKv(pb::HashKvRequest { revision });
        let (mine, real) = tokio::join!(run(ours, &op), run(theirs, &op));
        let reason = explained(&op, &mine, &real, known, compactions);
        assert!(mine == real || reason.is_some(), "{place}: HashKV of {revision}:\nmechi {mine:?}\netcd  {real:?}");
        equal += usize::from(matches!((mine, real), (Answer::HashKv(_), Answer::HashKv(_))));
    }
    equal
}
