//! `elect`: leads an election until it is interrupted, or watches who leads.

use super::lock::{SESSION_TTL, interrupted};
use crate::call::Call;
use crate::exit::{ERROR, Exit, bad_args};
use crate::printers::Reply;
use crate::recipes::Place;
use crate::session::Session;
use mechi_client::pb::RangeResponse;
use mechi_client::pb::range_request::{SortOrder, SortTarget};
use mechi_client::proto::mvccpb::event::EventType;
use mechi_client::{Client, Error, Get, WatchOptions};

pub(super) async fn run(call: &mut Call) -> Result<(), Exit> {
    let args = call.args().to_vec();
    if args.is_empty() || args.len() > 2 {
        return Err(bad_args("elect takes one election name argument and an optional proposal argument"));
    }
    let session = Session::open(call).await?;
    match (args.as_slice(), call.flags.on("listen")) {
        ([_], false) => Err(bad_args("no proposal argument but -l not set")),
        ([_, _], true) => Err(bad_args("proposal given but -l is set")),
        ([name], true) => observe(&session, name).await,
        (words, _) => campaign(&session, &words[0], &words[1]).await,
    }
}

async fn campaign(session: &Session, name: &[u8], proposal: &[u8]) -> Result<(), Exit> {
    let stop = interrupted()?;
    tokio::pin!(stop);
    let fail = |error: Error| Exit::new(ERROR, session.words(&error));
    let taken = Place::take(session.patient(), name, SESSION_TTL, proposal.to_vec());
    let mut place = session.done(taken).await?;
    tokio::select! {
        biased;
        () = &mut stop => {
            place.leave().await.map_err(fail)?;
            return Err(Exit::new(ERROR, "context canceled"));
        }
        won = place.wait() => won.map_err(|error| match error {
            Some(error) => fail(error),
            None => Exit::new(ERROR, "elect: session expired"),
        })?,
    }
    session.print(&Reply::Get(session.done(place.read()).await?))?;
    tokio::select! {
        biased;
        () = stop => place.leave().await.map_err(fail),
        _ = place.lease.lost() => Err(Exit::new(ERROR, "elect: session expired")),
    }
}

async fn observe(session: &Session, name: &[u8]) -> Result<(), Exit> {
    let stop = interrupted()?;
    tokio::select! {
        biased;
        () = stop => Ok(()),
        Err(lost) = follow(session, [name, b"/"].concat()) => Err(lost),
    }
}

/// Prints each leader and each of its proclamations.
async fn follow(session: &Session, prefix: Vec<u8>) -> Result<std::convert::Infallible, Exit> {
    let client = session.patient();
    let lost = |_: Error| Exit::new(ERROR, "elect: observer lost");
    loop {
        let oldest = Get::prefix(prefix.clone()).sort(SortTarget::Create, SortOrder::Ascend).limit(1);
        let mut response = client.get_with(oldest).await.map_err(lost)?;
        if response.kvs.is_empty() {
            response = first_put(&client, &prefix, &response).await.map_err(lost)?;
        }
        session.print(&Reply::Get(response.clone()))?;
        let (Some(kv), Some(header)) = (response.kvs.first(), response.header) else { continue };
        let options = WatchOptions::key(kv.key.clone()).from_revision(header.revision + 1);
        let mut watch = client.watch(options).await.map_err(lost)?;
        'leader: while let Some(batch) = watch.next().await {
            let batch = batch.map_err(lost)?;
            for event in batch.events() {
                if event.r#type() == EventType::Delete {
                    break 'leader;
                }
                response.header = batch.0.header;
                response.kvs = event.kv.iter().cloned().collect();
                session.print(&Reply::Get(response.clone()))?;
            }
        }
    }
}

/// Waits for somebody to lead.
async fn first_put(client: &Client, prefix: &[u8], empty: &RangeResponse) -> Result<RangeResponse, Error> {
    let from = empty.header.map_or(0, |header| header.revision);
    let options = WatchOptions::prefix(prefix.to_vec()).from_revision(from);
    let mut watch = client.watch(options).await?;
    while let Some(batch) = watch.next().await {
        let batch = batch?;
        let put = batch.events().iter().find(|event| event.r#type() == EventType::Put);
        if let Some(kv) = put.and_then(|event| event.kv.clone()) {
            let mut header = batch.0.header.unwrap_or_default();
            header.revision = kv.mod_revision;
            return Ok(RangeResponse { header: Some(header), kvs: vec![kv], ..RangeResponse::default() });
        }
    }
    Err(Error::Closed)
}
