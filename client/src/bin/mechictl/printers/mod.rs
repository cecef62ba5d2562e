//! What a reply looks like in each of the output formats; pure, from a reply to bytes.

mod fields;
mod humanize;
mod json;
mod protobuf;
mod simple;
mod table;
mod terminal;

use crate::exit::{BAD_FEATURE, Exit};
use mechi_proto::etcdserverpb as pb;
use pb::ResponseHeader;

/// One answer, with what a printer must know of the question.
#[derive(Clone, Debug)]
pub(crate) enum Reply {
    Get(pb::RangeResponse),
    Put(pb::PutResponse),
    Del(pb::DeleteRangeResponse),
    Txn(pb::TxnResponse),
    Watch(pb::WatchResponse),
    Grant(pb::LeaseGrantResponse),
    Revoke(i64, pb::LeaseRevokeResponse),
    KeepAlive(pb::LeaseKeepAliveResponse),
    /// Whether the keys were asked for comes last.
    TimeToLive(pb::LeaseTimeToLiveResponse, bool),
    Leases(pb::LeaseLeasesResponse),
    MemberAdd(pb::MemberAddResponse),
    MemberRemove(u64, pb::MemberRemoveResponse),
    MemberUpdate(u64, pb::MemberUpdateResponse),
    MemberPromote(u64, pb::MemberPromoteResponse),
    MemberList(pb::MemberListResponse),
    EndpointHealth(Vec<Health>),
    EndpointStatus(Vec<(String, pb::StatusResponse)>),
    EndpointHashKv(Vec<(String, pb::HashKvResponse)>),
    /// From whom, and to whom.
    MoveLeader(u64, u64, pb::MoveLeaderResponse),
    Alarm(pb::AlarmResponse),
    AuthStatus(pb::AuthStatusResponse),
    RoleAdd(String, pb::AuthRoleAddResponse),
    RoleGet(String, pb::AuthRoleGetResponse),
    RoleDelete(String, pb::AuthRoleDeleteResponse),
    RoleList(pb::AuthRoleListResponse),
    RoleGrant(String, pb::AuthRoleGrantPermissionResponse),
    /// The role, the key, and the end of the range.
    RoleRevoke(String, Vec<u8>, Vec<u8>, pb::AuthRoleRevokePermissionResponse),
    UserAdd(String, pb::AuthUserAddResponse),
    UserGet(String, pb::AuthUserGetResponse),
    UserDelete(String, pb::AuthUserDeleteResponse),
    UserList(pb::AuthUserListResponse),
    UserPasswd(pb::AuthUserChangePasswordResponse),
    UserGrantRole(String, String, pb::AuthUserGrantRoleResponse),
    UserRevokeRole(String, String, pb::AuthUserRevokeRoleResponse),
}

/// How one endpoint does.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Health {
    pub(crate) endpoint: String,
    pub(crate) healthy: bool,
    /// How long it took, as Go prints a duration; empty if it was not reached.
    pub(crate) took: String,
    /// Empty if there was none.
    pub(crate) error: String,
}

/// What a printer has to say on each of the two streams.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Printed {
    pub(crate) out: Vec<u8>,
    pub(crate) err: String,
}

impl From<Vec<u8>> for Printed {
    fn from(out: Vec<u8>) -> Self {
        Self { out, err: String::new() }
    }
}

impl From<String> for Printed {
    fn from(out: String) -> Self {
        out.into_bytes().into()
    }
}

/// `--write-out`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Format {
    Simple,
    Fields,
    Json,
    Protobuf,
    Table,
}

/// A format with what else shapes the output.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Printer {
    pub(crate) format: Format,
    /// `--hex`.
    pub(crate) hex: bool,
    /// `--print-value-only`.
    pub(crate) value_only: bool,
    /// Whether a person reads it on a terminal.
    pub(crate) terminal: bool,
}

impl Printer {
    /// The printer of a format's name.
    pub(crate) fn new(format: &str, hex: bool, terminal: bool) -> Result<Self, Exit> {
        let format = match format {
            "simple" => Format::Simple,
            "fields" => Format::Fields,
            "json" => Format::Json,
            "protobuf" => Format::Protobuf,
            "table" => Format::Table,
            _ => return Err(Exit::new(BAD_FEATURE, "unsupported output format")),
        };
        Ok(Self { format, hex, value_only: false, terminal })
    }

    /// The output for a reply; only a reply that the format has no form for is an error.
    pub(crate) fn format(&self, reply: &Reply) -> Result<Printed, Exit> {
        let (name, printed) = match self.format {
            Format::Simple if self.terminal => ("simple", Some(terminal::print(reply, self))),
            Format::Simple => ("simple", Some(simple::print(reply, self))),
            Format::Fields => ("fields", fields::print(reply).map(Printed::from)),
            Format::Json => ("json", json::print(reply, self.hex).map(Printed::from)),
            Format::Protobuf => ("protobuf", protobuf::print(reply).map(Printed::from)),
            Format::Table => ("table", table::print(reply).map(Printed::from)),
        };
        printed.ok_or_else(|| Exit::new(BAD_FEATURE, format!("{name} not supported as output format")))
    }

    /// Prints a reply to the two streams.
    pub(crate) fn print(&self, reply: &Reply) -> Result<(), Exit> {
        let printed = self.format(reply)?;
        crate::output::out(printed.out);
        if !printed.err.is_empty() {
            crate::output::complain(printed.err.trim_end_matches('\n'));
        }
        Ok(())
    }
}

/// A header that is always there; a server that sends none has sent zeros.
fn header(header: &Option<ResponseHeader>) -> ResponseHeader {
    header.unwrap_or_default()
}
