//! flotilla.metrics.v1 on the same port.

use flotilla_proto::metrics::flotilla::metrics::v1 as pb;
use tokio_stream::StreamExt;

use crate::server::{Server, scraping};
use crate::target::Target;

#[tokio::test(flavor = "multi_thread")]
async fn grpc_answers_beside_http() {
    let target = Target::start("m 5\n");
    let server = Server::start(&scraping(target.address, ""));
    server.wait_value("m", 5.0);
    let channel = tonic::transport::Endpoint::from_shared(format!("http://{}", server.address))
        .unwrap()
        .connect()
        .await
        .unwrap();
    let mut query = pb::query_client::QueryClient::new(channel.clone());
    let request = pb::InstantRequest { query: "m * 2".to_owned(), ..pb::InstantRequest::default() };
    let answer = query.instant(request).await.unwrap().into_inner();
    assert_eq!((answer.result_type.as_str(), answer.series[0].samples[0].value), ("vector", 10.0));
    let request = pb::RangeRequest {
        query: "vector(1)".to_owned(),
        start_ms: 0,
        end_ms: 2000,
        step_ms: 1000,
        timeout_ms: 0,
    };
    let series: Vec<_> = query.range(request).await.unwrap().into_inner().collect().await;
    assert_eq!(series[0].as_ref().unwrap().samples.len(), 3);
    let bad = query
        .instant(pb::InstantRequest { query: "(".to_owned(), ..pb::InstantRequest::default() })
        .await
        .unwrap_err();
    assert_eq!(bad.code(), tonic::Code::InvalidArgument);
    let found: Vec<_> = query
        .series(pb::SeriesRequest {
            selectors: vec!["m".to_owned()],
            ..pb::SeriesRequest::default()
        })
        .await
        .unwrap()
        .into_inner()
        .collect()
        .await;
    assert_eq!(found[0].as_ref().unwrap().labels["job"], "app");
    let mut admin = pb::admin_client::AdminClient::new(channel);
    let status = admin.status(pb::StatusRequest {}).await.unwrap().into_inner();
    assert!(status.head_series >= 6 && status.active_targets == 1 && status.last_reload_successful);
    admin.reload(pb::ReloadRequest {}).await.unwrap();
}
