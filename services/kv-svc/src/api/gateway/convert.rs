//! Between JSON and gRPC messages.

use std::sync::LazyLock;

use axum::body::Body;
use bytes::{Buf, BufMut, Bytes, BytesMut};
use futures::Stream;
use prost::Message;
use prost_reflect::{
    DescriptorPool, DeserializeOptions, DynamicMessage, MethodDescriptor, SerializeOptions,
};
use serde_json::Value;
use tonic::Status;

static SCHEMA: LazyLock<Option<DescriptorPool>> =
    LazyLock::new(|| DescriptorPool::decode(flotilla_proto::etcd::FILE_DESCRIPTOR_SET).ok());

/// A call the gateway serves.
#[derive(Debug, Clone)]
pub struct Call {
    /// Path of the gRPC call.
    pub path: String,
    /// Whether the answer is a stream.
    pub streams: bool,
    method: MethodDescriptor,
}

impl Call {
    /// The call of a full name such as `etcdserverpb.KV.Range`.
    pub fn find(name: &str) -> Option<Self> {
        let (service, method) = name.rsplit_once('.')?;
        let service = SCHEMA.as_ref()?.get_service_by_name(service)?;
        let method = service.methods().find(|candidate| candidate.name() == method)?;
        Some(Self {
            path: format!("/{}/{}", service.full_name(), method.name()),
            streams: method.is_server_streaming(),
            method,
        })
    }

    /// Reads a request's JSON; nothing at all is an empty message.
    pub fn request(&self, body: &[u8]) -> Result<Vec<u8>, Status> {
        let body: &[u8] = if body.iter().all(u8::is_ascii_whitespace) { b"{}" } else { body };
        let options = DeserializeOptions::new().deny_unknown_fields(false);
        let mut json = serde_json::Deserializer::from_slice(body);
        let message =
            DynamicMessage::deserialize_with_options(self.method.input(), &mut json, &options)
                .map_err(|error| Status::invalid_argument(error.to_string()))?;
        Ok(message.encode_to_vec())
    }

    /// Writes an answer's JSON.
    pub fn response(&self, message: Bytes) -> Result<Value, Status> {
        let internal = |error: &dyn std::fmt::Display| Status::internal(error.to_string());
        let message =
            DynamicMessage::decode(self.method.output(), message).map_err(|e| internal(&e))?;
        let options =
            SerializeOptions::new().use_proto_field_name(true).stringify_64_bit_integers(true);
        message
            .serialize_with_options(serde_json::value::Serializer, &options)
            .map_err(|e| internal(&e))
    }
}

/// A message as gRPC frames it.
pub fn frame(message: &[u8]) -> Bytes {
    let mut framed = BytesMut::with_capacity(message.len() + 5);
    framed.put_u8(0);
    framed.put_u32(message.len() as u32);
    framed.put_slice(message);
    framed.freeze()
}

/// The messages of a gRPC answer; the last item is the error it ended with, if it did.
pub fn frames(body: Body) -> impl Stream<Item = Result<Bytes, Status>> + Send {
    async_stream::try_stream! {
        let mut body = body;
        let mut buffer = BytesMut::new();
        loop {
            while buffer.len() >= 5 {
                let length = (&buffer[1..5]).get_u32() as usize;
                if buffer.len() < 5 + length {
                    break;
                }
                buffer.advance(5);
                yield buffer.split_to(length).freeze();
            }
            let Some(next) = http_body_frame(&mut body).await else { break };
            let next = next?;
            match next.into_data() {
                Ok(data) => buffer.extend_from_slice(&data),
                Err(other) => {
                    let trailers = other.into_trailers().unwrap_or_default();
                    let status = Status::from_header_map(&trailers).filter(|s| s.code() != tonic::Code::Ok);
                    if let Some(status) = status {
                        Err(status)?;
                    }
                }
            }
        }
    }
}

async fn http_body_frame(body: &mut Body) -> Option<Result<http_body::Frame<Bytes>, Status>> {
    let frame = futures::future::poll_fn(|context| {
        http_body::Body::poll_frame(std::pin::Pin::new(&mut *body), context)
    });
    let frame = frame.await?;
    Some(frame.map_err(|error| Status::internal(error.to_string())))
}
