//! Users, roles and the revision they are at.

use std::collections::BTreeMap;

use bytes::Bytes;
use flotilla_proto::etcd::authpb::{Permission, Role, User};
use prost::Message;

use crate::engine::auth::ROOT;
use crate::engine::auth::permission::{Access, covers};
use crate::engine::auth::tokens::Tokens;
use crate::engine::index::KeyRange;
use crate::engine::store::{Space, StoreError, View, bucket, system_key};
use crate::error::KvError;

/// Bucket of the switch and the revision, as etcd names it.
pub const AUTH: &str = "auth";
/// Bucket of users.
pub const USERS: &str = "authUsers";
/// Bucket of roles.
pub const ROLES: &str = "authRoles";
/// Key of the switch.
pub const ENABLED: &[u8] = b"authEnabled";
/// Key of the revision.
pub const REVISION: &[u8] = b"authRevision";

/// The rules.
#[derive(Debug)]
pub struct Rules {
    /// Whether they are enforced.
    pub enabled: bool,
    /// Grows with every change.
    pub revision: u64,
    /// By name.
    pub users: BTreeMap<String, User>,
    /// By name.
    pub roles: BTreeMap<String, Role>,
    /// Tokens handed out.
    pub tokens: Tokens,
}

fn unreadable(what: &'static str) -> impl FnOnce(prost::DecodeError) -> StoreError {
    move |error| StoreError { action: what, reason: error.to_string() }
}

impl Rules {
    /// Reads the stored rules. Tokens do not survive a restart.
    ///
    /// # Errors
    /// When the store cannot be read.
    pub fn restore(view: &dyn View, token_ttl: std::time::Duration) -> Result<Self, StoreError> {
        let switch = view.get(Space::System, &system_key(AUTH, ENABLED))?;
        let revision = view.get(Space::System, &system_key(AUTH, REVISION))?;
        let revision =
            revision.and_then(|bytes| bytes.as_ref().try_into().ok()).map(u64::from_be_bytes);
        let mut rules = Self {
            enabled: switch.is_some_and(|bytes| bytes.as_ref() == [1]),
            revision: revision.unwrap_or(1),
            users: BTreeMap::new(),
            roles: BTreeMap::new(),
            tokens: Tokens::new(token_ttl),
        };
        for (name, value) in bucket(view, USERS)? {
            let user = User::decode(value).map_err(unreadable("read a user"))?;
            rules.users.insert(String::from_utf8_lossy(&name).into_owned(), user);
        }
        for (name, value) in bucket(view, ROLES)? {
            let role = Role::decode(value).map_err(unreadable("read a role"))?;
            rules.roles.insert(String::from_utf8_lossy(&name).into_owned(), role);
        }
        Ok(rules)
    }

    /// Whether a user has the root role.
    pub fn is_root(&self, user: &User) -> bool {
        user.roles.iter().any(|role| role == ROOT)
    }

    fn user(&self, name: &str, revision: u64) -> Result<&User, KvError> {
        if revision == 0 {
            return Err(KvError::UserEmpty);
        }
        if revision < self.revision {
            return Err(KvError::AuthOldRevision);
        }
        self.users.get(name).ok_or(KvError::PermissionDenied)
    }

    /// Whether a user may access every key of a range.
    ///
    /// # Errors
    /// When not.
    pub fn allow(
        &self,
        user: &str,
        revision: u64,
        range: &KeyRange,
        access: Access,
    ) -> Result<(), KvError> {
        if !self.enabled {
            return Ok(());
        }
        let user = self.user(user, revision)?;
        let mut roles = user.roles.iter().filter_map(|name| self.roles.get(name));
        if self.is_root(user) || covers(&mut roles, range, access) {
            return Ok(());
        }
        Err(KvError::PermissionDenied)
    }

    /// Whether a user may administer.
    ///
    /// # Errors
    /// When not.
    pub fn allow_admin(&self, user: &str) -> Result<(), KvError> {
        if !self.enabled {
            return Ok(());
        }
        if user.is_empty() {
            return Err(KvError::UserEmpty);
        }
        match self.users.get(user) {
            Some(user) if self.is_root(user) => Ok(()),
            _ => Err(KvError::PermissionDenied),
        }
    }

    /// What a role permits; root permits everything.
    pub fn permissions(&self, role: &str) -> Result<Vec<Permission>, KvError> {
        let found = self.roles.get(role).ok_or(KvError::RoleNotFound)?;
        if role == ROOT {
            let kind = flotilla_proto::etcd::authpb::permission::Type::Readwrite as i32;
            let everything = Permission {
                perm_type: kind,
                key: Bytes::new(),
                range_end: Bytes::from_static(b"\0"),
            };
            return Ok(vec![everything]);
        }
        Ok(found.key_permission.clone())
    }
}
