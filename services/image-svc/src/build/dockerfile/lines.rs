//! Logical lines: comments dropped, continuations joined, parser directives read.

use super::DockerfileError;

/// A Dockerfile larger than this is none.
const MAX_SIZE: usize = 1 << 20;

/// One instruction's text.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Line {
    pub(super) number: usize,
    pub(super) text: String,
}

/// The lines of a Dockerfile and its escape character.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Lines {
    pub(super) lines: Vec<Line>,
    pub(super) escape: char,
}

pub(super) fn split(bytes: &[u8]) -> Result<Lines, DockerfileError> {
    let fail = |line, reason: &str| Err(DockerfileError::new(line, reason));
    if bytes.len() > MAX_SIZE {
        return fail(1, "the file is larger than 1 MiB");
    }
    let bytes = bytes.strip_prefix(b"\xef\xbb\xbf").unwrap_or(bytes);
    let Ok(text) = std::str::from_utf8(bytes) else { return fail(1, "the file is no UTF-8 text") };
    let raw: Vec<&str> = text.split('\n').map(|line| line.trim_end_matches('\r')).collect();
    let (escape, start) = directives(&raw)?;
    let mut lines = Vec::new();
    let mut open: Option<Line> = None;
    for (index, line) in raw.iter().enumerate().skip(start) {
        let trimmed = line.trim_start();
        if trimmed.starts_with('#') || trimmed.is_empty() {
            continue;
        }
        let (content, more) = continued(if open.is_some() { line } else { trimmed }, escape);
        match &mut open {
            Some(line) => line.text.push_str(content),
            None => open = Some(Line { number: index + 1, text: content.to_owned() }),
        }
        if !more {
            lines.extend(open.take());
        }
    }
    lines.extend(open);
    for line in &mut lines {
        line.text = line.text.trim().to_owned();
    }
    lines.retain(|line| !line.text.is_empty());
    Ok(Lines { lines, escape })
}

/// Splits off a trailing escape character, which joins the next line.
fn continued(line: &str, escape: char) -> (&str, bool) {
    let trimmed = line.trim_end_matches([' ', '\t']);
    let Some(content) = trimmed.strip_suffix(escape) else { return (line, false) };
    // A doubled escape character stands for itself.
    if content.ends_with(escape) { (line, false) } else { (content, true) }
}

/// Reads `# escape=` and its siblings, which only count before anything else.
fn directives(raw: &[&str]) -> Result<(char, usize), DockerfileError> {
    let mut escape = '\\';
    let mut seen = Vec::new();
    for (index, line) in raw.iter().enumerate() {
        let pair = line.trim().strip_prefix('#').and_then(|rest| rest.split_once('='));
        let Some((name, value)) = pair else { return Ok((escape, index)) };
        let (name, value) = (name.trim().to_ascii_lowercase(), value.trim());
        if !matches!(name.as_str(), "syntax" | "escape" | "check") {
            return Ok((escape, index));
        }
        if seen.contains(&name) {
            return Err(DockerfileError::new(
                index + 1,
                format!("only one {name} parser directive can be used"),
            ));
        }
        if name == "escape" {
            escape = match value {
                "\\" => '\\',
                "`" => '`',
                other => {
                    let reason = format!("invalid escape token {other:?} does not match ` or \\");
                    return Err(DockerfileError::new(index + 1, reason));
                }
            };
        }
        seen.push(name);
    }
    Ok((escape, raw.len()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn texts(text: &str) -> Vec<(usize, String)> {
        split(text.as_bytes())
            .unwrap()
            .lines
            .into_iter()
            .map(|line| (line.number, line.text))
            .collect()
    }

    #[test]
    fn continuations_and_comments_are_joined() {
        let text = "# a comment\nFROM x\n\nRUN a \\\n  # inside\n\n  b \\\r\n  c\nCMD z\\\\\n";
        assert_eq!(
            texts(text),
            [(2, "FROM x".into()), (4, "RUN a   b   c".into()), (9, "CMD z\\\\".into())]
        );
    }

    #[test]
    fn escape_directive_counts_only_first() {
        let lines = split(b"# escape=`\nFROM x\nCOPY a `\n b").unwrap();
        assert_eq!((lines.escape, lines.lines.len()), ('`', 2));
        assert_eq!(split(b"#\n# escape=`\nFROM x").unwrap().escape, '\\');
        assert!(split(b"# escape=x\nFROM y").is_err());
        assert!(split(&[0xff, 0xfe]).is_err());
    }
}
