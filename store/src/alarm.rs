//! Alarms: a member is out of space, or found its state corrupt. Replicated, so that all members act upon them alike.

use std::collections::BTreeSet;

use bytes::{BufMut, Bytes, BytesMut};
use quorate_proto::etcdserverpb as pb;

use crate::engine::{Direction, Family, Read, Span};
use crate::overlay::Overlay;
use crate::types::Fault;
use pb::alarm_request::AlarmAction;
use pb::{AlarmMember, AlarmType};

const ALARM: u8 = 0x03;

/// (member id, alarm type) of every alarm raised.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Alarms(BTreeSet<(u64, i32)>);

impl Alarms {
    pub(crate) fn load(read: &dyn Read) -> Result<Self, Fault> {
        let mut alarms = BTreeSet::new();
        for row in read.scan(Family::Cluster, Span::half_open(&[ALARM][..], &[ALARM + 1][..]), Direction::Forward) {
            let (key, _) = row?;
            let bad = || Fault::Data(format!("an alarm key of {} bytes", key.len()));
            let id = key.get(1..9).and_then(|id| id.try_into().ok()).ok_or_else(bad)?;
            let kind = key.get(9..13).and_then(|kind| kind.try_into().ok()).ok_or_else(bad)?;
            alarms.insert((u64::from_be_bytes(id), i32::from_be_bytes(kind)));
        }
        Ok(Self(alarms))
    }

    pub(crate) fn raised(&self, kind: AlarmType) -> bool {
        self.0.iter().any(|(_, raised)| *raised == kind as i32)
    }

    /// Alarms of `kind`; of every kind for `None` (etcd's meaning of NONE in a question).
    pub(crate) fn list(&self, kind: AlarmType) -> Vec<AlarmMember> {
        self.list_number(kind as i32)
    }

    /// Of a kind that this release does not know, too: not to be taken for NONE.
    fn list_number(&self, kind: i32) -> Vec<AlarmMember> {
        let wanted = |raised: i32| kind == AlarmType::None as i32 || raised == kind;
        let members = self.0.iter().filter(|(_, raised)| wanted(*raised));
        members.map(|(member_id, alarm)| AlarmMember { member_id: *member_id, alarm: *alarm }).collect()
    }

    /// Answers what changed, as etcd does; and whether anything did.
    pub(crate) fn apply(&mut self, overlay: &mut Overlay<'_>, request: &pb::AlarmRequest) -> (Vec<AlarmMember>, bool) {
        let member = AlarmMember { member_id: request.member_id, alarm: request.alarm };
        let key = (request.member_id, request.alarm);
        match AlarmAction::try_from(request.action) {
            Ok(AlarmAction::Get) => (self.list_number(request.alarm), false),
            Ok(AlarmAction::Activate) if request.alarm == AlarmType::None as i32 => (Vec::new(), false),
            Ok(AlarmAction::Activate) => {
                let new = self.0.insert(key);
                overlay.put(Family::Cluster, alarm_key(key), Bytes::new());
                (vec![member], new)
            }
            Ok(AlarmAction::Deactivate) if self.0.remove(&key) => {
                overlay.delete(Family::Cluster, alarm_key(key));
                (vec![member], true)
            }
            Ok(AlarmAction::Deactivate) | Err(_) => (Vec::new(), false),
        }
    }
}

fn alarm_key((member, kind): (u64, i32)) -> Bytes {
    let mut key = BytesMut::with_capacity(13);
    key.put_u8(ALARM);
    key.put_u64(member);
    key.put_i32(kind);
    key.freeze()
}
