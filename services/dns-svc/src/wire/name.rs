//! Domain names in wire form.

use std::fmt;

/// An uncompressed domain name: length-prefixed labels up to the root, at most 255 bytes (RFC 1035 section 3.1).
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Name(Box<[u8]>);

const MAX_NAME: usize = 255;
const MAX_LABEL: usize = 63;

impl Name {
    /// The root.
    pub fn root() -> Self {
        Self(Box::new([0]))
    }

    /// Parses the dotted form; a missing final dot is added. `\DDD` and `\X` escapes are understood.
    ///
    /// # Errors
    /// When a label or the name is too long or empty.
    pub fn parse(text: &str) -> Result<Self, String> {
        let fail = |reason: &str| format!("{text:?} is no domain name: {reason}");
        let text_bytes = text.as_bytes();
        if text == "." || text.is_empty() {
            return Ok(Self::root());
        }
        let (mut wire, mut label) = (Vec::with_capacity(text.len() + 2), Vec::new());
        let mut at = 0;
        while at < text_bytes.len() {
            match text_bytes[at] {
                b'.' => push_label(&mut wire, &mut label).map_err(fail)?,
                b'\\' => {
                    let digits =
                        text_bytes.get(at + 1..at + 4).filter(|d| d.iter().all(u8::is_ascii_digit));
                    if let Some(digits) = digits {
                        let value =
                            digits.iter().fold(0_u16, |sum, d| sum * 10 + u16::from(d - b'0'));
                        label.push(u8::try_from(value).map_err(|_| fail("an escape exceeds 255"))?);
                        at += 3;
                    } else {
                        label.push(
                            *text_bytes
                                .get(at + 1)
                                .ok_or_else(|| fail("it ends in a backslash"))?,
                        );
                        at += 1;
                    }
                }
                byte => label.push(byte),
            }
            at += 1;
        }
        if !label.is_empty() {
            push_label(&mut wire, &mut label).map_err(fail)?;
        }
        wire.push(0);
        if wire.len() > MAX_NAME {
            Err(fail("it is longer than 255 bytes"))
        } else {
            Ok(Self(wire.into()))
        }
    }

    /// Reads a possibly compressed name at `at` of a message; returns the position after it.
    ///
    /// Pointers must go strictly backwards, so that a loop is impossible (RFC 1035 section 4.1.4).
    pub fn read(message: &[u8], at: usize) -> Option<(Self, usize)> {
        let (mut wire, mut from, mut end, mut limit) = (Vec::with_capacity(64), at, None, at);
        loop {
            let length = usize::from(*message.get(from)?);
            match length {
                0 => {
                    wire.push(0);
                    let after = end.unwrap_or(from + 1);
                    return (wire.len() <= MAX_NAME).then(|| (Self(wire.into()), after));
                }
                1..=MAX_LABEL => {
                    wire.extend_from_slice(message.get(from..=from + length)?);
                    from += length + 1;
                    if wire.len() >= MAX_NAME {
                        return None;
                    }
                }
                0xC0..=0xFF => {
                    let target = (length & 0x3F) << 8 | usize::from(*message.get(from + 1)?);
                    end.get_or_insert(from + 2);
                    if target >= limit {
                        return None;
                    }
                    (limit, from) = (target, target);
                }
                _ => return None,
            }
        }
    }

    /// The wire form.
    pub fn wire(&self) -> &[u8] {
        &self.0
    }

    /// The same name in lower case (RFC 4343).
    #[must_use]
    pub fn to_lowercase(&self) -> Self {
        // Length bytes are at most 63 and therefore never letters.
        Self(self.0.to_ascii_lowercase().into())
    }

    /// The labels, leftmost first, without the root.
    pub fn labels(&self) -> impl DoubleEndedIterator<Item = &[u8]> {
        let mut list: Vec<&[u8]> = Vec::with_capacity(8);
        let mut rest: &[u8] = &self.0;
        while let [length @ 1..=255, tail @ ..] = rest {
            let (label, after) = tail.split_at(usize::from(*length));
            list.push(label);
            rest = after;
        }
        list.into_iter()
    }

    /// Whether this name is `zone` or below it. Both must be in lower case.
    pub fn is_within(&self, zone: &Self) -> bool {
        let mut rest: &[u8] = &self.0;
        loop {
            if rest.len() == zone.0.len() {
                return *rest == *zone.0;
            }
            let [length @ 1..=255, tail @ ..] = rest else { return false };
            rest = &tail[usize::from(*length)..];
            if rest.len() < zone.0.len() {
                return false;
            }
        }
    }

    /// The name without its first label; `None` for the root.
    pub fn parent(&self) -> Option<Self> {
        let length = usize::from(*self.0.first()?);
        (length > 0).then(|| Self(self.0[length + 1..].into()))
    }

    /// The name with `from` at its end replaced by `to`; `None` if it does not end so or becomes too long.
    pub fn replace_suffix(&self, from: &Self, to: &Self) -> Option<Self> {
        if !self.is_within(from) {
            return None;
        }
        let wire = [&self.0[..self.0.len() - from.0.len()], &to.0].concat();
        (wire.len() <= MAX_NAME).then(|| Self(wire.into()))
    }

    /// `label.self`.
    ///
    /// # Errors
    /// When the label or the result is too long or the label is empty.
    pub fn child(&self, label: &str) -> Result<Self, String> {
        let mut wire = Vec::with_capacity(self.0.len() + label.len() + 1);
        push_label(&mut wire, &mut label.as_bytes().to_vec())
            .map_err(|e| format!("{label:?}.{self}: {e}"))?;
        wire.extend_from_slice(&self.0);
        if wire.len() > MAX_NAME {
            Err(format!("{label}.{self} is longer than 255 bytes"))
        } else {
            Ok(Self(wire.into()))
        }
    }
}

fn push_label(wire: &mut Vec<u8>, label: &mut Vec<u8>) -> Result<(), &'static str> {
    match label.len() {
        0 => return Err("a label is empty"),
        length @ 1..=MAX_LABEL => wire.push(length as u8),
        _ => return Err("a label is longer than 63 bytes"),
    }
    wire.append(label);
    Ok(())
}

impl fmt::Display for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if *self.0 == [0] {
            return f.write_str(".");
        }
        for label in self.labels() {
            for byte in label {
                match byte {
                    b'.' | b'\\' | b'"' | b';' | b'(' | b')' | b'@' | b'$' => {
                        write!(f, "\\{}", char::from(*byte))?
                    }
                    0x21..=0x7E => write!(f, "{}", char::from(*byte))?,
                    _ => write!(f, "\\{byte:03}")?,
                }
            }
            f.write_str(".")?;
        }
        Ok(())
    }
}

impl fmt::Debug for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{self}")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_and_wire_agree() {
        for text in [".", "example.org.", "a\\.b.c.", "\\032x.org."] {
            assert_eq!(Name::parse(text).unwrap().to_string(), text);
        }
        assert!(Name::parse("a..b").is_err());
        assert!(Name::parse(&"a".repeat(64)).is_err());
        assert!(Name::parse(&"abcdefgh.".repeat(29)).is_err());
    }

    #[test]
    fn zones_contain_whole_labels_only() {
        let name = |text| Name::parse(text).unwrap();
        assert!(name("a.example.org").is_within(&name("example.org")));
        assert!(name("example.org").is_within(&Name::root()));
        assert!(!name("badexample.org").is_within(&name("example.org")));
        assert!(!name("org").is_within(&name("example.org")));
    }

    #[test]
    fn pointer_loops_are_refused() {
        assert!(Name::read(&[0xC0, 0], 0).is_none());
        assert!(Name::read(&[1, b'a', 0xC0, 0], 0).is_none());
        assert!(Name::read(&[0xC0, 2, 0xC0, 0], 2).is_none());
        let (name, after) = Name::read(&[1, b'a', 0, 1, b'b', 0xC0, 0], 3).unwrap();
        assert_eq!((name.to_string().as_str(), after), ("b.a.", 7));
    }
}
