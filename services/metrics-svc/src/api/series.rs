//! `/api/v1/series`, `labels` and `label/NAME/values`.

use std::collections::BTreeSet;
use std::sync::Arc;

use axum::extract::{Path, RawQuery, State};
use axum::response::Response;
use metrics_model::{Labels, Matcher};

use super::envelope;
use super::params::Params;
use crate::app::App;
use crate::error::ApiError;

async fn find(
    app: &Arc<App>,
    selectors: Vec<Vec<Matcher>>,
    span: (i64, i64),
) -> Result<BTreeSet<Labels>, ApiError> {
    let app = app.clone();
    let work = move || {
        let mut found = BTreeSet::new();
        for matchers in &selectors {
            found.extend(
                app.db.series_labels(span.0, span.1, matchers).map_err(ApiError::internal)?,
            );
        }
        Ok(found)
    };
    tokio::task::spawn_blocking(work).await.map_err(ApiError::internal)?
}

fn limited<T>(set: BTreeSet<T>, limit: usize) -> Vec<T> {
    set.into_iter().take(if limit == 0 { usize::MAX } else { limit }).collect()
}

pub(super) async fn series(
    State(app): State<Arc<App>>,
    params: Params,
) -> Result<Response, ApiError> {
    let selectors = params.matchers()?;
    if selectors.is_empty() {
        return Err(ApiError::bad_data("no match[] parameter provided"));
    }
    let found = limited(find(&app, selectors, params.span()?).await?, params.limit()?);
    let mut out = String::from("[");
    for (at, labels) in found.iter().enumerate() {
        if at > 0 {
            out.push(',');
        }
        envelope::push_labels(&mut out, labels);
    }
    out.push(']');
    Ok(envelope::raw(&out))
}

pub(super) async fn labels(
    State(app): State<Arc<App>>,
    params: Params,
) -> Result<Response, ApiError> {
    let (selectors, span) = (params.matchers()?, params.span()?);
    let names: BTreeSet<String> = if selectors.is_empty() {
        app.db.label_names(span.0, span.1)
    } else {
        let found = find(&app, selectors, span).await?;
        found.iter().flat_map(Labels::iter).map(|(name, _)| name.to_owned()).collect()
    };
    Ok(envelope::success(&limited(names, params.limit()?)))
}

pub(super) async fn label_values(
    State(app): State<Arc<App>>,
    Path(name): Path<String>,
    query: RawQuery,
) -> Result<Response, ApiError> {
    let params = Params::from_query(&query);
    if name.is_empty() {
        return Err(ApiError::bad_data(format!("invalid label name: {name:?}")));
    }
    let (selectors, span) = (params.matchers()?, params.span()?);
    let values: BTreeSet<String> = if selectors.is_empty() {
        app.db.label_values(&name, span.0, span.1)
    } else {
        let found = find(&app, selectors, span).await?;
        found.iter().map(|l| l.get(&name)).filter(|v| !v.is_empty()).map(str::to_owned).collect()
    };
    Ok(envelope::success(&limited(values, params.limit()?)))
}
