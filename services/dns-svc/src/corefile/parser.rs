//! Server blocks and directives, with snippets and imports resolved.

use std::collections::HashMap;
use std::path::Path;

use thiserror::Error;

use super::lexer::{Token, lex};

/// How deep imports may nest; a cycle ends here.
const MAX_IMPORTS: usize = 32;

/// Why a text is no Corefile. Shown as `FILE:LINE - reason`.
#[derive(Debug, Error, PartialEq, Eq)]
#[error("{file}:{line} - Error during parsing: {reason}")]
pub struct ParseError {
    /// File.
    pub file: String,
    /// Line, from 1.
    pub line: usize,
    /// What is wrong.
    pub reason: String,
}

impl ParseError {
    /// An error at a token.
    pub fn at(token: &Token, reason: impl Into<String>) -> Self {
        Self { file: token.file.clone(), line: token.line, reason: reason.into() }
    }
}

/// One line of a server block, with the block below it if there is one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Directive {
    /// Name of the plugin or option.
    pub name: Token,
    /// The words after it on the line.
    pub args: Vec<Token>,
    /// The lines between its braces.
    pub block: Vec<Directive>,
}

impl Directive {
    /// The arguments as text.
    pub fn words(&self) -> Vec<&str> {
        self.args.iter().map(|token| token.text.as_str()).collect()
    }

    /// An error at this directive.
    pub fn error(&self, reason: impl Into<String>) -> ParseError {
        ParseError::at(&self.name, reason)
    }
}

/// `KEY KEY ... { directives }`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ServerBlock {
    /// The keys as written.
    pub keys: Vec<Token>,
    /// The directives in file order.
    pub directives: Vec<Directive>,
}

/// Parses a Corefile. `dir` is where relative imports are looked up.
///
/// # Errors
/// The first error with its file and line.
pub fn parse(
    file: &str,
    text: &str,
    dir: &Path,
    env: &dyn Fn(&str) -> Option<String>,
) -> Result<Vec<ServerBlock>, ParseError> {
    let mut parser = Parser {
        tokens: lex(file, text, env),
        at: 0,
        snippets: HashMap::new(),
        dir,
        env,
        imports: 0,
    };
    let mut blocks = Vec::new();
    while parser.at < parser.tokens.len() {
        if let Some(block) = parser.server_block()? {
            blocks.push(block);
        }
    }
    Ok(blocks)
}

struct Parser<'a> {
    tokens: Vec<Token>,
    at: usize,
    snippets: HashMap<String, Vec<Token>>,
    dir: &'a Path,
    env: &'a dyn Fn(&str) -> Option<String>,
    imports: usize,
}

impl Parser<'_> {
    fn server_block(&mut self) -> Result<Option<ServerBlock>, ParseError> {
        if self.tokens[self.at].text == "import" && !self.tokens[self.at].quoted {
            self.import()?;
            return Ok(None);
        }
        let first = self.tokens[self.at].clone();
        if let Some(name) = first.text.strip_prefix('(').and_then(|t| t.strip_suffix(')')) {
            self.snippet(name.to_owned())?;
            return Ok(None);
        }
        let mut keys = Vec::new();
        loop {
            let Some(token) = self.tokens.get(self.at).cloned() else {
                return Err(ParseError::at(
                    &first,
                    "unexpected end of file: the server block has no body",
                ));
            };
            self.at += 1;
            if is_open(&token) {
                break;
            }
            let text = token.text.trim_end_matches(',').to_owned();
            if !text.is_empty() {
                keys.push(Token { text, ..token });
            }
        }
        if keys.is_empty() {
            return Err(ParseError::at(&first, "the server block names no zone"));
        }
        let directives = self.directives(&first)?;
        Ok(Some(ServerBlock { keys, directives }))
    }

    /// Directives up to the closing brace.
    fn directives(&mut self, opened: &Token) -> Result<Vec<Directive>, ParseError> {
        let mut list = Vec::new();
        loop {
            let Some(token) = self.tokens.get(self.at).cloned() else {
                return Err(ParseError::at(
                    opened,
                    "unexpected end of file: a closing brace is missing",
                ));
            };
            if is_close(&token) {
                self.at += 1;
                return Ok(list);
            }
            if token.text == "import" && !token.quoted {
                self.import()?;
                continue;
            }
            list.push(self.directive()?);
        }
    }

    fn directive(&mut self) -> Result<Directive, ParseError> {
        let name = self.tokens[self.at].clone();
        if is_open(&name) {
            return Err(ParseError::at(&name, "a brace stands where a directive is expected"));
        }
        self.at += 1;
        let mut directive = Directive { name: name.clone(), args: Vec::new(), block: Vec::new() };
        while let Some(token) = self.tokens.get(self.at).cloned() {
            if token.line != name.line || token.file != name.file || is_close(&token) {
                break;
            }
            self.at += 1;
            if is_open(&token) {
                directive.block = self.directives(&token)?;
                break;
            }
            directive.args.push(token);
        }
        Ok(directive)
    }

    fn snippet(&mut self, name: String) -> Result<(), ParseError> {
        let start = self.tokens[self.at].clone();
        self.at += 1;
        if !self.tokens.get(self.at).is_some_and(is_open) {
            return Err(ParseError::at(&start, format!("snippet {name:?} has no body")));
        }
        self.at += 1;
        let (from, mut depth) = (self.at, 1);
        while let Some(token) = self.tokens.get(self.at) {
            depth += i32::from(is_open(token)) - i32::from(is_close(token));
            self.at += 1;
            if depth == 0 {
                let body = self.tokens[from..self.at - 1].to_vec();
                if self.snippets.insert(name.clone(), body).is_some() {
                    return Err(ParseError::at(
                        &start,
                        format!("redeclaration of previously declared snippet {name}"),
                    ));
                }
                return Ok(());
            }
        }
        Err(ParseError::at(&start, "unexpected end of file: a closing brace is missing"))
    }

    /// Replaces `import NAME ARGS...` by the snippet or the files it names.
    fn import(&mut self) -> Result<(), ParseError> {
        let start = self.tokens[self.at].clone();
        self.imports += 1;
        if self.imports > MAX_IMPORTS {
            return Err(ParseError::at(&start, "imports nest too deep; is there a cycle?"));
        }
        let from = self.at;
        self.at += 1;
        let mut args = Vec::new();
        while let Some(token) = self.tokens.get(self.at) {
            if token.line != start.line || token.file != start.file || is_close(token) {
                break;
            }
            args.push(token.text.clone());
            self.at += 1;
        }
        let Some(pattern) = args.first().cloned() else {
            return Err(ParseError::at(&start, "import needs the name of a snippet or file"));
        };
        let body = match self.snippets.get(&pattern) {
            Some(body) => body.clone(),
            None => self.files(&start, &pattern)?,
        };
        let body = body.into_iter().map(|mut token| {
            for (index, value) in args[1..].iter().enumerate() {
                token.text = token.text.replace(&format!("{{args[{index}]}}"), value);
                token.text = token.text.replace(&format!("{{args.{index}}}"), value);
            }
            token
        });
        self.tokens.splice(from..self.at, body);
        self.at = from;
        Ok(())
    }

    fn files(&self, start: &Token, pattern: &str) -> Result<Vec<Token>, ParseError> {
        let path = self.dir.join(pattern);
        let (dir, name) = (
            path.parent().unwrap_or(self.dir),
            path.file_name().unwrap_or_default().to_string_lossy(),
        );
        let mut matching = Vec::new();
        if let Some((before, after)) = name.split_once('*') {
            for entry in std::fs::read_dir(dir).into_iter().flatten().flatten() {
                let found = entry.file_name().to_string_lossy().into_owned();
                if found.starts_with(before)
                    && found[before.len().min(found.len())..].ends_with(after)
                {
                    matching.push(entry.path());
                }
            }
            matching.sort();
        } else {
            matching.push(path.clone());
        }
        let mut tokens = Vec::new();
        for file in matching {
            let text = std::fs::read_to_string(&file).map_err(|error| {
                ParseError::at(start, format!("cannot import {}: {error}", file.display()))
            })?;
            tokens.extend(lex(&file.display().to_string(), &text, self.env));
        }
        Ok(tokens)
    }
}

fn is_open(token: &Token) -> bool {
    token.text == "{" && !token.quoted
}

fn is_close(token: &Token) -> bool {
    token.text == "}" && !token.quoted
}

#[cfg(test)]
mod tests {
    use super::*;

    fn blocks(text: &str) -> Result<Vec<ServerBlock>, ParseError> {
        parse("Corefile", text, Path::new("/nonexistent"), &|_| None)
    }

    #[test]
    fn nested_blocks_and_snippets() {
        let text = "(common) {\n errors\n log {args[0]}\n}\n. example.org:53 {\n import common stdout\n kubernetes a b {\n  ttl 5\n }\n}\n";
        let parsed = blocks(text).unwrap();
        assert_eq!(parsed.len(), 1);
        assert_eq!(parsed[0].keys.len(), 2);
        let names: Vec<_> = parsed[0].directives.iter().map(|d| d.name.text.as_str()).collect();
        assert_eq!(names, ["errors", "log", "kubernetes"]);
        assert_eq!(parsed[0].directives[1].words(), ["stdout"]);
        assert_eq!(parsed[0].directives[2].block[0].words(), ["5"]);
    }

    #[test]
    fn errors_name_the_line() {
        for (text, line) in
            [(". {\n errors", 1), (".", 1), (". {\n import nowhere\n}", 2), ("{\n}\n", 1)]
        {
            let error = blocks(text).unwrap_err();
            assert_eq!(error.line, line, "{text:?}: {error}");
        }
    }

    #[test]
    fn import_cycle_ends() {
        assert!(
            blocks("(a) {\n import a\n}\n. {\n import a\n}").unwrap_err().reason.contains("cycle")
        );
    }

    #[test]
    fn mutated_corefiles_never_panic() {
        let seed = ". {\n errors\n cache 30 {\n  success 5\n }\n}\n(x) {\n log\n}\nimport x\n";
        let mut state = 7_u64;
        for _ in 0..20_000 {
            let mut bytes = seed.as_bytes().to_vec();
            for _ in 0..4 {
                state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
                let at = (state >> 33) as usize % bytes.len();
                bytes[at] = b"{}()\"# \nimport\\"[(state >> 20) as usize % 15];
            }
            let _ = blocks(&String::from_utf8_lossy(&bytes));
        }
    }
}
