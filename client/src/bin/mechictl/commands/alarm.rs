//! `alarm disarm` and `alarm list`.

use crate::call::Call;
use crate::exit::{Exit, bad_args};
use crate::printers::Reply;
use crate::session::Session;
use mechi_client::Error;
use mechi_client::pb::alarm_request::AlarmAction;
use mechi_client::pb::{AlarmRequest, AlarmResponse};

pub(super) async fn list(call: &mut Call) -> Result<(), Exit> {
    if !call.args().is_empty() {
        return Err(bad_args("alarm list command accepts no arguments"));
    }
    let session = Session::open(call).await?;
    let response = session.done(session.client.alarms()).await?;
    session.print(&Reply::Alarm(response))
}

/// Disarms what is raised, one alarm at a time, as etcd's client does.
pub(super) async fn disarm(call: &mut Call) -> Result<(), Exit> {
    if !call.args().is_empty() {
        return Err(bad_args("alarm disarm command accepts no arguments"));
    }
    let session = Session::open(call).await?;
    let response = session.done(disarm_all(&session)).await?;
    session.print(&Reply::Alarm(response))
}

async fn disarm_all(session: &Session) -> Result<AlarmResponse, Error> {
    let raised = session.client.alarms().await?.alarms;
    let mut disarmed = AlarmResponse::default();
    for alarm in raised {
        let action = AlarmAction::Deactivate.into();
        let request = AlarmRequest { action, member_id: alarm.member_id, alarm: alarm.alarm };
        disarmed.alarms.extend(session.client.alarm(request).await?.alarms);
    }
    Ok(disarmed)
}
