//! Picking the virtual host: exact domain, then longest `*.suffix`, then longest `prefix.*`, then `*`.

use std::collections::HashMap;
use std::sync::Arc;

/// Domains to values.
#[derive(Debug, Clone)]
pub struct HostTable<T> {
    exact: HashMap<String, Arc<T>>,
    suffixes: Vec<(String, Arc<T>)>,
    prefixes: Vec<(String, Arc<T>)>,
    any: Option<Arc<T>>,
}

impl<T> Default for HostTable<T> {
    fn default() -> Self {
        Self { exact: HashMap::new(), suffixes: Vec::new(), prefixes: Vec::new(), any: None }
    }
}

impl<T> HostTable<T> {
    /// Adds a domain.
    ///
    /// # Errors
    /// When the domain is there already or has `*` in the middle.
    pub fn insert(&mut self, domain: &str, value: Arc<T>) -> Result<(), String> {
        let domain = domain.to_ascii_lowercase();
        let twice = || {
            Err(format!(
                "Only unique values for domains are permitted. Duplicate entry of domain {domain}"
            ))
        };
        if domain == "*" {
            if self.any.is_some() {
                return Err("Only a single wildcard domain is permitted".to_owned());
            }
            self.any = Some(value);
            return Ok(());
        }
        let (list, text) = if let Some(suffix) = domain.strip_prefix('*') {
            (&mut self.suffixes, suffix)
        } else if let Some(prefix) = domain.strip_suffix('*') {
            (&mut self.prefixes, prefix)
        } else {
            return if self.exact.insert(domain.clone(), value).is_some() {
                twice()
            } else {
                Ok(())
            };
        };
        if text.contains('*') {
            return Err(format!("domain {domain}: one * at one end is allowed"));
        }
        if list.iter().any(|(known, _)| known == text) {
            return twice();
        }
        list.push((text.to_owned(), value));
        list.sort_by_key(|(text, _)| std::cmp::Reverse(text.len()));
        Ok(())
    }

    /// The value for `host`. A wildcard stands for at least one character.
    pub fn find(&self, host: &str) -> Option<&Arc<T>> {
        if !self.exact.is_empty() || !self.suffixes.is_empty() || !self.prefixes.is_empty() {
            let lower;
            let host = if host.bytes().any(|b| b.is_ascii_uppercase()) {
                lower = host.to_ascii_lowercase();
                lower.as_str()
            } else {
                host
            };
            let longer = |text: &str| host.len() > text.len();
            let found = self
                .exact
                .get(host)
                .or_else(|| {
                    self.suffixes
                        .iter()
                        .find(|(s, _)| longer(s) && host.ends_with(s.as_str()))
                        .map(|(_, v)| v)
                })
                .or_else(|| {
                    self.prefixes
                        .iter()
                        .find(|(p, _)| longer(p) && host.starts_with(p.as_str()))
                        .map(|(_, v)| v)
                });
            if found.is_some() {
                return found;
            }
        }
        self.any.as_ref()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn most_specific_domain_wins() {
        let mut table = HostTable::default();
        for domain in ["a.example.com", "*.example.com", "*.com", "a.*", "a.b.*", "*"] {
            table.insert(domain, Arc::new(domain)).unwrap();
        }
        for (host, want) in [
            ("A.example.com", "a.example.com"),
            ("b.example.com", "*.example.com"),
            ("x.com", "*.com"),
            ("a.org", "a.*"),
            ("a.b.org", "a.b.*"),
            (".com", "*"),
            ("localhost:80", "*"),
        ] {
            assert_eq!(table.find(host).map(|v| **v), Some(want), "{host}");
        }
        assert!(table.insert("*", Arc::new("again")).is_err());
        assert!(table.insert("A.example.com", Arc::new("again")).is_err());
    }
}
