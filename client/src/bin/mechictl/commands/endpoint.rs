//! `endpoint health`, `endpoint status` and `endpoint hashkv`.

use crate::call::Call;
use crate::exit::{ERROR, Exit};
use crate::go::duration;
use crate::output::complain;
use crate::printers::{Health, Reply};
use crate::session::{Session, words};
use mechi_client::pb::AlarmType;
use mechi_client::{Get, Kind};
use std::time::Instant;
use tokio::task::JoinSet;

/// The endpoints that were named, or with `--cluster` those of all members.
pub(super) async fn endpoints(call: &Call, session: &Session) -> Result<Vec<String>, Exit> {
    if !call.flags.on("cluster") {
        return Ok(call.flags.list("endpoints").to_vec());
    }
    let members = session
        .ask(session.client.member_list(true))
        .await
        .map_err(|why| Exit::new(ERROR, format!("failed to fetch endpoints from etcd cluster member list: {why}")))?;
    Ok(members.members.into_iter().flat_map(|member| member.client_ur_ls).collect())
}

/// Asks all at once; they are listed as they answer.
pub(super) async fn health(call: &mut Call) -> Result<(), Exit> {
    let session = Session::open(call).await?;
    let mut asked = JoinSet::new();
    for endpoint in endpoints(call, &session).await? {
        let member = session.at(&endpoint)?;
        asked.spawn(async move { ask(&member, endpoint).await });
    }
    let mut healths = Vec::new();
    while let Some(health) = asked.join_next().await {
        healths.push(health.expect("no task panics or is aborted"));
    }
    session.print(&Reply::EndpointHealth(healths.clone()))?;
    if healths.iter().any(|health| !health.error.is_empty()) {
        return Err(Exit::new(ERROR, "unhealthy cluster"));
    }
    Ok(())
}

/// A key that need not exist: its linearizable read goes through the majority.
async fn ask(member: &Session, endpoint: String) -> Health {
    let begun = Instant::now();
    let answer = member.client.get_with(Get::key("health")).await;
    let took = duration::text(begun.elapsed().as_nanos().try_into().unwrap_or(i64::MAX));
    let mut health = Health { endpoint, healthy: true, took, error: String::new() };
    match answer {
        // Who may not read it has been told so by the majority.
        Err(error) if error.kind() != Kind::PermissionDenied => {
            health.error = words(&error);
            let failed = async { Err::<(), _>(error) };
            let _ = member.ask(failed).await;
        }
        _ => match member.ask(member.client.alarms()).await {
            Err(_) => health.error = "Unable to fetch the alarm list".into(),
            Ok(response) if response.alarms.is_empty() => {}
            Ok(response) => {
                let name = |alarm: &mechi_client::pb::AlarmMember| match AlarmType::try_from(alarm.alarm) {
                    Ok(AlarmType::Nospace) => "NOSPACE ",
                    Ok(AlarmType::Corrupt) => "CORRUPT ",
                    _ => "UNKNOWN ",
                };
                let names: String = response.alarms.iter().map(name).collect();
                health.error = format!("Active Alarm(s): {names}");
            }
        },
    }
    health.healthy = health.error.is_empty();
    health
}

pub(super) async fn status(call: &mut Call) -> Result<(), Exit> {
    let session = Session::open(call).await?;
    let (mut found, mut failed) = (Vec::new(), false);
    for endpoint in endpoints(call, &session).await? {
        let member = session.at(&endpoint)?;
        match member.ask(member.client.status()).await {
            Ok(response) => found.push((endpoint, response)),
            Err(why) => {
                complain(&format!("Failed to get the status of endpoint {endpoint} ({why})"));
                failed = true;
            }
        }
    }
    session.print(&Reply::EndpointStatus(found))?;
    if failed { Err(Exit::silent(ERROR)) } else { Ok(()) }
}

pub(super) async fn hash_kv(call: &mut Call) -> Result<(), Exit> {
    let session = Session::open(call).await?;
    let revision = call.flags.number("rev");
    let (mut found, mut failed) = (Vec::new(), None);
    for endpoint in endpoints(call, &session).await? {
        let member = session.at(&endpoint)?;
        match member.ask(member.client.hash_kv(revision)).await {
            Ok(response) => found.push((endpoint, response)),
            Err(why) => {
                complain(&format!("Failed to get the hash of endpoint {endpoint} ({why})"));
                failed = Some(why);
            }
        }
    }
    session.print(&Reply::EndpointHashKv(found))?;
    failed.map_or(Ok(()), |why| Err(Exit::new(ERROR, why)))
}
