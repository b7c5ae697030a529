//! Splits an expression into tokens.

use metrics_model::{parse_go_float, parse_millis};

use crate::error::ParseError;

/// A token.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Token {
    Ident(String),
    Number(f64),
    /// Milliseconds.
    Duration(i64),
    Text(String),
    /// Operators and punctuation.
    Sign(&'static str),
    End,
}

impl Token {
    /// How error texts call it.
    pub(crate) fn described(&self) -> String {
        match self {
            Self::Ident(name) => format!("identifier {name:?}"),
            Self::Number(number) => format!("number \"{number}\""),
            Self::Duration(millis) => {
                format!("duration \"{}\"", metrics_model::format_millis(*millis))
            }
            Self::Text(text) => format!("string {text:?}"),
            Self::Sign(sign) => match *sign {
                "(" | ")" | "{" | "}" | "[" | "]" | "," | ":" | "@" => format!("{sign:?}"),
                _ => format!("<op:{sign}>"),
            },
            Self::End => "end of input".to_owned(),
        }
    }
}

const SIGNS: &[&str] = &[
    "==", "!=", "<=", ">=", "=~", "!~", "+", "-", "*", "/", "%", "^", "<", ">", "=", "(", ")", "{",
    "}", "[", "]", ",", ":", "@",
];

/// Tokens with their byte offsets; the last is [`Token::End`].
pub(crate) fn lex(text: &str) -> Result<Vec<(Token, usize)>, ParseError> {
    let mut tokens = Vec::new();
    let mut at = 0;
    let mut in_brackets = false;
    while let Some(c) = text[at..].chars().next() {
        let rest = &text[at..];
        if c.is_whitespace() {
            at += c.len_utf8();
        } else if c == '#' {
            at += rest.find('\n').unwrap_or(rest.len());
        } else if matches!(c, '"' | '\'' | '`') {
            let (token, len) =
                quoted(rest, c).map_err(|reason| ParseError::at(text, at, reason))?;
            tokens.push((Token::Text(token), at));
            at += len;
        } else if c.is_ascii_digit()
            || (c == '.' && rest[1..].starts_with(|d: char| d.is_ascii_digit()))
        {
            let (token, len) = number(rest).map_err(|reason| ParseError::at(text, at, reason))?;
            tokens.push((token, at));
            at += len;
        } else if c.is_ascii_alphabetic() || c == '_' || (c == ':' && !in_brackets) {
            let len = rest
                .find(|d: char| !d.is_ascii_alphanumeric() && d != '_' && d != ':')
                .unwrap_or(rest.len());
            tokens.push((Token::Ident(rest[..len].to_owned()), at));
            at += len;
        } else if let Some(sign) = SIGNS.iter().find(|sign| rest.starts_with(**sign)) {
            in_brackets = match *sign {
                "[" => true,
                "]" => false,
                _ => in_brackets,
            };
            tokens.push((Token::Sign(sign), at));
            at += sign.len();
        } else {
            return Err(ParseError::at(text, at, format!("unexpected character: {c:?}")));
        }
    }
    tokens.push((Token::End, at));
    Ok(tokens)
}

fn number(rest: &str) -> Result<(Token, usize), String> {
    let bytes = rest.as_bytes();
    let digits = |from: usize, hex: bool| {
        let ok = |b: &u8| if hex { b.is_ascii_hexdigit() } else { b.is_ascii_digit() };
        from + bytes[from.min(bytes.len())..].iter().take_while(|b| ok(b)).count()
    };
    if rest.starts_with("0x") || rest.starts_with("0X") {
        let end = digits(2, true);
        let value = parse_go_float(&rest[..end])
            .ok_or_else(|| format!("bad number or duration syntax: {:?}", &rest[..end]))?;
        return after_number(rest, end, Token::Number(value));
    }
    let mut end = digits(0, false);
    let whole = end;
    if bytes.get(end) == Some(&b'.') {
        end = digits(end + 1, false);
    }
    if matches!(bytes.get(end), Some(b'e' | b'E')) {
        let sign = usize::from(matches!(bytes.get(end + 1), Some(b'+' | b'-')));
        let exponent = digits(end + 1 + sign, false);
        if exponent > end + 1 + sign {
            end = exponent;
        }
    }
    if end == whole && bytes.get(end).is_some_and(u8::is_ascii_alphabetic) {
        let len = rest.find(|c: char| !c.is_ascii_alphanumeric()).unwrap_or(rest.len());
        let millis = parse_millis(&rest[..len])
            .map_err(|_| format!("bad number or duration syntax: {:?}", &rest[..len]))?;
        return after_number(rest, len, Token::Duration(millis));
    }
    let value = rest[..end]
        .parse()
        .map_err(|_| format!("bad number or duration syntax: {:?}", &rest[..end]))?;
    after_number(rest, end, Token::Number(value))
}

fn after_number(rest: &str, end: usize, token: Token) -> Result<(Token, usize), String> {
    let bad = |c: char| c.is_alphanumeric() || c == '_' || c == '.';
    if rest[end..].starts_with(bad) {
        let len = rest.find(|c: char| !bad(c)).unwrap_or(rest.len());
        return Err(format!("bad number or duration syntax: {:?}", &rest[..len]));
    }
    Ok((token, end))
}

fn quoted(rest: &str, quote: char) -> Result<(String, usize), String> {
    let body = &rest[1..];
    if quote == '`' {
        let end = body.find('`').ok_or("unterminated raw string")?;
        return Ok((body[..end].to_owned(), end + 2));
    }
    let mut out: Vec<u8> = Vec::new();
    let mut at = 0;
    loop {
        let c =
            body[at..].chars().next().filter(|c| *c != '\n').ok_or("unterminated quoted string")?;
        at += c.len_utf8();
        if c == quote {
            let text = String::from_utf8(out).map_err(|_| "invalid UTF-8 in string")?;
            return Ok((text, at + 1));
        }
        if c != '\\' {
            out.extend_from_slice(c.encode_utf8(&mut [0; 4]).as_bytes());
            continue;
        }
        at += escape(&body[at..], quote, &mut out).ok_or("unknown escape sequence")?;
    }
}

/// Decodes what follows a backslash; answers how many bytes it took.
fn escape(rest: &str, quote: char, out: &mut Vec<u8>) -> Option<usize> {
    let c = rest.chars().next()?;
    let simple = match c {
        'a' => 7,
        'b' => 8,
        'f' => 12,
        'n' => b'\n',
        'r' => b'\r',
        't' => b'\t',
        'v' => 11,
        '\\' => b'\\',
        _ if c == quote => c as u8,
        '0'..='7' => {
            out.push(u8::try_from(u32::from_str_radix(rest.get(..3)?, 8).ok()?).ok()?);
            return Some(3);
        }
        'x' | 'u' | 'U' => {
            let len = match c {
                'x' => 2,
                'u' => 4,
                _ => 8,
            };
            let code = u32::from_str_radix(rest.get(1..=len)?, 16).ok()?;
            if c == 'x' {
                out.push(code as u8);
            } else {
                out.extend_from_slice(char::from_u32(code)?.encode_utf8(&mut [0; 4]).as_bytes());
            }
            return Some(len + 1);
        }
        _ => return None,
    };
    out.push(simple);
    Some(1)
}
