//! The `rewrite` plugin: asks for another name, type or class, and gives the answer the look of the question.

use regex::Regex;

use crate::wire::{MessageBuilder, Name, Query, Rdata, Record, names_in, unpack};

/// Header flags an answer keeps: AA, TC, RA, AD.
const KEPT_FLAGS: u16 = 0x06A0;

/// How a name is changed. Names are in lower case and end in a dot.
#[derive(Debug, Clone)]
pub enum NameMatch {
    /// The whole name.
    Exact(String),
    /// Its beginning.
    Prefix(String),
    /// Its end.
    Suffix(String),
    /// Every occurrence.
    Substring(String),
    /// An expression, whose groups are `{1}`, `{2}` in the replacement.
    Regex(Regex),
}

/// What happens to the owners and targets of an answer.
#[derive(Debug, Clone)]
pub enum Back {
    /// This name, and what is below it, becomes another.
    Remap(String, String),
    /// This end of a name becomes another.
    Suffix(String, String),
    /// An expression on owners, or on targets when the flag is set.
    Regex(Regex, String, bool),
}

/// What one rule changes.
#[derive(Debug, Clone)]
pub enum Change {
    /// The name: how it is matched, its replacement, whether the answer is mapped back, and further rules for it.
    Name(NameMatch, String, bool, Vec<Back>),
    /// The type.
    Type(u16, u16),
    /// The class.
    Class(u16, u16),
}

/// One `rewrite` directive.
#[derive(Debug, Clone)]
pub struct RewriteRule {
    /// What changes.
    pub change: Change,
    /// Whether later rules still apply.
    pub goes_on: bool,
}

/// A query that was rewritten.
#[derive(Debug)]
pub struct Rewritten {
    /// What is asked.
    pub asked: Query,
    original: Query,
    back: Vec<Back>,
}

/// Applies the rules in turn; `None` when none fits.
pub fn rewrite(rules: &[RewriteRule], query: &Query) -> Option<Rewritten> {
    let mut asked = query.clone();
    let (mut back, mut changed) = (Vec::new(), false);
    for rule in rules {
        let fits = match &rule.change {
            Change::Type(from, to) => {
                asked.qtype == *from && {
                    asked.qtype = *to;
                    true
                }
            }
            Change::Class(from, to) => {
                asked.class == *from && {
                    asked.class = *to;
                    true
                }
            }
            Change::Name(how, to, auto, more) => {
                let before = asked.name.to_string();
                let after = replaced(how, to, &before).and_then(|text| Name::parse(&text).ok());
                if let Some(name) = after {
                    asked.original = name.clone();
                    asked.name = name.to_lowercase();
                    back.extend(backwards(how, to, *auto, &before, &asked.name));
                    back.extend(more.iter().cloned());
                    true
                } else {
                    false
                }
            }
        };
        changed |= fits;
        if fits && !rule.goes_on {
            break;
        }
    }
    changed.then(|| Rewritten { asked, original: query.clone(), back })
}

fn replaced(how: &NameMatch, to: &str, name: &str) -> Option<String> {
    match how {
        NameMatch::Exact(from) => (name == from).then(|| to.to_owned()),
        NameMatch::Prefix(from) => {
            name.strip_prefix(from.as_str()).map(|rest| format!("{to}{rest}"))
        }
        NameMatch::Suffix(from) => {
            name.strip_suffix(from.as_str()).map(|rest| format!("{rest}{to}"))
        }
        NameMatch::Substring(from) => {
            name.contains(from.as_str()).then(|| name.replace(from.as_str(), to))
        }
        NameMatch::Regex(pattern) => expand(pattern, to, name),
    }
}

fn expand(pattern: &Regex, to: &str, text: &str) -> Option<String> {
    let groups = pattern.captures(text)?;
    let mut new = to.to_owned();
    for (index, group) in groups.iter().enumerate() {
        new = new.replace(&format!("{{{index}}}"), group.map_or("", |group| group.as_str()));
    }
    Some(new)
}

fn backwards(how: &NameMatch, to: &str, auto: bool, before: &str, after: &Name) -> Option<Back> {
    match how {
        NameMatch::Suffix(from) if auto => Some(Back::Suffix(to.to_owned(), from.clone())),
        NameMatch::Exact(_) => Some(Back::Remap(after.to_string(), before.to_owned())),
        _ if auto => Some(Back::Remap(after.to_string(), before.to_owned())),
        _ => None,
    }
}

impl Rewritten {
    /// The query as it came.
    pub fn original(&self) -> &Query {
        &self.original
    }

    /// The answer with the question as it came and its names mapped back.
    pub fn revert(&self, message: &[u8]) -> Option<Vec<u8>> {
        let message = unpack(message)?;
        let flags = message.flags & KEPT_FLAGS;
        let mut builder =
            MessageBuilder::answer(&self.original, flags, (message.flags & 0xF) as u8);
        for (index, section) in message.sections.iter().enumerate() {
            for record in section {
                let record = self.map(record);
                match index {
                    0 => builder.push_answer(&record),
                    1 => builder.push_authority(&record),
                    _ => builder.push_additional(&record),
                }
            }
        }
        Some(builder.build())
    }

    fn map(&self, record: &Record) -> Record {
        let mut record = record.clone();
        for rule in &self.back {
            if let Some(name) = rule.apply(&record.name, false) {
                record.name = name;
            }
            let Rdata::Raw { rtype: rtype @ (2 | 5 | 6 | 15 | 33 | 39), data } = &mut record.data
            else {
                continue;
            };
            let (before, _) = names_in(*rtype).unwrap_or((0, 1));
            let Some((name, after)) = Name::read(data, before) else { continue };
            if let Some(name) = rule.apply(&name, true) {
                data.splice(before..after, name.wire().iter().copied());
            }
        }
        record
    }
}

impl Back {
    fn apply(&self, name: &Name, is_target: bool) -> Option<Name> {
        let text = name.to_string();
        let new = match self {
            Self::Remap(from, to) if text == *from => Some(to.clone()),
            Self::Remap(from, to) => {
                let rest = text.strip_suffix(from.as_str()).filter(|rest| rest.ends_with('.'));
                rest.map(|rest| format!("{rest}{to}"))
            }
            Self::Suffix(from, to) => {
                text.strip_suffix(from.as_str()).map(|rest| format!("{rest}{to}"))
            }
            Self::Regex(pattern, to, targets) if *targets == is_target => {
                expand(pattern, to, &text)
            }
            Self::Regex(..) => None,
        };
        new.and_then(|text| Name::parse(&text).ok())
    }
}
