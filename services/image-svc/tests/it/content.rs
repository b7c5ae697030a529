//! containerd's content contract over its own protocol.

use std::collections::HashMap;

use flotilla_proto::containerd::containerd::services::content::v1::content_client::ContentClient;
use flotilla_proto::containerd::containerd::services::content::v1::{
    AbortRequest, DeleteContentRequest, InfoRequest, ListContentRequest, ListStatusesRequest,
    ReadContentRequest, StatusRequest, WriteAction, WriteContentRequest, WriteContentResponse,
};
use image_svc::engine::Digest;
use tonic::transport::Channel;
use tonic::{Code, Request, Status};

use super::server::Server;

struct Content(ContentClient<Channel>);

fn within<T>(message: T) -> Request<T> {
    let mut request = Request::new(message);
    request.metadata_mut().insert("containerd-namespace", "test".parse().unwrap());
    request
}

fn write(reference: &str, offset: usize, data: &[u8]) -> WriteContentRequest {
    WriteContentRequest {
        action: WriteAction::Write.into(),
        r#ref: reference.into(),
        offset: offset as i64,
        data: data.to_vec().into(),
        ..Default::default()
    }
}

fn commit(reference: &str, expected: &str, total: usize) -> WriteContentRequest {
    WriteContentRequest {
        action: WriteAction::Commit.into(),
        r#ref: reference.into(),
        expected: expected.into(),
        total: total as i64,
        labels: HashMap::from([("k".into(), "v".into())]),
        ..Default::default()
    }
}

impl Content {
    async fn send(
        &mut self,
        messages: Vec<WriteContentRequest>,
    ) -> Result<Vec<WriteContentResponse>, Status> {
        let mut stream = self.0.write(within(futures::stream::iter(messages))).await?.into_inner();
        let mut answers = Vec::new();
        while let Some(answer) = stream.message().await? {
            answers.push(answer);
        }
        Ok(answers)
    }

    async fn read(&mut self, digest: &Digest, offset: i64, size: i64) -> Result<Vec<u8>, Status> {
        let message = ReadContentRequest { digest: digest.to_string(), offset, size };
        let mut stream = self.0.read(within(message)).await?.into_inner();
        let mut bytes = Vec::new();
        while let Some(part) = stream.message().await? {
            bytes.extend_from_slice(&part.data);
        }
        Ok(bytes)
    }
}

#[tokio::test]
async fn writes_are_resumed_committed_and_read() {
    let home = tempfile::tempdir().unwrap();
    let mut server = Server::start(home.path());
    let mut content = Content(ContentClient::new(server.channel()));
    let bytes: Vec<u8> = (0..300_000u32).map(|i| (i % 249) as u8).collect();
    let digest = Digest::sha256(&bytes);
    let answers = content.send(vec![write("r1", 0, &bytes[..100_000])]).await.unwrap();
    assert_eq!(answers[0].offset, 100_000);
    server.process.kill();
    let server = Server::start(home.path());
    let mut content = Content(ContentClient::new(server.channel()));
    let status = content
        .0
        .status(within(StatusRequest { r#ref: "r1".into() }))
        .await
        .unwrap()
        .into_inner()
        .status
        .unwrap();
    assert_eq!((status.offset, status.r#ref.as_str()), (100_000, "r1"));
    let wrong = content
        .send(vec![
            write("r1", 100_000, &bytes[100_000..]),
            commit("r1", Digest::sha256(b"x").as_str(), 0),
        ])
        .await;
    assert_eq!(wrong.unwrap_err().code(), Code::FailedPrecondition);
    let answers = content.send(vec![commit("r1", digest.as_str(), bytes.len())]).await.unwrap();
    assert_eq!(answers[0].digest, digest.as_str());
    assert_eq!(content.read(&digest, 0, 0).await.unwrap(), bytes);
    assert_eq!(content.read(&digest, 10, 20).await.unwrap(), bytes[10..30]);
    assert_eq!(content.read(&digest, 400_000, 0).await.unwrap_err().code(), Code::OutOfRange);
    let info = content
        .0
        .info(within(InfoRequest { digest: digest.to_string() }))
        .await
        .unwrap()
        .into_inner()
        .info
        .unwrap();
    assert_eq!((info.size, info.labels["k"].as_str()), (300_000, "v"));
    let again = content
        .send(vec![WriteContentRequest { expected: digest.to_string(), ..write("r2", 0, b"") }])
        .await;
    assert_eq!(again.unwrap_err().code(), Code::AlreadyExists);
    let mut list = content
        .0
        .list(within(ListContentRequest { filters: vec!["labels.k==v".into()] }))
        .await
        .unwrap()
        .into_inner();
    assert_eq!(list.message().await.unwrap().unwrap().info.len(), 1);
    content.0.delete(within(DeleteContentRequest { digest: digest.to_string() })).await.unwrap();
    assert_eq!(content.read(&digest, 0, 0).await.unwrap_err().code(), Code::NotFound);
    let gone = content
        .0
        .delete(within(DeleteContentRequest { digest: digest.to_string() }))
        .await
        .unwrap_err();
    assert_eq!(gone.code(), Code::NotFound);
}

#[tokio::test]
async fn refs_are_locked_aborted_and_listed() {
    let home = tempfile::tempdir().unwrap();
    let server = Server::start(home.path());
    let mut content = Content(ContentClient::new(server.channel()));
    let (sender, receiver) = tokio::sync::mpsc::channel(1);
    sender.send(write("r", 0, b"abc")).await.unwrap();
    let open = tokio_stream::wrappers::ReceiverStream::new(receiver);
    let mut held = content.0.write(within(open)).await.unwrap().into_inner();
    held.message().await.unwrap().unwrap();
    let second = content.send(vec![write("r", 0, b"abc")]).await.unwrap_err();
    assert_eq!(second.code(), Code::Unavailable);
    assert!(second.message().contains("ref r locked"));
    drop(sender);
    while held.message().await.unwrap().is_some() {}
    let statuses = content
        .0
        .list_statuses(within(ListStatusesRequest::default()))
        .await
        .unwrap()
        .into_inner()
        .statuses;
    assert_eq!(statuses.len(), 1);
    content.0.abort(within(AbortRequest { r#ref: "r".into() })).await.unwrap();
    let gone = content.0.status(within(StatusRequest { r#ref: "r".into() })).await.unwrap_err();
    assert_eq!(gone.code(), Code::NotFound);
    let ahead = content.send(vec![write("q", 5, b"x")]).await.unwrap_err();
    assert_eq!(ahead.code(), Code::OutOfRange);
}
