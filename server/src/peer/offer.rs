//! Offers snapshots to one member, one after the other, and tells once what became of each.

use super::shared::{Member, Shared};
use mechi_proto::mechipeerpb::SnapshotOffer;
use mechi_proto::mechipeerpb::peer_message::Message;
use mechi_replica::disk::{self, join};
use mechi_replica::snapshot::manifest::{self, Manifest};
use mechi_replica::types::{Index, MemberId, Term};
use std::sync::Arc;
use std::time::Instant;
use tokio::sync::mpsc;
use tokio::task::spawn_blocking;
use tokio::time::sleep_until;

/// What the task waits for.
pub(super) struct Letters {
    pub(super) offers: mpsc::Receiver<(Index, Term)>,
    pub(super) taken: mpsc::Receiver<(Index, bool)>,
}

/// Offers what it is told to until the member stops.
pub(super) async fn run(shared: Arc<Shared>, id: MemberId, mut letters: Letters) {
    let member = shared.members.get(&id).expect("a task is started for a known member");
    let network = &shared.config.metrics;
    let label = [member.label.as_str()];
    let mut next = None;
    loop {
        let offer = match next.take() {
            Some(offer) => offer,
            None => tokio::select! {
                biased;
                () = shared.stopped() => break,
                offer = letters.offers.recv() => match offer {
                    Some(offer) => offer,
                    None => break,
                },
            },
        };
        let began = Instant::now();
        network.snapshot_send_inflights_total.with_label_values(&label).inc();
        let result = attempt(&shared, member, offer, &mut letters, &mut next).await;
        network.snapshot_send_inflights_total.with_label_values(&label).dec();
        let (index, term) = offer;
        match &result {
            Ok(()) => {
                tracing::info!(to = member.label, index, term, "sent database snapshot");
                network.snapshot_send_success.with_label_values(&label).inc();
                let took = began.elapsed().as_secs_f64();
                network.snapshot_send_total_duration_seconds.with_label_values(&label).observe(took);
            }
            Err(why) => {
                // Raft offers again at once while the other member cannot be reached.
                if member.offer_errors.may_log(why) {
                    tracing::warn!(to = member.label, index, term, why, "failed to send a snapshot");
                }
                network.snapshot_send_failures.with_label_values(&label).inc();
            }
        }
        shared.events.snapshot_sent(id, result.is_ok());
    }
    letters.offers.close();
    while letters.offers.recv().await.is_some() {
        shared.events.snapshot_sent(id, false);
    }
}

async fn attempt(
    shared: &Arc<Shared>,
    member: &Member,
    (index, term): (Index, Term),
    letters: &mut Letters,
    next: &mut Option<(Index, Term)>,
) -> Result<(), String> {
    let pinning = shared.clone();
    let pinned = spawn_blocking(move || pin(&pinning, index, term)).await;
    pinned.map_err(|_| String::from("this member stops"))??;
    // Answers to earlier offers, for which nobody waits any more.
    while letters.taken.try_recv().is_ok() {}
    let mut breaks = member.bulk_breaks.subscribe();
    *member.fetched_at.lock() = Instant::now();
    let pushed = member.bulk.push(Message::Offer(SnapshotOffer { index, term }));
    let generation = pushed.taken.ok_or("there is no connection with it")?;
    loop {
        let deadline = *member.fetched_at.lock() + shared.config.snapshot_silence;
        tokio::select! {
            biased;
            () = shared.stopped() => return Err("this member stops".into()),
            Some((taken, ok)) = letters.taken.recv() => {
                if taken == index {
                    return if ok { Ok(()) } else { Err("it could not take it".into()) };
                }
            }
            Some(offer) = letters.offers.recv() => {
                *next = Some(offer);
                return Err("another snapshot takes its place".into());
            }
            _ = breaks.changed() => {
                if !member.bulk.is_up(generation) {
                    return Err("the connection broke".into());
                }
            }
            () = sleep_until(deadline.into()) => {
                if *member.fetched_at.lock() + shared.config.snapshot_silence <= Instant::now() {
                    return Err("it has been silent".into());
                }
            }
        }
    }
}

/// Keeps the snapshot's files for the other member.
fn pin(shared: &Shared, index: Index, term: Term) -> Result<(), String> {
    let path = join(&shared.config.snapshots, &name(index, term));
    let bytes = disk::read(&shared.config.disk, &path).map_err(|error| error.to_string())?;
    let manifest = Manifest::decode(&bytes, &path).map_err(|error| error.to_string())?;
    shared.config.pins.offer(&manifest, shared.config.snapshot_silence);
    Ok(())
}

/// The name of a snapshot's manifest.
pub(super) fn name(index: Index, term: Term) -> String {
    format!("{index:016x}-{term:016x}{}", manifest::SUFFIX)
}
