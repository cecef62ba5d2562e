//! Completes the headers that apply began: only the answering member knows its id and term.

use crate::node::Node;
use mechi_proto::etcdserverpb as pb;

/// Fills in the ids and the term, and the revision unless the operation set one.
pub fn fill(node: &Node, header: &mut Option<pb::ResponseHeader>) {
    let revision = header.as_ref().map_or(0, |header| header.revision);
    *header = Some(node.header(revision));
}

/// The header of cluster answers, which carries no revision.
pub fn without_revision(node: &Node) -> Option<pb::ResponseHeader> {
    Some(pb::ResponseHeader { revision: 0, ..node.header(0) })
}
