//! The thresholds below which the node counts as under pressure, in the words of kubelet's `--eviction-hard`.

/// kubelet's defaults, as far as they are looked at here.
pub const DEFAULT: &str = "memory.available<100Mi,nodefs.available<10%,nodefs.inodesFree<5%";

/// An amount, or a share of the whole.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Threshold {
    /// Bytes or inodes.
    Absolute(i64),
    /// Percent.
    Share(i64),
}

impl Threshold {
    /// Whether `left` of `whole` is below it.
    pub fn is_crossed(self, left: i64, whole: i64) -> bool {
        match self {
            Self::Absolute(least) => left < least,
            Self::Share(percent) => whole > 0 && left.saturating_mul(100) / whole < percent,
        }
    }
}

/// What must stay free; a signal that is not named is not looked at, as with kubelet.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct EvictionHard {
    /// Memory of the machine.
    pub memory: Option<Threshold>,
    /// Space of the file system with the pods' data.
    pub disk: Option<Threshold>,
    /// Inodes there.
    pub inodes: Option<Threshold>,
}

/// Reads `SIGNAL<AMOUNT,...`.
///
/// # Errors
/// Names the part that is none, and signals that do not work yet.
pub fn parse(text: &str) -> Result<EvictionHard, String> {
    let mut thresholds = EvictionHard::default();
    for part in text.split(',').filter(|part| !part.is_empty()) {
        let (signal, amount) =
            part.split_once('<').ok_or_else(|| format!("{part:?} is not SIGNAL<AMOUNT"))?;
        let threshold = amount_of(amount)
            .ok_or_else(|| format!("{amount:?} is neither a quantity nor a percentage"))?;
        match signal {
            "memory.available" => thresholds.memory = Some(threshold),
            "nodefs.available" => thresholds.disk = Some(threshold),
            "nodefs.inodesFree" => thresholds.inodes = Some(threshold),
            "imagefs.available"
            | "imagefs.inodesFree"
            | "pid.available"
            | "containerfs.available" => {
                return Err(format!("not supported yet: {signal}"));
            }
            _ => return Err(format!("unknown signal {signal:?}")),
        }
    }
    Ok(thresholds)
}

fn amount_of(text: &str) -> Option<Threshold> {
    if let Some(percent) = text.strip_suffix('%') {
        return percent
            .parse()
            .ok()
            .filter(|percent| (0..=100).contains(percent))
            .map(Threshold::Share);
    }
    let digits = text.trim_end_matches(|c: char| c.is_ascii_alphabetic());
    let scale = match &text[digits.len()..] {
        "" => 1,
        "Ki" => 1 << 10,
        "Mi" => 1 << 20,
        "Gi" => 1 << 30,
        _ => return None,
    };
    digits.parse::<i64>().ok()?.checked_mul(scale).map(Threshold::Absolute)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn defaults_are_kubelets() {
        let read = parse(DEFAULT).unwrap();
        assert_eq!(read.memory, Some(Threshold::Absolute(100 << 20)));
        assert!(read.disk.unwrap().is_crossed(9, 100));
        assert!(!read.disk.unwrap().is_crossed(10, 100));
        assert_eq!(parse("").unwrap(), EvictionHard::default());
    }

    #[test]
    fn mistakes_are_named() {
        for (text, word) in [
            ("memory", "SIGNAL"),
            ("x<1", "unknown"),
            ("memory.available<1Q", "1Q"),
            ("pid.available<5%", "not supported yet"),
        ] {
            assert!(parse(text).unwrap_err().contains(word), "{text}");
        }
    }
}
