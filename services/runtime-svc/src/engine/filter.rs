//! Label selectors.

use std::collections::HashMap;

/// Whether `labels` hold everything `selector` asks for.
pub fn matches(labels: &HashMap<String, String>, selector: &HashMap<String, String>) -> bool {
    selector.iter().all(|(key, value)| labels.get(key) == Some(value))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_selected_label_must_match() {
        let map = |pairs: &[(&str, &str)]| {
            pairs.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect()
        };
        let labels: HashMap<String, String> = map(&[("a", "1"), ("b", "2")]);
        assert!(matches(&labels, &HashMap::new()));
        assert!(matches(&labels, &map(&[("a", "1")])));
        assert!(!matches(&labels, &map(&[("a", "1"), ("b", "3")])));
        assert!(!matches(&labels, &map(&[("c", "")])));
    }
}
