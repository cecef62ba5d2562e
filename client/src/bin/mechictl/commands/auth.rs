//! `auth`: switches users on and off.

use crate::call::Call;
use crate::exit::{ERROR, Exit, bad_args};
use crate::output::say;
use crate::printers::Reply;
use crate::session::Session;
use mechi_client::Error;

/// The server's answer when users are switched on before there is a role for root.
const NO_ROOT_ROLE: &str = "etcdserver: root user does not have root role";

pub(super) async fn enable(call: &mut Call) -> Result<(), Exit> {
    let session = open(call, "enable").await?;
    let client = &session.client;
    let missing = |error: &Error| error.server().is_some_and(|refused| refused.message == NO_ROOT_ROLE);
    match client.auth_enable().await {
        // Root gets its role, and then the switch works.
        Err(error) if missing(&error) => {
            let _ = session.ask(async { Err::<(), _>(error) }).await;
            session.done(client.role_add("root".into())).await?;
            session.done(client.user_grant_role("root".into(), "root".into())).await?;
            session.done(client.auth_enable()).await?;
        }
        answer => {
            session.done(async { answer }).await?;
        }
    }
    say!("Authentication Enabled");
    Ok(())
}

pub(super) async fn disable(call: &mut Call) -> Result<(), Exit> {
    let session = open(call, "disable").await?;
    session.done(session.client.auth_disable()).await?;
    say!("Authentication Disabled");
    Ok(())
}

pub(super) async fn status(call: &mut Call) -> Result<(), Exit> {
    let session = open(call, "status").await?;
    let response = session.ask(session.client.auth_status()).await.map_err(|why| Exit::new(ERROR, why))?;
    session.print(&Reply::AuthStatus(response))
}

async fn open(call: &mut Call, name: &str) -> Result<Session, Exit> {
    if !call.args().is_empty() {
        return Err(bad_args(format!("auth {name} command does not accept any arguments")));
    }
    Session::open(call).await
}
