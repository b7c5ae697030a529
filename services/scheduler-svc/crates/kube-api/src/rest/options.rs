//! List and watch options.

use crate::error::ApiError;
use crate::request::Query;
use crate::selector::Selector;
use kube_spec::Resource;

/// What a list or watch asks for.
#[derive(Debug, Clone)]
pub(super) struct ListOptions {
    pub(super) selector: Selector,
    pub(super) version: Option<i64>,
    pub(super) matching: Match,
    pub(super) limit: usize,
    pub(super) continue_token: String,
    pub(super) bookmarks: bool,
    pub(super) initial_events: Option<bool>,
    pub(super) timeout: Option<u64>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Match {
    Unset,
    Exact,
    NotOlder,
}

impl ListOptions {
    pub(super) fn parse(resource: &Resource, query: &Query) -> Result<Self, ApiError> {
        let selector =
            Selector::parse(resource, query.get("labelSelector"), query.get("fieldSelector"))?;
        let version = parse_version(query.get("resourceVersion"))?;
        let matching = match query.get("resourceVersionMatch") {
            "" => Match::Unset,
            "Exact" => Match::Exact,
            "NotOlderThan" => Match::NotOlder,
            other => {
                return Err(ApiError::bad_request(format!(
                    "resourceVersionMatch: Unsupported value: {other:?}: supported values: \"Exact\", \"NotOlderThan\""
                )));
            }
        };
        let number = |name: &str| -> Result<Option<u64>, ApiError> {
            match query.get(name) {
                "" => Ok(None),
                text => text.parse::<i64>().map(|n| u64::try_from(n).ok()).map_err(|_| {
                    ApiError::bad_request(format!(
                        "strconv.ParseInt: parsing {text:?}: invalid syntax"
                    ))
                }),
            }
        };
        let initial_events =
            query.has("sendInitialEvents").then(|| query.flag("sendInitialEvents"));
        Ok(Self {
            selector,
            version,
            matching,
            limit: number("limit")?.unwrap_or(0) as usize,
            continue_token: query.get("continue").to_owned(),
            bookmarks: query.flag("allowWatchBookmarks"),
            initial_events,
            timeout: number("timeoutSeconds")?,
        })
    }
}

/// A resource version as number; `None` when it is not given.
pub(super) fn parse_version(text: &str) -> Result<Option<i64>, ApiError> {
    if text.is_empty() {
        return Ok(None);
    }
    match text.parse::<u64>() {
        Ok(n) => Ok(Some(i64::try_from(n).unwrap_or(i64::MAX))),
        Err(_) => Err(ApiError::bad_request(format!(
            "resourceVersion: Invalid value: {text:?}: strconv.ParseUint: parsing {text:?}: invalid syntax"
        ))),
    }
}
