//! Resources that are questions: access and token reviews.

use axum::body::Body;
use http::Response;
use serde_json::{Value, json};

use crate::body;
use crate::error::{ApiError, FieldError};
use crate::identity::{Attributes, User};
use crate::object::{is_set, list, text};
use crate::output::warn;
use crate::rest::Call;
use crate::server::Api;

impl Api {
    pub(crate) async fn serve_virtual(&self, call: Call) -> Result<Response<Body>, ApiError> {
        let resource = call.resource();
        if !call.target.name.is_empty() {
            return Err(ApiError::method_not_allowed());
        }
        let decoded = body::decode(&call.headers, &call.body, resource, call.field_validation()?)?;
        let mut object = decoded.object;
        match resource.plural {
            "selfsubjectaccessreviews" => {
                object["status"] = self.review(&call.user, &object["spec"], resource)?
            }
            "subjectaccessreviews" | "localsubjectaccessreviews" => {
                let user = reviewed_user(&object["spec"]);
                object["status"] = self.review(&user, &object["spec"], resource)?;
            }
            "selfsubjectrulesreviews" => {
                object["status"] = self.rules_review(&call.user, &object["spec"])
            }
            "selfsubjectreviews" => object["status"] = json!({"userInfo": user_info(&call.user)}),
            "tokenreviews" => object["status"] = self.token_review(&object["spec"]),
            "bindings" => return self.bind(&call, &object).await,
            _ => return Err(ApiError::method_not_allowed()),
        }
        let mut response = call.output.respond(201, &object);
        warn(&mut response, &decoded.warnings);
        Ok(response)
    }

    fn review(
        &self,
        user: &User,
        spec: &Value,
        resource: &kube_spec::Resource,
    ) -> Result<Value, ApiError> {
        let wants = match (
            is_set(spec, "/resourceAttributes"),
            is_set(spec, "/nonResourceAttributes"),
        ) {
            (true, false) => {
                let get = |key: &str| text(spec, &format!("/resourceAttributes/{key}"));
                Attributes {
                    verb: get("verb"),
                    group: get("group"),
                    resource: get("resource"),
                    subresource: get("subresource"),
                    namespace: get("namespace"),
                    name: get("name"),
                    path: "",
                }
            }
            (false, true) => Attributes {
                verb: text(spec, "/nonResourceAttributes/verb"),
                path: text(spec, "/nonResourceAttributes/path"),
                ..Attributes::default()
            },
            _ => {
                let why =
                    "exactly one of nonResourceAttributes or resourceAttributes must be specified";
                return Err(ApiError::invalid(
                    resource,
                    "",
                    &[FieldError::invalid("spec", spec, why)],
                ));
            }
        };
        Ok(json!({"allowed": self.authorizer.allows(user, &wants)}))
    }

    fn rules_review(&self, user: &User, spec: &Value) -> Value {
        let mut rules = self.authorizer.rules(user, text(spec, "/namespace"));
        if user.in_group("system:masters") {
            rules.push(json!({"verbs": ["*"], "apiGroups": ["*"], "resources": ["*"]}));
            rules.push(json!({"verbs": ["*"], "nonResourceURLs": ["*"]}));
        }
        let (pages, resources): (Vec<Value>, Vec<Value>) =
            rules.into_iter().partition(|r| !list(r, "/nonResourceURLs").is_empty());
        json!({"resourceRules": resources, "nonResourceRules": pages, "incomplete": false})
    }

    fn token_review(&self, spec: &Value) -> Value {
        let audiences: Vec<String> =
            list(spec, "/audiences").iter().filter_map(Value::as_str).map(str::to_owned).collect();
        match self.authenticator.token_user(text(spec, "/token"), &audiences) {
            Some(user) => {
                let audiences = if audiences.is_empty() {
                    vec![self.tokens.issuer().to_owned()]
                } else {
                    audiences
                };
                json!({"authenticated": true, "user": user_info(&user), "audiences": audiences})
            }
            None => json!({"user": {}, "error": "invalid bearer token"}),
        }
    }
}

fn user_info(user: &User) -> Value {
    let mut info = json!({"username": user.name, "groups": user.groups});
    if !user.uid.is_empty() {
        info["uid"] = user.uid.as_str().into();
    }
    info
}

fn reviewed_user(spec: &Value) -> User {
    User {
        name: text(spec, "/user").to_owned(),
        uid: text(spec, "/uid").to_owned(),
        groups: list(spec, "/groups").iter().filter_map(Value::as_str).map(str::to_owned).collect(),
    }
}
