//! Which keys the roles of a user cover.

use flotilla_proto::etcd::authpb::permission::Type;
use flotilla_proto::etcd::authpb::{Permission, Role};

use crate::engine::index::KeyRange;

/// What is wanted of keys.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Access {
    /// Reading.
    Read,
    /// Writing.
    Write,
}

fn gives(permission: &Permission, access: Access) -> bool {
    match permission.perm_type() {
        Type::Readwrite => true,
        Type::Read => access == Access::Read,
        Type::Write => access == Access::Write,
    }
}

/// Whether the union of what roles permit covers every key of a range.
pub fn covers<'a>(roles: impl Iterator<Item = &'a Role>, range: &KeyRange, access: Access) -> bool {
    let permissions = roles.flat_map(|role| &role.key_permission).filter(|p| gives(p, access));
    let mut ranges: Vec<KeyRange> =
        permissions.map(|p| KeyRange::new(&p.key, &p.range_end)).collect();
    ranges.sort_by(|a, b| a.from.cmp(&b.from));
    let mut reached = range.from.clone();
    for permitted in ranges.iter().filter(|permitted| !permitted.is_empty()) {
        if permitted.from > reached {
            return false;
        }
        let Some(to) = &permitted.to else { return true };
        if *to > reached {
            reached = to.clone();
        }
        if range.to.as_ref().is_some_and(|end| *end <= reached) {
            return true;
        }
    }
    false
}

/// Whether a permission's range makes sense.
pub fn is_valid(permission: &Permission) -> bool {
    let (key, end) = (permission.key.as_ref(), permission.range_end.as_ref());
    match end {
        [] => !key.is_empty(),
        [0] => true,
        _ => key < end,
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::*;

    fn role(permissions: &[(&'static str, &'static str, Type)]) -> Role {
        let key_permission = permissions.iter().map(|(key, end, kind)| Permission {
            perm_type: *kind as i32,
            key: Bytes::from_static(key.as_bytes()),
            range_end: Bytes::from_static(end.as_bytes()),
        });
        Role { name: Bytes::new(), key_permission: key_permission.collect() }
    }

    fn may(roles: &[Role], key: &'static str, end: &'static str, access: Access) -> bool {
        let (key, end) = (Bytes::from_static(key.as_bytes()), Bytes::from_static(end.as_bytes()));
        covers(roles.iter(), &KeyRange::new(&key, &end), access)
    }

    #[test]
    fn ranges_unite_across_roles() {
        let roles = [
            role(&[("a", "c", Type::Read), ("x", "", Type::Readwrite)]),
            role(&[("c", "e", Type::Readwrite)]),
        ];
        assert!(may(&roles, "b", "d", Access::Read));
        assert!(!may(&roles, "b", "d", Access::Write));
        assert!(!may(&roles, "a", "f", Access::Read));
        assert!(may(&roles, "x", "", Access::Write));
    }

    #[test]
    fn one_key_is_not_everything_after_it() {
        let roles = [role(&[("k", "", Type::Readwrite)])];
        assert!(may(&roles, "k", "", Access::Read));
        assert!(!may(&roles, "k", "\0", Access::Read));
        assert!(!may(&roles, "k", "l", Access::Read));
        let open = [role(&[("k", "\0", Type::Read)])];
        assert!(may(&open, "z", "\0", Access::Read) && !may(&open, "a", "\0", Access::Read));
    }
}
