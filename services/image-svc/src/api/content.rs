//! containerd's content.v1 service.

use std::collections::BTreeMap;
use std::pin::Pin;

use flotilla_proto::containerd::containerd::services::content::v1::content_server::Content as ContentService;
use flotilla_proto::containerd::containerd::services::content::v1::{
    AbortRequest, DeleteContentRequest, Info as WireInfo, InfoRequest, InfoResponse,
    ListContentRequest, ListContentResponse, ListStatusesRequest, ListStatusesResponse,
    ReadContentRequest, ReadContentResponse, Status as WireStatus, StatusRequest, StatusResponse,
    UpdateRequest, UpdateResponse, WriteAction, WriteContentRequest, WriteContentResponse,
};
use futures::Stream;
use tonic::{Code, Request, Response, Status, Streaming};

use super::namespace;
use super::snapshots::{label_fields, timestamp};
use crate::content::{Content, ContentError, Info, Status as WriteStatus, Writer};
use crate::engine::Digest;
use crate::engine::filter::Filters;

/// Bytes of one message of `Read`, entries of one message of `List`.
const PIECE: u64 = 1 << 20;
const PER_MESSAGE: usize = 100;

/// The service.
#[derive(Debug, Clone)]
pub struct ContentApi {
    content: Content,
}

impl ContentApi {
    /// A service over `content`.
    pub fn new(content: Content) -> Self {
        Self { content }
    }
}

impl From<ContentError> for Status {
    fn from(error: ContentError) -> Self {
        let code = match &error {
            ContentError::NotFound(_) => Code::NotFound,
            ContentError::Exists(_) => Code::AlreadyExists,
            ContentError::Locked(_) => Code::Unavailable,
            ContentError::Precondition(_) => Code::FailedPrecondition,
            ContentError::Invalid(_) => Code::InvalidArgument,
            ContentError::Range(_) => Code::OutOfRange,
            ContentError::Store(_) => Code::Internal,
        };
        Self::new(code, error.to_string())
    }
}

fn digest(text: &str) -> Result<Digest, Status> {
    text.parse().map_err(|error| Status::invalid_argument(format!("{error}: invalid argument")))
}

fn optional_digest(text: &str) -> Result<Option<Digest>, Status> {
    if text.is_empty() { Ok(None) } else { digest(text).map(Some) }
}

fn unsigned(number: i64) -> Result<u64, Status> {
    u64::try_from(number)
        .map_err(|_| Status::invalid_argument("a size is negative: invalid argument"))
}

fn signed(number: u64) -> i64 {
    i64::try_from(number).unwrap_or(i64::MAX)
}

fn wire_info(info: Info) -> WireInfo {
    WireInfo {
        digest: info.digest.to_string(),
        size: signed(info.size),
        created_at: Some(timestamp(info.row.created)),
        updated_at: Some(timestamp(info.row.updated)),
        labels: info.row.labels.into_iter().collect(),
    }
}

fn wire_status(status: WriteStatus) -> WireStatus {
    WireStatus {
        started_at: Some(timestamp(status.row.started)),
        updated_at: Some(timestamp(status.row.updated)),
        r#ref: status.reference,
        offset: signed(status.offset),
        total: signed(status.row.total),
        expected: status.row.expected.map(|digest| digest.to_string()).unwrap_or_default(),
    }
}

fn wire_written(
    writer: &Writer,
    action: WriteAction,
    digest: Option<Digest>,
) -> WriteContentResponse {
    WriteContentResponse {
        action: action.into(),
        started_at: Some(timestamp(writer.row().started)),
        updated_at: Some(timestamp(writer.row().updated)),
        offset: signed(writer.offset()),
        total: signed(writer.row().total),
        digest: digest.map(|digest| digest.to_string()).unwrap_or_default(),
    }
}

fn filters(texts: &[String]) -> Result<Filters, Status> {
    Filters::parse(texts).map_err(|error| Status::invalid_argument(error.to_string()))
}

type Answers<T> = Pin<Box<dyn Stream<Item = Result<T, Status>> + Send>>;

#[tonic::async_trait]
impl ContentService for ContentApi {
    async fn info(&self, request: Request<InfoRequest>) -> Result<Response<InfoResponse>, Status> {
        let ns = namespace(&request)?;
        let info = self.content.info(&ns, &digest(&request.into_inner().digest)?)?;
        Ok(Response::new(InfoResponse { info: Some(wire_info(info)) }))
    }

    async fn update(
        &self,
        request: Request<UpdateRequest>,
    ) -> Result<Response<UpdateResponse>, Status> {
        let ns = namespace(&request)?;
        let request = request.into_inner();
        let info = request
            .info
            .ok_or_else(|| Status::invalid_argument("info is required: invalid argument"))?;
        let fields = label_fields(request.update_mask)?;
        let labels: BTreeMap<String, String> = info.labels.into_iter().collect();
        let info = self.content.update(&ns, &digest(&info.digest)?, labels, fields).await?;
        Ok(Response::new(UpdateResponse { info: Some(wire_info(info)) }))
    }

    type ListStream =
        futures::stream::Iter<std::vec::IntoIter<Result<ListContentResponse, Status>>>;

    async fn list(
        &self,
        request: Request<ListContentRequest>,
    ) -> Result<Response<Self::ListStream>, Status> {
        let ns = namespace(&request)?;
        let filters = filters(&request.into_inner().filters)?;
        let mut infos = self.content.list(&ns)?;
        infos.retain(|info| {
            let size = info.size.to_string();
            filters.pass(&[("digest", info.digest.as_str()), ("size", &size)], &info.row.labels)
        });
        let infos: Vec<WireInfo> = infos.into_iter().map(wire_info).collect();
        let messages: Vec<_> = infos
            .chunks(PER_MESSAGE)
            .map(|part| Ok(ListContentResponse { info: part.to_vec() }))
            .collect();
        Ok(Response::new(futures::stream::iter(messages)))
    }

    async fn delete(&self, request: Request<DeleteContentRequest>) -> Result<Response<()>, Status> {
        let ns = namespace(&request)?;
        self.content.delete(&ns, &digest(&request.into_inner().digest)?).await?;
        Ok(Response::new(()))
    }

    type ReadStream = Answers<ReadContentResponse>;

    async fn read(
        &self,
        request: Request<ReadContentRequest>,
    ) -> Result<Response<Self::ReadStream>, Status> {
        let ns = namespace(&request)?;
        let request = request.into_inner();
        let (body, start, length) =
            self.content.open(&ns, &digest(&request.digest)?, request.offset, request.size)?;
        Ok(Response::new(Box::pin(async_stream::try_stream! {
            let end = start + length;
            let mut at = start;
            while at < end {
                let piece = body.clone();
                let want = usize::try_from((end - at).min(PIECE)).unwrap_or_default();
                let read = tokio::task::spawn_blocking(move || piece.read_at(at, want)).await;
                let data = read
                    .map_err(|error| Status::internal(error.to_string()))?
                    .map_err(|error| Status::internal(error.to_string()))?;
                let offset = signed(at);
                at += data.len() as u64;
                yield ReadContentResponse { offset, data };
            }
        })))
    }

    async fn status(
        &self,
        request: Request<StatusRequest>,
    ) -> Result<Response<StatusResponse>, Status> {
        let ns = namespace(&request)?;
        let status = self.content.status(&ns, &request.into_inner().r#ref)?;
        Ok(Response::new(StatusResponse { status: Some(wire_status(status)) }))
    }

    async fn list_statuses(
        &self,
        request: Request<ListStatusesRequest>,
    ) -> Result<Response<ListStatusesResponse>, Status> {
        let ns = namespace(&request)?;
        let filters = filters(&request.into_inner().filters)?;
        let mut statuses = self.content.statuses(&ns)?;
        statuses.retain(|status| filters.pass(&[("ref", &status.reference)], &BTreeMap::new()));
        Ok(Response::new(ListStatusesResponse {
            statuses: statuses.into_iter().map(wire_status).collect(),
        }))
    }

    type WriteStream = Answers<WriteContentResponse>;

    async fn write(
        &self,
        request: Request<Streaming<WriteContentRequest>>,
    ) -> Result<Response<Self::WriteStream>, Status> {
        let ns = namespace(&request)?;
        let mut stream = request.into_inner();
        let content = self.content.clone();
        Ok(Response::new(Box::pin(async_stream::try_stream! {
            let mut writer: Option<Writer> = None;
            while let Some(message) = stream.message().await? {
                let expected = optional_digest(&message.expected)?;
                if writer.is_none() {
                    let opened = content.writer(&ns, &message.r#ref, unsigned(message.total)?, expected.clone()).await?;
                    writer = Some(opened);
                }
                let Some(open) = writer.as_mut() else { continue };
                yield one(open, message, expected).await?;
            }
        })))
    }

    async fn abort(&self, request: Request<AbortRequest>) -> Result<Response<()>, Status> {
        let ns = namespace(&request)?;
        self.content.abort(&ns, &request.into_inner().r#ref).await?;
        Ok(Response::new(()))
    }
}

/// Does what one message of a write asks for.
async fn one(
    writer: &mut Writer,
    message: WriteContentRequest,
    expected: Option<Digest>,
) -> Result<WriteContentResponse, Status> {
    let action = WriteAction::try_from(message.action).map_err(|_| {
        Status::invalid_argument(format!("unknown action {}: invalid argument", message.action))
    })?;
    let offset = unsigned(message.offset)?;
    if action != WriteAction::Stat && (offset > 0 || !message.data.is_empty()) {
        // A commit without data may leave the offset at 0.
        let at = if message.data.is_empty() && action == WriteAction::Commit {
            writer.offset()
        } else {
            offset
        };
        writer.write(at, message.data).await?;
    }
    if action != WriteAction::Commit {
        let digest = writer.digest();
        return Ok(wire_written(writer, action, digest));
    }
    let size = writer.offset();
    let labels = message.labels.into_iter().collect();
    let digest = writer.commit(unsigned(message.total)?, expected, labels).await?;
    let mut answer = wire_written(writer, action, Some(digest));
    (answer.offset, answer.total) = (signed(size), signed(size));
    Ok(answer)
}
