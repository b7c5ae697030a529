//! Splitting a change of size among replica sets in proportion to their sizes.

/// A replica set that takes part.
#[derive(Debug, Clone, Copy)]
pub(super) struct Share {
    /// Its size.
    pub(super) size: i64,
    /// Size of the whole deployment, surge included, when it got that size.
    pub(super) annotated: i64,
}

/// New sizes that add `change` to the total, given the shares in the order of precedence. `limit` is the
/// deployment's new size with surge; `wanted` without.
pub(super) fn split(shares: &[Share], change: i64, wanted: i64, limit: i64) -> Vec<i64> {
    let mut sizes: Vec<i64> = Vec::with_capacity(shares.len());
    let mut given = 0;
    for share in shares {
        let mut part = 0;
        if share.size != 0 && change != 0 && change != given {
            let fraction = fraction(share, wanted, limit);
            let left = change - given;
            part = if change > 0 { fraction.min(left) } else { fraction.max(left) };
        }
        given += part;
        sizes.push(share.size + part);
    }
    if let Some(first) = sizes.first_mut() {
        *first += change - given;
    }
    sizes.iter_mut().for_each(|size| *size = (*size).max(0));
    sizes
}

/// How much a replica set would have to change to keep its part of the whole.
fn fraction(share: &Share, wanted: i64, limit: i64) -> i64 {
    if wanted == 0 {
        return -share.size;
    }
    let annotated = share.annotated.max(1);
    // Rounded half up, in integers.
    (2 * share.size * limit + annotated).div_euclid(2 * annotated) - share.size
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sizes(sizes: &[i64], annotated: i64, wanted: i64, surge: i64) -> Vec<i64> {
        let shares: Vec<Share> = sizes.iter().map(|s| Share { size: *s, annotated }).collect();
        let change = wanted + surge - sizes.iter().sum::<i64>();
        split(&shares, change, wanted, wanted + surge)
    }

    #[test]
    fn growth_is_shared_in_proportion() {
        assert_eq!(sizes(&[8, 5], 13, 15, 3), [11, 7]);
        assert_eq!(sizes(&[5, 5], 10, 20, 0), [10, 10]);
    }

    #[test]
    fn rest_goes_to_the_first() {
        assert_eq!(sizes(&[1, 1, 1], 3, 4, 0), [2, 1, 1]);
    }

    #[test]
    fn shrinking_keeps_the_total() {
        assert_eq!(sizes(&[8, 5], 13, 5, 3).iter().sum::<i64>(), 8);
        assert_eq!(sizes(&[10], 10, 0, 0), [0]);
    }
}
