//! The member's front: all its listeners, bound before anything else starts and served once it can answer.

use crate::config::Config;
use crate::config::urls::Url;
use crate::failpoint;
use crate::http::{Shared, client_router, metrics_router, peer_router};
use crate::limits::PEER_STREAMS_MAX;
use crate::listen::{Handlers, Http2, Limits, Listener, serve};
use axum::Router;
use std::time::Duration;
use tokio::sync::watch;
use tokio::task::JoinHandle;

/// All listeners of a member; each group is served when it can be.
#[derive(Debug)]
pub struct Front {
    addresses: Vec<String>,
    clients: Vec<Listener>,
    client_http: Vec<Listener>,
    metrics: Vec<Listener>,
    peers: Vec<Listener>,
    limits: Limits,
    inner: Group,
    outer: Group,
}

/// Listeners that are served and end together.
#[derive(Debug)]
struct Group {
    shutdown: watch::Sender<bool>,
    served: Vec<JoinHandle<()>>,
}

impl Group {
    fn new() -> Self {
        Self { shutdown: watch::Sender::new(false), served: Vec::new() }
    }

    fn serve<S: Http2>(&mut self, listener: Listener, handlers: Handlers<S>, limits: Limits) {
        self.served.push(serve(listener, handlers, limits, self.shutdown.subscribe()));
    }

    /// Accepts nothing more and waits until the last connections have ended, at most `max`; returns whether they have.
    async fn close(&mut self, max: Duration) -> bool {
        self.shutdown.send_replace(true);
        let served = std::mem::take(&mut self.served);
        let drained = async {
            for connections in served {
                // A listener's task that panicked has said so already.
                let _ = connections.await;
            }
        };
        tokio::time::timeout(max, drained).await.is_ok()
    }
}

impl Front {
    /// Binds every URL of the configuration, so that an address in use ends the start before any file is touched.
    ///
    /// - Errors: the first URL that cannot be bound.
    pub fn bind(config: &Config) -> anyhow::Result<Self> {
        let bind = |urls: &[Url]| urls.iter().map(|url| Listener::bind(url, config.socket)).collect::<Result<_, _>>();
        let clients: Vec<Listener> = bind(&config.listen_client_urls)?;
        Ok(Self {
            addresses: clients.iter().map(ToString::to_string).collect(),
            peers: bind(&config.listen_peer_urls)?,
            clients,
            client_http: bind(&config.listen_client_http_urls)?,
            metrics: bind(&config.listen_metrics_urls)?,
            limits: Limits::new(config),
            inner: Group::new(),
            outer: Group::new(),
        })
    }

    /// The bound client addresses, with their real ports.
    pub fn client_addresses(&self) -> &[String] {
        &self.addresses
    }

    /// Serves peers and metrics, which must answer before the member can: without its peers it never could.
    pub fn serve_peers<S: Http2>(&mut self, shared: &Shared, grpc: S) {
        for listener in std::mem::take(&mut self.peers) {
            tracing::info!(address = listener.address(), "serving peer traffic insecurely");
            let handlers = Handlers { http: Some(peer_router(shared.clone())), http2: Some(grpc.clone()) };
            let limits = Limits { max_concurrent_streams: PEER_STREAMS_MAX, ..self.limits };
            self.inner.serve(listener, handlers, limits);
        }
        for listener in std::mem::take(&mut self.metrics) {
            tracing::info!(address = listener.address(), "serving metrics");
            let router = failpoint::beside(metrics_router(shared.clone()), listener.address());
            self.inner.serve(listener, http_only(router), self.limits);
        }
    }

    /// Serves clients; a second call finds nothing more to serve.
    ///
    /// - Shape: `grpc` answers every HTTP/2 request of the client URLs, unknown methods included.
    pub fn serve_clients<S: Http2>(&mut self, shared: &Shared, grpc: S) {
        let together = self.client_http.is_empty();
        for listener in std::mem::take(&mut self.clients) {
            let traffic = if together { "grpc+http" } else { "grpc" };
            tracing::info!(traffic, address = listener.address(), "serving client traffic insecurely");
            let router = || failpoint::beside(client_router(shared.clone()), listener.address());
            let handlers = Handlers { http: together.then(router), http2: Some(grpc.clone()) };
            self.outer.serve(listener, handlers, self.limits);
        }
        for listener in std::mem::take(&mut self.client_http) {
            tracing::info!(traffic = "http", address = listener.address(), "serving client traffic insecurely");
            let router = failpoint::beside(client_router(shared.clone()), listener.address());
            self.outer.serve(listener, http_only(router), self.limits);
        }
    }

    /// Takes no more clients and waits until their last calls have ended, at most `max`; returns whether they have.
    pub async fn close_clients(&mut self, max: Duration) -> bool {
        // A listener that was never served goes too: nobody may wait in its backlog.
        self.clients.clear();
        self.client_http.clear();
        self.outer.close(max).await
    }

    /// Does the same for peers and metrics. The member goes first: it ends its talks with the others by itself, and a
    /// connection that broke under them would look like a crash.
    pub async fn close_peers(&mut self, max: Duration) -> bool {
        self.peers.clear();
        self.metrics.clear();
        self.inner.close(max).await
    }
}

fn http_only(router: Router) -> Handlers<Router> {
    Handlers { http: Some(router), http2: None }
}
