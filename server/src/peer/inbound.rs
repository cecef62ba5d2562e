//! What comes from other members: the service on the peer port.

use super::fetch::Offer;
use super::hello::Lane;
use super::lease;
use super::serve;
use super::shared::{Member, Shared};
use crate::limits::PEER_STOP_GRACE;
use futures_util::stream;
use futures_util::{Stream, StreamExt};
use mechi_proto::mechipeerpb::peer_message::Message;
use mechi_proto::mechipeerpb::peer_server::Peer;
use mechi_proto::mechipeerpb::{
    FetchPart, FetchRequest, PeerEnd, PeerLeaseRequest, PeerLeaseResponse, PeerMessage, PeerProbe,
};
use mechi_replica::types::{LeaseId, MemberId};
use prost::Message as _;
use std::pin::Pin;
use std::sync::Arc;
use tokio::sync::oneshot;
use tokio::time::timeout;
use tonic::{Request, Response, Status, Streaming};

/// Answers the calls of other members.
pub(super) struct Inbound(pub(super) Arc<Shared>);

type Answers<T> = Pin<Box<dyn Stream<Item = Result<T, Status>> + Send>>;

#[tonic::async_trait]
impl Peer for Inbound {
    type MessagesStream = Answers<PeerEnd>;
    type FetchStream = Answers<FetchPart>;

    async fn messages(
        &self,
        request: Request<Streaming<PeerMessage>>,
    ) -> Result<Response<Self::MessagesStream>, Status> {
        let (member, caller) = self.0.admit(request.metadata())?;
        let (id, lane) = (member.id, caller.lane);
        let (number, replaced) = member.begin_inbound(lane);
        member.heard();
        tracing::debug!(member = member.label, lane = lane.name(), version = caller.version, "another member talks");
        let (end, ended) = oneshot::channel();
        let shared = self.0.clone();
        let receiving = Receiving { shared, id, lane, number };
        let task = async move { receiving.run(request.into_inner(), replaced, end).await };
        if !self.0.spawn(task) {
            return Err(Status::unavailable("this member stops"));
        }
        let answers = stream::once(async move {
            match ended.await {
                Ok(()) => Ok(PeerEnd {}),
                Err(_) => Err(Status::aborted("the talk is over")),
            }
        });
        Ok(Response::new(answers.boxed()))
    }

    async fn probe(&self, request: Request<PeerProbe>) -> Result<Response<PeerProbe>, Status> {
        self.0.admit(request.metadata())?;
        Ok(Response::new(PeerProbe {}))
    }

    async fn fetch(&self, request: Request<FetchRequest>) -> Result<Response<Self::FetchStream>, Status> {
        let (member, _) = self.0.admit(request.metadata())?;
        let parts = serve::parts(&self.0, member.id, request.into_inner()).await?;
        Ok(Response::new(parts.boxed()))
    }

    async fn keep_alive(&self, request: Request<PeerLeaseRequest>) -> Result<Response<PeerLeaseResponse>, Status> {
        self.0.admit(request.metadata())?;
        let ttl = self.0.events.keep_alive(LeaseId(request.into_inner().id)).await.map_err(lease::to_status)?;
        Ok(Response::new(PeerLeaseResponse { ttl, granted_ttl: 0 }))
    }

    async fn time_to_live(&self, request: Request<PeerLeaseRequest>) -> Result<Response<PeerLeaseResponse>, Status> {
        self.0.admit(request.metadata())?;
        let remaining = self.0.events.time_to_live(LeaseId(request.into_inner().id)).await;
        let remaining = remaining.map_err(lease::to_status)?;
        let answer = remaining.map_or_else(PeerLeaseResponse::default, |remaining| PeerLeaseResponse {
            ttl: remaining.ttl,
            granted_ttl: remaining.granted_ttl,
        });
        Ok(Response::new(answer))
    }
}

/// One stream of messages.
struct Receiving {
    shared: Arc<Shared>,
    id: MemberId,
    lane: Lane,
    number: u64,
}

impl Receiving {
    /// Hands messages on until the stream ends; a proper end is told to its sender by `end`.
    async fn run(
        &self,
        mut stream: Streaming<PeerMessage>,
        mut replaced: oneshot::Receiver<()>,
        end: oneshot::Sender<()>,
    ) {
        let member = self.shared.members.get(&self.id).expect("the handshake looked it up");
        let received = self.shared.config.metrics.peer_received_bytes_total.with_label_values(&[&member.label]);
        let stopped = self.shared.stopped();
        let mut stopped = std::pin::pin!(stopped);
        loop {
            let message = tokio::select! {
                biased;
                () = &mut stopped => {
                    // The sender closes its half once it knows. A process that is gone before would look like a crash.
                    let _ = end.send(());
                    let closed = async { while let Ok(Some(_)) = stream.message().await {} };
                    let _ = timeout(PEER_STOP_GRACE, closed).await;
                    return;
                }
                _ = &mut replaced => return,
                message = stream.message() => message,
            };
            match message {
                Ok(Some(message)) => {
                    received.inc_by(message.encoded_len() as u64);
                    member.heard();
                    self.deliver(member, message);
                }
                Ok(None) => {
                    // A caller that is gone needs no end.
                    let _ = end.send(());
                    return;
                }
                Err(status) => return self.broken(member, &status),
            }
        }
    }

    fn deliver(&self, member: &Member, message: PeerMessage) {
        let events = &self.shared.events;
        match message.message {
            Some(Message::Raft(message)) => events.raft(self.id, message),
            Some(Message::Batch(batch)) => events.batch(self.id, batch),
            Some(Message::Refused(refused)) => {
                events.batch_refused(self.id, refused.boot, refused.number, &refused.why);
            }
            Some(Message::Digest(digest)) => events.digest(self.id, digest.index, digest.chain),
            Some(Message::Offer(offer)) => {
                let offer = Offer { from: self.id, index: offer.index, term: offer.term };
                // A newer offer takes the place of an older one; the same one again changes nothing while it is fetched.
                self.shared.wanted.send_replace(Some(offer));
            }
            Some(Message::Taken(taken)) => {
                // A full box holds answers to offers that nobody waits for.
                let _ = member.taken.try_send((taken.index, taken.ok));
            }
            // Something that a newer member says and this one does not know.
            None => {}
        }
    }

    fn broken(&self, member: &Member, status: &Status) {
        // The connection that took its place is whole: nothing has ended.
        if !member.is_current(self.lane, self.number) {
            return;
        }
        let why = status.message();
        tracing::warn!(member = member.label, lane = self.lane.name(), why, "another member's connection broke");
        self.shared.config.metrics.peer_received_failures_total.with_label_values(&[&member.label]).inc();
        self.shared.broke(member);
    }
}
