//! Where things are in the store, and how one incarnation of an object is told from the next.
//!
//! ```text
//! /registry/<resource>/<name>             namespaces, nodes
//! /registry/<resource>/<namespace>/<name> pods, replicasets, deployments
//! /registry/_coord/election/<component>   leased; its create revision is the fencing token
//! /registry/_coord/node/<name>            leased: a node's heartbeat
//! /registry/_coord/alloc/<name>           rewritten by each bind to a node: its version is the placements' version
//! /registry/_coord/brake/<region>:<zone>  whether pods have to leave nodes of a zone that are not well, and since when
//! /events/<namespace>/<name>              leased, outside the one watch
//! ```

use crate::digest::{fnv, mix};
use crate::kv::Revision;
use std::fmt;
use std::sync::Arc;

/// Everything that is watched begins with it.
pub const ROOT: &str = "/registry/";

/// Everything about events begins with it.
pub const EVENTS: &str = "/events/";

const COORD: &str = "/registry/_coord/";

/// A kind of object.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[allow(missing_docs)]
pub enum Kind {
    Namespace,
    Node,
    Pod,
    ReplicaSet,
    Deployment,
}

impl Kind {
    /// All of them, in the order in which keys sort.
    pub const ALL: [Self; 5] = [Self::Deployment, Self::Namespace, Self::Node, Self::Pod, Self::ReplicaSet];

    /// The name that Kubernetes gives it in an object.
    pub fn name(self) -> &'static str {
        match self {
            Self::Namespace => "Namespace",
            Self::Node => "Node",
            Self::Pod => "Pod",
            Self::ReplicaSet => "ReplicaSet",
            Self::Deployment => "Deployment",
        }
    }

    /// The name in keys and paths.
    pub fn resource(self) -> &'static str {
        match self {
            Self::Namespace => "namespaces",
            Self::Node => "nodes",
            Self::Pod => "pods",
            Self::ReplicaSet => "replicasets",
            Self::Deployment => "deployments",
        }
    }

    /// The name with its group, as error messages have it.
    pub fn qualified(self) -> String {
        let group = if self.api_version() == "v1" { "" } else { ".apps" };
        format!("{}{group}", self.resource())
    }

    /// The API that it belongs to.
    pub fn api_version(self) -> &'static str {
        match self {
            Self::Namespace | Self::Node | Self::Pod => "v1",
            Self::ReplicaSet | Self::Deployment => "apps/v1",
        }
    }

    /// Whether its names are unique in a namespace only.
    pub fn is_namespaced(self) -> bool {
        !matches!(self, Self::Namespace | Self::Node)
    }

    /// The kind of this name.
    pub fn of_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|kind| kind.name() == name)
    }

    /// What all keys of the kind begin with.
    pub fn prefix(self) -> String {
        format!("{ROOT}{}/", self.resource())
    }
}

/// Names an object, whatever its incarnation; those of a kind sort as their keys do in the store.
///
/// There is one for each pod, in several places: copies share what it says.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ObjectKey {
    /// Its kind.
    pub kind: Kind,
    /// Its namespace and its name with a slash between them, or its name alone.
    path: Arc<str>,
}

impl ObjectKey {
    /// An object's key; the namespace of a kind that has none is ignored.
    pub fn new(kind: Kind, namespace: &str, name: &str) -> Self {
        let path = if kind.is_namespaced() { format!("{namespace}/{name}").into() } else { name.into() };
        Self { kind, path }
    }

    /// Below all keys of a kind, whatever they are: anybody may write to the store.
    pub(crate) fn below_all(kind: Kind) -> Self {
        Self { kind, path: "".into() }
    }

    /// Its namespace; empty if its kind has none.
    pub fn namespace(&self) -> &str {
        self.parts().0
    }

    /// Its name.
    pub fn name(&self) -> &str {
        self.parts().1
    }

    fn parts(&self) -> (&str, &str) {
        self.path.split_once('/').filter(|_| self.kind.is_namespaced()).unwrap_or(("", &self.path))
    }

    /// Reads a key of the store; `None` if it is of no object.
    pub fn parse(key: &[u8]) -> Option<Self> {
        let rest = std::str::from_utf8(key).ok()?.strip_prefix(ROOT)?;
        let (resource, path) = rest.split_once('/')?;
        let kind = Kind::ALL.into_iter().find(|kind| kind.resource() == resource)?;
        let (namespace, name) = if kind.is_namespaced() { path.split_once('/')? } else { ("", path) };
        let is_whole = !name.is_empty() && !name.contains('/') && kind.is_namespaced() != namespace.is_empty();
        is_whole.then(|| Self { kind, path: path.into() })
    }
}

/// Prints the store's key.
impl fmt::Display for ObjectKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{ROOT}{}/{}", self.kind.resource(), self.path)
    }
}

/// A component's election.
pub fn election(component: &str) -> String {
    format!("{COORD}election/{component}")
}

/// A node's heartbeat.
pub fn heartbeat(node: &str) -> String {
    format!("{COORD}node/{node}")
}

/// A node's placements.
pub fn alloc(node: &str) -> String {
    format!("{COORD}alloc/{node}")
}

/// A zone's brake.
pub fn brake(zone: &str) -> String {
    format!("{COORD}brake/{zone}")
}

/// What a key that is of no object is about.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Coord {
    /// A component's election.
    Election(String),
    /// A node's heartbeat.
    Heartbeat(String),
    /// A node's placements.
    Alloc(String),
    /// A zone's brake.
    Brake(String),
}

impl Coord {
    /// Reads a key of the store; `None` if it is none of these.
    pub fn parse(key: &[u8]) -> Option<Self> {
        let rest = std::str::from_utf8(key).ok()?.strip_prefix(COORD)?;
        let (what, name) = rest.split_once('/')?;
        match what {
            "election" => Some(Self::Election(name.to_owned())),
            "node" => Some(Self::Heartbeat(name.to_owned())),
            "alloc" => Some(Self::Alloc(name.to_owned())),
            "brake" => Some(Self::Brake(name.to_owned())),
            _ => None,
        }
    }
}

/// The end of the range of all keys that begin with a prefix.
///
/// - Panics: if the prefix is empty or its last byte is the largest one, which none of ours is.
pub fn prefix_end(prefix: &str) -> Vec<u8> {
    let mut end = prefix.as_bytes().to_vec();
    let last = end.last_mut().expect("a prefix has bytes");
    *last = last.checked_add(1).expect("prefixes end with a slash or a letter");
    end
}

/// The uid of the incarnation of a key that was created at a revision: a UUID of version 8 that says so.
///
/// It is worked out, not stored: it can be neither forged nor used twice, and an owner's reference carries its own guard.
/// Its one half is a digest of the cluster and the key, since one transaction creates many objects at one revision; the
/// other half is the revision.
pub fn uid(cluster_id: u64, key: &[u8], created: Revision) -> String {
    let of_key = fnv(cluster_id.to_le_bytes().into_iter().chain(key.iter().copied()));
    let high = mix(of_key) & !0xf000 | 0x8000;
    let low = created as u64 & (u64::MAX >> 2) | 1 << 63;
    format!(
        "{:08x}-{:04x}-{:04x}-{:04x}-{:012x}",
        high >> 32,
        high >> 16 & 0xffff,
        high & 0xffff,
        low >> 48,
        low & 0xffff_ffff_ffff
    )
}

/// The revision at which the incarnation of this uid was created; `None` if it is no uid of this key in this cluster.
pub fn created_of(cluster_id: u64, key: &ObjectKey, text: &str) -> Option<Revision> {
    let hex: String = text.chars().filter(|at| *at != '-').collect();
    let low = u64::from_str_radix(hex.get(16..)?, 16).ok()?;
    let created = (low & (u64::MAX >> 2)) as Revision;
    (uid(cluster_id, key.to_string().as_bytes(), created) == text).then_some(created)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_are_written_and_read() {
        let pod = ObjectKey::new(Kind::Pod, "default", "web-1");
        assert_eq!(pod.to_string(), "/registry/pods/default/web-1");
        assert_eq!(ObjectKey::parse(pod.to_string().as_bytes()), Some(pod));
        let node = ObjectKey::new(Kind::Node, "ignored", "n1");
        assert_eq!(node.to_string(), "/registry/nodes/n1");
        assert_eq!(ObjectKey::parse(b"/registry/nodes/n1"), Some(node.clone()));
        assert_eq!((node.namespace(), node.name()), ("", "n1"));
        let odd = ObjectKey::parse(b"/registry/pods/-a/b").expect("whoever wrote it");
        assert_eq!((odd.namespace(), odd.name()), ("-a", "b"));
        assert!(ObjectKey::below_all(Kind::Pod) < odd && node < ObjectKey::below_all(Kind::Pod));
        for other in [
            "/registry/pods/web",
            "/registry/pods//web",
            "/registry/nodes/a/b",
            "/registry/_coord/node/n1",
            "/events/a/b",
            "x",
        ] {
            assert_eq!(ObjectKey::parse(other.as_bytes()), None, "{other}");
        }
        assert_eq!(Coord::parse(alloc("n1").as_bytes()), Some(Coord::Alloc("n1".to_owned())));
        assert_eq!(Coord::parse(election("scheduler").as_bytes()), Some(Coord::Election("scheduler".to_owned())));
        assert_eq!(Coord::parse(heartbeat("n1").as_bytes()), Some(Coord::Heartbeat("n1".to_owned())));
        assert_eq!(Coord::parse(brake("eu:a").as_bytes()), Some(Coord::Brake("eu:a".to_owned())));
        assert_eq!(Coord::parse(b"/registry/_coord/else/n1"), None);
        assert_eq!(prefix_end("/registry/pods/"), b"/registry/pods0");
    }

    #[test]
    fn a_uid_names_one_incarnation_in_one_cluster() {
        let (cluster, other) = (0x1234_5678_9abc_def0, 0x9abc_def0_1234_5678);
        let (pod, beside) = (ObjectKey::new(Kind::Pod, "a", "web-1"), ObjectKey::new(Kind::Pod, "a", "web-2"));
        for created in [1, 77, 1 << 40, (1 << 62) - 1] {
            let text = uid(cluster, pod.to_string().as_bytes(), created);
            assert_eq!(created_of(cluster, &pod, &text), Some(created), "{text}");
            assert_eq!((created_of(other, &pod, &text), created_of(cluster, &beside, &text)), (None, None));
            assert_eq!((text.len(), &text[14..15]), (36, "8"));
            assert!("89ab".contains(&text[19..20]), "{text}");
        }
        for text in ["", "x", "12345678-9abc-8ef0-8000-00000000000g", "12345678-9abc-8ef0-8000-0000000000"] {
            assert_eq!(created_of(cluster, &pod, text), None, "{text}");
        }
    }

    #[test]
    fn what_is_created_in_one_transaction_has_uids_of_its_own() {
        let key = |n: usize| ObjectKey::new(Kind::Pod, "a", &format!("web-{n}")).to_string();
        let uids: std::collections::BTreeSet<String> = (0..10_000).map(|n| uid(7, key(n).as_bytes(), 77)).collect();
        assert_eq!(uids.len(), 10_000);
    }
}
