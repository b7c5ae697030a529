//! From arguments, variables and files to flag values.

use std::collections::BTreeMap;
use std::path::Path;

use flotilla_config::ExitError;

use crate::config::flags::{FLAGS, Flag, Kind, Support};

/// Values of flags, by name.
#[derive(Debug, Clone, Default)]
pub struct Parsed {
    values: BTreeMap<&'static str, String>,
    help: bool,
}

fn find(name: &str) -> Option<&'static Flag> {
    FLAGS.iter().find(|flag| flag.name == name)
}

impl Parsed {
    /// Reads arguments (without the program's name) and `ETCD_*` variables, or the configuration file they name.
    ///
    /// # Errors
    /// Names what is unknown or lacks its value.
    pub fn read(
        args: &[String],
        env: impl IntoIterator<Item = (String, String)>,
    ) -> Result<Self, ExitError> {
        let mut parsed = Self::default();
        for (name, value) in env {
            let Some(rest) = name.strip_prefix("ETCD_") else { continue };
            let flag = rest.to_ascii_lowercase().replace('_', "-");
            match find(&flag) {
                Some(flag) => parsed.values.insert(flag.name, value),
                None if is_foreign(rest) => None,
                None => {
                    return Err(ExitError::usage(format!(
                        "environment variable {name} is no flag of etcd; unset it"
                    )));
                }
            };
        }
        parsed.read_args(args)?;
        if let Some(path) =
            parsed.values.get("config-file").filter(|path| !path.is_empty()).cloned()
        {
            // As in etcd the file is then everything.
            let (help, file) = (parsed.help, Path::new(&path));
            parsed = Self::read_file(file)?;
            parsed.help = help;
        }
        Ok(parsed)
    }

    fn read_args(&mut self, args: &[String]) -> Result<(), ExitError> {
        let mut args = args.iter();
        while let Some(arg) = args.next() {
            let Some(rest) =
                arg.strip_prefix("--").or_else(|| arg.strip_prefix('-')).filter(|r| !r.is_empty())
            else {
                return Err(ExitError::usage(format!(
                    "{arg:?} is not a valid flag; flags start with --"
                )));
            };
            let (name, inline) = match rest.split_once('=') {
                Some((name, value)) => (name, Some(value.to_owned())),
                None => (rest, None),
            };
            if matches!(name, "help" | "h") {
                self.help = true;
                continue;
            }
            let flag = find(name).ok_or_else(|| {
                ExitError::usage(format!(
                    "--{name} is no flag; see kv-svc --help for those there are"
                ))
            })?;
            let value = match (inline, flag.kind) {
                (Some(value), _) => value,
                (None, Kind::Switch) => "true".to_owned(),
                (None, _) => args
                    .next()
                    .cloned()
                    .ok_or_else(|| ExitError::usage(format!("--{name} needs a value")))?,
            };
            self.values.insert(flag.name, value);
        }
        Ok(())
    }

    fn read_file(path: &Path) -> Result<Self, ExitError> {
        let shown = path.display();
        let text = std::fs::read_to_string(path)
            .map_err(|error| ExitError::config(format!("--config-file {shown}: {error}")))?;
        let yaml: serde_norway::Value = serde_norway::from_str(&text)
            .map_err(|error| ExitError::config(format!("--config-file {shown}: {error}")))?;
        let mut parsed = Self::default();
        let Some(map) = yaml.as_mapping() else { return Ok(parsed) };
        for (key, value) in map {
            let key = key.as_str().unwrap_or_default();
            if let (Some(prefix), Some(section)) = (section(key), value.as_mapping()) {
                for (name, value) in section {
                    let name = name.as_str().unwrap_or_default();
                    parsed.set(path, &format!("{prefix}{name}"), value)?;
                }
            } else {
                parsed.set(path, key, value)?;
            }
        }
        Ok(parsed)
    }

    fn set(
        &mut self,
        path: &Path,
        name: &str,
        value: &serde_norway::Value,
    ) -> Result<(), ExitError> {
        let flag = find(name).ok_or_else(|| {
            ExitError::config(format!(
                "--config-file {}: {name:?} is no setting of etcd",
                path.display()
            ))
        })?;
        let text = scalar(value, flag).ok_or_else(|| {
            ExitError::config(format!("--config-file {}: {name} must be one value", path.display()))
        })?;
        self.values.insert(flag.name, text);
        Ok(())
    }

    /// Value of a flag, or its default.
    pub fn value(&self, name: &str) -> &str {
        let default = || find(name).map_or("", |flag| flag.default);
        self.values.get(name).map_or_else(default, String::as_str)
    }

    /// Whether `--version` was given.
    pub fn wants_version(&self) -> bool {
        self.value("version") == "true"
    }

    /// Whether `--help` was given.
    pub fn wants_help(&self) -> bool {
        self.help
    }

    /// Flags that were given another value than their default, with a kind of support.
    fn given(&self, support: Support) -> impl Iterator<Item = &'static Flag> + '_ {
        FLAGS.iter().filter(move |flag| {
            flag.support == support
                && self.values.get(flag.name).is_some_and(|value| value != flag.default)
        })
    }

    /// Refuses flags that ask for what this service does not do.
    ///
    /// # Errors
    /// Names the first one.
    pub fn refuse_unsupported(&self) -> Result<(), ExitError> {
        match self.given(Support::Later).next() {
            Some(flag) => Err(ExitError::usage(format!("not supported yet: --{}", flag.name))),
            None => Ok(()),
        }
    }

    /// Flags that tune what this service does not have.
    pub fn moot(&self) -> Vec<&'static str> {
        self.given(Support::Moot).map(|flag| flag.name).collect()
    }
}

/// Variables that start like flags but are for others: Kubernetes service links and etcdctl.
fn is_foreign(rest: &str) -> bool {
    rest.starts_with("SERVICE_")
        || rest.starts_with("PORT")
        || rest.contains("_SERVICE_")
        || rest.contains("_PORT")
        || rest == "UNSUPPORTED_ARCH"
}

/// Prefix of the flags in a section of the file.
fn section(key: &str) -> Option<&'static str> {
    match key {
        "client-transport-security" => Some(""),
        "peer-transport-security" => Some("peer-"),
        _ => None,
    }
}

/// A value as a flag would carry it. The file gives some durations as nanoseconds, as Go decodes them.
fn scalar(value: &serde_norway::Value, flag: &Flag) -> Option<String> {
    use serde_norway::Value;
    match value {
        Value::Null => Some(String::new()),
        Value::Bool(on) => Some(on.to_string()),
        Value::Number(number) if flag.kind == Kind::Duration => Some(format!("{number}ns")),
        Value::Number(number) => Some(number.to_string()),
        Value::String(text) => Some(text.clone()),
        Value::Sequence(items) => {
            let items: Option<Vec<String>> = items.iter().map(|item| scalar(item, flag)).collect();
            Some(items?.join(","))
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_replace_flags_and_name_what_is_wrong() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("etcd.yaml");
        std::fs::write(
            &path,
            "name: filed\nlog-outputs: [stderr]\nclient-transport-security:\n  cert-file: a\n",
        )
        .unwrap();
        let arg = format!("--config-file={}", path.display());
        let parsed = Parsed::read(&["--name=x".to_owned(), arg.clone()], []).unwrap();
        assert_eq!((parsed.value("name"), parsed.value("cert-file")), ("filed", "a"));
        std::fs::write(&path, "colour: red\n").unwrap();
        let error = Parsed::read(&[arg], []).unwrap_err();
        assert!(error.to_string().contains("colour") && error.code() == 78, "{error}");
    }
}
