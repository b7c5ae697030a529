//! `{"status":"success","data":...}` and its counterpart for errors.

use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use metrics_model::{Labels, format_float};
use metrics_promql::{QueryResult, RangeSeries, Sample};
use serde::Serialize;

use crate::error::ApiError;

/// A success whose data is `data`.
pub(super) fn success(data: &impl Serialize) -> Response {
    match serde_json::to_string(data) {
        Ok(text) => raw(&text),
        Err(error) => ApiError::internal(error).into_response(),
    }
}

/// A success whose data is written already.
pub(super) fn raw(data: &str) -> Response {
    let body = format!("{{\"status\":\"success\",\"data\":{data}}}");
    (StatusCode::OK, [(header::CONTENT_TYPE, "application/json")], body).into_response()
}

impl IntoResponse for ApiError {
    fn into_response(self) -> Response {
        let body =
            serde_json::json!({"status": "error", "errorType": self.kind, "error": self.message});
        (self.status(), [(header::CONTENT_TYPE, "application/json")], body.to_string())
            .into_response()
    }
}

fn push_text(out: &mut String, text: &str) {
    // Text always encodes.
    out.push_str(&serde_json::to_string(text).unwrap_or_default());
}

/// `{"a":"b"}`
pub(super) fn push_labels(out: &mut String, labels: &Labels) {
    out.push('{');
    for (at, (name, value)) in labels.iter().enumerate() {
        if at > 0 {
            out.push(',');
        }
        push_text(out, name);
        out.push(':');
        push_text(out, value);
    }
    out.push('}');
}

/// Seconds with at most three decimals.
fn push_time(out: &mut String, millis: i64) {
    let (sign, size) = (if millis < 0 { "-" } else { "" }, millis.unsigned_abs());
    out.push_str(&format!("{sign}{}", size / 1000));
    if size % 1000 != 0 {
        out.push_str(format!(".{:03}", size % 1000).trim_end_matches('0'));
    }
}

fn push_sample(out: &mut String, sample: Sample) {
    out.push('[');
    push_time(out, sample.time);
    out.push_str(",\"");
    out.push_str(&format_float(sample.value));
    out.push_str("\"]");
}

fn push_matrix(out: &mut String, series: &[RangeSeries]) {
    out.push('[');
    for (at, one) in series.iter().enumerate() {
        out.push_str(if at > 0 { ",{\"metric\":" } else { "{\"metric\":" });
        push_labels(out, &one.labels);
        out.push_str(",\"values\":[");
        for (at, sample) in one.samples.iter().enumerate() {
            if at > 0 {
                out.push(',');
            }
            push_sample(out, *sample);
        }
        out.push_str("]}");
    }
    out.push(']');
}

/// `{"resultType":...,"result":...}`
pub(super) fn result(result: &QueryResult) -> String {
    let mut out = String::with_capacity(256);
    let kind = match result {
        QueryResult::Scalar(_) => "scalar",
        QueryResult::Text(..) => "string",
        QueryResult::Vector(_) => "vector",
        QueryResult::Matrix(_) => "matrix",
    };
    out.push_str(&format!("{{\"resultType\":\"{kind}\",\"result\":"));
    match result {
        QueryResult::Scalar(sample) => push_sample(&mut out, *sample),
        QueryResult::Text(time, text) => {
            out.push('[');
            push_time(&mut out, *time);
            out.push(',');
            push_text(&mut out, text);
            out.push(']');
        }
        QueryResult::Vector(vector) => {
            out.push('[');
            for (at, (labels, sample)) in vector.iter().enumerate() {
                out.push_str(if at > 0 { ",{\"metric\":" } else { "{\"metric\":" });
                push_labels(&mut out, labels);
                out.push_str(",\"value\":");
                push_sample(&mut out, *sample);
                out.push('}');
            }
            out.push(']');
        }
        QueryResult::Matrix(series) => push_matrix(&mut out, series),
    }
    out.push('}');
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_have_at_most_three_decimals() {
        let shown = |millis| {
            let mut out = String::new();
            push_time(&mut out, millis);
            out
        };
        assert_eq!(
            [shown(1500), shown(1000), shown(1001), shown(-20)],
            ["1.5", "1", "1.001", "-0.02"]
        );
    }
}
