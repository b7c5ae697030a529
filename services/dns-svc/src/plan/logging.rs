//! `errors`, `log` and `reload`.

use std::time::Duration;

use flotilla_config::parse_duration;
use regex::Regex;
use tracing::Level;

use crate::corefile::{Directive, ParseError};
use crate::engine::{COMBINED, COMMON, Classes, Consolidate, LogRule};
use crate::wire::Name;

/// Longest expression CoreDNS takes.
const MAX_PATTERN: usize = 10_000;
const LEAST_INTERVAL: Duration = Duration::from_secs(2);
const LEAST_JITTER: Duration = Duration::from_secs(1);

/// How often the Corefile is looked at.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Reload {
    /// Pause.
    pub interval: Duration,
    /// The pause varies by half of this to either side.
    pub jitter: Duration,
}

/// `reload [INTERVAL] [JITTER]`; an interval of 0 is none.
pub fn reload(directive: &Directive) -> Result<Option<Reload>, ParseError> {
    let words = directive.words();
    if words.len() > 2 || !directive.block.is_empty() {
        return Err(directive.error("reload: wrong argument count"));
    }
    let read = |index: usize, default: u64| match words.get(index) {
        None => Ok(Duration::from_secs(default)),
        Some(text) => parse_duration(text).map_err(|e| directive.error(format!("reload: {e}"))),
    };
    let (interval, jitter) = (read(0, 30)?, read(1, 15)?);
    if interval.is_zero() {
        return Ok(None);
    }
    let interval = interval.max(LEAST_INTERVAL);
    let jitter = jitter.max(LEAST_JITTER).min(interval / 2);
    Ok(Some(Reload { interval, jitter }))
}

/// `errors { stacktrace; consolidate DURATION REGEXP [LEVEL] [show_first] }`
pub fn errors(directive: &Directive) -> Result<Vec<Consolidate>, ParseError> {
    match directive.words().as_slice() {
        [] | ["stdout"] => {}
        [word, ..] => return Err(directive.error(format!("errors: unknown log file type: {word}"))),
    }
    let mut rules = Vec::new();
    for option in &directive.block {
        let (name, words) = (option.name.text.as_str(), option.words());
        let ("consolidate", [period, pattern, rest @ ..]) = (name, words.as_slice()) else {
            let text = match name {
                "stacktrace" => "not supported yet: errors stacktrace".to_owned(),
                _ => format!("errors: unknown or incomplete option {name:?}"),
            };
            return Err(option.error(text));
        };
        if pattern.len() > MAX_PATTERN {
            return Err(option.error("errors: the expression exceeds 10000 characters"));
        }
        let period = parse_duration(period).map_err(|e| option.error(format!("errors: {e}")))?;
        let pattern = Regex::new(pattern).map_err(|e| option.error(format!("errors: {e}")))?;
        let (mut level, mut show_first) = (Level::ERROR, false);
        for word in rest {
            match *word {
                "warning" => level = Level::WARN,
                "error" => level = Level::ERROR,
                "info" => level = Level::INFO,
                "debug" => level = Level::DEBUG,
                "show_first" => show_first = true,
                other => return Err(option.error(format!("errors: unknown log level {other:?}"))),
            }
        }
        rules.push(Consolidate { period, pattern, level, show_first });
    }
    Ok(rules)
}

/// `log [NAMES...] [FORMAT] { class CLASSES... }`
pub fn log(directive: &Directive) -> Result<LogRule, ParseError> {
    let words = directive.words();
    let (names, format) = match words.as_slice() {
        [] => (&[][..], COMMON),
        [names @ .., last] if last.contains('{') => (names, *last),
        names => (names, COMMON),
    };
    let read = |text: &&str| {
        Name::parse(text).map(|name| name.to_lowercase()).map_err(|e| directive.error(e))
    };
    let mut names = names.iter().map(read).collect::<Result<Vec<Name>, _>>()?;
    if names.is_empty() {
        names.push(Name::root());
    }
    let format = format.replace("{combined}", COMBINED).replace("{common}", COMMON);
    let mut classes = Classes::default();
    for option in &directive.block {
        if option.name.text != "class" || option.args.is_empty() {
            return Err(option.error("log: only class CLASSES... may stand here"));
        }
        for word in option.words() {
            match word {
                "all" => classes.all = true,
                "success" => classes.success = true,
                "denial" => classes.denial = true,
                "error" => classes.error = true,
                other => return Err(option.error(format!("log: invalid class {other:?}"))),
            }
        }
    }
    if classes == Classes::default() {
        classes.all = true;
    }
    Ok(LogRule { names, format, classes })
}
