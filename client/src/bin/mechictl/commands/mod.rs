//! The commands: from words and flags to requests, one family a file.

mod alarm;
mod auth;
mod check;
mod compaction;
mod defrag;
mod del;
mod elect;
mod endpoint;
mod execute;
mod get;
mod lease;
mod lock;
mod member;
mod move_leader;
mod own;
mod put;
mod role;
mod txn;
mod user;
mod watch;
mod watch_args;

use crate::call::Call;
use crate::cli::command::Action;
use crate::exit::Exit;

/// Runs one command.
pub(crate) async fn run(action: Action, call: &mut Call) -> Result<(), Exit> {
    match action {
        Action::Get => get::run(call).await,
        Action::Put => put::run(call).await,
        Action::Del => del::run(call).await,
        Action::Txn => txn::run(call).await,
        Action::Watch => watch::run(call).await,
        Action::Compaction => compaction::run(call).await,
        Action::AlarmDisarm => alarm::disarm(call).await,
        Action::AlarmList => alarm::list(call).await,
        Action::Defrag => defrag::run(call).await,
        Action::EndpointHealth => endpoint::health(call).await,
        Action::EndpointStatus => endpoint::status(call).await,
        Action::EndpointHashKv => endpoint::hash_kv(call).await,
        Action::MoveLeader => move_leader::run(call).await,
        Action::LeaseGrant => lease::grant(call).await,
        Action::LeaseRevoke => lease::revoke(call).await,
        Action::LeaseTimeToLive => lease::time_to_live(call).await,
        Action::LeaseList => lease::list(call).await,
        Action::LeaseKeepAlive => lease::keep_alive(call).await,
        Action::MemberAdd => member::add(call).await,
        Action::MemberRemove => member::remove(call).await,
        Action::MemberUpdate => member::update(call).await,
        Action::MemberList => member::list(call).await,
        Action::MemberPromote => member::promote(call).await,
        Action::Lock => lock::run(call).await,
        Action::Elect => elect::run(call).await,
        Action::AuthEnable => auth::enable(call).await,
        Action::AuthDisable => auth::disable(call).await,
        Action::AuthStatus => auth::status(call).await,
        Action::UserAdd => user::add(call).await,
        Action::UserDelete => user::delete(call).await,
        Action::UserGet => user::get(call).await,
        Action::UserList => user::list(call).await,
        Action::UserPasswd => user::passwd(call).await,
        Action::UserGrantRole => user::grant_role(call).await,
        Action::UserRevokeRole => user::revoke_role(call).await,
        Action::RoleAdd => role::add(call).await,
        Action::RoleDelete => role::delete(call).await,
        Action::RoleGet => role::get(call).await,
        Action::RoleList => role::list(call).await,
        Action::RoleGrant => role::grant(call).await,
        Action::RoleRevoke => role::revoke(call).await,
        Action::CheckPerf => check::perf(call).await,
        Action::CheckDatascale => check::datascale(call).await,
        Action::Version => own::version(call),
        Action::Help => own::help(call),
        Action::Options => own::options(call),
        Action::Completion => own::completion(call),
        Action::Snapshot => own::no_snapshot(),
        Action::MakeMirror => own::no_mirror(),
    }
}
