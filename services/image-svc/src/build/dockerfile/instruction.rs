//! Typed instructions.

use super::DockerfileError;
use super::lines::{self, Line};

/// Command in exec (JSON) or shell form.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Form {
    /// `["a", "b"]`
    Exec(Vec<String>),
    /// Text for the shell.
    Shell(String),
}

/// COPY or ADD.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Copy {
    /// Whether it is ADD.
    pub add: bool,
    /// `--from`.
    pub from: Option<String>,
    /// `--chown`.
    pub chown: Option<String>,
    /// `--chmod`.
    pub chmod: Option<String>,
    /// What to copy.
    pub sources: Vec<String>,
    /// Where to.
    pub dest: String,
}

/// HEALTHCHECK; durations in nanoseconds, 0 for the default.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Healthcheck {
    /// `NONE`, `CMD` or `CMD-SHELL` and what follows.
    pub test: Vec<String>,
    /// `--interval`.
    pub interval: u64,
    /// `--timeout`.
    pub timeout: u64,
    /// `--start-period`.
    pub start_period: u64,
    /// `--start-interval`.
    pub start_interval: u64,
    /// `--retries`.
    pub retries: u64,
}

/// What an instruction does. Texts are as written, not expanded.
#[derive(Debug, Clone, PartialEq, Eq)]
#[allow(missing_docs, reason = "named after the instructions")]
pub enum Op {
    From { image: String, alias: Option<String>, platform: Option<String> },
    Arg(Vec<(String, Option<String>)>),
    Env(Vec<(String, String)>),
    Label(Vec<(String, String)>),
    Copy(Copy),
    Workdir(String),
    User(String),
    Expose(Vec<String>),
    Volume(Vec<String>),
    Entrypoint(Form),
    Cmd(Form),
    Stopsignal(String),
    Shell(Vec<String>),
    Healthcheck(Healthcheck),
    Maintainer(String),
}

/// An instruction and where it stands.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Instruction {
    /// Line, from 1.
    pub line: usize,
    /// As written, continuations joined.
    pub text: String,
    /// What it does.
    pub op: Op,
}

/// Reads a Dockerfile. Also returns its escape character.
///
/// # Errors
/// Names the line and what to write instead.
pub fn parse(bytes: &[u8]) -> Result<(Vec<Instruction>, char), DockerfileError> {
    let lines = lines::split(bytes)?;
    let escape = lines.escape;
    let parsed: Vec<Instruction> =
        lines.lines.iter().map(|line| instruction(line, escape)).collect::<Result<_, _>>()?;
    let Some(first) = parsed.iter().find(|i| !matches!(i.op, Op::Arg(_))) else {
        return Err(DockerfileError::new(1, "file with no instructions; begin with FROM"));
    };
    if !matches!(first.op, Op::From { .. }) {
        return Err(DockerfileError::new(
            first.line,
            "no build stage in current context; begin with FROM",
        ));
    }
    Ok((parsed, escape))
}

struct Parts<'a> {
    name: String,
    flags: Vec<(String, Option<String>)>,
    rest: &'a str,
    escape: char,
}

fn instruction(line: &Line, escape: char) -> Result<Instruction, DockerfileError> {
    let fail = |reason: String| DockerfileError::new(line.number, reason);
    let (name, rest) =
        line.text.split_once(char::is_whitespace).unwrap_or((line.text.as_str(), ""));
    let (flags, rest) = flags(rest.trim());
    let parts = Parts { name: name.to_ascii_uppercase(), flags, rest, escape };
    let op = op(&parts).map_err(fail)?;
    Ok(Instruction { line: line.number, text: line.text.clone(), op })
}

fn flags(mut rest: &str) -> (Vec<(String, Option<String>)>, &str) {
    let mut flags = Vec::new();
    while let Some(tail) = rest.strip_prefix("--") {
        let end = tail.find(char::is_whitespace).unwrap_or(tail.len());
        let (flag, after) = tail.split_at(end);
        rest = after.trim_start();
        if flag.is_empty() {
            break;
        }
        let (name, value) =
            flag.split_once('=').map_or((flag, None), |(n, v)| (n, Some(v.to_owned())));
        flags.push((name.to_owned(), value));
    }
    (flags, rest)
}

fn op(parts: &Parts<'_>) -> Result<Op, String> {
    let name = parts.name.as_str();
    let known = ["FROM", "COPY", "ADD", "HEALTHCHECK"];
    if let Some((flag, _)) = parts.flags.first().filter(|_| !known.contains(&name)) {
        // Shell text may begin with dashes, flags may not.
        if name != "RUN" && !matches!(name, "CMD" | "ENTRYPOINT" | "MAINTAINER") {
            return Err(format!("unknown flag: --{flag}; {name} takes none"));
        }
    }
    if parts.rest.is_empty() && !matches!(name, "CMD" | "ENTRYPOINT" | "RUN" | "HEALTHCHECK") {
        return Err(format!("{name} requires at least one argument"));
    }
    match name {
        "FROM" => from(parts),
        "ARG" => arg(parts),
        "ENV" => pairs(parts).map(Op::Env),
        "LABEL" => pairs(parts).map(Op::Label),
        "COPY" | "ADD" => copy(parts).map(Op::Copy),
        "WORKDIR" => Ok(Op::Workdir(parts.rest.to_owned())),
        "USER" => Ok(Op::User(parts.rest.to_owned())),
        "EXPOSE" => Ok(Op::Expose(parts.rest.split_whitespace().map(str::to_owned).collect())),
        "VOLUME" => Ok(Op::Volume(list(parts.rest))),
        "ENTRYPOINT" => Ok(Op::Entrypoint(form(parts))),
        "CMD" => Ok(Op::Cmd(form(parts))),
        "STOPSIGNAL" => Ok(Op::Stopsignal(parts.rest.to_owned())),
        "SHELL" => match json(parts.rest) {
            Some(words) if !words.is_empty() => Ok(Op::Shell(words)),
            _ => {
                Err("SHELL requires the arguments to be in JSON form: SHELL [\"/bin/sh\", \"-c\"]"
                    .to_owned())
            }
        },
        "HEALTHCHECK" => healthcheck(parts),
        "MAINTAINER" => Ok(Op::Maintainer(parts.rest.to_owned())),
        "RUN" | "ONBUILD" => Err(format!("not supported yet: {name}")),
        other => Err(format!("unknown instruction: {other}{}", suggestion(other))),
    }
}

const NAMES: [&str; 18] = [
    "ADD",
    "ARG",
    "CMD",
    "COPY",
    "ENTRYPOINT",
    "ENV",
    "EXPOSE",
    "FROM",
    "HEALTHCHECK",
    "LABEL",
    "MAINTAINER",
    "ONBUILD",
    "RUN",
    "SHELL",
    "STOPSIGNAL",
    "USER",
    "VOLUME",
    "WORKDIR",
];

/// The instruction that differs least from what was written.
fn suggestion(written: &str) -> String {
    let near = NAMES.iter().map(|name| (distance(written, name), name)).min();
    near.filter(|(distance, _)| *distance <= 2)
        .map(|(_, name)| format!(" (did you mean {name}?)"))
        .unwrap_or_default()
}

fn distance(a: &str, b: &str) -> usize {
    let b: Vec<char> = b.chars().collect();
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, x) in a.chars().enumerate() {
        let mut diagonal = std::mem::replace(&mut row[0], i + 1);
        for (j, y) in b.iter().enumerate() {
            let cost = diagonal + usize::from(x != *y);
            diagonal = row[j + 1];
            row[j + 1] = cost.min(row[j] + 1).min(diagonal + 1);
        }
    }
    row[b.len()]
}

fn from(parts: &Parts<'_>) -> Result<Op, String> {
    let mut platform = None;
    for (flag, value) in &parts.flags {
        match (flag.as_str(), value) {
            ("platform", Some(value)) => platform = Some(value.clone()),
            (flag, _) => {
                return Err(format!("unknown flag: --{flag}; FROM takes --platform=OS/ARCH"));
            }
        }
    }
    let words: Vec<&str> = parts.rest.split_whitespace().collect();
    match words.as_slice() {
        [image] => Ok(Op::From { image: (*image).to_owned(), alias: None, platform }),
        [image, word, alias] if word.eq_ignore_ascii_case("as") => {
            let alias = alias.to_ascii_lowercase();
            let valid = alias.starts_with(|c: char| c.is_ascii_lowercase())
                && alias.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.'));
            if !valid {
                return Err(format!(
                    "invalid name for build stage: {alias:?}; begin with a letter"
                ));
            }
            Ok(Op::From { image: (*image).to_owned(), alias: Some(alias), platform })
        }
        _ => Err("FROM requires either one or three arguments: FROM IMAGE [AS NAME]".to_owned()),
    }
}

fn arg(parts: &Parts<'_>) -> Result<Op, String> {
    let mut args = Vec::new();
    for word in split_words(parts.rest, parts.escape)? {
        let (name, default) =
            word.split_once('=').map_or((word.as_str(), None), |(n, d)| (n, Some(d.to_owned())));
        if name.is_empty() {
            return Err("ARG names cannot be blank: ARG NAME[=DEFAULT]".to_owned());
        }
        args.push((name.to_owned(), default));
    }
    Ok(Op::Arg(args))
}

/// `a=b c="d e"`, or the old `a b c`.
fn pairs(parts: &Parts<'_>) -> Result<Vec<(String, String)>, String> {
    let words = split_words(parts.rest, parts.escape)?;
    let first = words.first().map(String::as_str).unwrap_or_default();
    if !first.contains('=') {
        let (name, value) = parts.rest.split_once(char::is_whitespace).ok_or_else(|| {
            format!("{} must have two arguments: {} NAME=VALUE", parts.name, parts.name)
        })?;
        return Ok(vec![(name.to_owned(), value.trim().to_owned())]);
    }
    let mut pairs = Vec::new();
    for word in &words {
        let Some((name, value)) = word.split_once('=') else {
            return Err(format!(
                "syntax error - can't find = in {word:?}. Must be of the form: name=value"
            ));
        };
        if name.is_empty() {
            return Err(format!("{} names can not be blank", parts.name));
        }
        pairs.push((name.to_owned(), value.to_owned()));
    }
    Ok(pairs)
}

/// Splits at blanks outside quotes; quotes and escapes stay, for the expansion to take off.
fn split_words(text: &str, escape: char) -> Result<Vec<String>, String> {
    let (mut words, mut word, mut quote) = (Vec::new(), String::new(), None);
    let mut chars = text.chars();
    while let Some(c) = chars.next() {
        match quote {
            None if c.is_whitespace() => {
                if !word.is_empty() {
                    words.push(std::mem::take(&mut word));
                }
                continue;
            }
            None if matches!(c, '"' | '\'') => quote = Some(c),
            Some(open) if c == open => quote = None,
            _ => {}
        }
        word.push(c);
        if c == escape && quote != Some('\'') {
            word.extend(chars.next());
        }
    }
    if let Some(open) = quote {
        return Err(format!("a quote ({open}) is not closed"));
    }
    words.extend((!word.is_empty()).then_some(word));
    Ok(words)
}

fn copy(parts: &Parts<'_>) -> Result<Copy, String> {
    let mut copy = Copy { add: parts.name == "ADD", ..Copy::default() };
    for (flag, value) in &parts.flags {
        let value = || value.clone().ok_or_else(|| format!("missing a value on flag: --{flag}"));
        match flag.as_str() {
            "from" if !copy.add => copy.from = Some(value()?),
            "chown" => copy.chown = Some(value()?),
            "chmod" => copy.chmod = Some(value()?),
            "link" | "parents" | "exclude" | "checksum" | "keep-git-dir" | "unpack" => {
                return Err(format!("not supported yet: {} --{flag}", parts.name));
            }
            other => {
                return Err(format!(
                    "unknown flag: --{other}; {} takes --chown and --chmod",
                    parts.name
                ));
            }
        }
    }
    if parts.rest.split_whitespace().any(|word| word.starts_with("<<")) {
        return Err(format!("not supported yet: {} with a here-document", parts.name));
    }
    let mut words = list(parts.rest);
    if words.len() < 2 {
        return Err(format!(
            "{name} requires at least two arguments: {name} SOURCE DESTINATION",
            name = parts.name
        ));
    }
    copy.dest = words.pop().unwrap_or_default();
    copy.sources = words;
    Ok(copy)
}

fn json(text: &str) -> Option<Vec<String>> {
    text.starts_with('[').then(|| serde_json::from_str(text).ok()).flatten()
}

fn list(text: &str) -> Vec<String> {
    json(text).unwrap_or_else(|| text.split_whitespace().map(str::to_owned).collect())
}

fn form(parts: &Parts<'_>) -> Form {
    // Flags were split off for all instructions alike; commands have none, so they belong to the text.
    let dashes: String = parts
        .flags
        .iter()
        .map(|(name, value)| {
            value.as_ref().map_or(format!("--{name} "), |value| format!("--{name}={value} "))
        })
        .collect();
    let text = format!("{dashes}{}", parts.rest);
    json(&text).map_or(Form::Shell(text), Form::Exec)
}

fn healthcheck(parts: &Parts<'_>) -> Result<Op, String> {
    let mut check = Healthcheck::default();
    for (flag, value) in &parts.flags {
        let text = value.as_deref().ok_or_else(|| format!("missing a value on flag: --{flag}"))?;
        let nanos = || -> Result<u64, String> {
            let duration = flotilla_config::parse_duration(text)
                .map_err(|error| format!("--{flag}: {error}"))?;
            Ok(u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX))
        };
        match flag.as_str() {
            "interval" => check.interval = nanos()?,
            "timeout" => check.timeout = nanos()?,
            "start-period" => check.start_period = nanos()?,
            "start-interval" => check.start_interval = nanos()?,
            "retries" => {
                check.retries =
                    text.parse().map_err(|_| format!("--retries: {text:?} is no number"))?
            }
            other => return Err(format!("unknown flag: --{other}")),
        }
    }
    let (kind, rest) = parts.rest.split_once(char::is_whitespace).unwrap_or((parts.rest, ""));
    match kind.to_ascii_uppercase().as_str() {
        "NONE" if rest.is_empty() => check.test = vec!["NONE".to_owned()],
        "CMD" if !rest.trim().is_empty() => {
            check.test = match json(rest.trim()) {
                Some(words) => std::iter::once("CMD".to_owned()).chain(words).collect(),
                None => vec!["CMD-SHELL".to_owned(), rest.trim().to_owned()],
            };
        }
        _ => return Err("HEALTHCHECK takes CMD and a command, or NONE".to_owned()),
    }
    Ok(Op::Healthcheck(check))
}

impl Form {
    /// The argument vector; shell text goes to `shell`.
    pub fn argv(&self, shell: &[String]) -> Vec<String> {
        match self {
            Self::Exec(words) => words.clone(),
            Self::Shell(text) => shell.iter().cloned().chain([text.clone()]).collect(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn one(text: &str) -> Op {
        parse(format!("FROM x\n{text}\n").as_bytes()).unwrap().0.pop().unwrap().op
    }

    fn error(text: &str) -> DockerfileError {
        parse(format!("FROM x\n\n{text}\n").as_bytes()).unwrap_err()
    }

    #[test]
    fn instructions_are_typed() {
        let from =
            parse(b"ARG V=1\nfrom --platform=linux/amd64 a:$V As Base").unwrap().0.pop().unwrap();
        let want = Op::From {
            image: "a:$V".into(),
            alias: Some("base".into()),
            platform: Some("linux/amd64".into()),
        };
        assert_eq!((from.line, from.op), (2, want));
        assert_eq!(
            one("ENV a=b c=\"d e\""),
            Op::Env(vec![("a".into(), "b".into()), ("c".into(), "\"d e\"".into())])
        );
        assert_eq!(one("ENV a b c"), Op::Env(vec![("a".into(), "b c".into())]));
        assert_eq!(one("CMD echo $x"), Op::Cmd(Form::Shell("echo $x".into())));
        assert_eq!(one("CMD [\"a\",\"b\"]"), Op::Cmd(Form::Exec(vec!["a".into(), "b".into()])));
        assert_eq!(one("CMD [a]"), Op::Cmd(Form::Shell("[a]".into())));
        let Op::Copy(copy) = one("COPY --from=b --chown=1:2 a c /d/") else { panic!("no COPY") };
        assert_eq!(
            (copy.from.as_deref(), copy.sources.len(), copy.dest.as_str()),
            (Some("b"), 2, "/d/")
        );
        let Op::Healthcheck(check) = one("HEALTHCHECK --interval=5s CMD curl x") else {
            panic!("no check")
        };
        assert_eq!(
            (check.interval, check.test),
            (5_000_000_000, vec!["CMD-SHELL".into(), "curl x".into()])
        );
    }

    #[test]
    fn errors_name_line_and_fix() {
        assert_eq!(
            error("COPPY a b").to_string(),
            "Dockerfile:3: unknown instruction: COPPY (did you mean COPY?)"
        );
        assert!(error("COPY a").to_string().contains("COPY SOURCE DESTINATION"));
        assert_eq!(error("RUN make").to_string(), "Dockerfile:3: not supported yet: RUN");
        assert!(error("ENV a=b c").to_string().contains("name=value"));
        assert!(parse(b"").is_err() && parse(b"COPY a b").is_err());
        assert!(parse(b"FROM a b").unwrap_err().to_string().starts_with("Dockerfile:1:"));
    }
}
