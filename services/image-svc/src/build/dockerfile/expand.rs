//! Words: quotes, escapes and `$variables` with the shell's modifiers.

use std::collections::BTreeMap;

use regex_lite::Regex;

/// Result of an expansion longer than this is refused.
const MAX_WORD: usize = 1 << 20;

/// Variables an expansion sees.
#[derive(Debug, Clone, Default)]
pub struct Scope {
    values: BTreeMap<String, String>,
    escape: Option<char>,
}

impl Scope {
    /// No variables; `escape` is the Dockerfile's escape character.
    pub fn new(escape: char) -> Self {
        Self { values: BTreeMap::new(), escape: Some(escape) }
    }

    /// Sets a variable.
    pub fn set(&mut self, name: &str, value: &str) {
        self.values.insert(name.to_owned(), value.to_owned());
    }

    /// A variable.
    pub fn get(&self, name: &str) -> Option<&str> {
        self.values.get(name).map(String::as_str)
    }

    /// Expands a word: quotes go, variables are replaced.
    ///
    /// # Errors
    /// Says what does not parse, or the message of `${name:?message}`.
    pub fn expand(&self, word: &str) -> Result<String, String> {
        let mut reader = Reader { scope: self, rest: word, depth: 0 };
        let out = reader.word(None)?;
        if out.len() > MAX_WORD {
            return Err("the expanded text is longer than 1 MiB".to_owned());
        }
        Ok(out)
    }
}

struct Reader<'a> {
    scope: &'a Scope,
    rest: &'a str,
    depth: u32,
}

impl Reader<'_> {
    fn next(&mut self) -> Option<char> {
        let c = self.rest.chars().next()?;
        self.rest = &self.rest[c.len_utf8()..];
        Some(c)
    }

    fn peek(&self) -> Option<char> {
        self.rest.chars().next()
    }

    fn escape(&self) -> char {
        self.scope.escape.unwrap_or('\\')
    }

    /// Reads until `end` (consumed) or the end of the text.
    fn word(&mut self, end: Option<char>) -> Result<String, String> {
        let mut out = String::new();
        while let Some(c) = self.next() {
            match c {
                c if Some(c) == end => return Ok(out),
                '\'' => out.push_str(&self.single()?),
                '"' => self.double(&mut out)?,
                '$' => out.push_str(&self.dollar()?),
                c if c == self.escape() => out.extend(self.next()),
                c => out.push(c),
            }
        }
        match end {
            Some(end) => Err(format!("syntax error: missing {end:?}")),
            None => Ok(out),
        }
    }

    fn single(&mut self) -> Result<String, String> {
        let (inner, tail) = self
            .rest
            .split_once('\'')
            .ok_or("unexpected end of statement while looking for matching single-quote")?;
        self.rest = tail;
        Ok(inner.to_owned())
    }

    fn double(&mut self, out: &mut String) -> Result<(), String> {
        while let Some(c) = self.next() {
            match c {
                '"' => return Ok(()),
                '$' => out.push_str(&self.dollar()?),
                c if c == self.escape() => match self.next() {
                    Some(escaped) if matches!(escaped, '"' | '$') || escaped == self.escape() => {
                        out.push(escaped)
                    }
                    Some(other) => out.extend([c, other]),
                    None => out.push(c),
                },
                c => out.push(c),
            }
        }
        Err("unexpected end of statement while looking for matching double-quote".to_owned())
    }

    fn name(&mut self) -> String {
        let digits = self.peek().is_some_and(|c| c.is_ascii_digit());
        let word = |c: char| c.is_ascii_alphanumeric() || c == '_';
        let end = self.rest.find(|c: char| if digits { !c.is_ascii_digit() } else { !word(c) });
        let end = end.unwrap_or(self.rest.len());
        let name = self.rest[..end].to_owned();
        self.rest = &self.rest[end..];
        name
    }

    fn dollar(&mut self) -> Result<String, String> {
        if self.peek() != Some('{') {
            let name = self.name();
            return Ok(if name.is_empty() { "$".to_owned() } else { self.value(&name) });
        }
        self.next();
        self.depth += 1;
        if self.depth > 20 {
            return Err("variables are nested too deep".to_owned());
        }
        let name = self.name();
        if name.is_empty() {
            return Err("syntax error: bad substitution".to_owned());
        }
        let result = self.modified(&name);
        self.depth -= 1;
        result
    }

    fn value(&self, name: &str) -> String {
        self.scope.get(name).unwrap_or_default().to_owned()
    }

    fn modified(&mut self, name: &str) -> Result<String, String> {
        let set = self.scope.get(name).is_some();
        let value = self.value(name);
        let modifier =
            self.next().ok_or_else(|| format!("syntax error: missing '}}' after ${{{name}"))?;
        match modifier {
            '}' => Ok(value),
            ':' => {
                let kind = self.next().unwrap_or('}');
                let word = self.word(Some('}'))?;
                choose(kind, name, set && !value.is_empty(), value, word)
            }
            '-' | '+' | '?' => {
                let word = self.word(Some('}'))?;
                choose(modifier, name, set, value, word)
            }
            '#' | '%' => {
                let greedy = self.peek() == Some(modifier);
                if greedy {
                    self.next();
                }
                let pattern = self.word(Some('}'))?;
                Ok(strip(&value, &pattern, modifier == '#', greedy))
            }
            '/' => {
                let all = self.peek() == Some('/');
                if all {
                    self.next();
                }
                let pattern = self.word(Some('/'))?;
                let replacement = self.word(Some('}'))?;
                let regex = glob(&pattern, true);
                let Ok(regex) = Regex::new(&regex) else { return Ok(value) };
                let plain = regex_lite::NoExpand(&replacement);
                Ok(if all {
                    regex.replace_all(&value, plain)
                } else {
                    regex.replace(&value, plain)
                }
                .into_owned())
            }
            other => Err(format!("unsupported modifier ({other}) in substitution of {name}")),
        }
    }
}

fn choose(
    kind: char,
    name: &str,
    set: bool,
    value: String,
    word: String,
) -> Result<String, String> {
    match (kind, set) {
        ('-', true) => Ok(value),
        ('-', false) | ('+', true) => Ok(word),
        ('+', false) => Ok(String::new()),
        ('?', true) => Ok(value),
        ('?', false) => Err(format!("{name}: {}", if word.is_empty() { "not set" } else { &word })),
        (other, _) => Err(format!("unsupported modifier (:{other}) in substitution of {name}")),
    }
}

/// A shell pattern as a regular expression.
fn glob(pattern: &str, greedy: bool) -> String {
    let mut regex = String::from("(?s)");
    for c in pattern.chars() {
        match c {
            '*' => regex.push_str(if greedy { ".*" } else { ".*?" }),
            '?' => regex.push('.'),
            c => regex.push_str(&regex_lite::escape(&c.to_string())),
        }
    }
    regex
}

fn strip(value: &str, pattern: &str, front: bool, greedy: bool) -> String {
    if front {
        let Ok(regex) = Regex::new(&glob(pattern, greedy).replace("(?s)", "(?s)^")) else {
            return value.to_owned();
        };
        return regex.replace(value, "").into_owned();
    }
    // The shortest match at the end begins last, the longest first.
    let Ok(regex) = Regex::new(&format!("{}$", glob(pattern, true).replace("(?s)", "(?s)^")))
    else {
        return value.to_owned();
    };
    let mut starts: Vec<usize> =
        value.char_indices().map(|(at, _)| at).chain([value.len()]).collect();
    if !greedy {
        starts.reverse();
    }
    let found = starts.into_iter().find(|&at| regex.is_match(&value[at..]));
    found.map_or(value, |at| &value[..at]).to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn scope() -> Scope {
        let mut scope = Scope::new('\\');
        scope.set("a", "foo.tar.gz");
        scope.set("empty", "");
        scope
    }

    #[test]
    fn modifiers_follow_the_shell() {
        for (word, want) in [
            ("$a", "foo.tar.gz"),
            ("x${a}y", "xfoo.tar.gzy"),
            ("'$a'", "$a"),
            ("\"$a\"", "foo.tar.gz"),
            ("\\$a", "$a"),
            ("${none:-d}", "d"),
            ("${empty:-d}", "d"),
            ("${empty-d}", ""),
            ("${a:+y}", "y"),
            ("${none+y}", ""),
            ("${a#*.}", "tar.gz"),
            ("${a##*.}", "gz"),
            ("${a%.*}", "foo.tar"),
            ("${a%%.*}", "foo"),
            ("${a/o/0}", "f0o.tar.gz"),
            ("${a//o/0}", "f00.tar.gz"),
            ("${none:-${a}}", "foo.tar.gz"),
            ("$", "$"),
            ("a b", "a b"),
        ] {
            assert_eq!(scope().expand(word).as_deref(), Ok(want), "{word}");
        }
        for word in ["${", "${a", "'x", "\"x", "${none:?needed}", "${a:z}"] {
            assert!(scope().expand(word).is_err(), "{word}");
        }
    }

    #[test]
    fn random_words_never_panic() {
        use rand::{Rng, SeedableRng};
        let mut rng = rand::rngs::StdRng::seed_from_u64(3);
        let alphabet: Vec<char> = "${}:-+?#%/'\"\\a*é ".chars().collect();
        for _ in 0..5_000 {
            let word: String = (0..rng.random_range(0..12))
                .map(|_| alphabet[rng.random_range(0..alphabet.len())])
                .collect();
            // Only the absence of a panic matters.
            let _ = scope().expand(&word);
        }
    }
}
