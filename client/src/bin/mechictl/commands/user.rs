//! `user`: users, their passwords and their roles.

use crate::call::Call;
use crate::exit::{Exit, bad_args};
use crate::output::say;
use crate::password;
use crate::printers::Reply;
use crate::session::Session;

pub(super) async fn add(call: &mut Call) -> Result<(), Exit> {
    one(call, "user add command requires user name as its argument")?;
    let given = call.text(0);
    let from_flag = call.flags.text("new-user-password");
    let (name, password) = if call.flags.on("no-password") {
        (given, None)
    } else if !from_flag.is_empty() {
        (given, Some(from_flag.to_owned()))
    } else if let Some((name, password)) = given.split_once(':') {
        if name.is_empty() {
            return Err(bad_args("empty user name is not allowed"));
        }
        (name.to_owned(), Some(password.to_owned()))
    } else {
        let password = new_password(call, &given)?;
        (given, Some(password))
    };
    let session = Session::open(call).await?;
    let response = session.done(session.patient().user_add(name.clone(), password)).await?;
    session.print(&Reply::UserAdd(name, response))
}

fn new_password(call: &Call, name: &str) -> Result<String, Exit> {
    if call.flags.on("interactive") { password::ask_new(name).map_err(bad_args) } else { Ok(password::read_word()) }
}

pub(super) async fn delete(call: &mut Call) -> Result<(), Exit> {
    one(call, "user delete command requires user name as its argument")?;
    let session = Session::open(call).await?;
    let name = call.text(0);
    let response = session.done(session.patient().user_delete(name.clone())).await?;
    session.print(&Reply::UserDelete(name, response))
}

pub(super) async fn get(call: &mut Call) -> Result<(), Exit> {
    one(call, "user get command requires user name as its argument")?;
    let session = Session::open(call).await?;
    let name = call.text(0);
    let client = session.patient();
    let response = session.done(client.user_get(name.clone())).await?;
    if !call.flags.on("detail") {
        return session.print(&Reply::UserGet(name, response));
    }
    say!("User: {name}");
    for role in response.roles {
        say!("");
        let response = session.done(client.role_get(role.clone())).await?;
        session.print(&Reply::RoleGet(role, response))?;
    }
    Ok(())
}

pub(super) async fn list(call: &mut Call) -> Result<(), Exit> {
    if !call.args().is_empty() {
        return Err(bad_args("user list command requires no arguments"));
    }
    let session = Session::open(call).await?;
    let response = session.done(session.patient().user_list()).await?;
    session.print(&Reply::UserList(response))
}

pub(super) async fn passwd(call: &mut Call) -> Result<(), Exit> {
    one(call, "user passwd command requires user name as its argument")?;
    let name = call.text(0);
    let password = new_password(call, &name)?;
    let session = Session::open(call).await?;
    let response = session.done(session.patient().user_change_password(name, password)).await?;
    session.print(&Reply::UserPasswd(response))
}

pub(super) async fn grant_role(call: &mut Call) -> Result<(), Exit> {
    if call.args().len() != 2 {
        return Err(bad_args("user grant command requires user name and role name as its argument"));
    }
    let session = Session::open(call).await?;
    let (user, role) = (call.text(0), call.text(1));
    let response = session.done(session.patient().user_grant_role(user.clone(), role.clone())).await?;
    session.print(&Reply::UserGrantRole(user, role, response))
}

pub(super) async fn revoke_role(call: &mut Call) -> Result<(), Exit> {
    if call.args().len() != 2 {
        return Err(bad_args("user revoke-role requires user name and role name as its argument"));
    }
    let session = Session::open(call).await?;
    let (user, role) = (call.text(0), call.text(1));
    let response = session.done(session.patient().user_revoke_role(user.clone(), role.clone())).await?;
    session.print(&Reply::UserRevokeRole(user, role, response))
}

fn one(call: &Call, missing: &str) -> Result<(), Exit> {
    if call.args().len() == 1 { Ok(()) } else { Err(bad_args(missing)) }
}
