//! The config file: YAML or JSON whose keys are the flags' names, with etcd's few exceptions.
//!
//! When there is one, every other flag and variable is ignored. Unknown keys are tolerated, since etcd's own sample
//! has dead ones; one warning names them.

use super::flags::Flags;
use super::notice::Notice;
use super::table;
use super::value::Kind;
use serde_yaml_ng::{Mapping, Value};
use std::path::Path;

/// Keys of `client-transport-security` and the flags that they are.
const CLIENT_SECURITY: &[(&str, &str)] = &[
    ("cert-file", "cert-file"),
    ("key-file", "key-file"),
    ("client-cert-file", "client-cert-file"),
    ("client-key-file", "client-key-file"),
    ("client-cert-auth", "client-cert-auth"),
    ("trusted-ca-file", "trusted-ca-file"),
    ("auto-tls", "auto-tls"),
    ("allowed-hostname", "client-cert-allowed-hostname"),
    ("client-crl-file", "client-crl-file"),
];

/// Keys of `peer-transport-security` and the flags that they are.
const PEER_SECURITY: &[(&str, &str)] = &[
    ("cert-file", "peer-cert-file"),
    ("key-file", "peer-key-file"),
    ("client-cert-file", "peer-client-cert-file"),
    ("client-key-file", "peer-client-key-file"),
    ("client-cert-auth", "peer-client-cert-auth"),
    ("trusted-ca-file", "peer-trusted-ca-file"),
    ("auto-tls", "peer-auto-tls"),
    ("allowed-cn", "peer-cert-allowed-cn"),
    ("allowed-hostname", "peer-cert-allowed-hostname"),
    ("skip-client-san-verification", "peer-skip-client-san-verification"),
    ("client-crl-file", "peer-crl-file"),
];

/// Keys of `socket-options` and the flags that they are.
const SOCKET_OPTIONS: &[(&str, &str)] =
    &[("reuse-port", "socket-reuse-port"), ("reuse-address", "socket-reuse-address")];

/// Keys of `discovery-config` and the flags that they are.
const DISCOVERY: &[(&str, &str)] = &[
    ("token", "discovery-token"),
    ("discovery-token", "discovery-token"),
    ("endpoints", "discovery-endpoints"),
    ("discovery-endpoints", "discovery-endpoints"),
];

/// Reads the file at `path`.
///
/// - Errors: a sentence with the file's name.
pub fn read(path: &Path, notices: &mut Vec<Notice>) -> Result<Flags, String> {
    let text = std::fs::read_to_string(path).map_err(|error| format!("open {}: {}", path.display(), as_go(&error)))?;
    parse(&text, notices).map_err(|reason| format!("config file {}: {reason}", path.display()))
}

/// An error of the operating system in Go's words: in lower case, without its number.
fn as_go(error: &std::io::Error) -> String {
    let text = error.to_string();
    let mut text = text.split(" (os error").next().unwrap_or_default().chars();
    text.next().map(|first| first.to_ascii_lowercase()).into_iter().chain(text).collect()
}

/// Reads a file's text.
///
/// - Errors: not YAML, or a value that is not of its flag's kind.
pub fn parse(text: &str, notices: &mut Vec<Notice>) -> Result<Flags, String> {
    let root: Value = serde_yaml_ng::from_str(text).map_err(|error| format!("error unmarshaling YAML: {error}"))?;
    let root = match root {
        Value::Null => Mapping::new(),
        Value::Mapping(root) => root,
        _ => return Err("error unmarshaling YAML: the file is not a mapping of keys to values".into()),
    };
    let mut flags = Flags::default();
    let mut unknown = Vec::new();
    for (key, value) in &root {
        let Some(key) = key.as_str() else {
            unknown.push(format!("{key:?}"));
            continue;
        };
        let section = match key {
            "client-transport-security" => CLIENT_SECURITY,
            "peer-transport-security" => PEER_SECURITY,
            "socket-options" => SOCKET_OPTIONS,
            "discovery-config" => DISCOVERY,
            // In the file, TLS files are named only inside the two sections, and these two are no options at all.
            "config-file" | "version" | "cert-file" | "key-file" | "trusted-ca-file" => {
                unknown.push(key.into());
                continue;
            }
            _ => {
                match table::find(key) {
                    Some(_) => set(&mut flags, key, key, value)?,
                    None => unknown.push(key.into()),
                }
                continue;
            }
        };
        let members = match value {
            Value::Null => continue,
            Value::Mapping(members) => members,
            _ => return Err(format!("invalid {key}")),
        };
        for (member, value) in members {
            let member = member.as_str().ok_or_else(|| format!("invalid {key}"))?;
            match section.iter().find(|(name, _)| *name == member) {
                Some((_, flag)) => set(&mut flags, flag, &format!("{key}.{member}"), value)?,
                // A TLS option that we do not know must not be lost silently.
                None if key.ends_with("security") && is_meaningful(value) => {
                    return Err(format!("{key}.{member} is not served, and serving without it could be unsafe"));
                }
                None => unknown.push(format!("{key}.{member}")),
            }
        }
    }
    if !unknown.is_empty() {
        notices.push(Notice::warn("ignored unknown keys of the config file").with("keys", unknown.join(",")));
    }
    Ok(flags)
}

fn is_meaningful(value: &Value) -> bool {
    match value {
        Value::Null | Value::Bool(false) => false,
        Value::String(text) => !text.is_empty(),
        Value::Sequence(items) => !items.is_empty(),
        _ => true,
    }
}

fn set(flags: &mut Flags, name: &str, key: &str, value: &Value) -> Result<(), String> {
    let flag = table::find(name).expect("the sections name flags of the table");
    let kind = flag.target().kind;
    let text = match (value, kind) {
        (Value::Null, _) => return Ok(()),
        // etcd takes an empty text for "not set" here, also where the flag's default is not empty.
        (Value::String(text), _) if text.is_empty() => return Ok(()),
        // Durations are nanoseconds in the file, as Go's JSON has them.
        (Value::Number(number), Kind::Duration) if number.is_i64() => format!("{number}ns"),
        (Value::Number(number), kind) if kind != Kind::Bool => number.to_string(),
        (Value::Bool(on), Kind::Bool | Kind::Text) => on.to_string(),
        (Value::String(text), kind) if kind != Kind::Bool => text.clone(),
        (Value::Sequence(items), _) if matches!(kind, Kind::Strings | Kind::Text | Kind::Urls | Kind::UrlsOrStar) => {
            let items = items.iter().map(|item| item.as_str().ok_or_else(|| format!("{key} must be a list of texts")));
            items.collect::<Result<Vec<_>, _>>()?.join(",")
        }
        _ => return Err(format!("{key} has a value of the wrong type")),
    };
    flags.set(flag, &text).map_err(|reason| format!("invalid value {text:?} for {key}: {reason}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Flags that differ from their defaults, and notices.
    type Changed = (Vec<(String, String)>, Vec<String>);

    fn changed(text: &str) -> Result<Changed, String> {
        let mut notices = Vec::new();
        let flags = parse(text, &mut notices)?;
        let changed = flags.changed().map(|(flag, _, value)| (flag.name.to_string(), value.to_string())).collect();
        Ok((changed, notices.iter().map(Notice::to_string).collect()))
    }

    fn pair(name: &str, value: &str) -> (String, String) {
        (name.into(), value.into())
    }

    #[test]
    fn keys_are_flags_with_etcds_exceptions() {
        let (changed, notices) = changed(
            "name: a\n\
             data-dir: /d\n\
             wal-dir:\n\
             heartbeat-interval: 50\n\
             grpc-keepalive-interval: 1000000000\n\
             log-outputs: [stderr, /tmp/x]\n\
             socket-options: {reuse-port: true}\n\
             client-transport-security:\n  cert-file:\n  client-cert-auth: false\n  auto-tls: false\n\
             peer-transport-security: {allowed-cn: [a, b]}\n\
             discovery-fallback: 'proxy'\nproxy: 'off'\nproxy-failure-wait: 5000\ndiscovery: \n",
        )
        .unwrap();
        assert_eq!(
            changed,
            [
                pair("data-dir", "/d"),
                pair("discovery-fallback", "proxy"),
                pair("grpc-keepalive-interval", "1000000000ns"),
                pair("heartbeat-interval", "50"),
                pair("log-outputs", "stderr,/tmp/x"),
                pair("name", "a"),
                pair("peer-cert-allowed-cn", "a,b"),
                pair("socket-reuse-port", "true"),
            ]
        );
        assert_eq!(notices, ["ignored unknown keys of the config file keys=proxy,proxy-failure-wait"]);
    }

    #[test]
    fn json_and_an_empty_file_are_read() {
        assert_eq!(
            changed(r#"{"name": "a", "pre-vote": false}"#).unwrap().0,
            [pair("name", "a"), pair("pre-vote", "false")]
        );
        assert_eq!(changed("").unwrap().0, []);
    }

    #[test]
    fn malformed_files_are_refused() {
        for (text, reason) in [
            ("- a", "error unmarshaling YAML: the file is not a mapping of keys to values"),
            ("pre-vote: 'yes'", "pre-vote has a value of the wrong type"),
            ("name: {a: b}", "name has a value of the wrong type"),
            ("heartbeat-interval: x", "invalid value \"x\" for heartbeat-interval: parse error"),
            ("peer-transport-security: 1", "invalid peer-transport-security"),
            (
                "client-transport-security: {allowed-cn: [x]}",
                "client-transport-security.allowed-cn is not served, and serving without it could be unsafe",
            ),
        ] {
            assert_eq!(changed(text).err().as_deref(), Some(reason), "{text}");
        }
        assert!(changed("a: [").unwrap_err().starts_with("error unmarshaling YAML: "));
    }
}
