//! Answers over real connections to a real client.

use super::*;
use crate::grpc::frame;
use crate::grpc::status::Code;
use crate::listen::streams::rig;
use crate::listen::streams::rig::Served;
use crate::metrics::Metrics;
use bytes::BytesMut;
use futures_util::future::BoxFuture;
use futures_util::stream;
use mechi_proto::etcdserverpb as pb;
use mechi_proto::etcdserverpb::kv_client::KvClient;
use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};
use tokio::net::{TcpListener, TcpStream};
use tonic::transport::{Channel, Endpoint};

/// Serves one connection, with `answer` to every call.
async fn listen<A, F>(answer: A) -> (String, tokio::task::JoinHandle<Served>)
where
    A: Fn(Answer) -> F + Send + Sync + 'static,
    F: Future<Output = ()> + Send + 'static,
{
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap().to_string();
    let served = tokio::spawn(async move {
        let (io, _) = listener.accept().await.unwrap();
        rig::start(io, move |_, respond| -> Option<BoxFuture<'static, ()>> {
            Some(Box::pin(answer(Answer::new(respond, None))))
        })
    });
    (address, served)
}

/// The same, and a client.
async fn serve<A, F>(answer: A) -> (KvClient<Channel>, Served)
where
    A: Fn(Answer) -> F + Send + Sync + 'static,
    F: Future<Output = ()> + Send + 'static,
{
    let (address, served) = listen(answer).await;
    let channel = Endpoint::from_shared(format!("http://{address}")).unwrap().connect().await.unwrap();
    (KvClient::new(channel), served.await.unwrap())
}

fn piece(count: i64) -> Result<Bytes, End> {
    let range_response = Some(pb::RangeResponse { count, ..Default::default() });
    Ok(frame::encode(&pb::RangeStreamResponse { range_response }).unwrap())
}

#[tokio::test]
async fn a_message_reaches_a_real_client() {
    let (mut client, _served) = serve(async |answer: Answer| {
        let header = Some(pb::ResponseHeader { revision: 7, ..Default::default() });
        answer.message(frame::encode(&pb::PutResponse { header, prev_kv: None }).unwrap());
    })
    .await;
    let response = client.put(pb::PutRequest::default()).await.unwrap().into_inner();
    assert_eq!(response.header.unwrap().revision, 7);
}

#[tokio::test]
async fn a_refusal_reaches_a_real_client() {
    let (mut client, _served) = serve(async |answer: Answer| answer.refuse(&Error::NoSpace.into())).await;
    let refused = client.put(pb::PutRequest::default()).await.unwrap_err();
    assert_eq!(refused.code(), Code::ResourceExhausted);
    assert_eq!(refused.message(), "etcdserver: mvcc: database space exceeded");
}

#[tokio::test]
async fn a_stream_ends_with_its_messages_and_its_status() {
    let (mut client, _served) = serve(async |answer: Answer| {
        let pieces = stream::iter([piece(1), Ok(Bytes::new()), piece(2), Err(Error::Compacted.into())]);
        answer.stream(Box::pin(pieces), None).await;
    })
    .await;
    let mut stream = client.range_stream(pb::RangeRequest::default()).await.unwrap().into_inner();
    for count in [1, 2] {
        assert_eq!(stream.message().await.unwrap().unwrap().range_response.unwrap().count, count);
    }
    assert_eq!(stream.message().await.unwrap_err().code(), Code::OutOfRange);
}

#[tokio::test]
async fn an_answer_broken_off_within_a_message_is_an_error_and_never_a_short_answer() {
    let (mut client, _served) = serve(async |answer: Answer| {
        let half = piece(1).unwrap().slice(..6);
        let pieces = stream::iter([Ok(half), Err(End::Reset("the disk is gone".into()))]);
        answer.stream(Box::pin(pieces), None).await;
    })
    .await;
    assert_eq!(client.range(pb::RangeRequest::default()).await.unwrap_err().code(), Code::Internal);
}

#[tokio::test]
async fn what_ends_all_streams_ends_a_silent_one() {
    let (mut client, _served) = serve(async |answer: Answer| {
        answer.stream(Box::pin(stream::pending()), Some(Box::pin(async { Error::NoLeader.into() }))).await;
    })
    .await;
    let refused = match client.range_stream(pb::RangeRequest::default()).await {
        Ok(stream) => stream.into_inner().message().await.unwrap_err(),
        Err(refused) => refused,
    };
    assert_eq!((refused.code(), refused.message()), (Code::Unavailable, "etcdserver: no leader"));
}

async fn ask(address: &str) -> (h2::client::ResponseFuture, h2::client::SendRequest<Bytes>) {
    let tcp = TcpStream::connect(address).await.unwrap();
    let (send, connection) = h2::client::handshake(tcp).await.unwrap();
    tokio::spawn(connection);
    let mut send = send.ready().await.unwrap();
    let request = http::Request::post("http://a/x").body(()).unwrap();
    (send.send_request(request, true).unwrap().0, send)
}

#[tokio::test]
async fn a_stream_whose_client_never_reads_holds_a_bounded_part_of_it() {
    const PIECE: usize = 16 << 10;
    let pulled = Arc::<AtomicUsize>::default();
    let counting = pulled.clone();
    let (address, served) = listen(move |answer: Answer| {
        let counting = counting.clone();
        let pieces = stream::repeat_with(move || {
            counting.fetch_add(1, SeqCst);
            Ok(Bytes::from_static(&[0; PIECE]))
        });
        answer.stream(Box::pin(pieces), None)
    })
    .await;
    let (response, _send) = ask(&address).await;
    let body = response.await.unwrap().into_body();
    let _served = served.await.unwrap();
    // Until nothing more is pulled while everybody had many turns.
    let mut seen = 0;
    while seen != pulled.load(SeqCst) || seen == 0 {
        seen = pulled.load(SeqCst);
        for _ in 0..10_000 {
            tokio::task::yield_now().await;
        }
    }
    // The client's window, what the library may hold, one piece at hand and one on its way.
    let most = (65_535 + crate::config::limits::SEND_BUFFER_BYTES) / PIECE + 2;
    assert!(seen <= most, "{seen} pieces, at most {most}");
    drop(body);
}

#[tokio::test]
async fn a_reset_ends_a_stream_that_says_nothing() {
    struct Held(#[allow(dead_code)] Arc<()>);
    let held = Arc::<()>::default();
    let holding = held.clone();
    let (address, served) = listen(move |answer: Answer| {
        let pieces = stream::once(async { piece(1) }).chain(stream::pending());
        let held = Held(holding.clone());
        let pieces = pieces.inspect(move |_| {
            let _ = &held;
        });
        answer.stream(Box::pin(pieces), None)
    })
    .await;
    let (response, _send) = ask(&address).await;
    let mut body = response.await.unwrap().into_body();
    body.data().await.unwrap().unwrap();
    assert_eq!(Arc::strong_count(&held), 3, "the test, the closure and the stream hold it");
    drop(body);
    while Arc::strong_count(&held) > 2 {
        tokio::task::yield_now().await;
    }
    drop(served);
}

#[tokio::test]
async fn messages_and_ends_are_counted() {
    let crate::config::Action::Run(config, _) = crate::config::action(&[], &[]) else { panic!("refused") };
    let metrics = Arc::new(Metrics::new(&config, 1));
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap().to_string();
    let mut calls = metrics.grpc.client();
    let served = tokio::spawn(async move {
        let (io, _) = listener.accept().await.unwrap();
        let mut number = 0;
        rig::start(io, move |_, respond| -> Option<BoxFuture<'static, ()>> {
            number += 1;
            let counted = calls.begin("/etcdserverpb.KV/RangeStream", &http::HeaderMap::new());
            let answer = Answer::new(respond, counted);
            match number {
                1 => answer.message(frame::encode(&pb::RangeResponse { count: 1, ..Default::default() }).unwrap()),
                2 => answer.refuse(&Error::Compacted.into()),
                3 => {
                    let mut two = BytesMut::from(&piece(1).unwrap()[..]);
                    two.extend_from_slice(&piece(2).unwrap());
                    let rest = two.split_off(3);
                    return Some(Box::pin(
                        answer.stream(Box::pin(stream::iter([Ok(two.freeze()), Ok(rest.freeze())])), None),
                    ));
                }
                _ => drop(answer),
            }
            None
        })
    });
    let (first, mut send) = ask(&address).await;
    first.await.unwrap();
    for _ in 2..=4 {
        let request = http::Request::post("http://a/x").body(()).unwrap();
        if let Ok(response) = send.send_request(request, true).unwrap().0.await {
            let mut body = response.into_body();
            while body.data().await.is_some() {}
        }
    }
    let text = String::from_utf8(metrics.render(&Default::default())).unwrap();
    let labels = "grpc_method=\"RangeStream\",grpc_service=\"etcdserverpb.KV\",grpc_type=\"server_stream\"";
    for line in [
        format!("grpc_server_started_total{{{labels}}} 4"),
        format!("grpc_server_handled_total{{grpc_code=\"OK\",{labels}}} 2"),
        format!("grpc_server_handled_total{{grpc_code=\"OutOfRange\",{labels}}} 1"),
        format!("grpc_server_handled_total{{grpc_code=\"Canceled\",{labels}}} 1"),
        format!("grpc_server_msg_sent_total{{{labels}}} 3"),
        // A count of one is two bytes, and two more within a RangeStreamResponse.
        "etcd_network_client_grpc_sent_bytes_total 10".into(),
    ] {
        assert!(text.lines().any(|found| found == line), "{line} is missing");
    }
    drop(served);
}
