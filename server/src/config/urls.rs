//! URLs as etcd writes them: where to listen, and what others are told.

use std::fmt;
use std::net::IpAddr;
use std::path::PathBuf;

/// How a URL is spoken to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
#[allow(missing_docs)]
pub enum Scheme {
    Http,
    Https,
    Unix,
    Unixs,
}

/// One URL. For `http` and `https` it has a host and a port and no path.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Url {
    text: String,
    scheme: Scheme,
    host: String,
    port: String,
    path: String,
}

impl Url {
    /// Reads one URL.
    ///
    /// - Errors: etcd's words for a wrong scheme, a missing port or a path.
    /// - Source: etcd `client/pkg/types/urls.go`.
    pub fn parse(text: &str) -> Result<Self, String> {
        let text = text.trim();
        let wrong_scheme = || format!("URL scheme must be http, https, unix, or unixs: {text}");
        let (scheme, rest) = text.split_once(':').ok_or_else(wrong_scheme)?;
        // What comes before any etcd sees a scheme: Go's own reading of a URL.
        if scheme.is_empty() {
            return Err(format!("parse {text:?}: missing protocol scheme"));
        }
        let is_scheme = |(at, byte): (usize, u8)| {
            byte.is_ascii_alphabetic() || at > 0 && matches!(byte, b'0'..=b'9' | b'+' | b'-' | b'.')
        };
        if !scheme.bytes().enumerate().all(is_scheme) && !scheme.contains('/') {
            return Err(format!("parse {text:?}: first path segment in URL cannot contain colon"));
        }
        let scheme = match scheme.to_ascii_lowercase().as_str() {
            "http" => Scheme::Http,
            "https" => Scheme::Https,
            "unix" => Scheme::Unix,
            "unixs" => Scheme::Unixs,
            _ => return Err(wrong_scheme()),
        };
        let (authority, path) = match rest.strip_prefix("//") {
            Some(rest) => rest.split_at(rest.find('/').unwrap_or(rest.len())),
            None => ("", rest),
        };
        let (host, port) = match scheme {
            // A socket's file name may look like a host and a port, as in `unix://localhost:20000`.
            Scheme::Unix | Scheme::Unixs => {
                if authority.is_empty() && path.is_empty() {
                    return Err(format!("URL names no socket file: {text}"));
                }
                (authority, "")
            }
            Scheme::Http | Scheme::Https => {
                let form = || format!("URL address does not have the form \"host:port\": {text}");
                let (host, port) = split_host_port(authority).ok_or_else(form)?;
                if !port.is_empty() && port.parse::<u16>().is_err() {
                    return Err(format!("invalid port {port:?} in URL: {text}"));
                }
                if !path.is_empty() {
                    return Err(format!("URL must not contain a path: {text}"));
                }
                (host, port)
            }
        };
        Ok(Self { text: text.into(), scheme, host: host.into(), port: port.into(), path: path.into() })
    }

    /// Whether TLS is asked for.
    pub fn is_secure(&self) -> bool {
        matches!(self.scheme, Scheme::Https | Scheme::Unixs)
    }

    /// The URL's scheme.
    pub fn scheme(&self) -> Scheme {
        self.scheme
    }

    /// The host, without the brackets of an IPv6 address.
    pub fn host(&self) -> &str {
        &self.host
    }

    /// The port; 0 asks the system for a free one.
    pub fn port(&self) -> u16 {
        self.port.parse().unwrap_or(0)
    }

    /// The socket's file, for `unix` and `unixs`: host and path together, relative to the working directory.
    pub fn socket_path(&self) -> Option<PathBuf> {
        match self.scheme {
            Scheme::Unix | Scheme::Unixs => Some(format!("{}{}", self.host, self.path).into()),
            Scheme::Http | Scheme::Https => None,
        }
    }

    /// The address to bind, for `http` and `https`; `localhost` is always 127.0.0.1, whatever the hosts file says.
    ///
    /// - Errors: etcd's words for a DNS name, since a name may come to mean another machine's address.
    pub fn bind_ip(&self) -> Result<Option<IpAddr>, String> {
        match self.scheme {
            Scheme::Unix | Scheme::Unixs => Ok(None),
            _ if self.host == "localhost" => Ok(Some(IpAddr::from([127, 0, 0, 1]))),
            _ => match self.host.parse() {
                Ok(ip) => Ok(Some(ip)),
                Err(_) => Err(format!("expected IP in URL for binding ({self})")),
            },
        }
    }

    /// Whether only this machine can reach it.
    pub fn is_local(&self) -> bool {
        match self.bind_ip() {
            Ok(Some(IpAddr::V6(ip))) => ip.to_ipv4_mapped().map_or(ip.is_loopback(), |ip| ip.is_loopback()),
            Ok(Some(ip)) => ip.is_loopback(),
            Ok(None) => true,
            Err(_) => false,
        }
    }
}

impl fmt::Display for Url {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

fn split_host_port(authority: &str) -> Option<(&str, &str)> {
    let (host, port) = authority.rsplit_once(':')?;
    if let Some(inner) = host.strip_prefix('[') {
        return Some((inner.strip_suffix(']')?, port));
    }
    (!host.contains(':')).then_some((host, port))
}

/// Reads a list separated by commas; sorted and without repeats, as etcd keeps it. Empty text is an empty list.
pub fn parse_list(text: &str) -> Result<Vec<Url>, String> {
    if text.is_empty() {
        return Ok(Vec::new());
    }
    let mut urls = text.split(',').map(Url::parse).collect::<Result<Vec<_>, _>>()?;
    urls.sort();
    urls.dedup();
    Ok(urls)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn refused_urls_are_refused_in_etcds_words() {
        for (text, reason) in [
            ("foo", "URL scheme must be http, https, unix, or unixs: foo"),
            ("localhost:1", "URL scheme must be http, https, unix, or unixs: localhost:1"),
            ("127.0.0.1:1", "parse \"127.0.0.1:1\": first path segment in URL cannot contain colon"),
            ("a/b:1", "URL scheme must be http, https, unix, or unixs: a/b:1"),
            ("://127.0.0.1:1", "parse \"://127.0.0.1:1\": missing protocol scheme"),
            ("ftp://127.0.0.1:1", "URL scheme must be http, https, unix, or unixs: ftp://127.0.0.1:1"),
            ("http://127.0.0.1", "URL address does not have the form \"host:port\": http://127.0.0.1"),
            ("http://127.0.0.1:1/path", "URL must not contain a path: http://127.0.0.1:1/path"),
            ("http://::1:1", "URL address does not have the form \"host:port\": http://::1:1"),
            ("http://127.0.0.1:99999", "invalid port \"99999\" in URL: http://127.0.0.1:99999"),
            ("unix://", "URL names no socket file: unix://"),
        ] {
            assert_eq!(Url::parse(text).err().as_deref(), Some(reason), "{text}");
        }
    }

    #[test]
    fn socket_files_are_host_and_path() {
        let path = |text| Url::parse(text).unwrap().socket_path().unwrap().display().to_string();
        assert_eq!(path("unix://localhost:20000"), "localhost:20000");
        assert_eq!(path("unix://etcd.unix:1"), "etcd.unix:1");
        assert_eq!(path("unix:///run/etcd.sock"), "/run/etcd.sock");
        assert_eq!(path("unix:/run/etcd.sock"), "/run/etcd.sock");
    }

    #[test]
    fn only_loopback_and_sockets_are_local() {
        for (text, local) in [
            ("http://localhost:0", true),
            ("http://127.0.0.9:1", true),
            ("http://[::1]:1", true),
            ("http://[::ffff:127.0.0.1]:1", true),
            ("unix://a:1", true),
            ("http://0.0.0.0:1", false),
            ("http://[::]:1", false),
            ("http://:1", false),
            ("http://10.0.0.1:1", false),
            ("http://localhost.example.com:1", false),
        ] {
            assert_eq!(Url::parse(text).unwrap().is_local(), local, "{text}");
        }
    }

    #[test]
    fn lists_are_sorted_and_without_repeats() {
        let urls = parse_list("http://b:2, http://a:1,http://b:2").unwrap();
        assert_eq!(urls.iter().map(Url::to_string).collect::<Vec<_>>(), ["http://a:1", "http://b:2"]);
        assert!(parse_list("").unwrap().is_empty());
    }
}
