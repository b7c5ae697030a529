//! Writes a block's index file (version 2).
//!
//! Symbols, series (16-byte aligned, referenced by offset / 16), postings, the postings offset table and the
//! table of contents, each part with its own CRC-32C. Series must come in label order.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{BufWriter, Write};
use std::path::Path;

use metrics_model::Labels;

use crate::Error;
use crate::binary::{Put, crc};

const MAGIC: u32 = 0xBAAA_D700;
const VERSION: u8 = 2;

/// Where a chunk lies and what it covers, both ends included.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct ChunkEntry {
    pub(crate) min: i64,
    pub(crate) max: i64,
    pub(crate) reference: u64,
}

struct Out<'a> {
    file: BufWriter<File>,
    path: &'a Path,
    at: u64,
}

impl Out<'_> {
    fn write(&mut self, bytes: &[u8]) -> Result<(), Error> {
        self.file.write_all(bytes).map_err(Error::io("write", self.path))?;
        self.at += bytes.len() as u64;
        Ok(())
    }

    fn align(&mut self, to: u64) -> Result<(), Error> {
        let pad = (to - self.at % to) % to;
        self.write(&[0; 16][..pad as usize])
    }

    /// A part: length, body, checksum.
    fn framed(&mut self, body: &[u8]) -> Result<(), Error> {
        self.write(&(body.len() as u32).to_be_bytes())?;
        self.write(body)?;
        self.write(&crc(body).to_be_bytes())
    }
}

/// Writes the index of `series`, which are sorted by labels.
pub(crate) fn write(path: &Path, series: &[(Labels, Vec<ChunkEntry>)]) -> Result<(), Error> {
    let file = File::create(path).map_err(Error::io("create", path))?;
    let mut out = Out { file: BufWriter::with_capacity(1 << 20, file), path, at: 0 };
    let mut header = MAGIC.to_be_bytes().to_vec();
    header.push(VERSION);
    out.write(&header)?;

    let symbols_at = out.at;
    let mut symbols: BTreeMap<&str, u32> = BTreeMap::new();
    for (labels, _) in series {
        for (name, value) in labels.iter() {
            symbols.insert(name, 0);
            symbols.insert(value, 0);
        }
    }
    let mut body = Vec::new();
    body.put_u32(symbols.len() as u32);
    for (number, (symbol, slot)) in symbols.iter_mut().enumerate() {
        *slot = number as u32;
        body.put_text(symbol);
    }
    out.framed(&body)?;

    out.align(16)?;
    let series_at = out.at;
    let mut postings: BTreeMap<(&str, &str), Vec<u32>> = BTreeMap::new();
    for (labels, chunks) in series {
        out.align(16)?;
        let reference = (out.at / 16) as u32;
        postings.entry(("", "")).or_default().push(reference);
        for (name, value) in labels.iter() {
            postings.entry((name, value)).or_default().push(reference);
        }
        let entry = series_entry(labels, chunks, &symbols);
        let mut framed = Vec::with_capacity(entry.len() + 10);
        framed.put_uvarint(entry.len() as u64);
        framed.extend_from_slice(&entry);
        framed.put_u32(crc(&entry));
        out.write(&framed)?;
    }

    let label_indices_at = out.at;
    out.align(4)?;
    let postings_at = out.at;
    postings.entry(("", "")).or_default();
    let mut table = Vec::new();
    table.put_u32(postings.len() as u32);
    for ((name, value), references) in &postings {
        table.put_uvarint(2);
        table.put_text(name);
        table.put_text(value);
        table.put_uvarint(out.at);
        let mut body = Vec::with_capacity(4 + references.len() * 4);
        body.put_u32(references.len() as u32);
        for reference in references {
            body.put_u32(*reference);
        }
        out.framed(&body)?;
        out.align(4)?;
    }
    let label_table_at = out.at;
    out.framed(&0u32.to_be_bytes())?;
    let postings_table_at = out.at;
    out.framed(&table)?;

    let mut toc = Vec::new();
    for at in
        [symbols_at, series_at, label_indices_at, label_table_at, postings_at, postings_table_at]
    {
        toc.put_u64(at);
    }
    let sum = crc(&toc);
    toc.put_u32(sum);
    out.write(&toc)?;
    let file = out.file.into_inner().map_err(|e| Error::io("write", path)(e.into_error()))?;
    file.sync_all().map_err(Error::io("sync", path))
}

fn series_entry(labels: &Labels, chunks: &[ChunkEntry], symbols: &BTreeMap<&str, u32>) -> Vec<u8> {
    let number = |text: &str| u64::from(symbols.get(text).copied().unwrap_or_default());
    let mut entry = Vec::new();
    entry.put_uvarint(labels.len() as u64);
    for (name, value) in labels.iter() {
        entry.put_uvarint(number(name));
        entry.put_uvarint(number(value));
    }
    entry.put_uvarint(chunks.len() as u64);
    let mut before: Option<&ChunkEntry> = None;
    for chunk in chunks {
        let width = chunk.max.wrapping_sub(chunk.min).cast_unsigned();
        match before {
            None => {
                entry.put_varint(chunk.min);
                entry.put_uvarint(width);
                entry.put_uvarint(chunk.reference);
            }
            Some(last) => {
                entry.put_uvarint(chunk.min.wrapping_sub(last.max).cast_unsigned());
                entry.put_uvarint(width);
                entry.put_varint(chunk.reference.wrapping_sub(last.reference).cast_signed());
            }
        }
        before = Some(chunk);
    }
    entry
}
