//! `file` and `auto`.

use std::time::Duration;

use flotilla_config::parse_duration;
use regex::Regex;

use crate::corefile::{Directive, ParseError, ServerKey, reverse_zone};
use crate::store::{AutoOptions, FileOptions};
use crate::wire::Name;

const MINUTE: Duration = Duration::from_secs(60);

fn zones(
    directive: &Directive,
    words: &[&str],
    keys: &[ServerKey],
) -> Result<Vec<Name>, ParseError> {
    if words.is_empty() {
        return Ok(keys.iter().map(|key| key.zone.clone()).collect());
    }
    let parse = |text: &&str| {
        let name = reverse_zone(text).map_or_else(|| Name::parse(text), Ok);
        name.map(|name| name.to_lowercase()).map_err(|e| directive.error(e))
    };
    words.iter().map(parse).collect()
}

fn pause(option: &Directive, text: &str) -> Result<Duration, ParseError> {
    parse_duration(text).map_err(|e| option.error(format!("reload: {e}")))
}

/// `file DBFILE [ZONES...] { reload DURATION; reload_by_mtime; fallthrough [ZONES...] }`
pub fn file(directive: &Directive, keys: &[ServerKey]) -> Result<FileOptions, ParseError> {
    let words = directive.words();
    let [file, served @ ..] = words.as_slice() else {
        return Err(directive.error("file needs a file"));
    };
    let mut options = FileOptions {
        file: (*file).into(),
        zones: zones(directive, served, keys)?,
        reload: MINUTE,
        by_mtime: false,
        fallthrough: Vec::new(),
    };
    for option in &directive.block {
        match (option.name.text.as_str(), option.words().as_slice()) {
            ("reload", [text]) => options.reload = pause(option, text)?,
            ("reload_by_mtime", []) => options.by_mtime = true,
            ("fallthrough", []) => options.fallthrough.clone_from(&options.zones),
            ("fallthrough", words) => options.fallthrough = zones(option, words, keys)?,
            (name, _) => return Err(option.error(format!("file: unknown property {name:?}"))),
        }
    }
    Ok(options)
}

/// `auto [ZONES...] { directory DIR [REGEXP ORIGIN_TEMPLATE]; reload DURATION; fallthrough [ZONES...] }`
pub fn auto(directive: &Directive, keys: &[ServerKey]) -> Result<AutoOptions, ParseError> {
    let compile = |text: &str| Regex::new(text).map_err(|e| directive.error(format!("auto: {e}")));
    let served = zones(directive, &directive.words(), keys)?;
    let mut options = AutoOptions {
        directory: std::path::PathBuf::new(),
        pattern: compile(r"db\.(.*)")?,
        template: "{1}".to_owned(),
        zones: served,
        reload: MINUTE,
        fallthrough: Vec::new(),
    };
    for option in &directive.block {
        match (option.name.text.as_str(), option.words().as_slice()) {
            ("directory", [dir]) => options.directory = (*dir).into(),
            ("directory", [dir, pattern, template]) => {
                options.directory = (*dir).into();
                options.pattern = compile(pattern)?;
                options.template = (*template).to_owned();
            }
            ("reload", [text]) => options.reload = pause(option, text)?,
            ("fallthrough", []) => options.fallthrough.clone_from(&options.zones),
            ("fallthrough", words) => options.fallthrough = zones(option, words, keys)?,
            (name, _) => return Err(option.error(format!("auto: unknown property {name:?}"))),
        }
    }
    if !options.directory.is_dir() {
        return Err(directive.error(format!("auto: no directory {:?}", options.directory)));
    }
    Ok(options)
}
