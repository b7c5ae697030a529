//! Request parameters, from the query string and from forms.

use axum::body::Bytes;
use axum::extract::{FromRequest, RawQuery, Request};
use axum::http::header;
use axum::response::{IntoResponse, Response};
use metrics_model::{Matcher, parse_go_float, parse_millis};
use percent_encoding::percent_decode_str;

use crate::error::ApiError;

/// Times beyond these are cut off: a thousand centuries either way.
const FARTHEST: f64 = 3_155_760_000_000.0;

/// Parameters in order; a form's come before the query string's.
#[derive(Debug, Default)]
pub(super) struct Params(Vec<(String, String)>);

impl<S: Send + Sync> FromRequest<S> for Params {
    type Rejection = Response;

    async fn from_request(request: Request, state: &S) -> Result<Self, Response> {
        let query = request.uri().query().unwrap_or_default().to_owned();
        let kind = request
            .headers()
            .get(header::CONTENT_TYPE)
            .and_then(|v| v.to_str().ok())
            .unwrap_or_default();
        let is_form = kind.starts_with("application/x-www-form-urlencoded");
        let mut pairs = Vec::new();
        if is_form {
            let body =
                Bytes::from_request(request, state).await.map_err(IntoResponse::into_response)?;
            pairs = decode(&String::from_utf8_lossy(&body));
        }
        pairs.extend(decode(&query));
        Ok(Self(pairs))
    }
}

fn decode(text: &str) -> Vec<(String, String)> {
    let part =
        |text: &str| percent_decode_str(&text.replace('+', " ")).decode_utf8_lossy().into_owned();
    let pairs = text.split('&').filter(|pair| !pair.is_empty());
    pairs
        .map(|pair| {
            pair.split_once('=').map_or((part(pair), String::new()), |(n, v)| (part(n), part(v)))
        })
        .collect()
}

impl Params {
    #[cfg(test)]
    pub(super) fn of(text: &str) -> Self {
        Self(decode(text))
    }

    pub(super) fn from_query(query: &RawQuery) -> Self {
        Self(decode(query.0.as_deref().unwrap_or_default()))
    }

    pub(super) fn get(&self, name: &str) -> &str {
        self.0.iter().find(|(n, _)| n == name).map_or("", |(_, value)| value)
    }

    pub(super) fn all(&self, name: &str) -> Vec<&str> {
        self.0.iter().filter(|(n, _)| n == name).map(|(_, value)| value.as_str()).collect()
    }

    /// Milliseconds since the epoch from Unix seconds or RFC 3339.
    pub(super) fn time(&self, name: &str) -> Result<Option<i64>, ApiError> {
        let text = self.get(name);
        if text.is_empty() {
            return Ok(None);
        }
        let bad =
            || ApiError::parameter(name, format!("cannot parse {text:?} to a valid timestamp"));
        if let Some(seconds) = parse_go_float(text).filter(|s| !s.is_nan()) {
            return Ok(Some((seconds.clamp(-FARTHEST, FARTHEST) * 1000.0).round() as i64));
        }
        let stamp: jiff::Timestamp = text.parse().map_err(|_| bad())?;
        Ok(Some(stamp.as_millisecond()))
    }

    /// A time that must be there.
    pub(super) fn required_time(&self, name: &str) -> Result<i64, ApiError> {
        let missing = || ApiError::parameter(name, "cannot parse \"\" to a valid timestamp");
        self.time(name)?.ok_or_else(missing)
    }

    /// Milliseconds from seconds or `1m30s`.
    pub(super) fn duration(&self, name: &str) -> Result<Option<i64>, ApiError> {
        let text = self.get(name);
        if text.is_empty() {
            return Ok(None);
        }
        let bad =
            || ApiError::parameter(name, format!("cannot parse {text:?} to a valid duration"));
        if let Some(seconds) = parse_go_float(text) {
            if seconds.is_nan() || seconds.abs() >= 9.2e12 {
                return Err(ApiError::parameter(
                    name,
                    format!("cannot parse {text:?} to a valid duration. It overflows int64"),
                ));
            }
            return Ok(Some((seconds * 1000.0).round() as i64));
        }
        parse_millis(text).map(Some).map_err(|_| bad())
    }

    /// The most entries wanted; 0 for all.
    pub(super) fn limit(&self) -> Result<usize, ApiError> {
        let text = self.get("limit");
        if text.is_empty() {
            return Ok(0);
        }
        text.parse().map_err(|_| ApiError::parameter("limit", "limit must be non-negative"))
    }

    /// The selectors of `match[]`.
    pub(super) fn matchers(&self) -> Result<Vec<Vec<Matcher>>, ApiError> {
        let parse = |text: &str| {
            metrics_promql::parse_selector(text).map_err(|e| ApiError::parameter("match[]", e))
        };
        self.all("match[]").into_iter().map(parse).collect()
    }

    /// `start` and `end`, wide open when left out.
    pub(super) fn span(&self) -> Result<(i64, i64), ApiError> {
        let start = self.time("start")?.unwrap_or(i64::MIN / 2);
        let end = self.time("end")?.unwrap_or(i64::MAX / 2);
        if end < start {
            return Err(ApiError::bad_data("end timestamp must not be before start timestamp"));
        }
        Ok((start, end))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_and_durations_are_read() {
        let params = Params::of("a=1.5&b=2020-01-01T00:00:00Z&c=x&d=1m&e=15&m=a+b%26");
        assert_eq!(params.time("a").unwrap(), Some(1500));
        assert_eq!(params.time("b").unwrap(), Some(1_577_836_800_000));
        assert!(params.time("c").is_err() && params.duration("c").is_err());
        assert_eq!(
            (params.duration("d").unwrap(), params.duration("e").unwrap()),
            (Some(60_000), Some(15_000))
        );
        assert_eq!(params.get("m"), "a b&");
    }
}
