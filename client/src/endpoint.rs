//! Where a server listens, read from what a person writes.

use crate::error::Error;
use std::fmt;

/// One endpoint.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Endpoint {
    /// As it was given; errors name it so.
    pub(crate) text: String,
    pub(crate) place: Place,
    /// Whether TLS is spoken.
    pub(crate) is_secure: bool,
}

/// What is connected to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Place {
    /// A host's name or address (without brackets) and a port.
    Tcp(String, u16),
    /// A unix socket's path.
    Unix(String),
}

impl Endpoint {
    /// Reads `host:port`, `http://host:port`, `https://host:port`, `unix:path`, `unix://path`, `unixs://path`.
    pub(crate) fn parse(text: &str) -> Result<Self, Error> {
        let bad = |why: &str| Error::Config(format!("endpoint {text:?}: {why}"));
        let made = |place, is_secure| Self { text: text.to_owned(), place, is_secure };
        for (scheme, is_secure) in [("unixs:", true), ("unix:", false)] {
            if let Some(path) = text.strip_prefix(scheme) {
                let path = path.strip_prefix("//").unwrap_or(path);
                return if path.is_empty() {
                    Err(bad("no path"))
                } else {
                    Ok(made(Place::Unix(path.to_owned()), is_secure))
                };
            }
        }
        let (is_secure, rest) = match text.split_once("://") {
            Some(("http", rest)) => (false, rest),
            Some(("https", rest)) => (true, rest),
            Some(_) => return Err(bad("the scheme must be http, https, unix or unixs")),
            None => (false, text),
        };
        let authority = rest.trim_end_matches('/');
        if authority.contains(['/', '?', '#', '@']) {
            return Err(bad("only a host and a port, no path and no user"));
        }
        let (host, port) = match authority.strip_prefix('[') {
            Some(rest) => {
                let (host, port) = rest.split_once(']').ok_or_else(|| bad("no closing bracket"))?;
                (host, port.strip_prefix(':'))
            }
            None => match authority.split_once(':') {
                Some((_, rest)) if rest.contains(':') => return Err(bad("an IPv6 address stands in brackets")),
                Some((host, port)) => (host, Some(port)),
                None => (authority, None),
            },
        };
        if host.is_empty() {
            return Err(bad("no host"));
        }
        let port = match port {
            Some(port) => port.parse().map_err(|_| bad("the port is no number up to 65535"))?,
            None if text.contains("://") => {
                if is_secure {
                    443
                } else {
                    80
                }
            }
            None => return Err(bad("no port")),
        };
        Ok(made(Place::Tcp(host.to_owned(), port), is_secure))
    }

    /// The host that a certificate must be for.
    pub(crate) fn host(&self) -> &str {
        match &self.place {
            Place::Tcp(host, _) => host,
            Place::Unix(_) => "localhost",
        }
    }

    /// What requests name as their authority.
    pub(crate) fn authority(&self) -> String {
        match &self.place {
            Place::Tcp(host, port) if host.contains(':') => format!("[{host}]:{port}"),
            Place::Tcp(host, port) => format!("{host}:{port}"),
            Place::Unix(_) => "localhost".to_owned(),
        }
    }
}

impl fmt::Display for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn endpoints_are_read_as_people_write_them() {
        let tcp = |host: &str, port| Place::Tcp(host.to_owned(), port);
        let rows = [
            ("127.0.0.1:2379", tcp("127.0.0.1", 2379), false),
            ("localhost:1", tcp("localhost", 1), false),
            ("http://a.example:2379/", tcp("a.example", 2379), false),
            ("https://a.example:2379", tcp("a.example", 2379), true),
            ("https://a.example", tcp("a.example", 443), true),
            ("http://[::1]:2379", tcp("::1", 2379), false),
            ("unix:///tmp/a", Place::Unix("/tmp/a".to_owned()), false),
            ("unix:a", Place::Unix("a".to_owned()), false),
            ("unixs:///tmp/a", Place::Unix("/tmp/a".to_owned()), true),
        ];
        for (text, place, is_secure) in rows {
            let read = Endpoint::parse(text).unwrap();
            assert_eq!((&read.place, read.is_secure), (&place, is_secure), "{text}");
        }
        assert_eq!(Endpoint::parse("http://[::1]:2379").unwrap().authority(), "[::1]:2379");
    }

    #[test]
    fn what_is_no_endpoint_is_refused_with_its_text() {
        let rows =
            ["", "a", "a:b", "a:70000", "::1:2379", "[::1", "ftp://a:1", "http://a:1/path", "http://u@a:1", "unix://"];
        for text in rows {
            let error = Endpoint::parse(text).unwrap_err().to_string();
            assert!(error.contains(&format!("{text:?}")), "{text}: {error}");
        }
    }
}
