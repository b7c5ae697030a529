//! Role-based access control, evaluated on the cached roles and bindings.

use std::str::FromStr;
use std::sync::Arc;

use kube_spec::find;
use serde_json::Value;

use super::User;
use crate::object;
use crate::store::{Cache, Entry};

/// One authorizer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mode {
    /// Roles and bindings.
    Rbac,
    /// Everything is allowed.
    AlwaysAllow,
    /// Nothing is allowed but to system:masters.
    AlwaysDeny,
}

impl FromStr for Mode {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "RBAC" => Ok(Self::Rbac),
            "AlwaysAllow" => Ok(Self::AlwaysAllow),
            "AlwaysDeny" => Ok(Self::AlwaysDeny),
            "Node" | "ABAC" | "Webhook" => {
                Err(format!("not supported yet: --authorization-mode={text}"))
            }
            other => Err(format!(
                "--authorization-mode: {other:?} is not a valid mode (RBAC, AlwaysAllow, AlwaysDeny)"
            )),
        }
    }
}

/// What somebody wants to do.
#[derive(Debug, Clone, Default)]
pub struct Attributes<'a> {
    /// Verb.
    pub verb: &'a str,
    /// API group.
    pub group: &'a str,
    /// Resource; empty for paths.
    pub resource: &'a str,
    /// Subresource.
    pub subresource: &'a str,
    /// Namespace; empty for cluster scope.
    pub namespace: &'a str,
    /// Object.
    pub name: &'a str,
    /// Path, when it is no resource.
    pub path: &'a str,
}

/// Decides.
#[derive(Debug)]
pub struct Authorizer {
    modes: Vec<Mode>,
    cache: Arc<Cache>,
}

impl Authorizer {
    /// An authorizer that asks `modes` in order.
    pub fn new(modes: Vec<Mode>, cache: Arc<Cache>) -> Self {
        Self { modes, cache }
    }

    /// Whether the user may.
    pub fn allows(&self, user: &User, wants: &Attributes<'_>) -> bool {
        if user.in_group("system:masters") {
            return true;
        }
        self.modes.iter().any(|mode| match mode {
            Mode::AlwaysAllow => true,
            Mode::AlwaysDeny => false,
            Mode::Rbac => {
                self.rules(user, wants.namespace).iter().any(|rule| rule_allows(rule, wants))
            }
        })
    }

    /// The rules that hold for a user in a namespace.
    pub fn rules(&self, user: &User, namespace: &str) -> Vec<Value> {
        let mut rules = Vec::new();
        for binding in self.list("clusterrolebindings", "") {
            if binds(&binding.object, user, "") {
                self.collect(&binding.object, "", &mut rules);
            }
        }
        if !namespace.is_empty() {
            for binding in self.list("rolebindings", &format!("{namespace}/")) {
                if binds(&binding.object, user, namespace) {
                    self.collect(&binding.object, namespace, &mut rules);
                }
            }
        }
        rules
    }

    fn list(&self, plural: &str, prefix: &str) -> Vec<Arc<Entry>> {
        let resource = find("rbac.authorization.k8s.io", "v1", plural);
        resource.and_then(|r| self.cache.of(r)).map(|c| c.list(prefix)).unwrap_or_default()
    }

    fn collect(&self, binding: &Value, namespace: &str, rules: &mut Vec<Value>) {
        let (plural, key) = match object::text(binding, "/roleRef/kind") {
            "ClusterRole" => ("clusterroles", object::text(binding, "/roleRef/name").to_owned()),
            _ => ("roles", format!("{namespace}/{}", object::text(binding, "/roleRef/name"))),
        };
        let resource = find("rbac.authorization.k8s.io", "v1", plural);
        if let Some(role) = resource.and_then(|r| self.cache.of(r)?.get(&key)) {
            rules.extend(object::list(&role.object, "/rules").iter().cloned());
        }
    }
}

fn binds(binding: &Value, user: &User, namespace: &str) -> bool {
    object::list(binding, "/subjects").iter().any(|subject| {
        let name = object::text(subject, "/name");
        match object::text(subject, "/kind") {
            "User" => name == user.name,
            "Group" => user.in_group(name),
            "ServiceAccount" => {
                let own = object::text(subject, "/namespace");
                let own = if own.is_empty() { namespace } else { own };
                user.name == format!("system:serviceaccount:{own}:{name}")
            }
            _ => false,
        }
    })
}

fn has(rule: &Value, key: &str, want: &str) -> bool {
    object::list(rule, key).iter().filter_map(Value::as_str).any(|item| item == "*" || item == want)
}

fn rule_allows(rule: &Value, wants: &Attributes<'_>) -> bool {
    if !has(rule, "/verbs", wants.verb) {
        return false;
    }
    if wants.resource.is_empty() {
        return object::list(rule, "/nonResourceURLs").iter().filter_map(Value::as_str).any(
            |url| {
                url == "*"
                    || url == wants.path
                    || url.strip_suffix('*').is_some_and(|p| wants.path.starts_with(p))
            },
        );
    }
    let full = if wants.subresource.is_empty() {
        wants.resource.to_owned()
    } else {
        format!("{}/{}", wants.resource, wants.subresource)
    };
    let any_sub = format!("*/{}", wants.subresource);
    let resource_fits = has(rule, "/resources", &full)
        || (!wants.subresource.is_empty()
            && object::list(rule, "/resources").iter().any(|r| r == any_sub.as_str()));
    let names = object::list(rule, "/resourceNames");
    has(rule, "/apiGroups", wants.group)
        && resource_fits
        && (names.is_empty() || names.iter().any(|n| n.as_str() == Some(wants.name)))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn rules_match_as_rbac_says() {
        let rule = json!({"verbs": ["get"], "apiGroups": [""], "resources": ["pods", "pods/log"]});
        let wants = |verb, resource, subresource| Attributes {
            verb,
            resource,
            subresource,
            ..Attributes::default()
        };
        assert!(rule_allows(&rule, &wants("get", "pods", "")));
        assert!(rule_allows(&rule, &wants("get", "pods", "log")));
        assert!(!rule_allows(&rule, &wants("get", "pods", "exec")));
        assert!(!rule_allows(&rule, &wants("list", "pods", "")));
        let pages = json!({"verbs": ["get"], "nonResourceURLs": ["/healthz", "/api/*"]});
        let page = |path| Attributes { verb: "get", path, ..Attributes::default() };
        assert!(rule_allows(&pages, &page("/api/v1")));
        assert!(!rule_allows(&pages, &page("/metrics")));
    }
}
