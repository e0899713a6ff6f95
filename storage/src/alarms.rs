//! Alarms: replicated flags, per member and type, that hold until somebody takes them back
//! (spec cluster.md section 5).

use std::collections::BTreeSet;

use bytes::Bytes;
use ferrite_api::pb::etcdserverpb::alarm_request::AlarmAction;
use ferrite_api::pb::etcdserverpb::{AlarmMember, AlarmRequest, AlarmType};
use prost::Message;

use crate::error::Error;
use crate::page::{Table, TableWrite};

/// The active alarms: member id and type number.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Alarms {
    active: BTreeSet<(u64, i32)>,
}

impl Alarms {
    /// Alarms from rows of the page file: key = the encoded `AlarmMember`, no value (etcd's form).
    ///
    /// # Errors
    /// [`Error::Corrupt`] naming the row that does not decode.
    pub(crate) fn load(rows: &[(Bytes, Bytes)]) -> Result<Self, Error> {
        let active = rows.iter().map(|(key, _)| {
            let alarm = AlarmMember::decode(key.clone()).map_err(|error| Error::Corrupt {
                what: format!("alarms row {key:?} does not decode: {error}"),
            })?;
            Ok((alarm.member_id, alarm.alarm))
        });
        Ok(Self {
            active: active.collect::<Result<_, Error>>()?,
        })
    }

    /// The alarms of a type, ordered by member; those of every type for `NONE`.
    pub fn list(&self, kind: i32) -> Vec<AlarmMember> {
        self.active
            .iter()
            .filter(|(_, active)| kind == AlarmType::None as i32 || *active == kind)
            .map(|&(member_id, alarm)| AlarmMember { member_id, alarm })
            .collect()
    }

    /// Whether any member has raised an alarm of this type.
    pub fn is_active(&self, kind: AlarmType) -> bool {
        self.active.iter().any(|(_, active)| *active == kind as i32)
    }

    /// The rows that hold them.
    pub(crate) fn rows(&self) -> impl Iterator<Item = TableWrite> {
        self.list(AlarmType::None as i32).into_iter().map(|alarm| {
            let key = Bytes::from(alarm.encode_to_vec());
            TableWrite::put(Table::Alarms, key, Bytes::new())
        })
    }

    /// Carries a request out: the alarms to answer with, and the row to store if one changed.
    pub(crate) fn apply(
        &mut self,
        request: &AlarmRequest,
    ) -> (Vec<AlarmMember>, Option<TableWrite>) {
        let alarm = AlarmMember {
            member_id: request.member_id,
            alarm: request.alarm,
        };
        let id = (alarm.member_id, alarm.alarm);
        let key = Bytes::from(alarm.encode_to_vec());
        match AlarmAction::try_from(request.action) {
            Ok(AlarmAction::Activate) if request.alarm != AlarmType::None as i32 => {
                let new = self.active.insert(id);
                let row = TableWrite::Put {
                    table: Table::Alarms,
                    key,
                    value: Bytes::new(),
                };
                (vec![alarm], new.then_some(row))
            }
            Ok(AlarmAction::Deactivate) if self.active.remove(&id) => (
                vec![alarm],
                Some(TableWrite::Delete {
                    table: Table::Alarms,
                    key,
                }),
            ),
            Ok(AlarmAction::Get) => (self.list(request.alarm), None),
            // Nothing to do: no type, nothing active, or an action that validation refuses.
            _ => (Vec::new(), None),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn request(action: AlarmAction, member_id: u64, alarm: AlarmType) -> AlarmRequest {
        AlarmRequest {
            action: action as i32,
            member_id,
            alarm: alarm as i32,
        }
    }

    #[test]
    fn alarms_are_raised_listed_and_taken_back() {
        let mut alarms = Alarms::default();
        let raise = request(AlarmAction::Activate, 7, AlarmType::Nospace);
        let (raised, row) = alarms.apply(&raise);
        assert_eq!((raised.len(), row.is_some()), (1, true));
        let (again, row) = alarms.apply(&raise);
        assert_eq!(
            (again, row),
            (raised, None),
            "raising twice changes nothing"
        );
        assert!(alarms.is_active(AlarmType::Nospace) && !alarms.is_active(AlarmType::Corrupt));
        assert_eq!(alarms.list(0).len(), 1);
        assert_eq!(alarms.list(AlarmType::Corrupt as i32), []);
        // Neither member 0 nor type NONE is a wildcard.
        for (member, kind) in [(0, AlarmType::Nospace), (7, AlarmType::None)] {
            let (none, row) = alarms.apply(&request(AlarmAction::Deactivate, member, kind));
            assert_eq!((none, row), (vec![], None));
        }
        let (gone, row) = alarms.apply(&request(AlarmAction::Deactivate, 7, AlarmType::Nospace));
        assert_eq!(
            (gone.len(), row.is_some(), alarms.list(0)),
            (1, true, vec![])
        );
        let (none, _) = alarms.apply(&request(AlarmAction::Activate, 7, AlarmType::None));
        assert_eq!(none, []);
    }

    #[test]
    fn alarms_survive_their_rows() {
        let mut alarms = Alarms::default();
        let (_, row) = alarms.apply(&request(AlarmAction::Activate, 7, AlarmType::Corrupt));
        let Some(TableWrite::Put { key, value, .. }) = row else {
            panic!("a row is stored")
        };
        assert_eq!(Alarms::load(&[(key, value)]).unwrap(), alarms);
        assert!(Alarms::load(&[(Bytes::from_static(b"\xff"), Bytes::new())]).is_err());
    }
}
