//! `lock`: holds a lock until it is interrupted, or while another program runs.

use super::execute::{command, ended, not_started};
use crate::call::Call;
use crate::exit::{ERROR, Exit, bad_args};
use crate::printers::Reply;
use crate::recipes::Place;
use crate::session::Session;
use mechi_client::Error;
use std::ffi::OsString;
use std::os::unix::ffi::OsStringExt;
use std::process::ExitStatus;
use tokio::signal::unix::{SignalKind, signal};

/// A session without a time to live has etcd's default, in seconds.
pub(super) const SESSION_TTL: i64 = 60;

pub(super) async fn run(call: &mut Call) -> Result<(), Exit> {
    let Some((name, words)) = call.args().split_first() else {
        return Err(bad_args("lock takes a lock name argument and an optional command to execute"));
    };
    let (name, words) = (name.clone(), words.to_vec());
    let ttl = Some(call.flags.number("ttl")).filter(|&ttl| ttl > 0).unwrap_or(SESSION_TTL);
    let session = Session::open(call).await?;
    let stop = interrupted()?;
    tokio::pin!(stop);
    let fail = |error: Error| Exit::new(ERROR, session.words(&error));
    let mut place = session.done(Place::take(session.patient(), &name, ttl, "")).await?;
    tokio::select! {
        biased;
        () = &mut stop => {
            place.leave().await.map_err(fail)?;
            return Err(Exit::new(ERROR, "context canceled"));
        }
        held = place.wait() => held.map_err(|error| match error {
            Some(error) => fail(error),
            None => Exit::new(ERROR, "mutex: session is expired"),
        })?,
    }
    if !words.is_empty() {
        let ended = execute(&place, &words).await;
        place.leave().await.map_err(fail)?;
        return ended;
    }
    let own = session.done(place.read()).await?;
    if own.kvs.is_empty() {
        return Err(Exit::new(ERROR, "lock lost on init"));
    }
    session.print(&Reply::Get(own))?;
    tokio::select! {
        biased;
        () = stop => place.leave().await.map_err(fail),
        _ = place.lease.lost() => Err(Exit::new(ERROR, "session expired")),
    }
}

/// Completes at the first SIGINT or SIGTERM.
pub(super) fn interrupted() -> Result<impl Future<Output = ()>, Exit> {
    let listen = |kind| signal(kind).map_err(|error| Exit::new(ERROR, format!("listen for signals: {error}")));
    let (mut interrupt, mut terminate) = (listen(SignalKind::interrupt())?, listen(SignalKind::terminate())?);
    Ok(async move {
        tokio::select! {
            _ = interrupt.recv() => {}
            _ = terminate.recv() => {}
        }
    })
}

/// Runs a program that can see which lock it has.
async fn execute(place: &Place, words: &[Vec<u8>]) -> Result<(), Exit> {
    let (program, args) = words.split_first().expect("the caller has a command");
    let mut command = command(program, args);
    // What the environment says of these two already has the last word, as with etcdctl.
    for (name, value) in
        [("ETCD_LOCK_KEY", OsString::from_vec(place.key.clone())), ("ETCD_LOCK_REV", place.held_at.to_string().into())]
    {
        if std::env::var_os(name).is_none() {
            command.env(name, value);
        }
    }
    match command.status().await {
        Ok(status) if status.success() => Ok(()),
        Ok(status) => Err(Exit::new(code(status), ended(status))),
        Err(error) => Err(Exit::new(ERROR, not_started(program, &error))),
    }
}

fn code(status: ExitStatus) -> u8 {
    status.code().and_then(|code| u8::try_from(code).ok()).unwrap_or(u8::MAX)
}
