//! `serviceaccounts/token`: TokenRequest.

use axum::body::Body;
use http::Response;
use kube_codec::{now, seconds_time};
use kube_spec::find;
use serde_json::{Value, json};

use crate::body;
use crate::error::{ApiError, FieldError};
use crate::identity::TokenSubject;
use crate::object::{self, int, list, text};
use crate::rest::Call;
use crate::server::Api;

const DEFAULT_SECONDS: i64 = 3600;
const SHORTEST: i64 = 600;
const LONGEST: i64 = 1 << 32;

impl Api {
    pub(super) async fn issue_token(&self, call: &Call) -> Result<Response<Body>, ApiError> {
        let id = kube_spec::types()
            .find("authentication/v1.TokenRequest")
            .ok_or_else(ApiError::no_such_path)?;
        let mode = call.field_validation()?;
        let mut request = body::decode_as(
            &call.headers,
            &call.body,
            id,
            "authentication.k8s.io/v1",
            "TokenRequest",
            mode,
        )?
        .object;
        let accounts = call.resource();
        let account = self.fetch(accounts, &call.key()).await?;
        let account = account.ok_or_else(|| ApiError::not_found(accounts, &call.target.name))?;
        let seconds = int(&request, "/spec/expirationSeconds").unwrap_or(DEFAULT_SECONDS);
        if !(SHORTEST..=LONGEST).contains(&seconds) {
            let why = if seconds < SHORTEST {
                "may not specify a duration less than 10 minutes"
            } else {
                "may not specify a duration larger than 2^32 seconds"
            };
            let error = FieldError::invalid("spec.expirationSeconds", &seconds.into(), why);
            let mut error = ApiError::invalid(accounts, "", &[error]);
            error.message = error.message.replacen(
                "ServiceAccount \"\"",
                "TokenRequest.authentication.k8s.io \"\"",
                1,
            );
            return Err(error);
        }
        let mut audiences: Vec<String> = list(&request, "/spec/audiences")
            .iter()
            .filter_map(Value::as_str)
            .map(str::to_owned)
            .collect();
        if audiences.is_empty() {
            audiences.push(self.tokens.issuer().to_owned());
        }
        let subject = TokenSubject {
            namespace: call.target.namespace.clone(),
            name: call.target.name.clone(),
            uid: object::uid(&account.object).to_owned(),
            bound: self.bound_object(call, &request).await?,
        };
        let at = now();
        let token =
            self.tokens.issue(&subject, &audiences, at, seconds).map_err(ApiError::internal)?;
        request["spec"]["audiences"] = json!(audiences);
        request["spec"]["expirationSeconds"] = seconds.into();
        request["metadata"]["name"] = call.target.name.as_str().into();
        request["metadata"]["namespace"] = call.target.namespace.as_str().into();
        request["metadata"]["creationTimestamp"] = seconds_time(at).unwrap_or_default().into();
        request["status"] = json!({"token": token, "expirationTimestamp": seconds_time(at + seconds).unwrap_or_default()});
        Ok(call.output.respond(201, &request))
    }

    async fn bound_object(
        &self,
        call: &Call,
        request: &Value,
    ) -> Result<Option<(String, String, String)>, ApiError> {
        let reference = &request["spec"]["boundObjectRef"];
        if !reference.is_object() {
            return Ok(None);
        }
        let (kind, name) = (text(reference, "/kind"), text(reference, "/name"));
        let plural = match kind {
            "Pod" => "pods",
            "Secret" => "secrets",
            other => {
                return Err(ApiError::bad_request(format!(
                    "cannot bind token for serviceaccount {:?} to object of type {other:?}",
                    call.target.name
                )));
            }
        };
        let resource = find("", "v1", plural).ok_or_else(ApiError::no_such_path)?;
        let found = self.fetch(resource, &format!("{}/{name}", call.target.namespace)).await?;
        let found = found.ok_or_else(|| ApiError::not_found(resource, name))?;
        let uid = text(reference, "/uid");
        if !uid.is_empty() && uid != object::uid(&found.object) {
            let why = format!(
                "the UID in the bound object reference ({uid}) does not match the UID in record. The object might have been deleted and then recreated"
            );
            return Err(ApiError::conflict(resource, name, &why));
        }
        Ok(Some((kind.to_owned(), name.to_owned(), object::uid(&found.object).to_owned())))
    }
}
