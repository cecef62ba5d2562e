//! `lease`: grants, ends, lists leases and keeps them alive.

use crate::call::Call;
use crate::exit::{BAD_CONNECTION, ERROR, Exit, bad_args};
use crate::go::number::parse_int;
use crate::output::say;
use crate::printers::{Format, Reply};
use crate::session::Session;
use mechi_client::Error;

pub(super) async fn grant(call: &mut Call) -> Result<(), Exit> {
    if call.args().len() != 1 {
        return Err(bad_args("lease grant command needs TTL argument"));
    }
    let ttl = parse_int(&call.text(0), 10).map_err(|why| bad_args(format!("bad TTL ({why})")))?;
    let session = Session::open(call).await?;
    let response = session.ask(session.client.lease_grant(ttl, 0)).await;
    let response = response.map_err(|why| Exit::new(ERROR, format!("failed to grant lease ({why})")))?;
    session.print(&Reply::Grant(response))
}

pub(super) async fn revoke(call: &mut Call) -> Result<(), Exit> {
    let id = id(call, "lease revoke command needs 1 argument")?;
    let session = Session::open(call).await?;
    let response = session.ask(session.client.lease_revoke(id)).await;
    let response = response.map_err(|why| Exit::new(ERROR, format!("failed to revoke lease ({why})")))?;
    session.print(&Reply::Revoke(id, response))
}

pub(super) async fn time_to_live(call: &mut Call) -> Result<(), Exit> {
    let keys = call.flags.on("keys");
    let id = id(call, "lease timetolive command needs lease ID as argument")?;
    let session = Session::open(call).await?;
    let response = session.ask(session.patient().lease_time_to_live(id, keys)).await;
    session.print(&Reply::TimeToLive(response.map_err(|why| Exit::new(BAD_CONNECTION, why))?, keys))
}

pub(super) async fn list(call: &mut Call) -> Result<(), Exit> {
    let session = Session::open(call).await?;
    let response = session.ask(session.patient().leases()).await;
    session.print(&Reply::Leases(response.map_err(|why| Exit::new(BAD_CONNECTION, why))?))
}

pub(super) async fn keep_alive(call: &mut Call) -> Result<(), Exit> {
    let id = id(call, "lease keep-alive command needs lease ID as argument")?;
    let once = call.flags.on("once");
    let session = Session::open(call).await?;
    // No unary call, so that etcd's client logs nothing about it.
    let failed = |error: Error| Exit::new(BAD_CONNECTION, session.words(&error));
    if once {
        let response = session.patient().lease_keep_alive_once(id).await.map_err(failed)?;
        if response.ttl <= 0 {
            return Err(Exit::new(BAD_CONNECTION, "etcdserver: requested lease not found"));
        }
        return session.print(&Reply::KeepAlive(response));
    }
    match session.patient().lease_keep_alive(id).await {
        Ok(mut lease) => {
            let mut answer = lease.latest();
            while let Ok(response) = answer {
                session.print(&Reply::KeepAlive(response))?;
                answer = lease.next().await;
            }
        }
        Err(Error::LeaseLost(_)) => {}
        Err(error) => return Err(failed(error)),
    }
    if session.printer.format == Format::Simple {
        say!("lease {id:016x} expired or revoked.");
    }
    Ok(())
}

fn id(call: &Call, missing: &str) -> Result<i64, Exit> {
    if call.args().len() != 1 {
        return Err(bad_args(missing));
    }
    parse_int(&call.text(0), 16).map_err(|why| bad_args(format!("bad lease ID arg ({why}), expecting ID in Hex")))
}
