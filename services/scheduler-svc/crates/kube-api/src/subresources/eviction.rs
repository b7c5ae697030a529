//! `pods/eviction`: a deletion that a disruption budget may refuse.

use axum::body::Body;
use http::Response;
use kube_spec::find;
use serde_json::json;

use crate::body;
use crate::error::ApiError;
use crate::object::{self, int, text};
use crate::policy::Phase;
use crate::rest::{Call, Change, DeleteOptions};
use crate::selector::selects;
use crate::server::Api;

impl Api {
    pub(super) async fn evict(&self, call: &Call) -> Result<Response<Body>, ApiError> {
        let id =
            kube_spec::types().find("policy/v1.Eviction").ok_or_else(ApiError::no_such_path)?;
        let mode = call.field_validation()?;
        let decoded =
            body::decode_as(&call.headers, &call.body, id, "policy/v1", "Eviction", mode)?;
        let pods = call.resource();
        let namespace = &call.target.namespace;
        let pod = self.fetch(pods, &call.key()).await?;
        let pod = pod.ok_or_else(|| ApiError::not_found(pods, &call.target.name))?;
        let done = matches!(text(&pod.object, "/status/phase"), "Succeeded" | "Failed" | "Pending")
            || object::is_set(&pod.object, "/metadata/deletionTimestamp");
        let dry_run =
            call.dry_run()? || !object::list(&decoded.object, "/deleteOptions/dryRun").is_empty();
        if !done {
            self.disrupt(namespace, &pod.object, dry_run).await?;
        }
        let options = DeleteOptions {
            grace: int(&decoded.object, "/deleteOptions/gracePeriodSeconds"),
            uid: Some(object::uid(&pod.object).to_owned()),
            dry_run,
            ..DeleteOptions::default()
        };
        self.delete_pod(namespace, &call.target.name, &options).await?;
        let answer = json!({"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Success", "code": 201});
        Ok(call.output.respond(201, &answer))
    }

    /// Takes one disruption from the budget that covers a pod.
    async fn disrupt(
        &self,
        namespace: &str,
        pod: &serde_json::Value,
        dry_run: bool,
    ) -> Result<(), ApiError> {
        let budgets =
            find("policy", "v1", "poddisruptionbudgets").ok_or_else(ApiError::no_such_path)?;
        let labels = object::map(pod, "/metadata/labels");
        let all =
            self.cache.of(budgets).map(|c| c.list(&format!("{namespace}/"))).unwrap_or_default();
        let covering: Vec<_> =
            all.into_iter().filter(|b| selects(&b.object["spec"]["selector"], labels)).collect();
        let [budget] = covering.as_slice() else {
            if covering.is_empty() {
                return Ok(());
            }
            return Err(ApiError::internal(
                "This pod has more than one PodDisruptionBudget, which the eviction subresource does not support.",
            ));
        };
        let name = object::name(&budget.object).to_owned();
        let change =
            Change { resource: budgets, namespace, name: &name, phase: Phase::Server, dry_run };
        let pod_name = object::name(pod).to_owned();
        let decrease = |current: &serde_json::Value| {
            let allowed = int(current, "/status/disruptionsAllowed").unwrap_or(0);
            if allowed <= 0 {
                let (healthy, wanted) = (
                    int(current, "/status/currentHealthy").unwrap_or(0),
                    int(current, "/status/desiredHealthy").unwrap_or(0),
                );
                let mut error = ApiError::too_many(
                    "Cannot evict pod as it would violate the pod's disruption budget.",
                );
                error.details = Some(json!({"causes": [{"reason": "DisruptionBudget",
                    "message": format!("The disruption budget {name} needs {wanted} healthy pods and has {healthy} currently")}]}));
                return Err(error);
            }
            let mut next = current.clone();
            object::remove_meta(&mut next, "resourceVersion");
            next["status"]["disruptionsAllowed"] = (allowed - 1).into();
            let at = kube_codec::seconds_time(kube_codec::now()).unwrap_or_default();
            object::map_mut(&mut next["status"], "disruptedPods")
                .insert(pod_name.clone(), at.into());
            Ok(next)
        };
        self.change(change, decrease).await.map(drop)
    }
}
