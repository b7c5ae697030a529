//! `/api/v1/write`: remote write 1.0 and 2.0, when the flag allows it.

use std::sync::Arc;

use axum::body::Bytes;
use axum::extract::State;
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{IntoResponse, Response};
use metrics_tsdb::AppendError;

use super::write_request::{MAX_BYTES, Series, version1, version2};
use crate::app::App;

/// What was written of a request.
#[derive(Debug, Default)]
struct Outcome {
    samples: usize,
    /// Why the rest was not; the sender must not send it again.
    refused: Option<String>,
}

fn is_version2(content_type: &str) -> Result<bool, String> {
    let mut parts = content_type.split(';').map(str::trim);
    let media = parts.next().unwrap_or_default();
    if !media.is_empty() && media != "application/x-protobuf" {
        return Err(format!(
            "expected application/x-protobuf as the first (media) part, got {content_type} content-type"
        ));
    }
    match parts.find_map(|p| p.strip_prefix("proto=")) {
        None | Some("prometheus.WriteRequest") => Ok(false),
        Some("io.prometheus.write.v2.Request") => Ok(true),
        Some(other) => Err(format!("got {other} remote write proto message, which is not known")),
    }
}

pub(super) async fn write(
    State(app): State<Arc<App>>,
    headers: HeaderMap,
    body: Bytes,
) -> Response {
    if !app.flags.remote_write_receiver {
        return (
            StatusCode::NOT_FOUND,
            "remote write receiver needs to be enabled with --web.enable-remote-write-receiver\n",
        )
            .into_response();
    }
    let text = |name| {
        headers
            .get(name)
            .and_then(|v: &axum::http::HeaderValue| v.to_str().ok())
            .unwrap_or_default()
    };
    let second = match is_version2(text(header::CONTENT_TYPE)) {
        Ok(second) => second,
        Err(error) => return (StatusCode::UNSUPPORTED_MEDIA_TYPE, error + "\n").into_response(),
    };
    if !matches!(text(header::CONTENT_ENCODING), "" | "snappy") {
        return (StatusCode::UNSUPPORTED_MEDIA_TYPE, "only snappy content-encoding is read\n")
            .into_response();
    }
    let done = tokio::task::spawn_blocking(move || store(&app, &body, second)).await;
    let (status, outcome) = match done {
        Ok(Ok(outcome)) if outcome.refused.is_none() => (StatusCode::NO_CONTENT, outcome),
        Ok(Ok(outcome)) => (StatusCode::BAD_REQUEST, outcome),
        Ok(Err((status, error))) => (status, Outcome { samples: 0, refused: Some(error) }),
        Err(error) => (
            StatusCode::INTERNAL_SERVER_ERROR,
            Outcome { samples: 0, refused: Some(error.to_string()) },
        ),
    };
    let body = outcome.refused.map(|text| text + "\n").unwrap_or_default();
    let mut response = (status, body).into_response();
    if second {
        let headers = response.headers_mut();
        headers.insert("X-Prometheus-Remote-Write-Samples-Written", outcome.samples.into());
        headers.insert("X-Prometheus-Remote-Write-Histograms-Written", 0.into());
        headers.insert("X-Prometheus-Remote-Write-Exemplars-Written", 0.into());
    }
    response
}

type Refusal = (StatusCode, String);

fn store(app: &App, body: &[u8], second: bool) -> Result<Outcome, Refusal> {
    let bad = |text: String| (StatusCode::BAD_REQUEST, text);
    let size = snap::raw::decompress_len(body).map_err(|e| bad(e.to_string()))?;
    if size > MAX_BYTES {
        return Err(bad(format!(
            "snappy: decoded block is too large: {size} bytes, {MAX_BYTES} allowed"
        )));
    }
    let bytes = snap::raw::Decoder::new().decompress_vec(body).map_err(|e| bad(e.to_string()))?;
    let series =
        if second { version2(&bytes) } else { version1(&bytes) }.map_err(|e| bad(e.to_owned()))?;
    let mut appender = app.db.appender();
    let mut refused: Option<String> = None;
    for one in &series {
        if let Err(error) = append(&mut appender, one) {
            if !second {
                // Version 1 knows no partial writes.
                return Err(bad(error));
            }
            refused = refused.or(Some(error));
        }
    }
    let samples = appender.len();
    appender.commit().map_err(|e| (StatusCode::INTERNAL_SERVER_ERROR, e.to_string()))?;
    Ok(Outcome { samples, refused })
}

fn append(appender: &mut metrics_tsdb::Appender<'_>, series: &Series) -> Result<(), String> {
    let labels = series.labels.as_ref().map_err(Clone::clone)?;
    if series.histograms > 0 {
        return Err(format!("native histograms are not supported yet, series {labels}"));
    }
    let mut result = Ok(());
    let mut reference = appender.series(labels);
    for (time, value) in &series.samples {
        let mut appended = appender.append(reference, *time, *value);
        if appended == Err(AppendError::UnknownSeries) {
            reference = appender.series(labels);
            appended = appender.append(reference, *time, *value);
        }
        if let Err(error) = appended {
            result = Err(format!("{error}, series {labels}, timestamp {time}"));
        }
    }
    result
}
