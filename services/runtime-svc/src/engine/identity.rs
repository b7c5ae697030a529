//! Ids: making them and finding objects by a part of them.

use rand::RngCore;

/// A new random id of 64 hexadecimal digits.
pub fn new_id() -> String {
    let mut bytes = [0; 32];
    rand::rng().fill_bytes(&mut bytes);
    hex::encode(bytes)
}

/// What a part of an id stands for.
#[derive(Debug, PartialEq, Eq)]
pub enum Match<T> {
    /// Exactly one.
    One(T),
    /// Nothing.
    None,
    /// More than one id starts like this.
    Many,
}

/// Finds the one id that equals `part` or alone starts with it.
pub fn resolve<'a>(part: &str, ids: impl Iterator<Item = &'a String>) -> Match<&'a str> {
    if part.is_empty() {
        return Match::None;
    }
    let mut found = Match::None;
    for id in ids {
        if id == part {
            return Match::One(id);
        }
        if id.starts_with(part) {
            found = if found == Match::None { Match::One(id.as_str()) } else { Match::Many };
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn unique_prefix_resolves() {
        let ids: Vec<String> = ["abc", "abd", "xyz", "ab"].map(str::to_owned).into();
        assert_eq!(resolve("x", ids.iter()), Match::One("xyz"));
        assert_eq!(resolve("ab", ids.iter()), Match::One("ab"));
        assert_eq!(resolve("a", ids.iter()), Match::Many);
        assert_eq!(resolve("", ids.iter()), Match::None);
        assert_eq!(resolve("q", ids.iter()), Match::None);
        assert_eq!(new_id().len(), 64);
    }
}
