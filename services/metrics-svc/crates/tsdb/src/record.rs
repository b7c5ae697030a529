//! Records of the write-ahead log.

use metrics_model::Labels;

use crate::binary::{Put, Reader, Short};

const SERIES: u8 = 1;
const SAMPLES: u8 = 2;
const TOMBSTONES: u8 = 3;

/// A sample of a series known by reference.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct RefSample {
    pub(crate) series: u64,
    pub(crate) time: i64,
    pub(crate) value: f64,
}

/// A deleted range of a series, both ends included.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct RefInterval {
    pub(crate) series: u64,
    pub(crate) min: i64,
    pub(crate) max: i64,
}

/// What a record says.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Record {
    Series(Vec<(u64, Labels)>),
    Samples(Vec<RefSample>),
    Tombstones(Vec<RefInterval>),
    /// Exemplars, metadata, native histograms and whatever comes later: not read.
    Other(u8),
}

pub(crate) fn encode_series<'a>(series: impl IntoIterator<Item = &'a (u64, Labels)>) -> Vec<u8> {
    let mut out = vec![SERIES];
    for (id, labels) in series {
        out.put_u64(*id);
        out.put_uvarint(labels.len() as u64);
        for (name, value) in labels.iter() {
            out.put_text(name);
            out.put_text(value);
        }
    }
    out
}

pub(crate) fn encode_samples(samples: &[RefSample]) -> Vec<u8> {
    let mut out = vec![SAMPLES];
    let Some(first) = samples.first() else { return out };
    out.put_u64(first.series);
    out.put_u64(first.time.cast_unsigned());
    for sample in samples {
        out.put_varint(sample.series.wrapping_sub(first.series).cast_signed());
        out.put_varint(sample.time.wrapping_sub(first.time));
        out.put_u64(sample.value.to_bits());
    }
    out
}

pub(crate) fn encode_tombstones(intervals: &[RefInterval]) -> Vec<u8> {
    let mut out = vec![TOMBSTONES];
    for interval in intervals {
        out.put_u64(interval.series);
        out.put_varint(interval.min);
        out.put_varint(interval.max);
    }
    out
}

pub(crate) fn decode(bytes: &[u8]) -> Result<Record, Short> {
    let mut reader = Reader::new(bytes);
    match reader.u8()? {
        SERIES => {
            let mut list = Vec::new();
            while !reader.is_empty() {
                let id = reader.u64()?;
                let count = reader.uvarint()?;
                let mut pairs = Vec::new();
                for _ in 0..count {
                    pairs.push((reader.text()?, reader.text()?));
                }
                list.push((id, Labels::from_pairs(pairs)));
            }
            Ok(Record::Series(list))
        }
        SAMPLES => {
            if reader.is_empty() {
                return Ok(Record::Samples(Vec::new()));
            }
            let (series, time) = (reader.u64()?, reader.u64()?.cast_signed());
            let mut list = Vec::with_capacity(reader.len() / 10);
            while !reader.is_empty() {
                list.push(RefSample {
                    series: series.wrapping_add(reader.varint()?.cast_unsigned()),
                    time: time.wrapping_add(reader.varint()?),
                    value: f64::from_bits(reader.u64()?),
                });
            }
            Ok(Record::Samples(list))
        }
        TOMBSTONES => {
            let mut list = Vec::new();
            while !reader.is_empty() {
                list.push(RefInterval {
                    series: reader.u64()?,
                    min: reader.varint()?,
                    max: reader.varint()?,
                });
            }
            Ok(Record::Tombstones(list))
        }
        other => Ok(Record::Other(other)),
    }
}

#[cfg(test)]
mod tests {
    use rand::{Rng, SeedableRng};

    use super::*;

    #[test]
    fn records_round_trip() {
        let series = vec![
            (3, Labels::from_pairs([("__name__", "up"), ("job", "x")])),
            (9, Labels::default()),
        ];
        assert_eq!(decode(&encode_series(&series)), Ok(Record::Series(series)));
        let samples: Vec<RefSample> = (0..9)
            .map(|i| RefSample { series: 100 - i, time: -5 + i as i64 * 1000, value: i as f64 })
            .collect();
        assert_eq!(decode(&encode_samples(&samples)), Ok(Record::Samples(samples)));
        let gone = vec![RefInterval { series: 4, min: i64::MIN, max: 7 }];
        assert_eq!(decode(&encode_tombstones(&gone)), Ok(Record::Tombstones(gone)));
        assert_eq!(decode(&[7, 1]), Ok(Record::Other(7)));
    }

    #[test]
    fn broken_records_never_panic() {
        let mut rng = rand::rngs::StdRng::seed_from_u64(3);
        for _ in 0..20_000 {
            let mut bytes: Vec<u8> = (0..rng.random_range(0..60)).map(|_| rng.random()).collect();
            if let Some(first) = bytes.first_mut() {
                *first = rng.random_range(0..5);
            }
            let _ = decode(&bytes);
        }
    }
}
