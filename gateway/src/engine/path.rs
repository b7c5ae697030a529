//! Path clean-up before routing, so that what is matched is what is forwarded.

/// Removes dot segments and turns `\` into `/`, as RFC 3986 5.2.4 and the URL standard do; percent-encoded dots count
/// as dots, other escapes stay. Climbing above the root stays at the root. `None` when the path is not absolute.
pub fn normalize(path: &str) -> Option<String> {
    let (path, query) = split_query(path);
    if !path.starts_with('/') {
        return None;
    }
    let mut segments: Vec<&str> = Vec::new();
    let path = path.replace('\\', "/");
    let parts: Vec<&str> = path.split('/').skip(1).collect();
    let last = parts.len().saturating_sub(1);
    for (index, part) in parts.iter().enumerate() {
        match dots(part) {
            1 if index == last => segments.push(""),
            1 => {}
            2 => {
                segments.pop();
                if index == last {
                    segments.push("");
                }
            }
            _ => segments.push(part),
        }
    }
    Some(format!("/{}{query}", segments.join("/")))
}

/// Collapses runs of slashes in the path part.
pub fn merge_slashes(path: &str) -> String {
    let (path, query) = split_query(path);
    let mut merged = String::with_capacity(path.len() + query.len());
    for c in path.chars() {
        if !(c == '/' && merged.ends_with('/')) {
            merged.push(c);
        }
    }
    merged + query
}

/// The path without query, and the query with its `?`.
pub fn split_query(path: &str) -> (&str, &str) {
    match path.find('?') {
        Some(at) => path.split_at(at),
        None => (path, ""),
    }
}

/// How many dots a segment stands for: 1 (`.`), 2 (`..`), else 0.
fn dots(segment: &str) -> usize {
    let plain = segment.replace("%2e", ".").replace("%2E", ".");
    match plain.as_str() {
        "." => 1,
        ".." => 2,
        _ => 0,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dot_segments_are_removed() {
        for (path, want) in [
            ("/a/./b", Some("/a/b")),
            ("/a/../b?x=/../y", Some("/b?x=/../y")),
            ("/a/%2e%2E/b", Some("/b")),
            ("/a/..", Some("/")),
            ("/a\\b", Some("/a/b")),
            ("/..", Some("/")),
            ("/../etc", Some("/etc")),
            ("a", None),
            ("/", Some("/")),
            ("/a//b/", Some("/a//b/")),
        ] {
            assert_eq!(normalize(path).as_deref(), want, "{path}");
        }
        assert_eq!(merge_slashes("//a///b?c//d"), "/a/b?c//d");
    }
}
