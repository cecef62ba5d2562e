//! Refuses, before anything is proposed or read, what etcd's API layer refuses.

use crate::grpc::status::Status;
use mechi_proto::etcdserverpb as pb;
use mechi_replica::command;

/// Checks a range.
pub fn range(request: &pb::RangeRequest) -> Result<(), Status> {
    Ok(command::check_range(request)?)
}

/// Checks a put.
pub fn put(request: &pb::PutRequest) -> Result<(), Status> {
    Ok(command::check_put(request)?)
}

/// Checks a deletion.
pub fn delete_range(request: &pb::DeleteRangeRequest) -> Result<(), Status> {
    Ok(command::check_delete_range(request)?)
}

/// Checks a txn with all that is nested in it.
pub fn txn(request: &pb::TxnRequest, max_txn_ops: usize) -> Result<(), Status> {
    Ok(command::check_txn(request, max_txn_ops)?)
}
