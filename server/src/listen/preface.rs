//! Tells HTTP/2 from HTTP/1 by a connection's first bytes, and gives those bytes back.

use bytes::{Buf, Bytes};
use std::io;
use std::io::IoSlice;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, ReadBuf};

/// What a client of HTTP/2 says first (RFC 9113, 3.4).
const PREFACE: &[u8; 24] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

/// What a client speaks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Protocol {
    Http1,
    Http2,
}

/// Reads until it is clear what the client speaks; the bytes are still to be read from what is returned.
///
/// - Errors: the connection's; [`io::ErrorKind::TimedOut`] if the client has not said it within `timeout`.
pub(super) async fn sniff<I: AsyncRead + Unpin>(io: I, timeout: Duration) -> io::Result<(Protocol, Rewound<I>)> {
    tokio::time::timeout(timeout, read(io)).await?
}

async fn read<I: AsyncRead + Unpin>(mut io: I) -> io::Result<(Protocol, Rewound<I>)> {
    let mut read = [0; PREFACE.len()];
    let mut len = 0;
    let protocol = loop {
        let new = io.read(&mut read[len..]).await?;
        let is_preface = new > 0 && read[len..len + new] == PREFACE[len..len + new];
        len += new;
        if !is_preface {
            break Protocol::Http1;
        }
        if len == PREFACE.len() {
            break Protocol::Http2;
        }
    };
    Ok((protocol, Rewound { unread: Bytes::copy_from_slice(&read[..len]), io }))
}

/// A connection whose first bytes were read already.
#[derive(Debug)]
pub(super) struct Rewound<I> {
    unread: Bytes,
    io: I,
}

impl<I> Rewound<I> {
    /// A connection of which nothing was read.
    pub(super) fn untouched(io: I) -> Self {
        Self { unread: Bytes::new(), io }
    }
}

impl<I: AsyncRead + Unpin> AsyncRead for Rewound<I> {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        if self.unread.is_empty() {
            return Pin::new(&mut self.io).poll_read(cx, buffer);
        }
        let bytes = self.unread.len().min(buffer.remaining());
        buffer.put_slice(&self.unread[..bytes]);
        self.unread.advance(bytes);
        Poll::Ready(Ok(()))
    }
}

impl<I: AsyncWrite + Unpin> AsyncWrite for Rewound<I> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, data: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.io).poll_write(cx, data)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.io).poll_write_vectored(cx, slices)
    }

    fn is_write_vectored(&self) -> bool {
        self.io.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_shutdown(cx)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::io::AsyncWriteExt;

    /// What is taken for the protocol of `sent`, which comes in pieces of `cut` bytes; nothing of it may be lost.
    async fn sniffed(sent: &[u8], cut: usize) -> Protocol {
        let (mut client, server) = tokio::io::duplex(cut);
        let text = sent.to_vec();
        let sending = tokio::spawn(async move {
            for piece in text.chunks(cut) {
                client.write_all(piece).await.unwrap();
            }
        });
        let (protocol, mut io) = sniff(server, Duration::from_secs(60)).await.unwrap();
        let mut read = Vec::new();
        io.read_to_end(&mut read).await.unwrap();
        sending.await.unwrap();
        assert_eq!(read, sent);
        protocol
    }

    #[tokio::test]
    async fn the_first_bytes_tell_the_protocol_and_are_kept() {
        for cut in [1, 5, 24, 100] {
            assert_eq!(sniffed(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\nand frames", cut).await, Protocol::Http2);
            assert_eq!(sniffed(b"GET / HTTP/1.1\r\nhost: a\r\n\r\n", cut).await, Protocol::Http1);
            assert_eq!(sniffed(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r?", cut).await, Protocol::Http1);
            assert_eq!(sniffed(b"PUT", cut).await, Protocol::Http1);
            assert_eq!(sniffed(b"", cut).await, Protocol::Http1);
        }
    }

    #[tokio::test]
    async fn half_a_preface_does_not_hold_a_connection() {
        let (mut client, server) = tokio::io::duplex(64);
        client.write_all(&PREFACE[..11]).await.unwrap();
        let error = sniff(server, Duration::from_millis(20)).await.unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::TimedOut);
        assert_eq!(client.read(&mut [0; 8]).await.unwrap(), 0, "closed");
    }
}
