//! Writing etcd's database file: a bbolt file, page after page, without keeping it in memory.
//!
//! Keys of a bucket must come in order, so that pages can be filled one after the other. The two meta pages, which
//! name the root, are written last.

use std::fs::File;
use std::io::{self, BufWriter, Seek, SeekFrom, Write};

const PAGE: usize = 4096;
const PAGE_HEADER: usize = 16;
const ELEMENT: usize = 16;
const BRANCH: u16 = 0x01;
const LEAF: u16 = 0x02;
const META: u16 = 0x04;
const FREELIST: u16 = 0x10;
const BUCKET_ELEMENT: u32 = 1;
const MAGIC: u32 = 0xED0C_DAED;
const VERSION: u32 = 2;

/// Elements of a page that is being filled.
#[derive(Debug, Default)]
struct Leaf {
    elements: Vec<(u32, Vec<u8>, Vec<u8>)>,
    bytes: usize,
}

/// Writes a bbolt file.
#[derive(Debug)]
pub struct BoltWriter {
    out: BufWriter<File>,
    next_page: u64,
    leaf: Leaf,
    /// First key and page of the finished leaves of the open bucket.
    children: Vec<(Vec<u8>, u64)>,
    buckets: Vec<(String, u64)>,
}

impl BoltWriter {
    /// Starts an empty file.
    ///
    /// # Errors
    /// When it cannot be written.
    pub fn new(file: File) -> io::Result<Self> {
        let mut out = BufWriter::with_capacity(1 << 20, file);
        // Pages 0 and 1 are for the meta pages.
        out.write_all(&[0; 2 * PAGE])?;
        let mut freelist = header(2, FREELIST, 0, 0);
        freelist.resize(PAGE, 0);
        out.write_all(&freelist)?;
        Ok(Self {
            out,
            next_page: 3,
            leaf: Leaf::default(),
            children: Vec::new(),
            buckets: Vec::new(),
        })
    }

    /// Adds a key to the open bucket; keys must come in order.
    ///
    /// # Errors
    /// When the file cannot be written.
    pub fn put(&mut self, key: &[u8], value: &[u8]) -> io::Result<()> {
        self.add(0, key, value)
    }

    fn add(&mut self, flags: u32, key: &[u8], value: &[u8]) -> io::Result<()> {
        let size = ELEMENT + key.len() + value.len();
        if !self.leaf.elements.is_empty() && PAGE_HEADER + self.leaf.bytes + size > PAGE {
            self.end_leaf()?;
        }
        self.leaf.bytes += size;
        self.leaf.elements.push((flags, key.to_vec(), value.to_vec()));
        Ok(())
    }

    fn end_leaf(&mut self) -> io::Result<()> {
        let leaf = std::mem::take(&mut self.leaf);
        let first = leaf.elements.first().map(|(_, key, _)| key.clone()).unwrap_or_default();
        let mut page = Vec::with_capacity(PAGE_HEADER + leaf.bytes);
        let count = leaf.elements.len();
        let mut data = PAGE_HEADER + count * ELEMENT;
        for (n, (flags, key, value)) in leaf.elements.iter().enumerate() {
            // Positions count from the element, not from the page.
            let position = data - (PAGE_HEADER + n * ELEMENT);
            for field in [*flags, position as u32, key.len() as u32, value.len() as u32] {
                page.extend_from_slice(&field.to_le_bytes());
            }
            data += key.len() + value.len();
        }
        for (_, key, value) in &leaf.elements {
            page.extend_from_slice(key);
            page.extend_from_slice(value);
        }
        let id = self.page(LEAF, count, &page)?;
        self.children.push((first, id));
        Ok(())
    }

    fn page(&mut self, flags: u16, count: usize, body: &[u8]) -> io::Result<u64> {
        let id = self.next_page;
        let pages = (PAGE_HEADER + body.len()).div_ceil(PAGE);
        self.out.write_all(&header(id, flags, count as u16, (pages - 1) as u32))?;
        self.out.write_all(body)?;
        self.out.write_all(&vec![0; pages * PAGE - PAGE_HEADER - body.len()])?;
        self.next_page += pages as u64;
        Ok(id)
    }

    /// Ends the pages since the last call and returns their root.
    fn tree(&mut self) -> io::Result<u64> {
        if !self.leaf.elements.is_empty() || self.children.is_empty() {
            self.end_leaf()?;
        }
        let mut children = std::mem::take(&mut self.children);
        while children.len() > 1 {
            let mut parents = Vec::new();
            let mut rest = children.as_slice();
            while !rest.is_empty() {
                let taken = fits(rest);
                let (group, later) = rest.split_at(taken);
                parents.push((group[0].0.clone(), self.branch(group)?));
                rest = later;
            }
            children = parents;
        }
        Ok(children[0].1)
    }

    fn branch(&mut self, children: &[(Vec<u8>, u64)]) -> io::Result<u64> {
        let mut body = Vec::with_capacity(PAGE);
        let mut data = PAGE_HEADER + children.len() * ELEMENT;
        for (n, (key, page)) in children.iter().enumerate() {
            let position = data - (PAGE_HEADER + n * ELEMENT);
            body.extend_from_slice(&(position as u32).to_le_bytes());
            body.extend_from_slice(&(key.len() as u32).to_le_bytes());
            body.extend_from_slice(&page.to_le_bytes());
            data += key.len();
        }
        children.iter().for_each(|(key, _)| body.extend_from_slice(key));
        self.page(BRANCH, children.len(), &body)
    }

    /// Ends the open bucket and gives it a name; names must come in order.
    ///
    /// # Errors
    /// When the file cannot be written.
    pub fn end_bucket(&mut self, name: &str) -> io::Result<()> {
        let root = self.tree()?;
        self.buckets.push((name.to_owned(), root));
        Ok(())
    }

    /// Writes the root and the meta pages. Returns the file, durable.
    ///
    /// # Errors
    /// When the file cannot be written.
    pub fn finish(mut self) -> io::Result<File> {
        for (name, root) in std::mem::take(&mut self.buckets) {
            let mut value = root.to_le_bytes().to_vec();
            value.extend_from_slice(&0u64.to_le_bytes());
            self.add(BUCKET_ELEMENT, name.as_bytes(), &value)?;
        }
        let root = self.tree()?;
        let pages = self.next_page;
        self.out.seek(SeekFrom::Start(0))?;
        for txid in 0..2u64 {
            self.out.write_all(&meta(txid, root, pages))?;
        }
        let file = self.out.into_inner().map_err(io::IntoInnerError::into_error)?;
        file.sync_data()?;
        Ok(file)
    }
}

fn header(id: u64, flags: u16, count: u16, overflow: u32) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(PAGE);
    bytes.extend_from_slice(&id.to_le_bytes());
    bytes.extend_from_slice(&flags.to_le_bytes());
    bytes.extend_from_slice(&count.to_le_bytes());
    bytes.extend_from_slice(&overflow.to_le_bytes());
    bytes
}

/// Children that go into one branch page: what fits, but two at least.
fn fits(children: &[(Vec<u8>, u64)]) -> usize {
    let mut bytes = PAGE_HEADER;
    let count = children
        .iter()
        .take_while(|(key, _)| {
            bytes += ELEMENT + key.len();
            bytes <= PAGE
        })
        .count();
    count.max(2).min(children.len())
}

fn meta(txid: u64, root: u64, pages: u64) -> Vec<u8> {
    let mut page = header(txid, META, 0, 0);
    for field in [MAGIC, VERSION, PAGE as u32, 0] {
        page.extend_from_slice(&field.to_le_bytes());
    }
    for field in [root, 0, 2, pages, txid] {
        page.extend_from_slice(&field.to_le_bytes());
    }
    let checksum = fnv(&page[PAGE_HEADER..]);
    page.extend_from_slice(&checksum.to_le_bytes());
    page.resize(PAGE, 0);
    page
}

/// FNV-1a, 64 bits.
fn fnv(bytes: &[u8]) -> u64 {
    bytes.iter().fold(0xcbf2_9ce4_8422_2325, |hash, byte| {
        (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3)
    })
}
