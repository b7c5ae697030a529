//! Block names: 48 bits of milliseconds and 80 random bits in Crockford's base 32.

const ALPHABET: &[u8; 32] = b"0123456789ABCDEFGHJKMNPQRSTVWXYZ";

/// A new name for a block made at `millis`.
pub(crate) fn new(millis: u64) -> String {
    let random: u128 = rand::random();
    let value = (u128::from(millis) & ((1 << 48) - 1)) << 80 | (random >> 48);
    (0..26).rev().map(|i| char::from(ALPHABET[(value >> (5 * i)) as usize & 31])).collect()
}

/// Whether a folder name can be a block's.
pub(crate) fn is_ulid(name: &str) -> bool {
    name.len() == 26 && name.bytes().all(|b| ALPHABET.contains(&b))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_sort_by_time() {
        assert!(new(1) < new(2));
        assert!(is_ulid(&new(1_700_000_000_000)));
        assert!(!is_ulid("chunks_head"));
    }
}
