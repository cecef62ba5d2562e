//! Alarms as every member sees them: no space, or a member whose data differ.

use crate::outcome::{Error, Fatal, Response};
use mechi_proto::etcdserverpb as pb;
use pb::AlarmType;
use pb::alarm_request::AlarmAction;
use std::collections::BTreeSet;

/// The raised alarms, by kind and then by member.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Alarms(BTreeSet<(AlarmType, u64)>);

impl Alarms {
    /// Tells whether any member raised `kind`.
    pub fn raised(&self, kind: AlarmType) -> bool {
        self.0.range((kind, 0)..=(kind, u64::MAX)).next().is_some()
    }

    /// Lists the alarms of one kind, or with `None` (the enum's value) all of them.
    pub fn list(&self, kind: AlarmType) -> Vec<pb::AlarmMember> {
        let wanted = |(found, _): &&(AlarmType, u64)| kind == AlarmType::None || kind == *found;
        self.0.iter().filter(wanted).map(|&(kind, member)| alarm_member(kind, member)).collect()
    }

    /// Reads the stored form; errors: [`Fatal::Bug`] on an unknown kind, since it passed its checksum.
    pub fn from_meta(meta: Vec<pb::AlarmMember>) -> Result<Self, Fatal> {
        let alarm = |alarm: pb::AlarmMember| match AlarmType::try_from(alarm.alarm) {
            Ok(kind) if kind != AlarmType::None => Ok((kind, alarm.member_id)),
            _ => Err(Fatal::Bug(format!("alarm kind {} is unknown", alarm.alarm))),
        };
        meta.into_iter().map(alarm).collect::<Result<_, _>>().map(Self)
    }

    /// Raises, lowers or lists; the answer names what it touched. Returns also whether anything changed.
    ///
    /// To raise a raised alarm answers it again; to lower one that is not raised, or the kind `NONE`, answers
    /// nothing. An action or kind that etcd does not know does nothing either.
    ///
    /// - Source: etcd `apply/backend.go` `Alarm`, `api/v3alarm/alarms.go`.
    pub(super) fn apply(&mut self, request: &pb::AlarmRequest) -> (Result<Response, Error>, bool) {
        let (mut alarms, mut changed) = (Vec::new(), false);
        if let (Ok(action), Ok(kind)) = (AlarmAction::try_from(request.action), AlarmType::try_from(request.alarm)) {
            match action {
                AlarmAction::Get => alarms = self.list(kind),
                _ if kind == AlarmType::None => {}
                AlarmAction::Activate => {
                    changed = self.0.insert((kind, request.member_id));
                    alarms.push(alarm_member(kind, request.member_id));
                }
                AlarmAction::Deactivate => {
                    changed = self.0.remove(&(kind, request.member_id));
                    if changed {
                        alarms.push(alarm_member(kind, request.member_id));
                    }
                }
            }
        }
        (Ok(Response::Alarm(pb::AlarmResponse { header: Some(pb::ResponseHeader::default()), alarms })), changed)
    }
}

fn alarm_member(kind: AlarmType, member_id: u64) -> pb::AlarmMember {
    pb::AlarmMember { member_id, alarm: kind.into() }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ask(alarms: &mut Alarms, action: AlarmAction, member_id: u64, kind: AlarmType) -> (Vec<u64>, bool) {
        let request = pb::AlarmRequest { action: action.into(), member_id, alarm: kind.into() };
        let (Ok(Response::Alarm(response)), changed) = alarms.apply(&request) else { panic!("not an alarm answer") };
        (response.alarms.iter().map(|alarm| alarm.member_id).collect(), changed)
    }

    #[test]
    fn raises_lists_and_lowers_as_etcd_does() {
        use {AlarmAction::*, AlarmType as Kind};
        let mut alarms = Alarms::default();
        assert_eq!(ask(&mut alarms, Activate, 1, Kind::Nospace), (vec![1], true));
        assert_eq!(ask(&mut alarms, Activate, 1, Kind::Nospace), (vec![1], false));
        assert_eq!(ask(&mut alarms, Activate, 2, Kind::Corrupt), (vec![2], true));
        assert_eq!(ask(&mut alarms, Activate, 3, Kind::None), (vec![], false));
        assert_eq!(ask(&mut alarms, Get, 0, Kind::None), (vec![1, 2], false));
        assert_eq!(ask(&mut alarms, Get, 0, Kind::Corrupt), (vec![2], false));
        assert!(alarms.raised(Kind::Corrupt));
        assert_eq!(ask(&mut alarms, Deactivate, 2, Kind::None), (vec![], false), "NONE lowers nothing");
        assert_eq!(ask(&mut alarms, Deactivate, 1, Kind::Corrupt), (vec![], false), "not this member's");
        assert_eq!(ask(&mut alarms, Deactivate, 2, Kind::Corrupt), (vec![2], true));
        assert!(!alarms.raised(Kind::Corrupt));
        assert_eq!(Alarms::from_meta(alarms.list(Kind::None)).unwrap(), alarms);
    }
}
