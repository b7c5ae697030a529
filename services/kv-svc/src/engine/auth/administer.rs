//! Changing users, roles and permissions, as log entries.

use base64::Engine;
use bytes::Bytes;
use flotilla_proto::etcd::authpb::{Role, User};
use flotilla_proto::etcd::etcdserverpb as pb;
use prost::Message;

use crate::engine::auth::ROOT;
use crate::engine::auth::permission::is_valid;
use crate::engine::auth::rules::{AUTH, ENABLED, REVISION, ROLES, Rules, USERS};
use crate::engine::store::{Space, Write, system_key};
use crate::error::KvError;

type Changes<'a> = &'a mut Vec<Write>;

fn put(changes: Changes<'_>, bucket: &str, key: &[u8], value: Vec<u8>) {
    changes.push(Write::Put(Space::System, system_key(bucket, key), value.into()));
}

impl Rules {
    /// Applies a request that changes the rules; `None`: it does not.
    ///
    /// # Errors
    /// When the change makes no sense.
    pub fn administer(
        &mut self,
        request: &pb::InternalRaftRequest,
        changes: Changes<'_>,
    ) -> Option<Result<(), KvError>> {
        Some(if request.auth_enable.is_some() {
            self.enable(changes)
        } else if request.auth_disable.is_some() {
            self.disable(changes);
            Ok(())
        } else if let Some(login) = &request.authenticate {
            self.tokens.assign(&login.simple_token, &login.name);
            Ok(())
        } else if let Some(add) = &request.auth_user_add {
            self.add_user(add, changes)
        } else if let Some(delete) = &request.auth_user_delete {
            self.delete_user(&delete.name, changes)
        } else if let Some(change) = &request.auth_user_change_password {
            self.change_password(change, changes)
        } else if let Some(grant) = &request.auth_user_grant_role {
            self.grant_role(&grant.user, &grant.role, changes)
        } else if let Some(revoke) = &request.auth_user_revoke_role {
            self.revoke_role(&revoke.name, &revoke.role, changes)
        } else if let Some(add) = &request.auth_role_add {
            self.add_role(&add.name, changes)
        } else if let Some(delete) = &request.auth_role_delete {
            self.delete_role(&delete.role, changes)
        } else if let Some(grant) = &request.auth_role_grant_permission {
            self.grant_permission(grant, changes)
        } else if let Some(revoke) = &request.auth_role_revoke_permission {
            self.revoke_permission(revoke, changes)
        } else {
            return None;
        })
    }

    fn changed(&mut self, changes: Changes<'_>) {
        self.revision += 1;
        put(changes, AUTH, REVISION, self.revision.to_be_bytes().to_vec());
    }

    fn save_user(&mut self, name: &str, user: User, changes: Changes<'_>) {
        put(changes, USERS, name.as_bytes(), user.encode_to_vec());
        self.users.insert(name.to_owned(), user);
    }

    fn save_role(&mut self, name: &str, role: Role, changes: Changes<'_>) {
        put(changes, ROLES, name.as_bytes(), role.encode_to_vec());
        self.roles.insert(name.to_owned(), role);
    }

    fn enable(&mut self, changes: Changes<'_>) -> Result<(), KvError> {
        if self.enabled {
            return Ok(());
        }
        let root = self.users.get(ROOT).ok_or(KvError::RootUserNotExist)?;
        if !self.is_root(root) {
            return Err(KvError::RootRoleNotExist);
        }
        self.enabled = true;
        put(changes, AUTH, ENABLED, vec![1]);
        Ok(())
    }

    fn disable(&mut self, changes: Changes<'_>) {
        if self.enabled {
            self.enabled = false;
            self.tokens.clear();
            put(changes, AUTH, ENABLED, vec![0]);
            self.changed(changes);
        }
    }

    fn add_user(
        &mut self,
        add: &pb::AuthUserAddRequest,
        changes: Changes<'_>,
    ) -> Result<(), KvError> {
        if add.name.is_empty() {
            return Err(KvError::UserEmpty);
        }
        if self.users.contains_key(&add.name) {
            return Err(KvError::UserAlreadyExists);
        }
        let options = add.options.unwrap_or_default();
        let password = if options.no_password { Bytes::new() } else { hash(&add.hashed_password)? };
        let name = Bytes::copy_from_slice(add.name.as_bytes());
        self.save_user(
            &add.name,
            User { name, password, roles: Vec::new(), options: Some(options) },
            changes,
        );
        self.changed(changes);
        Ok(())
    }

    fn delete_user(&mut self, name: &str, changes: Changes<'_>) -> Result<(), KvError> {
        if self.enabled && name == ROOT {
            return Err(KvError::InvalidAuthManagement);
        }
        self.users.remove(name).ok_or(KvError::UserNotFound)?;
        changes.push(Write::Delete(Space::System, system_key(USERS, name.as_bytes())));
        self.tokens.revoke(name);
        self.changed(changes);
        Ok(())
    }

    fn change_password(
        &mut self,
        change: &pb::AuthUserChangePasswordRequest,
        changes: Changes<'_>,
    ) -> Result<(), KvError> {
        let mut user = self.users.get(&change.name).cloned().ok_or(KvError::UserNotFound)?;
        let keeps_none = user.options.is_some_and(|options| options.no_password);
        user.password = if keeps_none { Bytes::new() } else { hash(&change.hashed_password)? };
        self.save_user(&change.name, user, changes);
        self.tokens.revoke(&change.name);
        self.changed(changes);
        Ok(())
    }

    fn grant_role(&mut self, name: &str, role: &str, changes: Changes<'_>) -> Result<(), KvError> {
        let mut user = self.users.get(name).cloned().ok_or(KvError::UserNotFound)?;
        if role != ROOT && !self.roles.contains_key(role) {
            return Err(KvError::RoleNotFound);
        }
        let Err(at) = user.roles.binary_search_by(|other| other.as_str().cmp(role)) else {
            return Ok(());
        };
        user.roles.insert(at, role.to_owned());
        self.save_user(name, user, changes);
        self.changed(changes);
        Ok(())
    }

    fn revoke_role(&mut self, name: &str, role: &str, changes: Changes<'_>) -> Result<(), KvError> {
        if self.enabled && name == ROOT && role == ROOT {
            return Err(KvError::InvalidAuthManagement);
        }
        let mut user = self.users.get(name).cloned().ok_or(KvError::UserNotFound)?;
        let at =
            user.roles.iter().position(|other| other == role).ok_or(KvError::RoleNotGranted)?;
        user.roles.remove(at);
        self.save_user(name, user, changes);
        self.changed(changes);
        Ok(())
    }

    fn add_role(&mut self, name: &str, changes: Changes<'_>) -> Result<(), KvError> {
        if name.is_empty() {
            return Err(KvError::RoleEmpty);
        }
        if self.roles.contains_key(name) {
            return Err(KvError::RoleAlreadyExists);
        }
        let role =
            Role { name: Bytes::copy_from_slice(name.as_bytes()), key_permission: Vec::new() };
        self.save_role(name, role, changes);
        self.changed(changes);
        Ok(())
    }

    fn delete_role(&mut self, name: &str, changes: Changes<'_>) -> Result<(), KvError> {
        if self.enabled && name == ROOT {
            return Err(KvError::InvalidAuthManagement);
        }
        self.roles.remove(name).ok_or(KvError::RoleNotFound)?;
        changes.push(Write::Delete(Space::System, system_key(ROLES, name.as_bytes())));
        let holders: Vec<(String, User)> = self
            .users
            .iter()
            .filter(|(_, user)| user.roles.iter().any(|role| role == name))
            .map(|(holder, user)| (holder.clone(), user.clone()))
            .collect();
        for (holder, mut user) in holders {
            user.roles.retain(|role| role != name);
            self.save_user(&holder, user, changes);
        }
        self.changed(changes);
        Ok(())
    }

    fn grant_permission(
        &mut self,
        grant: &pb::AuthRoleGrantPermissionRequest,
        changes: Changes<'_>,
    ) -> Result<(), KvError> {
        let permission = grant.perm.clone().ok_or(KvError::PermissionNotGiven)?;
        if !is_valid(&permission) {
            return Err(KvError::InvalidAuthManagement);
        }
        let mut role = self.roles.get(&grant.name).cloned().ok_or(KvError::RoleNotFound)?;
        let place = |other: &flotilla_proto::etcd::authpb::Permission| {
            (other.key.clone(), other.range_end.clone())
        };
        match role.key_permission.iter_mut().find(|other| place(other) == place(&permission)) {
            Some(other) => other.perm_type = permission.perm_type,
            None => role.key_permission.push(permission),
        }
        role.key_permission.sort_by_key(place);
        self.save_role(&grant.name, role, changes);
        self.changed(changes);
        Ok(())
    }

    fn revoke_permission(
        &mut self,
        revoke: &pb::AuthRoleRevokePermissionRequest,
        changes: Changes<'_>,
    ) -> Result<(), KvError> {
        let mut role = self.roles.get(&revoke.role).cloned().ok_or(KvError::RoleNotFound)?;
        let before = role.key_permission.len();
        role.key_permission
            .retain(|other| other.key != revoke.key || other.range_end != revoke.range_end);
        if role.key_permission.len() == before {
            return Err(KvError::PermissionNotGranted);
        }
        self.save_role(&revoke.role, role, changes);
        self.changed(changes);
        Ok(())
    }
}

/// A bcrypt hash as requests carry it: base64.
fn hash(text: &str) -> Result<Bytes, KvError> {
    base64::engine::general_purpose::STANDARD
        .decode(text)
        .map(Bytes::from)
        .map_err(|_| KvError::AuthFailed)
}
