//! Alarms: conditions an operator must clear.

use std::collections::BTreeSet;

use bytes::Bytes;
use flotilla_proto::etcd::etcdserverpb::{AlarmMember, AlarmType};
use prost::Message;

use crate::engine::store::{StoreError, View, bucket, system_key};

/// Bucket of alarms, as etcd names it.
pub const ALARMS: &str = "alarm";

/// Alarms that are on: member and kind.
#[derive(Debug, Default)]
pub struct Alarms(BTreeSet<(u64, i32)>);

impl Alarms {
    /// Reads the stored alarms.
    ///
    /// # Errors
    /// When the store cannot be read.
    pub fn restore(view: &dyn View) -> Result<Self, StoreError> {
        let mut alarms = Self::default();
        for (key, _) in bucket(view, ALARMS)? {
            let alarm = AlarmMember::decode(key).map_err(|error| StoreError {
                action: "read an alarm",
                reason: error.to_string(),
            })?;
            alarms.0.insert((alarm.member_id, alarm.alarm));
        }
        Ok(alarms)
    }

    /// Whether an alarm of this kind is on anywhere.
    pub fn is_on(&self, kind: AlarmType) -> bool {
        self.0.iter().any(|(_, alarm)| *alarm == kind as i32)
    }

    /// Alarms of a kind; `None` lists all.
    pub fn list(&self, kind: AlarmType) -> Vec<AlarmMember> {
        self.0
            .iter()
            .filter(|(_, alarm)| kind == AlarmType::None || *alarm == kind as i32)
            .map(|&(member_id, alarm)| AlarmMember { member_id, alarm })
            .collect()
    }

    /// Turns an alarm on; false when it was already.
    pub fn activate(&mut self, member: u64, kind: i32) -> bool {
        self.0.insert((member, kind))
    }

    /// Turns an alarm off; false when it was not on.
    pub fn deactivate(&mut self, member: u64, kind: i32) -> bool {
        self.0.remove(&(member, kind))
    }
}

/// Key of a stored alarm.
pub fn alarm_key(member: u64, kind: i32) -> Bytes {
    system_key(ALARMS, &AlarmMember { member_id: member, alarm: kind }.encode_to_vec())
}
