//! Leases: granting, ending, and asking about them. Keeping them alive is in `keep_alive`.

use crate::client::calls;
use mechi_proto::etcdserverpb as pb;

calls! {
    /// Grants a lease of `ttl` seconds; the server raises a time that is too short, see the answer. `id` 0 lets it choose.
    ///
    /// - Errors: [`Error::OutcomeUnknown`](crate::Error::OutcomeUnknown): a lease that nobody knows ends by itself.
    Write lease_grant(ttl: i64, id: i64) = lease.lease_grant(pb::LeaseGrantRequest { ttl, id }) -> pb::LeaseGrantResponse;

    /// Ends a lease and deletes its keys.
    Write lease_revoke(id: i64) = lease.lease_revoke(pb::LeaseRevokeRequest { id }) -> pb::LeaseRevokeResponse;

    /// Asks how long a lease has left, and with `keys` also which keys it has. A lease that is gone has −1 left.
    Read lease_time_to_live(id: i64, keys: bool) = lease.lease_time_to_live(pb::LeaseTimeToLiveRequest { id, keys }) -> pb::LeaseTimeToLiveResponse;

    /// Asks for all leases.
    Read leases() = lease.lease_leases(pb::LeaseLeasesRequest {}) -> pb::LeaseLeasesResponse;
}
