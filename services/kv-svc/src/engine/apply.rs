//! Applying log entries to the key space.

use std::sync::Arc;
use std::time::Instant;

use bytes::Bytes;
use flotilla_proto::etcd::etcdserverpb::alarm_request::AlarmAction;
use flotilla_proto::etcd::etcdserverpb::{
    AlarmMember, AlarmRequest, AlarmResponse, AlarmType, CompactionResponse, DeleteRangeResponse,
    InternalRaftRequest, LeaseGrantResponse, LeaseRevokeResponse, PutResponse, ResponseHeader,
    TxnResponse,
};

use crate::engine::alarm::alarm_key;
use crate::engine::auth::Caller;
use crate::engine::auth::check::Guard;
use crate::engine::index::KeyRange;
use crate::engine::keyspace::{
    APPLIED, Keyspace, MEMBERSHIP, META, Position, SCHEDULED_COMPACTION, encode_position,
};
use crate::engine::lease::LEASES;
use crate::engine::range::ReadError;
use crate::engine::revision::Revision;
use crate::engine::store::{StoreError, system_key};
use crate::engine::txn;
use crate::engine::write::Writer;
use crate::error::KvError;

/// One entry of the log.
#[derive(Debug, Clone)]
pub struct Entry {
    /// Where it stands.
    pub position: Position,
    /// What it asks for.
    pub command: Command,
}

/// What an entry asks for.
#[derive(Debug, Clone)]
pub enum Command {
    /// Nothing: a new leader's first entry.
    Nothing,
    /// A request.
    Request(Arc<InternalRaftRequest>),
    /// Another set of voters, in the log's own encoding.
    Membership(Bytes),
}

/// Answer to an applied request.
#[derive(Debug, Clone, PartialEq)]
#[allow(missing_docs)]
pub enum Reply {
    Nothing,
    Put(PutResponse),
    Delete(DeleteRangeResponse),
    Txn(TxnResponse),
    Compact(CompactionResponse),
    LeaseGrant(LeaseGrantResponse),
    LeaseRevoke(LeaseRevokeResponse),
    Alarm(AlarmResponse),
}

/// What applying a request came to.
pub type Applied = Result<Reply, KvError>;

/// Revision keys that a compaction left behind; `compact::sweep` removes them.
pub type Garbage = Vec<Bytes>;

fn header(revision: i64) -> Option<ResponseHeader> {
    Some(ResponseHeader { revision, ..ResponseHeader::default() })
}

impl Keyspace {
    /// Applies entries in one batch and hands out their replies in order.
    ///
    /// # Errors
    /// When the store fails; the state in memory is then ahead of it and the process must end.
    pub fn apply(&self, entries: &[Entry]) -> Result<(Vec<Applied>, Garbage), StoreError> {
        let mut guard = self.state.write();
        let store = self.store.clone();
        let mut writer = Writer::new(&mut guard, store.as_ref());
        let mut replies = Vec::with_capacity(entries.len());
        for entry in entries {
            let applied = match &entry.command {
                Command::Nothing => Ok(Reply::Nothing),
                Command::Request(request) => match apply_one(&mut writer, request) {
                    Ok(reply) => Ok(reply),
                    Err(ReadError::Request(error)) => Err(error),
                    Err(ReadError::Store(error)) => return Err(error),
                },
                Command::Membership(bytes) => {
                    writer.put_system(system_key(META, MEMBERSHIP), bytes.clone());
                    Ok(Reply::Nothing)
                }
            };
            writer.commit();
            replies.push(applied);
        }
        let Some(last) = entries.last() else { return Ok((replies, Garbage::new())) };
        writer.state.applied = Some(last.position);
        writer.put_system(system_key(META, APPLIED), encode_position(last.position));
        let (batch, done, garbage) = (writer.batch, writer.done, writer.garbage);
        let revision = writer.state.revision;
        store.write(batch)?;
        drop(guard);
        self.hub().publish(store.as_ref(), revision, done);
        Ok((replies, garbage))
    }
}

fn apply_one(writer: &mut Writer<'_>, request: &InternalRaftRequest) -> Result<Reply, ReadError> {
    let header = request.header.as_ref();
    let caller = header.map(|h| Caller { user: h.username.clone(), revision: h.auth_revision });
    Guard::new(writer.state, caller.unwrap_or_default()).request(request)?;
    apply_allowed(writer, request)
}

fn apply_allowed(
    writer: &mut Writer<'_>,
    request: &InternalRaftRequest,
) -> Result<Reply, ReadError> {
    if let Some(put) = &request.put {
        no_alarm(writer)?;
        return Ok(Reply::Put(txn::put(writer, put)?));
    }
    if let Some(keys) = &request.delete_range {
        return Ok(Reply::Delete(txn::delete(writer, keys)?));
    }
    if let Some(txn) = &request.txn {
        if crate::engine::validate::costs_space(txn) {
            no_alarm(writer)?;
        }
        return Ok(Reply::Txn(txn::execute(writer, txn)?));
    }
    if let Some(compaction) = &request.compaction {
        return Ok(compact(writer, compaction.revision)?);
    }
    if let Some(grant) = &request.lease_grant {
        no_alarm(writer)?;
        let (ttl, stored) = writer.state.leases.grant(grant.id, grant.ttl, Instant::now())?;
        writer.put_system(system_key(LEASES, &grant.id.to_be_bytes()), stored);
        let header = header(writer.state.revision);
        return Ok(Reply::LeaseGrant(LeaseGrantResponse {
            header,
            id: grant.id,
            ttl,
            error: String::new(),
        }));
    }
    if let Some(revoke) = &request.lease_revoke {
        let keys = writer.state.leases.revoke(revoke.id)?;
        for key in keys {
            writer.delete(&KeyRange::single(&key));
        }
        writer.delete_system(system_key(LEASES, &revoke.id.to_be_bytes()));
        writer.commit();
        return Ok(Reply::LeaseRevoke(LeaseRevokeResponse {
            header: header(writer.state.revision),
        }));
    }
    if let Some(request) = &request.alarm {
        return Ok(Reply::Alarm(alarm(writer, request)));
    }
    if let Some(changed) = writer.state.auth.administer(request, &mut writer.batch) {
        changed?;
    }
    Ok(Reply::Nothing)
}

fn no_alarm(writer: &Writer<'_>) -> Result<(), KvError> {
    if writer.state.alarms.is_on(AlarmType::Corrupt) {
        return Err(KvError::Corrupt);
    }
    if writer.state.alarms.is_on(AlarmType::Nospace) { Err(KvError::NoSpace) } else { Ok(()) }
}

fn compact(writer: &mut Writer<'_>, at: i64) -> Result<Reply, KvError> {
    if at <= writer.state.compacted {
        return Err(KvError::Compacted);
    }
    if at > writer.state.revision {
        return Err(KvError::FutureRevision);
    }
    writer.state.compacted = at;
    let mark = Revision::new(at, 0).to_key(false);
    writer.put_system(system_key(META, SCHEDULED_COMPACTION), mark.into());
    let garbage = writer.state.index.compact(at);
    writer.garbage.extend(garbage);
    Ok(Reply::Compact(CompactionResponse { header: header(writer.state.revision) }))
}

fn alarm(writer: &mut Writer<'_>, request: &AlarmRequest) -> AlarmResponse {
    let kind = request.alarm();
    let alarms = match request.action() {
        AlarmAction::Get => writer.state.alarms.list(kind),
        AlarmAction::Activate => {
            if kind == AlarmType::None {
                return AlarmResponse { header: header(writer.state.revision), alarms: Vec::new() };
            }
            if writer.state.alarms.activate(request.member_id, request.alarm) {
                writer.put_system(alarm_key(request.member_id, request.alarm), Bytes::new());
            }
            vec![AlarmMember { member_id: request.member_id, alarm: request.alarm }]
        }
        AlarmAction::Deactivate => {
            if writer.state.alarms.deactivate(request.member_id, request.alarm) {
                writer.delete_system(alarm_key(request.member_id, request.alarm));
                vec![AlarmMember { member_id: request.member_id, alarm: request.alarm }]
            } else {
                Vec::new()
            }
        }
    };
    AlarmResponse { header: header(writer.state.revision), alarms }
}
