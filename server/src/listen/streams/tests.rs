//! One connection over a pipe in memory, with a real client of HTTP/2 at its other end.

use super::rig::{Served, start, start_pinging};
use super::*;
use h2::client::{ResponseFuture, SendRequest};
use http::{HeaderMap, Response};
use std::io;
use std::pin::Pin;
use std::sync::atomic::AtomicUsize;
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream, ReadBuf};
use tokio::sync::{Notify, oneshot};

const LONG: Duration = Duration::from_secs(60);

/// Both ends of a pipe that holds 64 KiB.
fn pipe() -> (DuplexStream, DuplexStream) {
    tokio::io::duplex(64 << 10)
}

async fn client(io: DuplexStream) -> SendRequest<Bytes> {
    let (send, connection) = h2::client::Builder::new().initial_max_send_streams(2_000).handshake(io).await.unwrap();
    tokio::spawn(connection);
    send.ready().await.unwrap()
}

fn ask(client: &mut SendRequest<Bytes>) -> ResponseFuture {
    client.send_request(Request::post("http://a/x").body(()).unwrap(), true).unwrap().0
}

async fn text(response: ResponseFuture) -> String {
    let mut body = response.await.unwrap().into_body();
    let mut text = Vec::new();
    while let Some(data) = body.data().await {
        let data = data.unwrap();
        body.flow_control().release_capacity(data.len()).unwrap();
        text.extend_from_slice(&data);
    }
    String::from_utf8(text).unwrap()
}

fn send(mut respond: SendResponse<Bytes>, text: impl Into<Bytes>) {
    let mut stream = respond.send_response(Response::new(()), false).unwrap();
    stream.send_data(text.into(), false).unwrap();
    stream.send_trailers(HeaderMap::new()).unwrap();
}

/// A server that answers "done" once it is told to.
fn start_waiting(io: DuplexStream) -> (Served, Arc<Notify>) {
    let go = Arc::<Notify>::default();
    let told = go.clone();
    let served = start(io, move |_, respond| {
        let told = told.clone().notified_owned();
        Some(Box::pin(async move {
            told.await;
            send(respond, "done");
        }))
    });
    (served, go)
}

#[tokio::test]
async fn a_stop_lets_open_calls_end_and_takes_no_new_ones() {
    let (near, far) = pipe();
    let (served, go) = start_waiting(far);
    let mut client = client(near).await;
    let open = ask(&mut client);
    // A second call that comes back shows that the first has arrived.
    let other = ask(&mut client);
    while Arc::strong_count(&go) < 4 {
        tokio::task::yield_now().await;
    }
    served.stop.send(true).unwrap();
    while client.clone().ready().await.is_ok() {
        tokio::task::yield_now().await;
    }
    assert!(!served.ended.is_finished(), "two calls are open");
    go.notify_waiters();
    assert_eq!((text(open).await, text(other).await), ("done".into(), "done".into()));
    served.ended.await.unwrap().unwrap();
}

#[tokio::test]
async fn a_stop_does_not_wait_for_a_client_that_never_began() {
    let (_near, far) = pipe();
    let (served, _) = start_waiting(far);
    served.stop.send(true).unwrap();
    served.ended.await.unwrap().unwrap();
}

#[tokio::test]
async fn an_idle_connection_ends_with_the_server() {
    let (near, far) = pipe();
    let (served, _) = start_waiting(far);
    let client = client(near).await;
    drop(served.stop);
    // The client may close the pipe before it has read the farewell.
    let _ = served.ended.await.unwrap();
    drop(client);
}

#[tokio::test]
async fn a_client_that_answers_no_ping_is_given_up() {
    let (mut near, far) = pipe();
    let served = start_pinging(far, Some(Duration::from_millis(1)), Duration::from_millis(1), |_, _| None);
    // The preface and empty SETTINGS; nothing after that.
    near.write_all(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0").await.unwrap();
    let mut said = Vec::new();
    near.read_to_end(&mut said).await.unwrap();
    let error = served.ended.await.unwrap().unwrap_err();
    assert_eq!(error.to_string(), "a ping was not answered in time");
    // A PING frame has eight bytes, type 6, no flags, stream 0.
    assert!(said.windows(9).any(|frame| frame == b"\0\0\x08\x06\0\0\0\0\0"), "{said:?}");
}

#[tokio::test]
async fn a_client_that_reads_nothing_is_given_up_too() {
    // The pipe holds less than one answer, so what is written never leaves.
    let (mut near, far) = tokio::io::duplex(256);
    let served = start_pinging(far, Some(Duration::from_millis(1)), Duration::from_millis(1), |_, respond| {
        send(respond, vec![b'x'; 10_000]);
        None
    });
    let hello = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0";
    // GET http://a/ in static and literal header fields.
    let get = b"\0\0\x06\x01\x05\0\0\0\x01\x82\x86\x84\x41\x01a";
    near.write_all(&[&hello[..], &get[..]].concat()).await.unwrap();
    assert!(served.ended.await.unwrap().is_err());
}

#[tokio::test]
async fn a_client_that_answers_pings_is_kept() {
    let (near, far) = pipe();
    let served = start_pinging(far, Some(Duration::from_millis(1)), LONG, |_, respond| {
        send(respond, "yes");
        None
    });
    let mut client = client(near).await;
    for _ in 0..20 {
        tokio::time::sleep(Duration::from_millis(1)).await;
        assert_eq!(text(ask(&mut client)).await, "yes");
    }
    drop(served);
}

#[tokio::test]
async fn a_reset_drops_a_call_that_watches_for_it() {
    struct Told(Option<oneshot::Sender<()>>);
    impl Drop for Told {
        fn drop(&mut self) {
            self.0.take().map(|told| told.send(()));
        }
    }
    let (near, far) = pipe();
    let (dropped, is_dropped) = oneshot::channel();
    let mut told = Some(Told(Some(dropped)));
    let served = start(far, move |_, mut respond| {
        let told = told.take();
        Some(Box::pin(async move {
            let _told = told;
            let _ = poll_fn(|cx| respond.poll_reset(cx)).await;
        }))
    });
    let mut client = client(near).await;
    drop(ask(&mut client));
    is_dropped.await.unwrap();
    drop(served);
}

#[tokio::test]
async fn a_client_that_leaves_drops_its_calls() {
    let (near, far) = pipe();
    let (served, go) = start_waiting(far);
    let (send, connection) = h2::client::handshake(near).await.unwrap();
    let connection = tokio::spawn(connection);
    let mut send: SendRequest<Bytes> = send.ready().await.unwrap();
    let call = ask(&mut send);
    while Arc::strong_count(&go) < 3 {
        tokio::task::yield_now().await;
    }
    connection.abort();
    drop((call, send));
    let _ = served.ended.await.unwrap();
    assert_eq!(Arc::strong_count(&go), 1, "nobody waits any more");
}

#[tokio::test]
async fn a_bug_in_one_call_leaves_the_others() {
    let (near, far) = pipe();
    let mut first = true;
    let served = start(far, move |_, respond| {
        let breaks = std::mem::take(&mut first);
        Some(Box::pin(async move {
            assert!(!breaks, "a bug, as the test wants it");
            send(respond, "well");
        }))
    });
    let mut client = client(near).await;
    let broken = ask(&mut client);
    let whole = ask(&mut client);
    assert_eq!(text(whole).await, "well");
    assert!(broken.await.unwrap_err().is_reset());
    drop(served);
}

#[tokio::test]
async fn bodies_larger_than_any_window_pass_both_ways() {
    const BYTES: usize = 5 << 20;
    let (near, far) = pipe();
    let served = start(far, |request, respond| {
        Some(Box::pin(async move {
            let mut body = request.into_body();
            let mut bytes = 0;
            while let Some(data) = body.data().await {
                let data = data.unwrap();
                body.flow_control().release_capacity(data.len()).unwrap();
                bytes += data.len();
            }
            send(respond, vec![b'y'; bytes]);
        }))
    });
    let mut client = client(near).await;
    let request = Request::post("http://a/x").body(()).unwrap();
    let (response, mut stream) = client.send_request(request, false).unwrap();
    stream.send_data(vec![b'x'; BYTES].into(), true).unwrap();
    assert_eq!(text(response).await.len(), BYTES);
    drop(served);
}

/// Counts the writes to the system.
struct Counting<I>(I, Arc<AtomicUsize>);

impl<I: AsyncRead + Unpin> AsyncRead for Counting<I> {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_read(cx, buffer)
    }
}

impl<I: AsyncWrite + Unpin> AsyncWrite for Counting<I> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, data: &[u8]) -> Poll<io::Result<usize>> {
        self.1.fetch_add(1, SeqCst);
        Pin::new(&mut self.0).poll_write(cx, data)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_shutdown(cx)
    }
}

/// Counts the writes that 30 answers leave with; each is due once its call has been told, all at once. `answer` gets what
/// waits for that and then sends, and lets the connection poll it or gives it a task of its own.
async fn writes_of_answers(
    mut answer: impl FnMut(BoxFuture<'static, ()>) -> Option<BoxFuture<'static, ()>> + Send + 'static,
) -> usize {
    let (near, far) = pipe();
    let writes = Arc::<AtomicUsize>::default();
    let go = Arc::<Notify>::default();
    let told = go.clone();
    let served = start(Counting(far, writes.clone()), move |_, respond| {
        let told = told.clone().notified_owned();
        answer(Box::pin(async move {
            told.await;
            // Larger than what the library copies, so that it would write each by itself.
            send(respond, vec![b'z'; 1_500]);
        }))
    });
    let mut client = client(near).await;
    let answers: Vec<_> = (0..30).map(|_| ask(&mut client)).collect();
    while Arc::strong_count(&go) < 2 + answers.len() {
        tokio::task::yield_now().await;
    }
    let before = writes.load(SeqCst);
    // From a worker, so that all are told before one of them runs.
    tokio::spawn(async move { go.notify_waiters() }).await.unwrap();
    for answer in answers {
        assert_eq!(text(answer).await.len(), 1_500);
    }
    let writes = writes.load(SeqCst) - before;
    drop(served);
    writes
}

/// One write for the answers; the others for acknowledgements and windows that the client sends for meanwhile.
const WRITES_MAX: usize = 5;

#[tokio::test]
async fn answers_that_are_ready_together_leave_with_one_write() {
    let writes = writes_of_answers(Some).await;
    assert!(writes <= WRITES_MAX, "{writes} writes");
}

/// One worker, as a server has at least: what runs next is then the runtime's choice alone.
#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn streams_with_tasks_of_their_own_leave_together_too() {
    let writes = writes_of_answers(|call| {
        tokio::spawn(call);
        None
    })
    .await;
    assert!(writes <= WRITES_MAX, "{writes} writes");
}

#[tokio::test]
async fn a_thousand_calls_at_once_are_all_answered() {
    let (near, far) = pipe();
    let go = Arc::<Notify>::default();
    let told = go.clone();
    let served = start(far, move |_, mut respond| {
        let told = told.clone().notified_owned();
        Some(Box::pin(async move {
            told.await;
            respond.send_response(Response::new(()), true).unwrap();
        }))
    });
    let mut client = client(near).await;
    let answers: Vec<_> = (0..1_000).map(|_| ask(&mut client)).collect();
    while Arc::strong_count(&go) < 2 + answers.len() {
        tokio::task::yield_now().await;
    }
    go.notify_waiters();
    for answer in answers {
        assert_eq!(answer.await.unwrap().status(), 200);
    }
    drop(served);
}
