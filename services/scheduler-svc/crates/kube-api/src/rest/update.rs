//! PUT of an object or its status.

use axum::body::Body;
use http::Response;

use super::create::set_namespace;
use super::read::show;
use super::{Call, Change};
use crate::error::ApiError;
use crate::output::warn;
use crate::policy::{self, Phase};
use crate::server::Api;
use crate::{body, object, views};

impl Api {
    pub(super) async fn update(&self, call: &Call) -> Result<Response<Body>, ApiError> {
        let resource = call.resource();
        let decoded = body::decode(&call.headers, &call.body, resource, call.field_validation()?)?;
        let mut wanted = views::to_stored(resource, decoded.object);
        set_namespace(resource, &mut wanted, &call.target.namespace)?;
        let name = &call.target.name;
        match object::name(&wanted) {
            "" => return Err(ApiError::bad_request("the name of the object must be provided")),
            given if given != name => {
                return Err(ApiError::bad_request(format!(
                    "the name of the object ({given}) does not match the name on the URL ({name})"
                )));
            }
            _ => {}
        }
        let phase = if call.target.sub() == "status" { Phase::Status } else { Phase::Main };
        let change = Change {
            resource: views::stored_as(resource),
            namespace: &call.target.namespace,
            name,
            phase,
            dry_run: call.dry_run()?,
        };
        let manager = call.field_manager();
        let written = self
            .change(change, |current| {
                let mut next = wanted.clone();
                policy::track_update(
                    views::stored_as(resource),
                    current,
                    &mut next,
                    &manager,
                    phase,
                );
                Ok(next)
            })
            .await?;
        let mut response = show(200, resource, &written.into_object(), call.output);
        warn(&mut response, &decoded.warnings);
        Ok(response)
    }
}
