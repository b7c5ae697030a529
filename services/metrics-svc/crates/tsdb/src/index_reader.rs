//! Reads a block's index file (version 2; version 1 files are refused by name).

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use metrics_model::{Labels, Matcher};

use crate::Error;
use crate::binary::{Reader, Short, crc};
use crate::index_writer::ChunkEntry;
use crate::mapped::Mapped;
use crate::postings::{self, Lookup};

const TOC: usize = 6 * 8 + 4;

/// An open index. Label values and symbol offsets are kept in memory.
#[derive(Debug)]
pub(crate) struct IndexReader {
    path: PathBuf,
    map: Mapped,
    symbols: Vec<u32>,
    /// Name to value to offset of the postings list.
    table: BTreeMap<String, Vec<(String, u64)>>,
    all: u64,
}

impl IndexReader {
    pub(crate) fn open(path: &Path) -> Result<Self, Error> {
        let map = Mapped::open(path)?;
        let corrupt = |at: usize, reason: &str| Error::corrupt(path, at, reason);
        if map.len() < 5 + TOC || map[..4] != [0xBA, 0xAA, 0xD7, 0x00] {
            return Err(corrupt(0, "invalid magic number or size"));
        }
        if map[4] != 2 {
            return Err(corrupt(4, &format!("unknown index file version {}", map[4])));
        }
        let toc_at = map.len() - TOC;
        let toc = &map[toc_at..];
        if toc[48..] != crc(&toc[..48]).to_be_bytes() {
            return Err(corrupt(toc_at, "table of contents: checksum mismatch"));
        }
        let mut reader = Reader::new(toc);
        let mut offsets = [0u64; 6];
        for offset in &mut offsets {
            *offset = reader.u64().map_err(|_| corrupt(toc_at, "table of contents"))?;
        }
        let mut index = Self {
            path: path.to_owned(),
            map,
            symbols: Vec::new(),
            table: BTreeMap::new(),
            all: 0,
        };
        index.symbols = index.read_symbols(offsets[0])?;
        index.read_table(offsets[5])?;
        Ok(index)
    }

    /// Bytes of the file.
    pub(crate) fn size(&self) -> u64 {
        self.map.len() as u64
    }

    fn framed(&self, at: u64) -> Result<&[u8], Error> {
        let corrupt = |reason: &str| Error::corrupt(&self.path, at as usize, reason);
        let mut reader = Reader::new(
            self.map.get(at as usize..).ok_or_else(|| corrupt("offset beyond the file"))?,
        );
        let mut parse = || {
            let len = reader.u32()? as usize;
            Ok::<_, Short>((reader.take(len)?, reader.u32()?))
        };
        let (body, sum) = parse().map_err(|_| corrupt("part beyond the file"))?;
        if crc(body) == sum { Ok(body) } else { Err(corrupt("checksum mismatch")) }
    }

    fn read_symbols(&self, at: u64) -> Result<Vec<u32>, Error> {
        let body = self.framed(at)?;
        let base = at as usize + 4;
        let mut reader = Reader::new(body);
        let mut parse = || {
            let count = reader.u32()? as usize;
            let mut symbols = Vec::with_capacity(count.min(body.len()));
            for _ in 0..count {
                symbols.push((base + body.len() - reader.len()) as u32);
                reader.text()?;
            }
            Ok::<_, Short>(symbols)
        };
        parse().map_err(|_| Error::corrupt(&self.path, at as usize, "symbol table"))
    }

    fn read_table(&mut self, at: u64) -> Result<(), Error> {
        let mut table: BTreeMap<String, Vec<(String, u64)>> = BTreeMap::new();
        let mut all = 0;
        {
            let mut reader = Reader::new(self.framed(at)?);
            let mut parse = || {
                for _ in 0..reader.u32()? {
                    if reader.uvarint()? != 2 {
                        return Err(Short);
                    }
                    let (name, value, offset) = (reader.text()?, reader.text()?, reader.uvarint()?);
                    if name.is_empty() {
                        all = offset;
                        continue;
                    }
                    match table.get_mut(name) {
                        Some(values) => values.push((value.to_owned(), offset)),
                        None => {
                            drop(table.insert(name.to_owned(), vec![(value.to_owned(), offset)]))
                        }
                    }
                }
                Ok(())
            };
            parse()
                .map_err(|_| Error::corrupt(&self.path, at as usize, "postings offset table"))?;
        }
        self.table = table;
        self.all = all;
        Ok(())
    }

    fn symbol(&self, number: u64) -> Result<&str, Short> {
        let at = *self.symbols.get(usize::try_from(number).map_err(|_| Short)?).ok_or(Short)?;
        Reader::new(self.map.get(at as usize..).ok_or(Short)?).text()
    }

    fn postings(&self, at: u64) -> Result<Vec<u64>, Error> {
        let mut reader = Reader::new(self.framed(at)?);
        let mut list = Vec::with_capacity(reader.len() / 4);
        let count = reader.u32().unwrap_or_default();
        for _ in 0..count {
            let reference =
                reader.u32().map_err(|_| Error::corrupt(&self.path, at as usize, "postings"))?;
            list.push(u64::from(reference));
        }
        Ok(list)
    }

    /// Labels and chunks of a series.
    pub(crate) fn series(&self, reference: u64) -> Result<(Labels, Vec<ChunkEntry>), Error> {
        let at = (reference * 16) as usize;
        let corrupt = |reason: &str| Error::corrupt(&self.path, at, reason);
        let mut outer =
            Reader::new(self.map.get(at..).ok_or_else(|| corrupt("reference beyond the file"))?);
        let mut frame = || {
            let len = outer.uvarint()? as usize;
            Ok::<_, Short>((outer.take(len)?, outer.u32()?))
        };
        let (body, sum) = frame().map_err(|_| corrupt("series beyond the file"))?;
        if crc(body) != sum {
            return Err(corrupt("series checksum mismatch"));
        }
        self.parse_series(body).map_err(|_| corrupt("series entry"))
    }

    fn parse_series(&self, body: &[u8]) -> Result<(Labels, Vec<ChunkEntry>), Short> {
        let mut reader = Reader::new(body);
        let mut pairs = Vec::new();
        for _ in 0..reader.uvarint()? {
            pairs.push((self.symbol(reader.uvarint()?)?, self.symbol(reader.uvarint()?)?));
        }
        let mut chunks: Vec<ChunkEntry> = Vec::new();
        for _ in 0..reader.uvarint()? {
            let entry = match chunks.last() {
                None => {
                    let min = reader.varint()?;
                    let max = min.wrapping_add(reader.uvarint()?.cast_signed());
                    ChunkEntry { min, max, reference: reader.uvarint()? }
                }
                Some(last) => {
                    let min = last.max.wrapping_add(reader.uvarint()?.cast_signed());
                    let max = min.wrapping_add(reader.uvarint()?.cast_signed());
                    let reference = last.reference.wrapping_add(reader.varint()?.cast_unsigned());
                    ChunkEntry { min, max, reference }
                }
            };
            chunks.push(entry);
        }
        Ok((Labels::from_pairs(pairs), chunks))
    }

    /// References of the series that match, ascending.
    pub(crate) fn select(&self, matchers: &[Matcher]) -> Result<Vec<u64>, Error> {
        postings::select(self, matchers)
    }

    /// Label names in order.
    pub(crate) fn label_names(&self) -> impl Iterator<Item = &str> {
        self.table.keys().map(String::as_str)
    }

    /// Values of a label, in order.
    pub(crate) fn label_values(&self, name: &str) -> impl Iterator<Item = &str> {
        self.table.get(name).into_iter().flatten().map(|(value, _)| value.as_str())
    }
}

impl Lookup for IndexReader {
    fn all(&self) -> Result<Vec<u64>, Error> {
        if self.all == 0 { Ok(Vec::new()) } else { self.postings(self.all) }
    }

    fn list(&self, name: &str, value: &str) -> Result<Vec<u64>, Error> {
        let Some(values) = self.table.get(name) else { return Ok(Vec::new()) };
        match values.binary_search_by(|(v, _)| v.as_str().cmp(value)) {
            Ok(at) => self.postings(values[at].1),
            Err(_) => Ok(Vec::new()),
        }
    }

    fn values(&self, name: &str, keep: &mut dyn FnMut(&str) -> bool) -> Vec<String> {
        self.label_values(name).filter(|v| keep(v)).map(str::to_owned).collect()
    }
}
