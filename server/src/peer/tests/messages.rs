//! Messages, handshakes, breaks and leases.

use super::rig::*;
use crate::peer::{Outgoing, PeersConfig};
use bytes::Bytes;
use mechi_replica::outcome::Error;
use mechi_replica::types::{LeaseId, MemberId};

fn unchanged(_: &mut PeersConfig) {}

fn text(text: impl Into<String>) -> Bytes {
    Bytes::from(text.into())
}

#[test]
fn three_members_hear_each_other_in_order() {
    let ends = cluster(3, unchanged);
    let (a, b, c) = (&ends[0], &ends[1], &ends[2]);
    for number in 0..500 {
        a.raft(b, &format!("to b {number}"), number % 2 == 0);
        a.raft(c, &format!("to c {number}"), false);
    }
    a.peers.send(b.id, Outgoing::Batch(text("batch")));
    c.peers.send(b.id, Outgoing::Digest { index: 1024, chain: 0xabc });
    let why = "it does not begin as a batch does".to_owned();
    c.peers.send(b.id, Outgoing::Refused { boot: 3, number: 4, why: why.clone() });
    b.raft(c, "from b", true);
    let heard: Vec<Heard> = (0..=500).map(|_| c.next()).collect();
    let (from_a, others): (Vec<_>, Vec<_>) =
        heard.into_iter().partition(|heard| matches!(heard, Heard::Raft(from, _) if *from == a.id));
    assert_eq!(others, [Heard::Raft(b.id, text("from b"))]);
    let wanted: Vec<Heard> = (0..500).map(|number| Heard::Raft(a.id, text(format!("to c {number}")))).collect();
    assert_eq!(from_a, wanted);
    // Each lane is in order; the two are not in step.
    let mut lanes = [0, 1];
    let (mut batch, mut digest, mut refused) = (false, false, false);
    while !(batch && digest && refused && lanes == [500, 501]) {
        match b.next() {
            Heard::Raft(from, message) => {
                let lane = lanes.iter().position(|next| message == text(format!("to b {next}")));
                lanes[lane.expect("the next of its lane")] += 2;
                assert_eq!(from, a.id);
            }
            Heard::Batch(from, bytes) => {
                assert_eq!((from, bytes, lanes[1]), (a.id, text("batch"), 501));
                batch = true;
            }
            Heard::Digest(from, index, chain) => {
                assert_eq!((from, index, chain), (c.id, 1024, 0xabc));
                digest = true;
            }
            Heard::Refused(from, boot, number, told) => {
                assert_eq!((from, boot, number, &told), (c.id, 3, 4, &why));
                refused = true;
            }
            other => panic!("{other:?}"),
        }
    }
    for end in &ends {
        assert_eq!(end.rest(), []);
    }
}

#[test]
fn what_is_urgent_passes_a_receiver_that_reads_no_batches() {
    let ends = cluster(2, unchanged);
    let (a, b) = (&ends[0], &ends[1]);
    b.gate.set(true);
    let large = Bytes::from(vec![7; 1 << 20]);
    // More than both windows and every buffer on the way hold.
    for _ in 0..40 {
        a.peers.send(b.id, Outgoing::Batch(large.clone()));
    }
    for number in 0..10 {
        a.raft(b, &format!("heartbeat {number}"), true);
        assert_eq!(b.next(), Heard::Raft(a.id, text(format!("heartbeat {number}"))));
    }
    b.gate.set(false);
    for _ in 0..40 {
        assert_eq!(b.next(), Heard::Batch(a.id, large.clone()));
    }
}

#[test]
fn a_full_queue_drops_the_oldest_append_and_says_so() {
    let ends = cluster(2, unchanged);
    let (a, b) = (&ends[0], &ends[1]);
    b.gate.set(true);
    a.peers.send(b.id, Outgoing::Batch(text("holds up the rest")));
    let large = vec![7; 1 << 20];
    let send = |number: u8| {
        let mut message = large.clone();
        message[0] = number;
        a.peers.send(b.id, Outgoing::Raft { message: message.into(), urgent: false });
    };
    (0..120).for_each(send);
    let dropped = a.rest();
    assert!(!dropped.is_empty() && dropped.iter().all(|heard| *heard == Heard::Unreachable(b.id)), "{dropped:?}");
    b.gate.set(false);
    let mut numbers = Vec::new();
    while numbers.last() != Some(&119) {
        if let Heard::Raft(_, message) = b.next() {
            numbers.push(message[0]);
        }
    }
    assert!(numbers.is_sorted(), "{numbers:?}");
    assert_eq!(numbers.len() + dropped.len(), 120, "each one was delivered or reported");
}

#[test]
fn a_kill_is_told_once_and_a_return_is_noticed() {
    let mut ends = cluster(3, unchanged);
    let c = ends.pop().unwrap();
    let id = c.id;
    let urls: Vec<_> = ends.iter().map(|end| (end.id, end.url.clone())).collect();
    let (url, dir) = c.kill();
    for end in &ends {
        end.until(&Heard::Reset(id));
        eventually("both connections are given up", || {
            let member = &end.peers.shared.members[&id];
            !member.urgent.is_open() && !member.bulk.is_open()
        });
        end.peers.send(id, Outgoing::Raft { message: text("lost"), urgent: true });
        end.peers.send(id, Outgoing::Snapshot { index: 1, term: 1 });
        end.until(&Heard::Sent(id, false));
        assert!(!end.rest().contains(&Heard::Reset(id)), "told once");
        assert_eq!(end.peers.active_since(id), None);
    }
    let place = Place::at(&url.to_string(), id.0, dir);
    let config = place.config(&urls);
    ends.push(place.start(config));
    connected(&ends);
    ends[0].raft(&ends[2], "again", true);
    ends[2].until(&Heard::Raft(ends[0].id, text("again")));
    ends.pop().unwrap().kill();
    ends[0].until(&Heard::Reset(id));
}

#[test]
fn an_orderly_stop_delivers_what_waits_and_is_no_reset() {
    let mut ends = cluster(2, unchanged);
    let (b, a) = (ends.pop().unwrap(), ends.pop().unwrap());
    a.raft(&b, "last", true);
    let id = a.id;
    a.stop();
    // Each lane ends by itself.
    let heard = [b.next(), b.next(), b.next()];
    assert!(heard.contains(&Heard::Raft(id, text("last"))), "{heard:?}");
    assert_eq!(heard.iter().filter(|heard| **heard == Heard::Unreachable(id)).count(), 2, "{heard:?}");
    assert_eq!(b.rest(), []);
}

#[test]
fn a_member_that_was_never_there_is_unreachable_but_not_reset() {
    let place = Place::new(10);
    let nobody = Place::new(11);
    let url = nobody.url();
    drop(nobody);
    let config = place.config(&[(MemberId(11), url)]);
    let a = place.start(config);
    for _ in 0..3 {
        a.peers.send(MemberId(11), Outgoing::Raft { message: text("hello"), urgent: true });
        assert_eq!(a.next(), Heard::Unreachable(MemberId(11)));
    }
    a.peers.send(MemberId(11), Outgoing::Batch(text("its author sends it again")));
    a.peers.send(MemberId(12), Outgoing::Raft { message: text("to a stranger"), urgent: true });
    assert_eq!(a.next(), Heard::Unreachable(MemberId(12)));
    let asked = a.runtime().block_on(a.peers.keep_alive(MemberId(11), LeaseId(7)));
    assert_eq!(asked, Err(Error::NoLeader));
    assert_eq!(a.rest(), []);
}

/// How member a refuses a stranger: what it is told of, and the text that the stranger gets.
fn refusal(change: impl Fn(&mut PeersConfig), protocol: u64) -> String {
    let (a, b) = (Place::new(10), Place::new(11));
    let (to_a, to_b) = (a.url(), b.url());
    let config = a.config(&[(b.id, to_b)]);
    let a = a.start(config);
    let mut config = b.config(&[(a.id, to_a.clone())]);
    change(&mut config);
    let addressee = config.others[0].0;
    let b = b.start_as(config, protocol);
    let shared = &b.peers.shared;
    let answer = b.runtime().block_on(async {
        let channel = shared.dialer.connect(&[to_a]).await.unwrap();
        let mut client = mechi_proto::mechipeerpb::peer_client::PeerClient::new(channel);
        let feed = futures_util::stream::empty();
        client.messages(shared.dialer.request(feed, addressee, crate::peer::Lane::Urgent)).await
    });
    let status = answer.expect_err("it is refused");
    assert_eq!(status.code(), tonic::Code::FailedPrecondition);
    assert!(!b.is_up(addressee));
    assert!(!a.rest().contains(&Heard::Reset(b.id)), "a stranger's end is no news");
    status.message().to_owned()
}

#[test]
fn strangers_are_refused_with_a_sentence() {
    let elsewhere = refusal(|config| config.cluster_id = 0xc2, 1);
    assert_eq!(elsewhere, "member b belongs to cluster c2, member a to cluster c1");
    let mistaken = refusal(|config| config.others[0].0 = MemberId(12), 1);
    assert_eq!(mistaken, "member b means to reach member c, but this is member a");
    let unknown = refusal(|config| config.own = MemberId(13), 1);
    assert_eq!(unknown, "member d is not among the members that member a knows");
    let newer = refusal(unchanged, 2);
    assert!(newer.starts_with("member b (version ") && newer.ends_with(" protocol 1"), "{newer}");
}

#[test]
fn a_message_that_is_too_large_is_refused_on_both_sides() {
    let (a, b) = (Place::new(10), Place::new(11));
    let (mut to_a, to_b) = (b.config(&[(a.id, a.url())]), a.config(&[(b.id, b.url())]));
    // b takes less than a believes.
    to_a.message_bytes_max = 1000;
    let ends = [a.start(to_b), b.start(to_a)];
    connected(&ends);
    let [a, b] = &ends;
    b.raft(a, &"x".repeat(2000), true);
    assert_eq!(b.next(), Heard::Unreachable(a.id));
    a.raft(b, &"x".repeat(2000), true);
    a.until(&Heard::Unreachable(b.id));
    // It was not decoded, and the connection is made again.
    eventually("a is connected again", || a.is_up(b.id));
    a.raft(b, "small", true);
    let before = b.until(&Heard::Raft(a.id, text("small")));
    assert!(!before.iter().any(|heard| matches!(heard, Heard::Raft(..))), "{before:?}");
}

#[test]
fn leases_are_asked_for_at_the_leader() {
    let ends = cluster(2, unchanged);
    let (a, b) = (&ends[0], &ends[1]);
    a.runtime().block_on(async {
        assert_eq!(a.peers.keep_alive(b.id, LeaseId(7)).await, Ok(60));
        assert_eq!(a.peers.keep_alive(b.id, LeaseId(8)).await, Err(Error::NotLeader));
        let left = a.peers.time_to_live(b.id, LeaseId(7)).await.unwrap().unwrap();
        assert_eq!((left.ttl, left.granted_ttl), (0, 60), "overdue, but there");
        assert_eq!(a.peers.time_to_live(b.id, LeaseId(8)).await, Ok(None));
    });
}

#[test]
fn connections_are_counted_under_etcds_names() {
    let ends = cluster(2, unchanged);
    let (a, b) = (&ends[0], &ends[1]);
    let metrics = &a.peers.shared.config.metrics;
    let round_trips = metrics.peer_round_trip_time_seconds.with_label_values(&["b"]);
    eventually("the round trip is measured", || round_trips.get_sample_count() > 0);
    assert_eq!(metrics.active_peers.with_label_values(&["a", "b"]).get(), 1);
    assert!(a.peers.status().iter().all(|status| status.active_since.is_some()));
    a.raft(b, "0123456789", true);
    b.until(&Heard::Raft(a.id, text("0123456789")));
    assert_eq!(metrics.peer_sent_bytes_total.with_label_values(&["b"]).get(), 12);
    assert_eq!(b.peers.shared.config.metrics.peer_received_bytes_total.with_label_values(&["a"]).get(), 12);
    a.peers.send(b.id, Outgoing::Raft { message: vec![0; 16 << 20].into(), urgent: false });
    assert_eq!(metrics.peer_sent_failures_total.with_label_values(&["b"]).get(), 1);
}

#[test]
fn unix_sockets_and_the_second_url_serve_too() {
    let dir = std::sync::Arc::new(tempfile::tempdir().unwrap());
    let socket = format!("unix://{}", dir.path().join("peer").display());
    let (a, b) = (Place::new(10), Place::at(&socket, 11, dir));
    let nobody = Place::new(12);
    let wrong = nobody.url();
    drop(nobody);
    let (to_a, mut to_b) = (b.config(&[(a.id, a.url())]), a.config(&[(b.id, b.url())]));
    to_b.others[0].1.insert(0, wrong);
    let ends = [a.start(to_b), b.start(to_a)];
    connected(&ends);
    ends[0].raft(&ends[1], "over a socket file", true);
    assert_eq!(ends[1].next(), Heard::Raft(ends[0].id, text("over a socket file")));
}

#[test]
fn a_connection_that_falls_silent_is_broken() {
    // Nobody accepts behind this port once the link stands still, so only pings can tell.
    let (a, b) = (Place::new(10), Place::new(11));
    let link = Link::new(&b.url(), u64::MAX);
    let mut config = a.config(&[(b.id, link.url.clone())]);
    config.election_timeout = std::time::Duration::from_millis(200);
    let back = b.config(&[(a.id, a.url())]);
    let ends = [a.start(config), b.start(back)];
    connected(&ends);
    link.freeze();
    ends[0].until(&Heard::Reset(ends[1].id));
}
