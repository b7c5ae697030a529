//! `/api/v1/admin/tsdb/*`, when the flag allows it.

use std::sync::Arc;

use axum::extract::State;
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use serde_json::json;

use super::envelope;
use super::params::Params;
use crate::app::App;
use crate::error::ApiError;
use crate::now_millis;

fn allowed(app: &App) -> Result<(), ApiError> {
    if app.flags.admin_api { Ok(()) } else { Err(ApiError::unavailable("admin APIs disabled")) }
}

async fn off_thread<T: Send + 'static>(
    app: &Arc<App>,
    work: impl FnOnce(&App) -> Result<T, metrics_tsdb::Error> + Send + 'static,
) -> Result<T, ApiError> {
    let app = app.clone();
    let done = tokio::task::spawn_blocking(move || work(&app)).await;
    done.map_err(ApiError::internal)?.map_err(ApiError::internal)
}

pub(super) async fn delete_series(
    State(app): State<Arc<App>>,
    params: Params,
) -> Result<Response, ApiError> {
    allowed(&app)?;
    let (selectors, span) = (params.matchers()?, params.span()?);
    if selectors.is_empty() {
        return Err(ApiError::bad_data("no match[] parameter provided"));
    }
    off_thread(&app, move |app| {
        selectors.iter().try_for_each(|m| app.db.delete(span.0, span.1, m))
    })
    .await?;
    Ok(StatusCode::NO_CONTENT.into_response())
}

pub(super) async fn clean_tombstones(State(app): State<Arc<App>>) -> Result<Response, ApiError> {
    allowed(&app)?;
    off_thread(&app, |app| app.db.clean_tombstones(now_millis())).await?;
    Ok(StatusCode::NO_CONTENT.into_response())
}

pub(super) async fn snapshot(
    State(app): State<Arc<App>>,
    params: Params,
) -> Result<Response, ApiError> {
    allowed(&app)?;
    let with_head = match params.get("skip_head") {
        "" | "false" => true,
        "true" => false,
        other => {
            return Err(ApiError::parameter(
                "skip_head",
                format!("unable to parse boolean {other:?}"),
            ));
        }
    };
    let now = jiff::Timestamp::now().strftime("%Y%m%dT%H%M%SZ").to_string();
    let name =
        format!("{now}-{:016x}", now_millis().cast_unsigned().wrapping_mul(0x9E37_79B9_7F4A_7C15));
    let folder = name.clone();
    off_thread(&app, move |app| app.db.snapshot(&folder, with_head, now_millis())).await?;
    Ok(envelope::success(&json!({"name": name})))
}
