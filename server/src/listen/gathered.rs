//! A connection whose small writes leave together, and which knows when it was last heard from.
//!
//! The HTTP/2 library writes and flushes after every larger DATA frame, which is a system call for each answer. Here
//! what it writes is gathered until the connection's loop has nothing more to say and asks for [`Gathering::flush`].

use crate::config::limits::GATHERED_BYTES_MAX;
use bytes::{Buf, BytesMut};
use parking_lot::Mutex;
use std::io;
use std::io::IoSlice;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::Instant;

/// A connection as the HTTP/2 library sees it; its lock is only ever asked for by the connection's own task.
pub(super) struct Gathered<I>(Arc<Mutex<Inner<I>>>);

/// The other hold on the same connection, for its loop.
pub(super) struct Gathering<I>(Arc<Mutex<Inner<I>>>);

struct Inner<I> {
    io: I,
    /// Written by the library and not yet by the system.
    waiting: BytesMut,
    last_heard: Instant,
}

/// Splits a connection into what the library gets and what the loop keeps.
pub(super) fn gather<I>(io: I) -> (Gathered<I>, Gathering<I>) {
    let inner = Arc::new(Mutex::new(Inner { io, waiting: BytesMut::new(), last_heard: Instant::now() }));
    (Gathered(inner.clone()), Gathering(inner))
}

impl<I: AsyncWrite + Unpin> Gathering<I> {
    /// Hands what was gathered to the system.
    pub(super) fn flush(&self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let mut inner = self.0.lock();
        ready!(inner.drain(cx))?;
        Pin::new(&mut inner.io).poll_flush(cx)
    }
}

impl<I> Gathering<I> {
    /// When the client last sent a byte.
    pub(super) fn last_heard(&self) -> Instant {
        self.0.lock().last_heard
    }

    pub(super) fn share(&self) -> Self {
        Self(self.0.clone())
    }
}

impl<I: AsyncWrite + Unpin> Inner<I> {
    /// Writes until nothing waits.
    fn drain(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        while !self.waiting.is_empty() {
            let written = ready!(Pin::new(&mut self.io).poll_write(cx, &self.waiting))?;
            self.wrote(written)?;
        }
        Poll::Ready(Ok(()))
    }

    fn wrote(&mut self, bytes: usize) -> io::Result<()> {
        if bytes == 0 {
            return Err(io::ErrorKind::WriteZero.into());
        }
        self.waiting.advance(bytes);
        if self.waiting.is_empty() {
            // An idle connection keeps nothing; there may be many.
            self.waiting = BytesMut::new();
        }
        Ok(())
    }
}

impl<I: AsyncRead + Unpin> AsyncRead for Gathered<I> {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let mut inner = self.0.lock();
        let before = buffer.filled().len();
        ready!(Pin::new(&mut inner.io).poll_read(cx, buffer))?;
        if buffer.filled().len() > before {
            inner.last_heard = Instant::now();
        }
        Poll::Ready(Ok(()))
    }
}

impl<I: AsyncWrite + Unpin> AsyncWrite for Gathered<I> {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, data: &[u8]) -> Poll<io::Result<usize>> {
        let inner = &mut *self.0.lock();
        while !inner.waiting.is_empty() && inner.waiting.len() + data.len() > GATHERED_BYTES_MAX {
            let slices = [IoSlice::new(&inner.waiting), IoSlice::new(data)];
            let written = ready!(Pin::new(&mut inner.io).poll_write_vectored(cx, &slices))?;
            let of_data = written.saturating_sub(inner.waiting.len());
            inner.wrote(written - of_data)?;
            if of_data > 0 {
                return Poll::Ready(Ok(of_data));
            }
        }
        if data.len() > GATHERED_BYTES_MAX {
            return Pin::new(&mut inner.io).poll_write(cx, data);
        }
        inner.waiting.extend_from_slice(data);
        Poll::Ready(Ok(data.len()))
    }

    /// Says no, so that the library copies small answers into one buffer and hands over the rest piece by piece.
    fn is_write_vectored(&self) -> bool {
        false
    }

    /// Does nothing: the connection's loop flushes.
    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let mut inner = self.0.lock();
        ready!(inner.drain(cx))?;
        Pin::new(&mut inner.io).poll_shutdown(cx)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::future::poll_fn;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    #[tokio::test]
    async fn what_is_written_arrives_whole_and_in_order_however_little_the_system_takes() {
        for room in [1, 100, 1 << 20] {
            let (mut near, far) = tokio::io::duplex(room);
            let (mut library, gathering) = gather(far);
            let reading = tokio::spawn(async move {
                let mut read = Vec::new();
                near.read_to_end(&mut read).await.unwrap();
                read
            });
            let mut sent = Vec::new();
            let sizes = [3, GATHERED_BYTES_MAX - 3, 1, GATHERED_BYTES_MAX + 1, 7, 9, GATHERED_BYTES_MAX, 2];
            for (number, size) in sizes.into_iter().enumerate() {
                let data = vec![number as u8; size];
                library.write_all(&data).await.unwrap();
                sent.extend_from_slice(&data);
                if number == 4 {
                    poll_fn(|cx| gathering.flush(cx)).await.unwrap();
                }
            }
            library.shutdown().await.unwrap();
            drop((library, gathering));
            assert_eq!(reading.await.unwrap(), sent, "room for {room}");
        }
    }

    #[tokio::test]
    async fn nothing_leaves_before_the_flush() {
        let (mut near, far) = tokio::io::duplex(1 << 10);
        let (mut library, gathering) = gather(far);
        library.write_all(b"one").await.unwrap();
        library.flush().await.unwrap();
        library.write_all(b"two").await.unwrap();
        let mut read = [0; 16];
        assert!(futures_util::FutureExt::now_or_never(near.read(&mut read)).is_none());
        poll_fn(|cx| gathering.flush(cx)).await.unwrap();
        assert_eq!(near.read(&mut read).await.unwrap(), 6);
    }
}
