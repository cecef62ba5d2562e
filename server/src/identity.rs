//! Who a member and its cluster are: etcd's ids, made from peer URLs and the cluster's token.

use mechi_replica::types::MemberId;
use sha1::{Digest, Sha1};

/// The id of a member with these peer URLs in the cluster of this token.
///
/// - Shape: the URLs in any order.
/// - Units: `added_at` is in seconds of Unix time and is given only for members added to a running cluster, whose
///   token is then empty; so a member removed and added again has another id.
/// - Source: etcd `server/etcdserver/api/membership/member.go`, `computeMemberID`.
pub fn member_id<S: AsRef<str>>(peer_urls: &[S], token: &str, added_at: Option<u64>) -> MemberId {
    let mut urls: Vec<&str> = peer_urls.iter().map(AsRef::as_ref).collect();
    urls.sort_unstable();
    let mut hash = Sha1::new();
    urls.iter().for_each(|url| hash.update(url));
    hash.update(token);
    if let Some(seconds) = added_at {
        hash.update(seconds.to_string());
    }
    MemberId(first_eight(hash))
}

/// The id of the cluster that these members found; their order does not matter.
///
/// - Source: etcd `server/etcdserver/api/membership/cluster.go`, `genID`.
pub fn cluster_id(founders: &[MemberId]) -> u64 {
    let mut ids: Vec<u64> = founders.iter().map(|id| id.0).collect();
    ids.sort_unstable();
    let mut hash = Sha1::new();
    ids.iter().for_each(|id| hash.update(id.to_be_bytes()));
    first_eight(hash)
}

fn first_eight(hash: Sha1) -> u64 {
    let digest = hash.finalize();
    u64::from_be_bytes(digest[..8].try_into().expect("a sha1 digest has 20 bytes"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_equal_those_that_etcds_own_tests_hold() {
        let member = member_id(&["https://localhost:20001"], "new", None);
        assert_eq!(member, MemberId(0x00a8_f345_8387_986d));
        assert_eq!(cluster_id(&[member]), 0x34c2_1a2d_427d_b393);
    }

    #[test]
    fn order_does_not_matter_but_time_and_token_do() {
        let id = member_id(&["http://b:1", "http://a:1"], "t", None);
        assert_eq!(member_id(&["http://a:1", "http://b:1"], "t", None), id);
        assert_ne!(member_id(&["http://a:1", "http://b:1"], "u", None), id);
        assert_ne!(member_id(&["http://a:1", "http://b:1"], "t", Some(7)), id);
        assert_eq!(cluster_id(&[MemberId(1), MemberId(2)]), cluster_id(&[MemberId(2), MemberId(1)]));
    }
}
