//! One watch stream as a test uses it: ask, and read what comes, in order and within a time.

use crate::client::Client;
use bytes::Bytes;
use mechi_proto::etcdserverpb as pb;
use mechi_proto::mvccpb::Event;
use pb::watch_request::RequestUnion;
use std::time::Duration;
use tokio::sync::mpsc;
use tonic::Streaming;

/// How long a response may take.
const WAIT_MAX: Duration = Duration::from_secs(60);

/// An open stream; it ends when this is dropped.
pub struct Watching {
    requests: mpsc::Sender<pb::WatchRequest>,
    responses: Streaming<pb::WatchResponse>,
}

/// A watch of `key` to `range_end`, and nothing else asked.
pub fn create(key: &[u8], range_end: &[u8]) -> pb::WatchCreateRequest {
    let (key, range_end) = (Bytes::copy_from_slice(key), Bytes::copy_from_slice(range_end));
    pb::WatchCreateRequest { key, range_end, ..Default::default() }
}

impl Watching {
    /// Opens a stream with its first requests; one of them must be answered, since etcd opens the stream only then.
    pub async fn open(client: &mut Client, first: impl IntoIterator<Item = RequestUnion>) -> Self {
        let (requests, rx) = mpsc::channel(16);
        for request in first {
            let request = pb::WatchRequest { request_union: Some(request) };
            requests.send(request).await.expect("the first requests are few");
        }
        let stream = tokio_stream::wrappers::ReceiverStream::new(rx);
        let responses = tokio::time::timeout(WAIT_MAX, client.watch.watch(stream)).await;
        let responses = responses.expect("an answer in time").expect("the stream opens").into_inner();
        Self { requests, responses }
    }

    /// Opens a stream with one watch.
    pub async fn create(client: &mut Client, request: pb::WatchCreateRequest) -> Self {
        Self::open(client, [RequestUnion::CreateRequest(request)]).await
    }

    /// Sends one more request; `None` says nothing.
    pub async fn ask(&mut self, request: Option<RequestUnion>) {
        self.requests.send(pb::WatchRequest { request_union: request }).await.expect("the stream is open");
    }

    /// The next response, without what tells clusters apart.
    pub async fn next(&mut self) -> pb::WatchResponse {
        let response = tokio::time::timeout(WAIT_MAX, self.responses.message()).await;
        let mut response = response.expect("a response in time").expect("the stream lives").expect("it goes on");
        if let Some(header) = &mut response.header {
            *header = pb::ResponseHeader { revision: header.revision, ..Default::default() };
        }
        response
    }

    /// All events of the stream's only watch up to the one at `revision`.
    ///
    /// Panics if the watch is canceled, or if a revision comes late, twice or in two parts.
    pub async fn until(&mut self, revision: i64) -> Vec<Event> {
        let (mut events, mut seen) = (Vec::new(), 0);
        while seen < revision {
            let response = self.next().await;
            assert!(!response.canceled, "canceled after revision {seen}: {response:?}");
            let before = seen;
            for event in response.events {
                let at = event.kv.as_ref().map(|kv| kv.mod_revision).unwrap_or_default();
                assert!(at > before && at >= seen, "revision {at} after {seen}");
                seen = at;
                events.push(event);
            }
        }
        events
    }
}
