//! `.dockerignore` (moby/patternmatcher's rules) and the wildcards of COPY.

use regex_lite::Regex;

/// Rules in order; the last one that matches a path, or a folder above it, decides.
#[derive(Debug, Default)]
pub(super) struct Ignore {
    rules: Vec<(bool, Regex)>,
}

impl Ignore {
    pub(super) fn parse(text: &str) -> Self {
        let mut rules = Vec::new();
        for line in text.trim_start_matches('\u{feff}').lines() {
            let line = line.trim();
            if line.is_empty() || line.starts_with('#') {
                continue;
            }
            let (keep, pattern) = match line.strip_prefix('!') {
                Some(rest) => (true, rest.trim()),
                None => (false, line),
            };
            if let Some(regex) = pattern_regex(&clean(pattern), true) {
                rules.push((keep, regex));
            }
        }
        Self { rules }
    }

    /// Whether `path` (relative, slashes) is left out.
    pub(super) fn excludes(&self, path: &str) -> bool {
        let mut out = false;
        for (keep, regex) in &self.rules {
            // A rule also speaks for everything below what it matches.
            let above = path.char_indices().filter(|(_, c)| *c == '/').map(|(at, _)| &path[..at]);
            if out == *keep && above.chain([path]).any(|part| regex.is_match(part)) {
                out = !keep;
            }
        }
        out
    }

    /// Whether something below `path` may be kept although `path` is left out.
    pub(super) fn may_keep_below(&self) -> bool {
        self.rules.iter().any(|(keep, _)| *keep)
    }
}

fn clean(pattern: &str) -> String {
    let mut parts: Vec<&str> = Vec::new();
    for part in pattern.split('/') {
        match part {
            "" | "." => {}
            ".." => drop(parts.pop()),
            part => parts.push(part),
        }
    }
    parts.join("/")
}

/// Go's `filepath.Match`, and `**` for any number of folders.
pub(super) fn pattern_regex(pattern: &str, double_star: bool) -> Option<Regex> {
    let mut regex = String::from("(?s)^");
    let mut chars = pattern.chars().peekable();
    while let Some(c) = chars.next() {
        match c {
            '*' if double_star && chars.peek() == Some(&'*') => {
                chars.next();
                if chars.peek() == Some(&'/') {
                    chars.next();
                    regex.push_str("(?:.*/)?");
                } else {
                    regex.push_str(".*");
                }
            }
            '*' => regex.push_str("[^/]*"),
            '?' => regex.push_str("[^/]"),
            '[' => regex.push_str(&class(&mut chars)?),
            '\\' => regex.push_str(&regex_lite::escape(&chars.next()?.to_string())),
            c => regex.push_str(&regex_lite::escape(&c.to_string())),
        }
    }
    regex.push('$');
    Regex::new(&regex).ok()
}

/// A character class, which is spelled as in regular expressions.
fn class(chars: &mut std::iter::Peekable<std::str::Chars<'_>>) -> Option<String> {
    let mut class = String::from("[");
    if chars.peek() == Some(&'^') {
        chars.next();
        class.push('^');
    }
    loop {
        match chars.next()? {
            ']' if class.len() > 1 => {
                class.push(']');
                return Some(class);
            }
            '\\' => {
                class.push('\\');
                class.push(chars.next()?);
            }
            c @ ('[' | '&' | '~') => {
                class.push('\\');
                class.push(c);
            }
            c => class.push(c),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rules_decide_in_order() {
        let ignore =
            Ignore::parse("# c\n*.log\n!keep.log\n/build/\n**/tmp\ndocs/*\n!docs/README.md\n");
        for (path, out) in [
            ("a.log", true),
            ("keep.log", false),
            ("sub/a.log", false),
            ("build/x/y", true),
            ("a/b/tmp/c", true),
            ("tmp", true),
            ("docs/x", true),
            ("docs/README.md", false),
            ("src/main.rs", false),
        ] {
            assert_eq!(ignore.excludes(path), out, "{path}");
        }
    }

    #[test]
    fn wildcards_do_not_cross_folders() {
        let matches = |pattern: &str, path: &str| {
            pattern_regex(pattern, false).is_some_and(|r| r.is_match(path))
        };
        assert!(
            matches("a*c", "abc")
                && matches("[a-c]x", "bx")
                && matches("[^a]x", "bx")
                && matches("\\*", "*")
        );
        assert!(!matches("*", "a/b") && !matches("?", "/") && !matches("[ab", "a"));
    }
}
