//! Acting as somebody else: the Impersonate headers.

use http::HeaderMap;

use super::{Attributes, User};
use crate::error::ApiError;
use crate::server::Api;

impl Api {
    /// The user a request acts as.
    ///
    /// # Errors
    /// 403 when the caller may not impersonate, 400 when groups come without a user.
    pub(crate) fn acting_user(&self, caller: User, headers: &HeaderMap) -> Result<User, ApiError> {
        let text = |name: &str| {
            headers.get(name).and_then(|v| v.to_str().ok()).unwrap_or_default().to_owned()
        };
        let name = text("impersonate-user");
        let groups: Vec<String> = headers
            .get_all("impersonate-group")
            .iter()
            .filter_map(|v| v.to_str().ok().map(str::to_owned))
            .collect();
        let uid = text("impersonate-uid");
        if headers.keys().any(|k| k.as_str().starts_with("impersonate-extra-")) {
            return Err(ApiError::not_supported_yet("Impersonate-Extra headers"));
        }
        if name.is_empty() {
            if groups.is_empty() && uid.is_empty() {
                return Ok(caller);
            }
            let why = "requested impersonation without impersonating a user";
            return Err(ApiError::bad_request(why));
        }
        let account =
            name.strip_prefix("system:serviceaccount:").and_then(|rest| rest.split_once(':'));
        let account = account.map(|(namespace, name)| (namespace.to_owned(), name.to_owned()));
        let may = |resource: &str, namespace: &str, name: &str| {
            let wants = Attributes {
                verb: "impersonate",
                resource,
                namespace,
                name,
                ..Attributes::default()
            };
            self.authorize(&caller, &wants)
        };
        match &account {
            Some((namespace, name)) => may("serviceaccounts", namespace, name)?,
            None => may("users", "", &name)?,
        }
        for group in &groups {
            may("groups", "", group)?;
        }
        if !uid.is_empty() {
            may("uids", "", &uid)?;
        }
        let mut groups = groups;
        if let (Some((namespace, _)), true) = (&account, groups.is_empty()) {
            groups = vec![
                "system:serviceaccounts".to_owned(),
                format!("system:serviceaccounts:{namespace}"),
            ];
        }
        let last = if name == "system:anonymous" {
            "system:unauthenticated"
        } else {
            "system:authenticated"
        };
        if !groups.iter().any(|g| g == last) {
            groups.push(last.to_owned());
        }
        Ok(User { name, uid, groups })
    }
}
