//! Query strings with repeated keys.

use percent_encoding::percent_decode_str;

/// The parameters of a request, in order.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Params(Vec<(String, String)>);

impl Params {
    /// Reads `a=1&b=x%20y`.
    pub fn parse(query: Option<&str>) -> Self {
        let decode = |text: &str| {
            percent_decode_str(&text.replace('+', " ")).decode_utf8_lossy().into_owned()
        };
        let pairs = query.unwrap_or_default().split('&').filter(|pair| !pair.is_empty());
        Self(
            pairs
                .map(|pair| pair.split_once('=').unwrap_or((pair, "")))
                .map(|(k, v)| (decode(k), decode(v)))
                .collect(),
        )
    }

    /// The first value of a parameter.
    pub fn get(&self, name: &str) -> Option<&str> {
        self.0.iter().find(|(key, _)| key == name).map(|(_, value)| value.as_str())
    }

    /// All values of a parameter.
    pub fn all(&self, name: &str) -> Vec<String> {
        self.0.iter().filter(|(key, _)| key == name).map(|(_, value)| value.clone()).collect()
    }

    /// Whether one of the names is switched on.
    pub fn flag(&self, names: &[&str]) -> bool {
        names.iter().any(|name| {
            self.get(name)
                .is_some_and(|value| matches!(value, "1" | "t" | "true" | "True" | "TRUE"))
        })
    }

    /// A number.
    ///
    /// # Errors
    /// Names the parameter that is none.
    pub fn number(&self, name: &str) -> Result<Option<u64>, String> {
        let value = self.get(name).filter(|value| !value.is_empty());
        value
            .map(|value| value.parse().map_err(|_| format!("invalid {name}: {value:?}")))
            .transpose()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn repeated_and_escaped_parameters_are_read() {
        let got = Params::parse(Some("command=sh&command=-c&command=echo+a%26b&tty=1&n=5&x=q"));
        assert_eq!(got.all("command"), ["sh", "-c", "echo a&b"]);
        assert!(got.flag(&["tty"]) && !got.flag(&["stdin"]));
        assert_eq!((got.number("n"), got.number("none")), (Ok(Some(5)), Ok(None)));
        assert!(got.number("x").is_err());
    }
}
