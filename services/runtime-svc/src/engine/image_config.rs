//! What a container takes from its image, merged with what was asked for.

use serde::Deserialize;

use super::error::{Error, Result};

/// An image as the image service describes it.
#[derive(Debug, Clone, Default)]
pub struct ImageInfo {
    /// Image id.
    pub id: String,
    /// First digest reference, or the id.
    pub reference: String,
    /// Key of the snapshot its layers make.
    pub chain_id: String,
    /// Its run configuration.
    pub config: ImageConfig,
}

/// The run configuration of an OCI image.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct ImageConfig {
    /// User.
    pub user: String,
    /// Environment.
    pub env: Option<Vec<String>>,
    /// Program.
    pub entrypoint: Option<Vec<String>>,
    /// Its arguments, or the program when there is no entry point.
    pub cmd: Option<Vec<String>>,
    /// Working folder.
    pub working_dir: String,
    /// Signal that asks it to end.
    pub stop_signal: String,
    /// Folders that hold data.
    pub volumes: Option<std::collections::BTreeMap<String, serde_json::Value>>,
}

#[derive(Deserialize)]
struct Verbose {
    #[serde(rename = "chainID")]
    chain_id: String,
    #[serde(rename = "imageSpec")]
    image_spec: Spec,
}

#[derive(Deserialize)]
struct Spec {
    #[serde(default)]
    config: ImageConfig,
}

/// Reads the JSON the image service answers to a verbose status.
///
/// # Errors
/// When it is not JSON or lacks `chainID` or `imageSpec`.
pub fn parse_verbose(text: &str) -> Result<(String, ImageConfig)> {
    let parsed: Verbose = serde_json::from_str(text).map_err(|error| {
        Error::failed("the image service's verbose status is not understood", error)
    })?;
    Ok((parsed.chain_id, parsed.image_spec.config))
}

/// The command line: a command replaces the entry point and its arguments, arguments alone replace `Cmd`.
///
/// # Errors
/// When neither the container nor the image says what to run.
pub fn command_line(
    command: &[String],
    args: &[String],
    image: &ImageConfig,
) -> Result<Vec<String>> {
    let mut line = command.to_vec();
    let mut rest = args.to_vec();
    if command.is_empty() {
        line = image.entrypoint.clone().unwrap_or_default();
        if args.is_empty() {
            rest = image.cmd.clone().unwrap_or_default();
        }
    }
    line.append(&mut rest);
    if line.is_empty() {
        return Err(Error::Invalid("no command specified".to_owned()));
    }
    Ok(line)
}

/// Adds `NAME=value` lines, later ones replacing earlier ones of the same name in place.
pub fn merge_env<'a>(
    lines: impl IntoIterator<Item = String>,
    more: impl IntoIterator<Item = (&'a str, &'a str)>,
) -> Vec<String> {
    let mut env: Vec<String> = lines.into_iter().collect();
    for (name, value) in more {
        let line = format!("{name}={value}");
        match env.iter_mut().find(|old| old.split('=').next() == Some(name)) {
            Some(old) => *old = line,
            None => env.push(line),
        }
    }
    env
}

/// Number of a signal by name or number, as images spell it; SIGTERM when empty.
///
/// # Errors
/// Names an unknown signal.
pub fn signal_number(text: &str) -> Result<i32> {
    if text.is_empty() {
        return Ok(libc::SIGTERM);
    }
    let unknown =
        || Error::Invalid(format!("unknown stop signal {text:?}; write for example SIGTERM or 15"));
    if let Ok(number) = text.parse::<i32>() {
        return if (1..=64).contains(&number) { Ok(number) } else { Err(unknown()) };
    }
    let upper = text.to_ascii_uppercase();
    let short = upper.strip_prefix("SIG").unwrap_or(&upper);
    let real_time = |rest: &str, from: i32, sign: i32| {
        let offset: i32 = if rest.is_empty() { 0 } else { rest[1..].parse().ok()? };
        (0..=30).contains(&offset).then_some(from + sign * offset)
    };
    let alias = match short {
        "CLD" => "CHLD",
        "IOT" => "ABRT",
        "POLL" => "IO",
        other => other,
    };
    if let Some(rest) = alias.strip_prefix("RTMIN") {
        return real_time(rest, 34, 1).ok_or_else(unknown);
    }
    if let Some(rest) = alias.strip_prefix("RTMAX") {
        return real_time(rest, 64, -1).ok_or_else(unknown);
    }
    format!("SIG{alias}")
        .parse::<nix::sys::signal::Signal>()
        .map(|signal| signal as i32)
        .map_err(|_| unknown())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn list(words: &str) -> Vec<String> {
        words.split_whitespace().map(str::to_owned).collect()
    }

    #[test]
    fn command_and_args_follow_the_kubernetes_table() {
        let image = ImageConfig {
            entrypoint: Some(list("/ep")),
            cmd: Some(list("a b")),
            ..ImageConfig::default()
        };
        assert_eq!(command_line(&[], &[], &image).unwrap(), list("/ep a b"));
        assert_eq!(command_line(&[], &list("c"), &image).unwrap(), list("/ep c"));
        assert_eq!(command_line(&list("/x"), &[], &image).unwrap(), list("/x"));
        assert_eq!(command_line(&list("/x"), &list("y"), &image).unwrap(), list("/x y"));
        assert!(command_line(&[], &[], &ImageConfig::default()).is_err());
    }

    #[test]
    fn signals_have_many_names() {
        for (text, number) in [
            ("", 15),
            ("9", 9),
            ("SIGINT", 2),
            ("quit", 3),
            ("SIGRTMIN+3", 37),
            ("RTMAX-2", 62),
            ("SIGPOLL", 29),
        ] {
            assert_eq!(signal_number(text).unwrap(), number, "{text}");
        }
        for text in ["0", "65", "SIGNOPE", "SIGRTMIN+40", "SIGRTMINx"] {
            assert!(signal_number(text).is_err(), "{text}");
        }
    }

    #[test]
    fn verbose_status_is_read_and_garbage_refused() {
        let text = r#"{"chainID":"sha256:1","imageSpec":{"config":{"Env":["A=1"],"Cmd":null,"StopSignal":"3"}}}"#;
        let (chain, config) = parse_verbose(text).unwrap();
        assert_eq!(
            (chain.as_str(), config.env, config.stop_signal.as_str()),
            ("sha256:1", Some(list("A=1")), "3")
        );
        assert!(parse_verbose("{}").is_err() && parse_verbose("").is_err());
        assert_eq!(merge_env(list("A=1 B=2"), [("A", "3"), ("C", "")]), list("A=3 B=2 C="));
    }
}
