//! Logging in, recognising callers, and asking about users and roles.

use base64::Engine;
use flotilla_proto::etcd::etcdserverpb as pb;

use crate::engine::auth::Caller;
use crate::engine::auth::tokens::random_word;
use crate::engine::server::Server;
use crate::error::KvError;

impl Server {
    /// The caller that a token stands for; nobody while authentication is off or without a token.
    ///
    /// # Errors
    /// When the token is unknown or has ended.
    pub fn recognise(&self, token: Option<&str>) -> Result<Caller, KvError> {
        if !self.keyspace().state().auth.enabled {
            return Ok(Caller::default());
        }
        let Some(token) = token else { return Ok(Caller::default()) };
        self.keyspace().with_auth(|auth| match auth.tokens.user(token) {
            Some(user) => Ok(Caller { user, revision: auth.revision }),
            None => Err(KvError::InvalidAuthToken),
        })
    }

    /// Whether a caller may administer.
    ///
    /// # Errors
    /// When not.
    pub fn admin(&self, caller: &Caller) -> Result<(), KvError> {
        self.keyspace().state().auth.allow_admin(&caller.user)
    }

    /// Hashes a password, off the threads that serve.
    ///
    /// # Errors
    /// When it cannot be hashed.
    pub async fn hash_password(&self, password: String) -> Result<String, KvError> {
        let cost = self.limits().bcrypt_cost;
        let hashed = tokio::task::spawn_blocking(move || bcrypt::hash(password, cost)).await;
        match hashed {
            Ok(Ok(hash)) => Ok(base64::engine::general_purpose::STANDARD.encode(hash)),
            _ => Err(KvError::AuthFailed),
        }
    }

    /// Checks a password and hands out a token.
    ///
    /// # Errors
    /// When authentication is off, name and password do not fit, or the token is not committed.
    pub async fn authenticate(
        &self,
        request: pb::AuthenticateRequest,
    ) -> Result<pb::AuthenticateResponse, KvError> {
        loop {
            let (known, revision) = {
                let state = self.keyspace().state();
                if !state.auth.enabled {
                    return Err(KvError::AuthNotEnabled);
                }
                let user = state.auth.users.get(&request.name);
                let password = user
                    .filter(|u| !u.options.is_some_and(|o| o.no_password))
                    .map(|u| u.password.clone());
                (password, state.auth.revision)
            };
            let hash = known
                .and_then(|bytes| String::from_utf8(bytes.to_vec()).ok())
                .ok_or(KvError::AuthFailed)?;
            let password = request.password.clone();
            let fits = tokio::task::spawn_blocking(move || bcrypt::verify(password, &hash)).await;
            if !matches!(fits, Ok(Ok(true))) {
                return Err(KvError::AuthFailed);
            }
            let token = format!("{}.{}", random_word(), self.consensus().standing().applied);
            let authenticate = Some(pb::InternalAuthenticateRequest {
                name: request.name.clone(),
                password: String::new(),
                simple_token: token.clone(),
            });
            let login = pb::InternalRaftRequest { authenticate, ..Default::default() };
            self.consensus().propose(login).await?;
            // The password may have changed while it was compared.
            if self.keyspace().state().auth.revision == revision {
                let mut response = pb::AuthenticateResponse { header: None, token };
                self.stamp(&mut response.header);
                return Ok(response);
            }
        }
    }

    /// Whether rules are enforced, and their revision.
    pub fn auth_status(&self) -> pb::AuthStatusResponse {
        let (enabled, auth_revision) = {
            let state = self.keyspace().state();
            (state.auth.enabled, state.auth.revision)
        };
        let mut response = pb::AuthStatusResponse { header: None, enabled, auth_revision };
        self.stamp(&mut response.header);
        response
    }

    /// Names of users.
    ///
    /// # Errors
    /// When the caller may not ask.
    pub fn users(&self, caller: &Caller) -> Result<Vec<String>, KvError> {
        self.admin(caller)?;
        Ok(self.keyspace().state().auth.users.keys().cloned().collect())
    }

    /// Names of roles.
    ///
    /// # Errors
    /// When the caller may not ask.
    pub fn roles(&self, caller: &Caller) -> Result<Vec<String>, KvError> {
        self.admin(caller)?;
        Ok(self.keyspace().state().auth.roles.keys().cloned().collect())
    }

    /// Roles of a user; everybody may ask about themselves.
    ///
    /// # Errors
    /// When the caller may not ask or there is no such user.
    pub fn user_roles(&self, caller: &Caller, name: &str) -> Result<Vec<String>, KvError> {
        if caller.user != name {
            self.admin(caller)?;
        }
        let state = self.keyspace().state();
        state.auth.users.get(name).map(|user| user.roles.clone()).ok_or(KvError::UserNotFound)
    }

    /// Permissions of a role; those who have it may ask.
    ///
    /// # Errors
    /// When the caller may not ask or there is no such role.
    pub fn role_permissions(
        &self,
        caller: &Caller,
        name: &str,
    ) -> Result<Vec<flotilla_proto::etcd::authpb::Permission>, KvError> {
        let has_it = {
            let state = self.keyspace().state();
            state
                .auth
                .users
                .get(&caller.user)
                .is_some_and(|u| u.roles.iter().any(|role| role == name))
        };
        if !has_it {
            self.admin(caller)?;
        }
        self.keyspace().state().auth.permissions(name)
    }
}
