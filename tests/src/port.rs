//! Ports of loopback that nobody else gets, between their choice and the server's start and while it is down.

use anyhow::{Context, Result};
use socket2::{Domain, Socket, Type};
use std::fmt;
use std::net::SocketAddr;

/// Where [`Port::row`] looks for rows: below the ports that systems give to connections.
const ROWS_FROM: u16 = 12_000;
const ROWS_TO: u16 = 32_000;

/// A port of loopback, kept for one test: a socket is bound to it that does not listen. A server that binds it with
/// `SO_REUSEADDR`, as all do, may; no other test is given it, no connection is dialled from it, and as long as no server
/// listens a dialler is refused.
#[derive(Debug)]
pub struct Port {
    number: u16,
    _kept: Socket,
}

impl Port {
    /// Keeps a port that is free.
    ///
    /// - Panics: there is none, or no socket to keep it with.
    pub fn keep() -> Self {
        Self::bind(0).expect("loopback has a free port")
    }

    /// Keeps `count` ports with numbers in a row, in order.
    ///
    /// - Panics: there are none.
    pub fn row(count: u16) -> Vec<Self> {
        // Tests of other processes look too: each begins elsewhere.
        let places = (ROWS_TO - ROWS_FROM) / count;
        let first = std::process::id() as u16 % places;
        let mut rows = (0..places).map(|n| ROWS_FROM + (first + n) % places * count);
        let kept = |from: u16| (from..from + count).map(Self::bind).collect::<Result<Vec<_>>>().ok();
        rows.find_map(kept).expect("loopback has a row of free ports")
    }

    /// The port's number.
    pub fn number(&self) -> u16 {
        self.number
    }

    fn bind(number: u16) -> Result<Self> {
        let kept = Socket::new(Domain::IPV4, Type::STREAM, None).context("a socket")?;
        kept.bind(&SocketAddr::from(([127, 0, 0, 1], number)).into()).context("bind")?;
        // Only now, so that it was nobody else's.
        kept.set_reuse_address(true).context("share")?;
        let number = kept.local_addr()?.as_socket().context("an address of IP")?.port();
        Ok(Self { number, _kept: kept })
    }
}

impl fmt::Display for Port {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.number.fmt(f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::{TcpListener, TcpStream};

    #[test]
    fn a_kept_port_is_a_servers_again_and_again_and_nobody_elses() {
        for port in [Port::keep(), Port::row(2).remove(1)] {
            let address = ("127.0.0.1", port.number());
            for _ in 0..2 {
                let server = TcpListener::bind(address).unwrap();
                TcpStream::connect(address).unwrap();
                drop(server);
                assert!(TcpStream::connect(address).is_err(), "nobody listens");
            }
            assert!(Port::bind(port.number()).is_err(), "it is taken");
        }
    }
}
