//! A connection whose streams are answered by a closure.

use super::*;
use crate::listen::Limits;
use std::time::Duration;
use tokio::task::JoinHandle;

/// Far more than anything here takes.
const LONG: Duration = Duration::from_secs(60);

pub(crate) struct Each<F>(pub(crate) F);

impl<F> Streams for Each<F>
where
    F: FnMut(Request<RecvStream>, SendResponse<Bytes>) -> Option<BoxFuture<'static, ()>> + Send + 'static,
{
    fn open(&mut self, request: Request<RecvStream>, respond: SendResponse<Bytes>) -> Option<BoxFuture<'static, ()>> {
        (self.0)(request, respond)
    }
}

pub(crate) struct Served {
    pub(crate) stop: watch::Sender<bool>,
    pub(crate) ended: JoinHandle<Result<(), Error>>,
}

pub(crate) fn start<I, F>(io: I, each: F) -> Served
where
    I: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    F: FnMut(Request<RecvStream>, SendResponse<Bytes>) -> Option<BoxFuture<'static, ()>> + Send + 'static,
{
    start_pinging(io, None, LONG, each)
}

/// Pings after `interval` of silence and waits `timeout` for the answer.
pub(crate) fn start_pinging<I, F>(io: I, interval: Option<Duration>, timeout: Duration, each: F) -> Served
where
    I: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    F: FnMut(Request<RecvStream>, SendResponse<Bytes>) -> Option<BoxFuture<'static, ()>> + Send + 'static,
{
    let (stop, shutdown) = watch::channel(false);
    let limits = Limits { max_concurrent_streams: 2_000, keepalive: Keepalive { interval, timeout } };
    Served { stop, ended: tokio::spawn(serve(io, Each(each), limits, shutdown)) }
}
