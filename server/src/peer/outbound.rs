//! What goes to another member: a task and a connection for each lane, made again as often as it breaks.

use super::hello::Lane;
use super::shared::{Member, Shared};
use crate::limits::{
    PEER_CONNECT_TIMEOUT, PEER_DIAL_PAUSE_MAX, PEER_DIAL_PAUSE_MIN, PEER_PROBE_INTERVAL, PEER_STEADY, PEER_STOP_GRACE,
};
use mechi_proto::mechipeerpb::peer_client::PeerClient;
use mechi_proto::mechipeerpb::{PeerEnd, PeerProbe};
use mechi_replica::types::MemberId;
use std::sync::Arc;
use std::time::Instant;
use tokio::time::{sleep, timeout};
use tonic::Streaming;
use tonic::transport::Channel;

/// Keeps the connection of one lane to one member until the member stops.
pub(super) async fn run(shared: Arc<Shared>, id: MemberId, lane: Lane) {
    let member = shared.members.get(&id).expect("a task is started for a known member");
    let mut pause = PEER_DIAL_PAUSE_MIN;
    loop {
        let opened = tokio::select! {
            biased;
            () = shared.stopped() => return,
            opened = open(&shared, member, lane) => opened,
        };
        match opened {
            Ok(open) => {
                let began = Instant::now();
                talk(&shared, member, lane, open).await;
                if began.elapsed() >= PEER_STEADY {
                    pause = PEER_DIAL_PAUSE_MIN;
                    continue;
                }
            }
            Err(why) => {
                if member.dial_errors[lane as usize].may_log(&why) {
                    tracing::warn!(member = member.label, lane = lane.name(), why, "cannot talk to another member");
                }
            }
        }
        tokio::select! {
            biased;
            () = shared.stopped() => return,
            () = sleep(pause) => {}
        }
        pause = (pause * 2).min(PEER_DIAL_PAUSE_MAX);
    }
}

/// A connection whose other end let this member in.
struct Open {
    channel: Channel,
    answers: Streaming<PeerEnd>,
}

async fn open(shared: &Shared, member: &Member, lane: Lane) -> Result<Open, String> {
    let channel = shared.dialer.connect(&member.urls).await?;
    let feed = member.queue(lane).begin();
    let mut client = PeerClient::new(channel.clone());
    let call = client.messages(shared.dialer.request(feed, member.id, lane));
    let late = |_| format!("no answer to the handshake within {PEER_CONNECT_TIMEOUT:?}");
    let answer = timeout(PEER_CONNECT_TIMEOUT, call).await.map_err(late)?;
    let answers = answer.map_err(|status| status.message().to_owned())?.into_inner();
    Ok(Open { channel, answers })
}

/// Lets messages pass until the connection ends.
async fn talk(shared: &Shared, member: &Member, lane: Lane, open: Open) {
    let Open { channel, mut answers } = open;
    let queue = member.queue(lane);
    let labels = [shared.dialer.hello.own.to_string(), member.label.clone()];
    let labels: [&str; 2] = [&labels[0], &labels[1]];
    let network = &shared.config.metrics;
    member.heard();
    queue.set_up();
    if lane == Lane::Urgent {
        *member.channel.lock() = Some((channel.clone(), Instant::now()));
        network.active_peers.with_label_values(&labels).set(1);
    }
    tracing::info!(member = member.label, lane = lane.name(), "established a connection with another member");
    let ended = tokio::select! {
        biased;
        () = shared.stopped() => {
            queue.close();
            // What waits still goes out, and the other end learns that this is no crash.
            let _ = timeout(PEER_STOP_GRACE, answers.message()).await;
            None
        }
        ended = answers.message() => Some(ended),
        () = probe(shared, member, lane, channel.clone()) => None,
    };
    queue.set_down();
    if lane == Lane::Urgent {
        *member.channel.lock() = None;
        network.active_peers.with_label_values(&labels).set(0);
        network.disconnected_peers_total.with_label_values(&labels).inc();
    } else {
        member.bulk_breaks.send_modify(|breaks| *breaks += 1);
    }
    let Some(ended) = ended else { return };
    shared.events.unreachable(member.id);
    match ended {
        Ok(_) => tracing::info!(member = member.label, lane = lane.name(), "the other member ended the connection"),
        Err(status) => {
            let why = status.message();
            tracing::warn!(member = member.label, lane = lane.name(), why, "lost the connection with another member");
            shared.broke(member);
        }
    }
}

/// Measures the round trip now and then; never ends.
async fn probe(shared: &Shared, member: &Member, lane: Lane, channel: Channel) {
    if lane != Lane::Urgent {
        return std::future::pending().await;
    }
    let times = shared.config.metrics.peer_round_trip_time_seconds.with_label_values(&[&member.label]);
    let mut client = PeerClient::new(channel);
    loop {
        let began = Instant::now();
        if client.probe(shared.dialer.request(PeerProbe {}, member.id, lane)).await.is_ok() {
            times.observe(began.elapsed().as_secs_f64());
        }
        sleep(PEER_PROBE_INTERVAL).await;
    }
}
