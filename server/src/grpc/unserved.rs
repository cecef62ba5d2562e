//! The methods of etcd's surface that are known and not served: each says so in a sentence.

/// The sentence that the method at `path` is refused with; `None` if it is served or unknown.
pub fn refusal(path: &str) -> Option<&'static str> {
    let (service, method) = path.trim_start_matches('/').split_once('/')?;
    Some(match (service, method) {
        ("etcdserverpb.Cluster", "MemberAdd" | "MemberRemove" | "MemberUpdate" | "MemberPromote") => {
            "this server does not change its membership yet: a cluster has the one member it started with"
        }
        ("etcdserverpb.Maintenance", "Snapshot") => {
            "this server does not stream snapshots yet: copy its data directory while it is stopped"
        }
        ("etcdserverpb.Maintenance", "Downgrade") => "this server has no older version to downgrade to",
        (
            "etcdserverpb.Auth",
            "AuthEnable"
            | "AuthDisable"
            | "UserAdd"
            | "UserGet"
            | "UserList"
            | "UserDelete"
            | "UserChangePassword"
            | "UserGrantRole"
            | "UserRevokeRole"
            | "RoleAdd"
            | "RoleGet"
            | "RoleList"
            | "RoleDelete"
            | "RoleGrantPermission"
            | "RoleRevokePermission",
        ) => "this server does not know users and roles yet: authentication cannot be enabled",
        ("v3lockpb.Lock", "Lock" | "Unlock") => {
            "this server does not serve the lock service yet: use a client library's lock, made of KV, Lease and Watch"
        }
        ("v3electionpb.Election", "Campaign" | "Proclaim" | "Leader" | "Observe" | "Resign") => {
            "this server does not serve the election service yet: use a client library's election, made of KV, Lease and Watch"
        }
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_method_of_the_protos_is_served_or_refused_with_a_sentence_and_none_is_both() {
        let dispatch = include_str!("mod.rs");
        let protos = [
            include_str!("../../../proto/protos/rpc.proto"),
            include_str!("../../../proto/protos/lock.proto"),
            include_str!("../../../proto/protos/election.proto"),
            include_str!("../../../proto/protos/health.proto"),
        ];
        let mut methods = 0;
        for proto in protos {
            let mut words = proto.split_ascii_whitespace().peekable();
            let (mut package, mut service) = ("", "");
            while let Some(word) = words.next() {
                match (word, words.peek()) {
                    ("package", Some(name)) => package = name.trim_end_matches(';'),
                    ("service", Some(name)) => service = name,
                    ("rpc", Some(name)) => {
                        let method = name.split('(').next().expect("split gives at least one");
                        let path = format!("/{package}.{service}/{method}");
                        let served = dispatch.contains(&format!("{path:?} =>"));
                        assert!(served != refusal(&path).is_some(), "{path}: served {served}");
                        methods += 1;
                    }
                    _ => {}
                }
            }
        }
        assert_eq!(methods, 6 + 1 + 5 + 5 + 8 + 17 + 2 + 5 + 2);
    }
}
