//! gzip, zstd or plain, told apart by their first bytes.

use std::io::{BufRead, BufReader, Read};

use flate2::bufread::MultiGzDecoder;

/// Bytes read from the compressed stream at a time.
const BUFFER: usize = 128 << 10;
/// Largest zstd window accepted, as the zstd tool's default: 128 MiB.
const WINDOW_LOG: u32 = 27;

/// How a stream is compressed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Compression {
    /// Not.
    None,
    /// gzip (RFC 1952), also several members.
    Gzip,
    /// Zstandard (RFC 8878).
    Zstd,
}

impl Compression {
    /// Guesses from the first bytes.
    pub fn detect(head: &[u8]) -> Self {
        match head {
            [0x1f, 0x8b, ..] => Self::Gzip,
            [0x28, 0xb5, 0x2f, 0xfd, ..] => Self::Zstd,
            _ => Self::None,
        }
    }
}

/// A stream, decompressed.
pub struct Decompressed<'a> {
    inner: Box<dyn Read + Send + 'a>,
    compression: Compression,
}

impl<'a> Decompressed<'a> {
    /// Looks at the head of `source` and decompresses what follows.
    ///
    /// # Errors
    /// When the head cannot be read.
    pub fn new(source: impl Read + Send + 'a) -> std::io::Result<Self> {
        let mut source = BufReader::with_capacity(BUFFER, source);
        let compression = Compression::detect(source.fill_buf()?);
        let inner: Box<dyn Read + Send + 'a> = match compression {
            Compression::None => Box::new(source),
            Compression::Gzip => {
                Box::new(BufReader::with_capacity(BUFFER, MultiGzDecoder::new(source)))
            }
            Compression::Zstd => {
                let mut decoder = zstd::Decoder::with_buffer(source)?;
                decoder.window_log_max(WINDOW_LOG)?;
                Box::new(decoder)
            }
        };
        Ok(Self { inner, compression })
    }

    /// What was found.
    pub fn compression(&self) -> Compression {
        self.compression
    }
}

impl Read for Decompressed<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
        self.inner.read(buffer)
    }
}
