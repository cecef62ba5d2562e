//! Where the services find the running member: the listeners stay while a member is stopped and opened again.

use crate::grpc::Server;
use crate::grpc::status::Status as Refusal;
use crate::http;
use crate::node::{Node, Status};
use axum::Router;
use axum::extract::Request;
use axum::response::IntoResponse;
use mechi_proto::etcdserverpb as pb;
use mechi_replica::outcome::Error;
use parking_lot::RwLock;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;
use tower::ServiceExt;

/// Time between two looks whether the last call has ended.
const DRAIN_POLL: Duration = Duration::from_millis(5);

/// The member's place; cheap to clone. Who calls while it is vacant hears `server stopped`, and comes again.
#[derive(Clone, Default)]
pub struct Seat(Arc<RwLock<Sitting>>);

#[derive(Default)]
struct Sitting {
    /// The data directory is empty and the member asks its peers before it takes part.
    is_blank: bool,
    node: Option<Node>,
    /// Set once clients may be served.
    server: Option<Arc<Server>>,
    refresh: Option<Arc<dyn Fn() + Send + Sync>>,
    /// What answers the other members' calls.
    peers: Option<Router>,
}

impl Seat {
    /// Says that this member holds nothing yet, so that peers that ask hear so instead of waiting.
    pub fn blank(&self) {
        self.0.write().is_blank = true;
    }

    /// Puts an opened member in place: health and metrics see it. `refresh` brings its gauges up to date, `peers`
    /// answers the other members.
    pub fn take(&self, node: Node, refresh: Arc<dyn Fn() + Send + Sync>, peers: Router) {
        let mut sitting = self.0.write();
        sitting.is_blank = false;
        sitting.node = Some(node);
        sitting.refresh = Some(refresh);
        sitting.peers = Some(peers);
    }

    /// Lets clients in.
    pub fn serve(&self, server: Server) {
        self.0.write().server = Some(Arc::new(server));
    }

    /// Vacates the place; new calls are refused from now on. Waits until the open ones have ended, at most `max`;
    /// returns whether they have.
    pub async fn leave(&self, max: Duration) -> bool {
        let left = std::mem::take(&mut *self.0.write());
        let Some(server) = left.server else { return true };
        let ended = async {
            // Each open call holds the server.
            while Arc::strong_count(&server) > 1 {
                tokio::time::sleep(DRAIN_POLL).await;
            }
        };
        tokio::time::timeout(max, ended).await.is_ok()
    }

    /// The server that answers clients, if there is one now.
    pub fn server(&self) -> Option<Arc<Server>> {
        self.0.read().server.clone()
    }

    /// A router that hands every call of another member to the open one; without one the call is refused, and comes
    /// again.
    pub fn peer_router(&self) -> Router {
        let seat = self.clone();
        Router::new().fallback(move |request: Request| {
            let peers = seat.0.read().peers.clone();
            async move {
                match peers {
                    Some(peers) => peers.oneshot(request).await.into_response(),
                    None => Refusal::from(Error::Stopped).response(),
                }
            }
        })
    }

    /// The open member, if there is one now.
    pub fn node(&self) -> Option<Node> {
        self.0.read().node.clone()
    }

    /// Brings the gauges up to date, for a scrape.
    pub fn refresh(&self) {
        let refresh = self.0.read().refresh.clone();
        if let Some(refresh) = refresh {
            refresh();
        }
    }
}

impl http::Member for Seat {
    fn status(&self) -> Status {
        self.node().map(|node| node.status()).unwrap_or_default()
    }

    fn read(&self, serializable: bool) -> Pin<Box<dyn Future<Output = Result<(), Error>> + Send + '_>> {
        match self.node() {
            Some(node) => Box::pin(async move { http::Member::read(&node, serializable).await }),
            None => Box::pin(async { Err(Error::Stopped) }),
        }
    }

    fn members(&self) -> Result<Vec<pb::Member>, Error> {
        let sitting = self.0.read();
        match &sitting.node {
            Some(node) => Ok(node.members()),
            None if sitting.is_blank => Ok(Vec::new()),
            None => Err(Error::Stopped),
        }
    }
}
