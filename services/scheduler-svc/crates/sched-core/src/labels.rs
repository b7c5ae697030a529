//! Label selectors (`meta/v1 LabelSelector`).

use std::collections::BTreeMap;

use serde_json::Value;

/// Labels of an object.
pub type Labels = BTreeMap<String, String>;

/// One requirement of a selector.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Requirement {
    /// Label key.
    pub key: String,
    /// What must hold for it.
    pub rule: Rule,
}

/// What must hold for the value of a label.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Rule {
    /// It is there and one of these.
    In(Vec<String>),
    /// It is missing or none of these.
    NotIn(Vec<String>),
    /// It is there.
    Exists,
    /// It is missing.
    DoesNotExist,
    /// It is there, an integer and greater.
    Gt(i64),
    /// It is there, an integer and less.
    Lt(i64),
}

impl Requirement {
    /// Reads `{key, operator, values}`; `Gt` and `Lt` only where `compare` says so.
    ///
    /// # Errors
    /// When the operator is unknown or the values do not go with it.
    pub fn parse(value: &Value, compare: bool) -> Result<Self, String> {
        let key = value["key"].as_str().unwrap_or_default().to_owned();
        if key.is_empty() {
            return Err("a requirement has no key".to_owned());
        }
        let values = value["values"].as_array().into_iter().flatten();
        let mut values: Vec<String> =
            values.map(|v| v.as_str().unwrap_or_default().to_owned()).collect();
        values.sort();
        let operator = value["operator"].as_str().unwrap_or_default();
        let number = || {
            let one = if values.len() == 1 { values[0].parse().ok() } else { None };
            one.ok_or_else(|| format!("{operator} of {key:?} wants one integer"))
        };
        let rule = match operator {
            "In" | "NotIn" if values.is_empty() => {
                return Err(format!("{operator} of {key:?} wants values"));
            }
            "Exists" | "DoesNotExist" if !values.is_empty() => {
                return Err(format!("{operator} of {key:?} wants no values"));
            }
            "Gt" if compare => Rule::Gt(number()?),
            "Lt" if compare => Rule::Lt(number()?),
            "In" => Rule::In(values),
            "NotIn" => Rule::NotIn(values),
            "Exists" => Rule::Exists,
            "DoesNotExist" => Rule::DoesNotExist,
            _ => return Err(format!("{operator:?} is not a valid label selector operator")),
        };
        Ok(Self { key, rule })
    }

    /// Whether the label value, if any, fulfils the requirement.
    pub fn allows(&self, value: Option<&str>) -> bool {
        let number = || value.and_then(|v| v.parse::<i64>().ok());
        match &self.rule {
            Rule::In(list) => value.is_some_and(|v| list.iter().any(|x| x == v)),
            Rule::NotIn(list) => value.is_none_or(|v| list.iter().all(|x| x != v)),
            Rule::Exists => value.is_some(),
            Rule::DoesNotExist => value.is_none(),
            Rule::Gt(least) => number().is_some_and(|n| n > *least),
            Rule::Lt(most) => number().is_some_and(|n| n < *most),
        }
    }
}

/// A label selector.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Selector {
    /// `None` selects nothing; an empty list selects everything.
    requirements: Option<Vec<Requirement>>,
}

impl Selector {
    /// Selects nothing.
    pub fn nothing() -> Self {
        Self { requirements: None }
    }

    /// Reads a LabelSelector; null selects nothing, `{}` everything.
    ///
    /// # Errors
    /// When a requirement is wrong.
    pub fn parse(value: &Value) -> Result<Self, String> {
        if value.is_null() {
            return Ok(Self::nothing());
        }
        let mut requirements = Vec::new();
        for (key, value) in value["matchLabels"].as_object().into_iter().flatten() {
            let values = vec![value.as_str().unwrap_or_default().to_owned()];
            requirements.push(Requirement { key: key.clone(), rule: Rule::In(values) });
        }
        for value in value["matchExpressions"].as_array().into_iter().flatten() {
            requirements.push(Requirement::parse(value, false)?);
        }
        requirements.sort();
        Ok(Self { requirements: Some(requirements) })
    }

    /// Also demands `key` to be one of `values` (or none of them).
    #[must_use]
    pub fn and(mut self, requirement: Requirement) -> Self {
        if let Some(list) = &mut self.requirements {
            list.push(requirement);
            list.sort();
        }
        self
    }

    /// Whether it selects everything.
    pub fn is_empty(&self) -> bool {
        self.requirements.as_ref().is_some_and(Vec::is_empty)
    }

    /// Whether the labels are selected.
    pub fn matches(&self, labels: &Labels) -> bool {
        let allowed = |r: &Requirement| r.allows(labels.get(&r.key).map(String::as_str));
        self.requirements.as_ref().is_some_and(|all| all.iter().all(allowed))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn selector_matches_as_the_api_says() {
        let labels: Labels =
            [("app", "web"), ("tier", "1")].map(|(k, v)| (k.to_owned(), v.to_owned())).into();
        let cases = [
            (json!(null), false),
            (json!({}), true),
            (json!({"matchLabels": {"app": "web"}}), true),
            (json!({"matchLabels": {"app": "db"}}), false),
            (
                json!({"matchExpressions": [{"key": "x", "operator": "NotIn", "values": ["1"]}]}),
                true,
            ),
            (json!({"matchExpressions": [{"key": "x", "operator": "Exists"}]}), false),
            (json!({"matchExpressions": [{"key": "x", "operator": "DoesNotExist"}]}), true),
            (
                json!({"matchExpressions": [{"key": "app", "operator": "In", "values": ["a", "web"]}]}),
                true,
            ),
        ];
        for (selector, want) in cases {
            assert_eq!(Selector::parse(&selector).unwrap().matches(&labels), want, "{selector}");
        }
        let gt = json!({"matchExpressions": [{"key": "tier", "operator": "Gt", "values": ["0"]}]});
        assert!(Selector::parse(&gt).is_err(), "only node selectors compare");
    }
}
