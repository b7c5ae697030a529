//! Blob content as a response body.

use axum::body::{Body, Bytes};

use crate::store::BlobBody;

/// Bytes read at a time; two such pieces exist per download.
const PIECE: usize = 256 << 10;

/// `length` bytes of `blob` from `offset`, read ahead by one piece.
pub fn blob_body(blob: BlobBody, offset: u64, length: u64) -> Body {
    if let BlobBody::Bytes(bytes) = &blob {
        let start = usize::try_from(offset).unwrap_or(usize::MAX).min(bytes.len());
        let end =
            start.saturating_add(usize::try_from(length).unwrap_or(usize::MAX)).min(bytes.len());
        return Body::from(bytes.slice(start..end));
    }
    let end = offset + length;
    let read = move |at: u64| {
        let blob = blob.clone();
        let want = usize::try_from(end - at).unwrap_or(usize::MAX).min(PIECE);
        tokio::task::spawn_blocking(move || blob.read_at(at, want))
    };
    Body::from_stream(
        async_stream::try_stream! {
            let mut at = offset;
            let mut ahead = (at < end).then(|| read(at));
            while let Some(reading) = ahead.take() {
                let piece: Bytes = reading.await.map_err(std::io::Error::other)??;
                at += piece.len() as u64;
                if at < end {
                    ahead = Some(read(at));
                }
                yield piece;
            }
        }
        .map_error(),
    )
}

trait MapError<T>: Sized {
    fn map_error(self) -> Self;
}

impl<S: futures::Stream<Item = Result<Bytes, std::io::Error>>> MapError<Bytes> for S {
    /// Fixes the error type of the stream.
    fn map_error(self) -> Self {
        self
    }
}
