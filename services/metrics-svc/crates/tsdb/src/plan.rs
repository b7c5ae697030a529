//! Which blocks to merge next: three blocks of one range become one of the next, aligned to that range.

use crate::meta::BlockMeta;

/// Ranges of blocks in milliseconds, from `first`, each three times the one before, up to `largest`.
pub(crate) fn ranges(first: i64, largest: i64) -> Vec<i64> {
    let mut ranges = vec![first];
    while let Some(next) = ranges.last().and_then(|r| r.checked_mul(3)).filter(|r| *r <= largest) {
        ranges.push(next);
    }
    ranges
}

/// The blocks to merge, by index into `metas` (sorted by first time); empty when there is nothing to do.
///
/// Overlapping blocks go first. The newest block is left out: more may come beside it.
pub(crate) fn choose(metas: &[BlockMeta], ranges: &[i64]) -> Vec<usize> {
    let overlapping = overlap(metas);
    if !overlapping.is_empty() {
        return overlapping;
    }
    let Some(candidates) = metas.len().checked_sub(1).map(|n| &metas[..n]) else {
        return Vec::new();
    };
    let Some(newest) = candidates.last().map(|m| m.min_time) else { return Vec::new() };
    for range in ranges.iter().skip(1) {
        let mut at = 0;
        while at < candidates.len() {
            let start = candidates[at].min_time.div_euclid(*range) * range;
            let end = start + range;
            let count = candidates[at..]
                .iter()
                .take_while(|m| m.min_time >= start && m.max_time <= end)
                .count();
            let part = &candidates[at..at + count];
            if let (Some(first), Some(last)) = (part.first(), part.last()) {
                let full = last.max_time - first.min_time == *range || last.max_time <= newest;
                if full && count > 1 {
                    return (at..at + count).collect();
                }
            }
            at += count.max(1);
        }
    }
    Vec::new()
}

fn overlap(metas: &[BlockMeta]) -> Vec<usize> {
    let mut group: Vec<usize> = Vec::new();
    let mut end = i64::MIN;
    for (at, meta) in metas.iter().enumerate() {
        if meta.min_time < end && at > 0 {
            if group.is_empty() {
                group.push(at - 1);
            }
            group.push(at);
        } else if !group.is_empty() {
            break;
        }
        end = end.max(meta.max_time);
    }
    group
}

#[cfg(test)]
mod tests {
    use super::*;

    fn metas(spans: &[(i64, i64)]) -> Vec<BlockMeta> {
        spans
            .iter()
            .map(|(min_time, max_time)| BlockMeta {
                min_time: *min_time,
                max_time: *max_time,
                ..BlockMeta::default()
            })
            .collect()
    }

    #[test]
    fn blocks_of_one_range_are_merged() {
        let ranges = ranges(20, 200);
        assert_eq!(ranges, [20, 60, 180]);
        assert_eq!(choose(&metas(&[(0, 20), (20, 40), (40, 60), (60, 80)]), &ranges), [0, 1, 2]);
        assert!(choose(&metas(&[(0, 20), (20, 40), (40, 60)]), &ranges).is_empty());
        assert_eq!(choose(&metas(&[(0, 20), (40, 60), (60, 80)]), &ranges), [0, 1]);
        assert_eq!(
            choose(&metas(&[(0, 60), (60, 120), (120, 180), (180, 200)]), &ranges),
            [0, 1, 2]
        );
        assert_eq!(choose(&metas(&[(0, 20), (10, 40), (40, 60)]), &ranges), [0, 1]);
        assert!(choose(&[], &ranges).is_empty());
    }
}
