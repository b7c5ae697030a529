//! How voters and learners are written to the log and the store.

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;
use openraft::BasicNode;
use serde_json::{Value, json};

use crate::cluster::types::{LogId, Membership, StoredMembership};

/// Writes a membership.
pub fn encode(membership: &Membership, at: Option<&LogId>) -> Bytes {
    let configs: Vec<Vec<u64>> = membership
        .get_joint_config()
        .iter()
        .map(|voters| voters.iter().copied().collect())
        .collect();
    let nodes: BTreeMap<String, &str> =
        membership.nodes().map(|(id, node)| (id.to_string(), node.addr.as_str())).collect();
    let place = at.map(|id| json!({"term": **id.committed_leader_id(), "index": id.index()}));
    json!({"configs": configs, "nodes": nodes, "at": place}).to_string().into()
}

/// Reads a membership. `None` when the bytes are none.
pub fn decode(bytes: &[u8]) -> Option<StoredMembership> {
    let value: Value = serde_json::from_slice(bytes).ok()?;
    let mut configs = Vec::new();
    for config in value.get("configs")?.as_array()? {
        let voters: Option<BTreeSet<u64>> = config.as_array()?.iter().map(Value::as_u64).collect();
        configs.push(voters?);
    }
    let mut nodes = BTreeMap::new();
    for (id, address) in value.get("nodes")?.as_object()? {
        nodes.insert(id.parse::<u64>().ok()?, BasicNode::new(address.as_str()?));
    }
    let at = match value.get("at")? {
        Value::Null => None,
        place => Some(log_id(place.get("term")?.as_u64()?, place.get("index")?.as_u64()?)),
    };
    let membership = Membership::new(configs, nodes).ok()?;
    Some(StoredMembership::new(at, membership))
}

/// A log id.
pub fn log_id(term: u64, index: u64) -> LogId {
    use openraft::vote::RaftLeaderId;
    type LeaderId = openraft::impls::leader_id_std::LeaderId<u64, u64>;
    LogId::new(LeaderId::new(term, 0).to_committed(), index)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn memberships_read_back() {
        let nodes = BTreeMap::from([
            (u64::MAX, BasicNode::new("http://a:1")),
            (2, BasicNode::new("http://b:1")),
        ]);
        let membership = Membership::new(vec![BTreeSet::from([u64::MAX])], nodes).unwrap();
        let at = log_id(3, 9);
        let stored = decode(&encode(&membership, Some(&at))).unwrap();
        assert_eq!(stored, StoredMembership::new(Some(at), membership));
        assert!(decode(b"{}").is_none() && decode(b"").is_none());
    }
}
