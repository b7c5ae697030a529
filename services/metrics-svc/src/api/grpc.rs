//! flotilla.metrics.v1: queries and administration over gRPC.

use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use flotilla_proto::metrics::FILE_DESCRIPTOR_SET;
use flotilla_proto::metrics::flotilla::metrics::v1 as pb;
use flotilla_server::{Grpc, HealthHandle};
use futures::Stream;
use metrics_model::Labels;
use metrics_promql::{QueryResult, RangeSeries, Sample};
use pb::admin_server::{Admin, AdminServer};
use pb::query_server::{Query, QueryServer};
use tonic::{Request, Response, Status};

use super::query::{check_span, check_type, expression};
use crate::app::App;
use crate::engine::Asked;
use crate::error::ApiError;
use crate::now_millis;

/// The gRPC routes with health and reflection.
pub(super) async fn router(app: Arc<App>) -> (Router, HealthHandle) {
    Grpc::new([FILE_DESCRIPTOR_SET])
        .add(QueryServer::new(Service(app.clone())))
        .add(AdminServer::new(Service(app)))
        .into_router()
        .await
}

#[derive(Debug, Clone)]
struct Service(Arc<App>);

type Streaming<T> = Pin<Box<dyn Stream<Item = Result<T, Status>> + Send>>;

fn stream<T: Send + 'static>(list: Vec<T>) -> Streaming<T> {
    Box::pin(futures::stream::iter(list.into_iter().map(Ok)))
}

fn status(error: impl Into<ApiError>) -> Status {
    error.into().to_grpc()
}

fn asked(timeout_ms: i64) -> Asked {
    let timeout = (timeout_ms > 0).then(|| Duration::from_millis(timeout_ms.cast_unsigned()));
    Asked { timeout, lookback: None }
}

fn series(labels: &Labels, samples: &[Sample]) -> pb::Series {
    pb::Series {
        labels: labels.iter().map(|(n, v)| (n.to_owned(), v.to_owned())).collect(),
        samples: samples
            .iter()
            .map(|s| pb::Sample { timestamp_ms: s.time, value: s.value })
            .collect(),
    }
}

fn matrix(list: &[RangeSeries]) -> Vec<pb::Series> {
    list.iter().map(|s| series(&s.labels, &s.samples)).collect()
}

#[tonic::async_trait]
impl Query for Service {
    type RangeStream = Streaming<pb::Series>;
    type SeriesStream = Streaming<pb::SeriesResponse>;

    async fn instant(
        &self,
        request: Request<pb::InstantRequest>,
    ) -> Result<Response<pb::InstantResponse>, Status> {
        let request = request.into_inner();
        let time = if request.time_ms == 0 { now_millis() } else { request.time_ms };
        let expr = expression(&request.query).map_err(status)?;
        let result =
            self.0.queries.instant(expr, time, asked(request.timeout_ms)).await.map_err(status)?;
        let kind = match &result {
            QueryResult::Scalar(_) => "scalar",
            QueryResult::Text(..) => "string",
            QueryResult::Vector(_) => "vector",
            QueryResult::Matrix(_) => "matrix",
        };
        let mut answer =
            pb::InstantResponse { result_type: kind.to_owned(), ..pb::InstantResponse::default() };
        match result {
            QueryResult::Scalar(sample) => {
                answer.series = vec![series(&Labels::default(), &[sample])]
            }
            QueryResult::Text(_, text) => answer.text = text,
            QueryResult::Vector(list) => {
                answer.series = list.iter().map(|(l, s)| series(l, &[*s])).collect()
            }
            QueryResult::Matrix(list) => answer.series = matrix(&list),
        }
        Ok(Response::new(answer))
    }

    async fn range(
        &self,
        request: Request<pb::RangeRequest>,
    ) -> Result<Response<Self::RangeStream>, Status> {
        let r = request.into_inner();
        check_span(r.start_ms, r.end_ms, r.step_ms).map_err(status)?;
        let expr = expression(&r.query).map_err(status)?;
        check_type(&expr).map_err(status)?;
        let span = (r.start_ms, r.end_ms, r.step_ms);
        let list = self.0.queries.range(expr, span, asked(r.timeout_ms)).await.map_err(status)?;
        Ok(Response::new(stream(matrix(&list))))
    }

    async fn series(
        &self,
        request: Request<pb::SeriesRequest>,
    ) -> Result<Response<Self::SeriesStream>, Status> {
        let r = request.into_inner();
        if r.selectors.is_empty() {
            return Err(status(ApiError::bad_data("no selectors given")));
        }
        let end = if r.end_ms == 0 { i64::MAX / 2 } else { r.end_ms };
        let mut found = std::collections::BTreeSet::new();
        for selector in &r.selectors {
            let matchers = metrics_promql::parse_selector(selector)
                .map_err(|e| status(ApiError::parameter("selectors", e)))?;
            found.extend(
                self.0
                    .db
                    .series_labels(r.start_ms, end, &matchers)
                    .map_err(|e| status(ApiError::internal(e)))?,
            );
        }
        let list = found.iter().map(|l| pb::SeriesResponse {
            labels: l.iter().map(|(n, v)| (n.to_owned(), v.to_owned())).collect(),
        });
        Ok(Response::new(stream(list.collect())))
    }
}

#[tonic::async_trait]
impl Admin for Service {
    async fn status(
        &self,
        _: Request<pb::StatusRequest>,
    ) -> Result<Response<pb::StatusResponse>, Status> {
        let stats = self.0.db.stats();
        Ok(Response::new(pb::StatusResponse {
            version: flotilla_telemetry::VERSION.to_owned(),
            start_time_ms: self.0.started,
            last_reload_successful: self.0.reloaded.lock().1,
            head_series: stats.head.series,
            head_chunks: stats.head.chunks,
            head_min_time_ms: stats.head.min_time,
            head_max_time_ms: stats.head.max_time,
            blocks: stats.blocks,
            active_targets: self.0.targets.active().len() as u64,
            storage_retention: metrics_model::format_millis(self.0.flags.retention_millis()),
        }))
    }

    async fn reload(
        &self,
        _: Request<pb::ReloadRequest>,
    ) -> Result<Response<pb::ReloadResponse>, Status> {
        if !self.0.flags.lifecycle {
            return Err(Status::permission_denied("Lifecycle API is not enabled."));
        }
        tokio::task::block_in_place(|| self.0.reload()).map_err(Status::failed_precondition)?;
        Ok(Response::new(pb::ReloadResponse {}))
    }
}
