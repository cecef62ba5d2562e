//! `role`: roles and their permissions.

use crate::call::Call;
use crate::cli::flags::Flags;
use crate::exit::{Exit, bad_args};
use crate::printers::Reply;
use crate::session::Session;
use mechi_client::proto::authpb::Permission;
use mechi_client::proto::authpb::permission::Type;
use mechi_client::{FROM_KEY, Keys, prefix_end};

pub(super) async fn add(call: &mut Call) -> Result<(), Exit> {
    let name = name(call, "add")?;
    let session = Session::open(call).await?;
    let response = session.done(session.patient().role_add(name.clone())).await?;
    session.print(&Reply::RoleAdd(name, response))
}

pub(super) async fn delete(call: &mut Call) -> Result<(), Exit> {
    let name = name(call, "delete")?;
    let session = Session::open(call).await?;
    let response = session.done(session.patient().role_delete(name.clone())).await?;
    session.print(&Reply::RoleDelete(name, response))
}

pub(super) async fn get(call: &mut Call) -> Result<(), Exit> {
    let name = name(call, "get")?;
    let session = Session::open(call).await?;
    let response = session.done(session.patient().role_get(name.clone())).await?;
    session.print(&Reply::RoleGet(name, response))
}

pub(super) async fn list(call: &mut Call) -> Result<(), Exit> {
    if !call.args().is_empty() {
        return Err(bad_args("role list command requires no arguments"));
    }
    let session = Session::open(call).await?;
    let response = session.done(session.patient().role_list()).await?;
    session.print(&Reply::RoleList(response))
}

pub(super) async fn grant(call: &mut Call) -> Result<(), Exit> {
    if call.args().len() < 3 {
        let why = "role grant command requires role name, permission type, and key [endkey] as its argument";
        return Err(bad_args(why));
    }
    let perm_type = match call.text(1).to_uppercase().as_str() {
        "READ" => Type::Read,
        "WRITE" => Type::Write,
        "READWRITE" => Type::Readwrite,
        _ => return Err(bad_args(format!("invalid permission type: {}", call.text(1)))),
    };
    let (key, end) = range(&call.flags, &call.args()[2..])?;
    let session = Session::open(call).await?;
    let permission = Permission { perm_type: perm_type.into(), key: key.into(), range_end: end.into() };
    let name = call.text(0);
    let response = session.done(session.patient().role_grant_permission(name.clone(), permission)).await?;
    session.print(&Reply::RoleGrant(name, response))
}

pub(super) async fn revoke(call: &mut Call) -> Result<(), Exit> {
    if call.args().len() < 2 {
        let why = "role revoke-permission command requires role name and key [endkey] as its argument";
        return Err(bad_args(why));
    }
    let (key, end) = range(&call.flags, &call.args()[1..])?;
    let session = Session::open(call).await?;
    let (name, given) = (call.text(0), call.args()[1].clone());
    let keys = Keys { key: key.into(), end: end.clone().into() };
    let response = session.done(session.patient().role_revoke_permission(name.clone(), keys)).await?;
    session.print(&Reply::RoleRevoke(name, given, end, response))
}

fn name(call: &Call, command: &str) -> Result<String, Exit> {
    if call.args().len() != 1 {
        return Err(bad_args(format!("role {command} command requires role name as its argument")));
    }
    Ok(call.text(0))
}

/// The key and the range's end; permissions write the start of all keys as a zero byte.
fn range(flags: &Flags, words: &[Vec<u8>]) -> Result<(Vec<u8>, Vec<u8>), Exit> {
    let (prefix, from_key) = (flags.on("prefix"), flags.on("from-key"));
    let key = words[0].clone();
    let both = || bad_args("--from-key and --prefix flags are mutually exclusive");
    if key.is_empty() {
        if prefix && from_key {
            return Err(both());
        }
        let end = if prefix || from_key { FROM_KEY.to_vec() } else { Vec::new() };
        return Ok((b"\0".to_vec(), end));
    }
    let end = match words.get(1) {
        None if prefix && from_key => return Err(both()),
        None if prefix => prefix_end(&key).to_vec(),
        None if from_key => FROM_KEY.to_vec(),
        None => Vec::new(),
        Some(_) if prefix => return Err(bad_args("unexpected endkey argument with --prefix flag")),
        Some(_) if from_key => return Err(bad_args("unexpected endkey argument with --from-key flag")),
        Some(end) => end.clone(),
    };
    Ok((key, end))
}
