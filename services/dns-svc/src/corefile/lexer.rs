//! Words with their place.

/// One word of a Corefile.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Token {
    /// The word without its quotes.
    pub text: String,
    /// File it stands in.
    pub file: String,
    /// Line, from 1.
    pub line: usize,
    /// Whether it was quoted: a quoted brace is no brace.
    pub quoted: bool,
}

/// Splits text into words; `{$NAME}` and `{%NAME%}` are replaced by what `env` says first.
pub fn lex(file: &str, text: &str, env: &dyn Fn(&str) -> Option<String>) -> Vec<Token> {
    let mut tokens = Vec::new();
    let mut lexer = Lexer { chars: text.chars().peekable(), line: 1 };
    while let Some((text, line, quoted)) = lexer.next_word() {
        let text = if quoted { text } else { expand(&text, env) };
        tokens.push(Token { text, file: file.to_owned(), line, quoted });
    }
    tokens
}

struct Lexer<'a> {
    chars: std::iter::Peekable<std::str::Chars<'a>>,
    line: usize,
}

impl Lexer<'_> {
    fn next_word(&mut self) -> Option<(String, usize, bool)> {
        loop {
            match self.chars.peek()? {
                '\n' => self.line += 1,
                '#' => {
                    while self.chars.peek().is_some_and(|c| *c != '\n') {
                        self.chars.next();
                    }
                    continue;
                }
                '\u{feff}' => {}
                c if c.is_whitespace() => {}
                '"' => return Some(self.quoted()),
                _ => return Some(self.bare()),
            }
            self.chars.next();
        }
    }

    fn quoted(&mut self) -> (String, usize, bool) {
        let (mut text, line) = (String::new(), self.line);
        self.chars.next();
        while let Some(c) = self.chars.next() {
            match c {
                '"' => break,
                '\\' if self.chars.peek() == Some(&'"') => {
                    self.chars.next();
                    text.push('"');
                }
                _ => {
                    self.line += usize::from(c == '\n');
                    text.push(c);
                }
            }
        }
        (text, line, true)
    }

    fn bare(&mut self) -> (String, usize, bool) {
        let mut text = String::new();
        while let Some(c) = self.chars.next_if(|c| !c.is_whitespace()) {
            text.push(c);
        }
        (text, self.line, false)
    }
}

fn expand(text: &str, env: &dyn Fn(&str) -> Option<String>) -> String {
    let mut text = text.to_owned();
    for (open, close) in [("{$", "}"), ("{%", "%}")] {
        while let Some(start) = text.find(open) {
            let Some(length) = text[start..].find(close) else { break };
            let name = &text[start + open.len()..start + length];
            let value = env(name).unwrap_or_default();
            text.replace_range(start..start + length + close.len(), &value);
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    fn words(text: &str) -> Vec<String> {
        lex("f", text, &|name| (name == "PORT").then(|| "53".to_owned()))
            .into_iter()
            .map(|t| t.text)
            .collect()
    }

    #[test]
    fn quotes_comments_and_environment() {
        assert_eq!(words("a \"b c\" # d\n.:{$PORT} {%PORT%}"), ["a", "b c", ".:53", "53"]);
        assert_eq!(words("{$NONE}x \"\\\"\""), ["x", "\""]);
    }

    #[test]
    fn lines_are_counted() {
        let tokens = lex("f", "a\n\"b\nc\" d\ne", &|_| None);
        assert_eq!(tokens.iter().map(|t| t.line).collect::<Vec<_>>(), [1, 2, 3, 4]);
    }
}
