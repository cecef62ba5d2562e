//! What the client library's tests stand on: the same case against Mechi and against etcd.

use crate::cluster::Cluster;
use crate::process::Server;
use mechi_client::{Client, Config};
use std::time::Duration;

/// How long one call may take with all its retries: an election of etcd's on a busy machine fits in.
pub const CALL_MAX: Duration = Duration::from_secs(30);

/// How long a test waits for what must come.
pub const COMES_MAX: Duration = Duration::from_secs(60);

/// Runs each case against both servers, as tests of their own.
#[macro_export]
macro_rules! on_both {
    ($($case:ident),* $(,)?) => {
        mod mechi {
            $(#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn $case() {
                super::$case($crate::process::Kind::Mechi).await;
            })*
        }
        mod etcd {
            $(#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn $case() {
                super::$case($crate::process::Kind::Etcd).await;
            })*
        }
    };
}

/// A configuration that tries the endpoints in this order, with time for elections.
pub fn config(endpoints: impl IntoIterator<Item = String>) -> Config {
    Config::new(endpoints).seed(1).request_timeout(CALL_MAX)
}

/// A client of one server.
pub async fn client(server: &Server) -> Client {
    Client::connect(config([server.endpoint()])).await.expect("the server is reached")
}

/// A client of the members, which begins at the first of `order`.
pub async fn client_of(cluster: &Cluster, order: &[usize]) -> Client {
    let endpoints = order.iter().map(|n| cluster.members[*n].endpoint());
    Client::connect(config(endpoints)).await.expect("a member is reached")
}

/// The revision of a header.
pub fn revision(header: &Option<mechi_client::pb::ResponseHeader>) -> i64 {
    header.as_ref().expect("every answer of the store has a header").revision
}
