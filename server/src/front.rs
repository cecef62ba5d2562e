//! The member's front: all its listeners, bound before anything else starts and served once it can answer.

use crate::config::Config;
use crate::config::urls::Url;
use crate::http::{Shared, client_router, metrics_router, peer_router};
use crate::limits::PEER_STREAMS_MAX;
use crate::listen::{Grpc, Handlers, Limits, Listener, serve};
use axum::Router;
use tokio::sync::watch;
use tokio::task::JoinHandle;

/// All listeners of a member.
#[derive(Debug)]
pub struct Front {
    clients: Vec<Listener>,
    client_http: Vec<Listener>,
    metrics: Vec<Listener>,
    peers: Vec<Listener>,
}

impl Front {
    /// Binds every URL of the configuration, so that an address in use ends the start before any file is touched.
    ///
    /// - Errors: the first URL that cannot be bound.
    pub fn bind(config: &Config) -> anyhow::Result<Self> {
        let bind = |urls: &[Url]| urls.iter().map(|url| Listener::bind(url, config.socket)).collect::<Result<_, _>>();
        Ok(Self {
            peers: bind(&config.listen_peer_urls)?,
            clients: bind(&config.listen_client_urls)?,
            client_http: bind(&config.listen_client_http_urls)?,
            metrics: bind(&config.listen_metrics_urls)?,
        })
    }

    /// The bound client addresses, with their real ports.
    pub fn client_addresses(&self) -> Vec<String> {
        self.clients.iter().map(ToString::to_string).collect()
    }

    /// Serves until `shutdown` turns true; the handles end when the last connections have.
    ///
    /// - Shape: `grpc` answers every HTTP/2 request of the client URLs, unknown methods included; `peers` those of the
    ///   peer URLs, which without it speak HTTP/1 only.
    pub fn serve<S: Grpc>(
        self,
        config: &Config,
        shared: Shared,
        grpc: S,
        peers: Option<Router>,
        shutdown: &watch::Receiver<bool>,
    ) -> Vec<JoinHandle<()>> {
        let limits = Limits::new(config);
        let mut handles = Vec::new();
        let http_only = |router: Router| Handlers { http: Some(router), grpc: None::<Router> };
        for listener in self.peers {
            tracing::info!(address = listener.address(), "serving peer traffic insecurely");
            let handlers = Handlers { http: Some(peer_router(shared.clone())), grpc: peers.clone() };
            let limits = Limits { max_concurrent_streams: PEER_STREAMS_MAX, ..limits };
            handles.push(serve(listener, handlers, limits, shutdown.clone()));
        }
        for listener in self.metrics {
            tracing::info!(address = listener.address(), "serving metrics");
            handles.push(serve(listener, http_only(metrics_router(shared.clone())), limits, shutdown.clone()));
        }
        let together = self.client_http.is_empty();
        for listener in self.clients {
            let traffic = if together { "grpc+http" } else { "grpc" };
            tracing::info!(traffic, address = listener.address(), "serving client traffic insecurely");
            let http = together.then(|| client_router(shared.clone()));
            handles.push(serve(listener, Handlers { http, grpc: Some(grpc.clone()) }, limits, shutdown.clone()));
        }
        for listener in self.client_http {
            tracing::info!(traffic = "http", address = listener.address(), "serving client traffic insecurely");
            handles.push(serve(listener, http_only(client_router(shared.clone())), limits, shutdown.clone()));
        }
        handles
    }
}
