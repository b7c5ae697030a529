//! Flag parsing on top of clap, with Go's habits.

use clap::Parser;
use clap::error::ErrorKind;

use crate::ExitError;

/// Parses the arguments of the process (program name first).
///
/// `--help` and `--version` print and exit with 0.
///
/// # Errors
/// A usage error whose one line names the flag.
pub fn parse_args<T: Parser>(args: impl IntoIterator<Item = String>) -> Result<T, ExitError> {
    T::try_parse_from(args).or_else(|error| match error.kind() {
        ErrorKind::DisplayHelp
        | ErrorKind::DisplayVersion
        | ErrorKind::DisplayHelpOnMissingArgumentOrSubcommand => error.exit(),
        _ => Err(ExitError::Usage(one_line(&error))),
    })
}

fn one_line(error: &clap::Error) -> String {
    let text = error.to_string();
    let lines: Vec<&str> = text
        .lines()
        .map(str::trim)
        .filter(|line| {
            !line.is_empty()
                && !line.starts_with("Usage:")
                && !line.starts_with("For more information")
        })
        .collect();
    lines.join("; ").trim_start_matches("error: ").to_owned()
}

/// Rewrites Go's single-dash long flags (`-conf`, `-dns.port=53`) to the double-dash form clap knows.
///
/// One-letter flags and negative numbers stay as they are.
pub fn go_style_args(args: impl IntoIterator<Item = String>) -> Vec<String> {
    args.into_iter()
        .map(|arg| match arg.strip_prefix('-') {
            Some(rest) if is_long(rest) => format!("--{rest}"),
            _ => arg,
        })
        .collect()
}

fn is_long(rest: &str) -> bool {
    let name = rest.split('=').next().unwrap_or_default();
    name.len() > 1 && name.starts_with(|c: char| c.is_ascii_alphabetic())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug, Parser)]
    struct Args {
        #[arg(long = "dns.port", default_value_t = 53)]
        port: u16,
    }

    fn words(text: &str) -> Vec<String> {
        text.split(' ').map(str::to_owned).collect()
    }

    #[test]
    fn single_dash_long_flag_is_accepted() {
        let args: Args = parse_args(go_style_args(words("dns-svc -dns.port=1053"))).unwrap();
        assert_eq!(args.port, 1053);
        assert_eq!(go_style_args(words("x -v -1 --a -")), words("x -v -1 --a -"));
    }

    #[test]
    fn unknown_flag_is_named_in_one_line() {
        let error = parse_args::<Args>(words("dns-svc --colour")).unwrap_err();
        assert!(error.to_string().contains("--colour"), "{error}");
        assert!(!error.to_string().contains('\n'));
        assert_eq!(error.code(), 64);
    }
}
