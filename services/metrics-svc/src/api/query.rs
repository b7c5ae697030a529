//! `/api/v1/query`, `query_range`, `query_exemplars` and `format_query`.

use std::sync::Arc;
use std::time::Duration;

use axum::extract::State;
use axum::response::Response;
use metrics_promql::{Expr, QueryResult, ValueType, parse};

use super::envelope;
use super::params::Params;
use crate::app::App;
use crate::engine::Asked;
use crate::error::ApiError;
use crate::now_millis;

/// Points a series of a range query may have.
const MAX_POINTS: i64 = 11_000;

pub(super) fn expression(text: &str) -> Result<Expr, ApiError> {
    parse(text).map_err(|e| ApiError::parameter("query", e))
}

fn asked(params: &Params) -> Result<Asked, ApiError> {
    let timeout = params
        .duration("timeout")?
        .map(|millis| Duration::from_millis(millis.max(0).cast_unsigned()));
    Ok(Asked { timeout, lookback: params.duration("lookback_delta")?.filter(|l| *l > 0) })
}

fn limited<T>(mut list: Vec<T>, limit: usize) -> Vec<T> {
    if limit > 0 {
        list.truncate(limit);
    }
    list
}

pub(super) async fn instant(
    State(app): State<Arc<App>>,
    params: Params,
) -> Result<Response, ApiError> {
    let time = params.time("time")?.unwrap_or_else(now_millis);
    let asked = asked(&params)?;
    let expr = expression(params.get("query"))?;
    let limit = params.limit()?;
    let result = match app.queries.instant(expr, time, asked).await? {
        QueryResult::Vector(list) => QueryResult::Vector(limited(list, limit)),
        QueryResult::Matrix(list) => QueryResult::Matrix(limited(list, limit)),
        other => other,
    };
    Ok(envelope::raw(&envelope::result(&result)))
}

/// Checks the bounds of a range query.
pub(super) fn check_span(start: i64, end: i64, step: i64) -> Result<(), ApiError> {
    if end < start {
        return Err(ApiError::parameter("end", "end timestamp must not be before start time"));
    }
    if step <= 0 {
        return Err(ApiError::parameter(
            "step",
            "zero or negative query resolution step widths are not accepted. Try a positive integer",
        ));
    }
    if (end - start) / step > MAX_POINTS {
        return Err(ApiError::bad_data(
            "exceeded maximum resolution of 11,000 points per timeseries. Try decreasing the query resolution (?step=XX)",
        ));
    }
    Ok(())
}

/// Refuses expressions that have no meaning over a range.
pub(super) fn check_type(expr: &Expr) -> Result<(), ApiError> {
    match expr.value_type() {
        ValueType::Scalar | ValueType::Vector => Ok(()),
        other => {
            let name = if other == ValueType::Matrix { "range vector" } else { "string" };
            Err(ApiError::parameter(
                "query",
                format!(
                    "invalid expression type \"{name}\" for range query, must be Scalar or instant Vector"
                ),
            ))
        }
    }
}

pub(super) async fn range(
    State(app): State<Arc<App>>,
    params: Params,
) -> Result<Response, ApiError> {
    let (start, end) = (params.required_time("start")?, params.required_time("end")?);
    let missing = || ApiError::parameter("step", "cannot parse \"\" to a valid duration");
    let step = params.duration("step")?.ok_or_else(missing)?;
    check_span(start, end, step)?;
    let asked = asked(&params)?;
    let expr = expression(params.get("query"))?;
    check_type(&expr)?;
    let series = app.queries.range(expr, (start, end, step), asked).await?;
    let series = limited(series, params.limit()?);
    // Writing a wide answer takes long enough to be in the way of other tasks.
    Ok(tokio::task::block_in_place(|| {
        envelope::raw(&envelope::result(&QueryResult::Matrix(series)))
    }))
}

/// No exemplars are stored, so there never are any; the parameters are still checked.
pub(super) async fn exemplars(params: Params) -> Result<Response, ApiError> {
    let (start, end) = params.span()?;
    if end < start {
        return Err(ApiError::bad_data("end timestamp must not be before start timestamp"));
    }
    expression(params.get("query"))?;
    Ok(envelope::raw("[]"))
}

pub(super) async fn format(params: Params) -> Result<Response, ApiError> {
    let expr = expression(params.get("query"))?;
    Ok(envelope::success(&expr.to_string()))
}
