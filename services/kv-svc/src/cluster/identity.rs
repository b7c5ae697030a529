//! Ids of clusters and members, derived as etcd derives them.

use sha1::{Digest, Sha1};

fn id(bytes: &[u8]) -> u64 {
    let digest = Sha1::digest(bytes);
    let first: [u8; 8] = digest[..8].try_into().expect("a SHA-1 digest has 20 bytes");
    u64::from_be_bytes(first)
}

/// Id of a member from its peer URLs and the cluster's token; members added later also mix in the time.
pub fn member_id(peer_urls: &[String], token: &str, added_at: Option<i64>) -> u64 {
    let mut urls = peer_urls.to_vec();
    urls.sort();
    let added_at = added_at.map(|seconds| seconds.to_string()).unwrap_or_default();
    id(format!("{}{token}{added_at}", urls.concat()).as_bytes())
}

/// Id of a cluster from its first members.
pub fn cluster_id(members: &[u64]) -> u64 {
    let mut members = members.to_vec();
    members.sort_unstable();
    let bytes: Vec<u8> = members.iter().flat_map(|member| member.to_be_bytes()).collect();
    id(&bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_of_a_default_member_are_etcds() {
        let member = member_id(&["http://localhost:2380".to_owned()], "etcd-cluster", None);
        assert_eq!(member, 0x8e9e_05c5_2164_694d);
        assert_eq!(cluster_id(&[member]), 0xcdf8_1819_4e3a_8c32);
    }
}
