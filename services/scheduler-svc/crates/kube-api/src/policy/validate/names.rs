//! Shapes of names: labels, subdomains, keys.

/// Text of a DNS-1123 label failure.
pub(super) const LABEL: &str = "a lowercase RFC 1123 label must consist of lower case alphanumeric characters or '-', and must start and end with an alphanumeric character (e.g. 'my-name',  or '123-abc', regex used for validation is '[a-z0-9]([-a-z0-9]*[a-z0-9])?')";
/// Text of a DNS-1123 subdomain failure.
pub(super) const SUBDOMAIN: &str = "a lowercase RFC 1123 subdomain must consist of lower case alphanumeric characters, '-' or '.', and must start and end with an alphanumeric character (e.g. 'example.com', regex used for validation is '[a-z0-9]([-a-z0-9]*[a-z0-9])?(\\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*')";
/// Text of a DNS-1035 label failure.
pub(super) const LABEL_1035: &str = "a DNS-1035 label must consist of lower case alphanumeric characters or '-', start with an alphabetic character, and end with an alphanumeric character (e.g. 'my-name',  or 'abc-123', regex used for validation is '[a-z]([-a-z0-9]*[a-z0-9])?')";
const QUALIFIED: &str = "name part must consist of alphanumeric characters, '-', '_' or '.', and must start and end with an alphanumeric character (e.g. 'MyName',  or 'my.name',  or '123-abc', regex used for validation is '([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9]')";
const LABEL_VALUE: &str = "a valid label must be an empty string or consist of alphanumeric characters, '-', '_' or '.', and must start and end with an alphanumeric character (e.g. 'MyValue',  or 'my_value',  or '12345', regex used for validation is '(([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9])?')";

fn ends(text: &str, ok: impl Fn(char) -> bool) -> bool {
    text.chars().next().is_some_and(&ok) && text.chars().next_back().is_some_and(&ok)
}

fn lower(c: char) -> bool {
    c.is_ascii_lowercase() || c.is_ascii_digit()
}

/// What is wrong with a DNS-1123 label.
pub(super) fn label(text: &str) -> Option<String> {
    let fits = ends(text, lower) && text.chars().all(|c| lower(c) || c == '-');
    match (text.len() <= 63, fits) {
        (false, _) => Some("must be no more than 63 characters".to_owned()),
        (_, false) => Some(LABEL.to_owned()),
        _ => None,
    }
}

/// What is wrong with a DNS-1035 label.
pub(super) fn label_1035(text: &str) -> Option<String> {
    let start = text.chars().next().is_some_and(|c| c.is_ascii_lowercase());
    match label(text) {
        None if start => None,
        Some(long) if long.starts_with("must be no more") => Some(long),
        _ => Some(LABEL_1035.to_owned()),
    }
}

/// What is wrong with a DNS-1123 subdomain.
pub(super) fn subdomain(text: &str) -> Option<String> {
    if text.len() > 253 {
        return Some("must be no more than 253 characters".to_owned());
    }
    let part = |p: &str| ends(p, lower) && p.chars().all(|c| lower(c) || c == '-');
    if text.split('.').all(part) { None } else { Some(SUBDOMAIN.to_owned()) }
}

/// What is wrong with a segment of a path.
pub(super) fn path_segment(text: &str) -> Option<String> {
    match text {
        "." | ".." => Some(format!("may not be '{text}'")),
        _ if text.contains('/') => Some("may not contain '/'".to_owned()),
        _ if text.contains('%') => Some("may not contain '%'".to_owned()),
        _ => None,
    }
}

/// What is wrong with the key of a label, annotation or taint.
pub(super) fn qualified(text: &str) -> Option<String> {
    let (prefix, name) = match text.split_once('/') {
        Some((prefix, name)) => (Some(prefix), name),
        None => (None, text),
    };
    if let Some(prefix) = prefix {
        if prefix.is_empty() {
            return Some("prefix part must be non-empty".to_owned());
        }
        if let Some(why) = subdomain(prefix) {
            return Some(format!("prefix part {why}"));
        }
    }
    let word = |c: char| c.is_ascii_alphanumeric();
    if name.is_empty() {
        return Some("name part must be non-empty".to_owned());
    }
    if name.len() > 63 {
        return Some("name part must be no more than 63 characters".to_owned());
    }
    let fits = ends(name, word) && name.chars().all(|c| word(c) || "-_.".contains(c));
    if fits { None } else { Some(QUALIFIED.to_owned()) }
}

/// What is wrong with the value of a label.
pub(super) fn label_value(text: &str) -> Option<String> {
    if text.len() > 63 {
        return Some("must be no more than 63 characters".to_owned());
    }
    let word = |c: char| c.is_ascii_alphanumeric();
    let fits =
        text.is_empty() || (ends(text, word) && text.chars().all(|c| word(c) || "-_.".contains(c)));
    if fits { None } else { Some(LABEL_VALUE.to_owned()) }
}

/// What is wrong with a key of a ConfigMap or Secret.
pub(super) fn config_key(text: &str) -> Option<String> {
    let fits =
        !text.is_empty() && text.chars().all(|c| c.is_ascii_alphanumeric() || "-_.".contains(c));
    match text {
        "." | ".." => Some(format!("must not be '{text}'")),
        _ if text.len() > 253 => Some("must be no more than 253 characters".to_owned()),
        _ if text.starts_with("..") => Some("must not start with '..'".to_owned()),
        _ if fits => None,
        _ => Some("a valid config key must consist of alphanumeric characters, '-', '_' or '.' (e.g. 'key.name',  or 'KEY_NAME',  or 'key-name', regex used for validation is '[-._a-zA-Z0-9]+')".to_owned()),
    }
}

/// What is wrong with the name of an environment variable (relaxed rule: printable ASCII without `=`).
pub(super) fn variable(text: &str) -> Option<String> {
    if text.chars().all(|c| (' '..='~').contains(&c) && c != '=') {
        return None;
    }
    Some("a valid environment variable name must consist only of printable ASCII characters other than '='".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shapes() {
        for good in ["a", "a-b", "0a", &"x".repeat(63)] {
            assert_eq!(label(good), None, "{good}");
        }
        for bad in ["", "A", "-a", "a-", "a.b", "a_b", &"x".repeat(64)] {
            assert!(label(bad).is_some(), "{bad}");
        }
        assert!(label_1035("0a").is_some());
        assert_eq!(subdomain("a.b-c.d"), None);
        assert!(subdomain("a..b").is_some());
        assert_eq!(qualified("example.com/App_1.x"), None);
        assert!(qualified("/x").is_some());
        assert!(label_value("a b").is_some());
    }
}
