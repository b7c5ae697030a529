//! Reads remote-write requests, version 1 and 2, without copying their texts.
//!
//! Only what is stored is decoded: labels and float samples. Histograms are counted so that the sender can be
//! told; exemplars and metadata are skipped.

use metrics_model::{Labels, METRIC_NAME, is_label_name, is_metric_name};

/// Bytes a request may have, compressed or not.
pub(super) const MAX_BYTES: usize = 32 << 20;

/// A series of a request: labels, or why they are none, and (milliseconds, value) pairs.
#[derive(Debug, PartialEq)]
pub(super) struct Series {
    pub(super) labels: Result<Labels, String>,
    pub(super) samples: Vec<(i64, f64)>,
    pub(super) histograms: usize,
}

#[derive(Debug, Clone, Copy)]
enum Field<'a> {
    Number(u64),
    Double(f64),
    Bytes(&'a [u8]),
}

type Bad = &'static str;

/// Splits protobuf bytes into fields.
struct Fields<'a>(&'a [u8]);

impl<'a> Fields<'a> {
    fn varint(&mut self) -> Result<u64, Bad> {
        let mut value = 0u64;
        for shift in (0..64).step_by(7) {
            let (byte, rest) = self.0.split_first().ok_or("truncated varint")?;
            self.0 = rest;
            value |= u64::from(byte & 0x7f) << shift;
            if *byte < 0x80 {
                return Ok(value);
            }
        }
        Err("varint too long")
    }

    fn take(&mut self, count: usize) -> Result<&'a [u8], Bad> {
        let (head, rest) = self.0.split_at_checked(count).ok_or("truncated field")?;
        self.0 = rest;
        Ok(head)
    }

    fn next(&mut self) -> Result<Option<(u64, Field<'a>)>, Bad> {
        if self.0.is_empty() {
            return Ok(None);
        }
        let key = self.varint()?;
        let field = match key & 7 {
            0 => Field::Number(self.varint()?),
            1 => {
                let bytes: [u8; 8] = self.take(8)?.try_into().map_err(|_| "truncated double")?;
                Field::Double(f64::from_le_bytes(bytes))
            }
            2 => {
                let len = usize::try_from(self.varint()?).map_err(|_| "length too large")?;
                Field::Bytes(self.take(len)?)
            }
            5 => Field::Bytes(self.take(4)?),
            _ => return Err("unknown wire type"),
        };
        Ok(Some((key >> 3, field)))
    }
}

fn text(bytes: &[u8]) -> Result<&str, Bad> {
    std::str::from_utf8(bytes).map_err(|_| "invalid UTF-8")
}

fn sample(bytes: &[u8]) -> Result<(i64, f64), Bad> {
    let (mut time, mut value) = (0, 0.0);
    let mut fields = Fields(bytes);
    while let Some((number, field)) = fields.next()? {
        match (number, field) {
            (1, Field::Double(v)) => value = v,
            (2, Field::Number(t)) => time = t.cast_signed(),
            _ => {}
        }
    }
    Ok((time, value))
}

/// Checks a label set as it came: sorted or not, but complete and without doubles.
fn labels(pairs: &[(&str, &str)]) -> Result<Labels, String> {
    let name = pairs.iter().find(|(n, _)| *n == METRIC_NAME).map_or("", |(_, v)| v);
    if !is_metric_name(name) {
        return Err(format!("invalid metric name {name:?}"));
    }
    for (at, (name, _)) in pairs.iter().enumerate() {
        if !is_label_name(name) {
            return Err(format!("invalid label name {name:?}"));
        }
        if pairs[..at].iter().any(|(before, _)| before == name) {
            return Err(format!("label {name:?} given twice"));
        }
    }
    Ok(Labels::from_pairs(pairs.iter().copied()))
}

/// Version 1: every series carries its labels.
pub(super) fn version1(bytes: &[u8]) -> Result<Vec<Series>, Bad> {
    let mut out = Vec::new();
    let mut request = Fields(bytes);
    while let Some((number, field)) = request.next()? {
        let (1, Field::Bytes(bytes)) = (number, field) else { continue };
        let (mut pairs, mut samples, mut histograms) = (Vec::new(), Vec::new(), 0);
        let mut series = Fields(bytes);
        while let Some((number, field)) = series.next()? {
            match (number, field) {
                (1, Field::Bytes(label)) => {
                    let (mut name, mut value) = ("", "");
                    let mut fields = Fields(label);
                    while let Some((number, field)) = fields.next()? {
                        match (number, field) {
                            (1, Field::Bytes(b)) => name = text(b)?,
                            (2, Field::Bytes(b)) => value = text(b)?,
                            _ => {}
                        }
                    }
                    pairs.push((name, value));
                }
                (2, Field::Bytes(bytes)) => samples.push(sample(bytes)?),
                (4, _) => histograms += 1,
                _ => {}
            }
        }
        out.push(Series { labels: labels(&pairs), samples, histograms });
    }
    Ok(out)
}

/// Version 2: labels are pairs of references into a table of texts.
pub(super) fn version2(bytes: &[u8]) -> Result<Vec<Series>, Bad> {
    let mut symbols = Vec::new();
    let mut request = Fields(bytes);
    while let Some((number, field)) = request.next()? {
        if let (4, Field::Bytes(symbol)) = (number, field) {
            symbols.push(text(symbol)?);
        }
    }
    if symbols.first().is_some_and(|first| !first.is_empty()) {
        return Err("symbols must start with an empty string");
    }
    let mut out = Vec::new();
    let mut request = Fields(bytes);
    while let Some((number, field)) = request.next()? {
        let (5, Field::Bytes(bytes)) = (number, field) else { continue };
        let (mut references, mut samples, mut histograms) = (Vec::new(), Vec::new(), 0);
        let mut series = Fields(bytes);
        while let Some((number, field)) = series.next()? {
            match (number, field) {
                (1, Field::Number(reference)) => references.push(reference),
                (1, Field::Bytes(packed)) => {
                    let mut packed = Fields(packed);
                    while !packed.0.is_empty() {
                        references.push(packed.varint()?);
                    }
                }
                (2, Field::Bytes(bytes)) => samples.push(sample(bytes)?),
                (3, _) => histograms += 1,
                _ => {}
            }
        }
        out.push(Series { labels: referenced(&symbols, &references), samples, histograms });
    }
    Ok(out)
}

fn referenced(symbols: &[&str], references: &[u64]) -> Result<Labels, String> {
    if !references.len().is_multiple_of(2) {
        return Err(format!("invalid labels_refs length {}", references.len()));
    }
    let symbol = |at: u64| {
        let found = usize::try_from(at).ok().and_then(|at| symbols.get(at)).copied();
        found.ok_or_else(|| {
            format!("labels_refs {at} is outside of the symbols table of {}", symbols.len())
        })
    };
    let pairs: Result<Vec<_>, String> =
        references.chunks(2).map(|pair| Ok((symbol(pair[0])?, symbol(pair[1])?))).collect();
    labels(&pairs?)
}

#[cfg(test)]
mod tests {
    use rand::{Rng, SeedableRng};

    use super::*;

    fn field(number: u8, body: &[u8]) -> Vec<u8> {
        [&[number << 3 | 2, body.len() as u8], body].concat()
    }

    fn sample_bytes() -> Vec<u8> {
        [&[1 << 3 | 1][..], &2.5f64.to_le_bytes(), &[2 << 3, 100]].concat()
    }

    fn v1() -> Vec<u8> {
        let label =
            |n: &str, v: &str| field(1, &[field(1, n.as_bytes()), field(2, v.as_bytes())].concat());
        field(1, &[label("__name__", "m"), label("a", "b"), field(2, &sample_bytes())].concat())
    }

    fn v2() -> Vec<u8> {
        let symbols: Vec<u8> =
            ["", "__name__", "m", "a", "b"].iter().flat_map(|s| field(4, s.as_bytes())).collect();
        [symbols, field(5, &[field(1, &[1, 2, 3, 4]), field(2, &sample_bytes())].concat())].concat()
    }

    #[test]
    fn both_versions_say_the_same() {
        let want = Series {
            labels: Ok(Labels::from_pairs([("__name__", "m"), ("a", "b")])),
            samples: vec![(100, 2.5)],
            histograms: 0,
        };
        assert_eq!(version1(&v1()), Ok(vec![want]));
        assert_eq!(version1(&v1()), version2(&v2()));
        let outside = [v2(), field(5, &field(1, &[1, 9]))].concat();
        assert!(version2(&outside).unwrap()[1].labels.is_err());
    }

    #[test]
    fn broken_requests_never_panic() {
        let mut rng = rand::rngs::StdRng::seed_from_u64(9);
        for round in 0..40_000 {
            let mut bytes = if round % 2 == 0 { v1() } else { v2() };
            for _ in 0..rng.random_range(1..4) {
                let at = rng.random_range(0..bytes.len());
                bytes[at] = rng.random();
            }
            bytes.truncate(rng.random_range(0..=bytes.len()));
            let _ = (version1(&bytes), version2(&bytes));
        }
    }
}
