//! Label and annotation templates of alerts: `{{ $labels.NAME }}` and `{{ $value }}`.
//!
//! Other constructs of Go's templates are refused when the rules are loaded.

use metrics_model::{Labels, format_exposition};

/// A parsed template.
#[derive(Debug, Clone, PartialEq)]
pub struct Template(Vec<Part>);

#[derive(Debug, Clone, PartialEq)]
enum Part {
    Text(String),
    Label(String),
    Value,
}

impl Template {
    /// Parses a template.
    ///
    /// # Errors
    /// Names the construct that is not supported.
    pub fn parse(text: &str) -> Result<Self, String> {
        let mut parts = Vec::new();
        let mut rest = text;
        while let Some((before, after)) = rest.split_once("{{") {
            parts.push(Part::Text(before.to_owned()));
            let (action, after) = after.split_once("}}").ok_or("template is not closed with }}")?;
            let action = action.trim_matches('-').trim();
            let label = action.strip_prefix("$labels.").or_else(|| action.strip_prefix(".Labels."));
            parts.push(match (action, label) {
                ("$value" | ".Value", _) => Part::Value,
                (_, Some(name)) if metrics_model::is_label_name(name) => {
                    Part::Label(name.to_owned())
                }
                _ => return Err(format!("not supported yet: template {{{{ {action} }}}}")),
            });
            rest = after;
        }
        parts.push(Part::Text(rest.to_owned()));
        Ok(Self(parts))
    }

    /// Fills the template in.
    pub fn expand(&self, labels: &Labels, value: f64) -> String {
        let parts = self.0.iter().map(|part| match part {
            Part::Text(text) => text.clone(),
            Part::Label(name) => labels.get(name).to_owned(),
            Part::Value => format_exposition(value),
        });
        parts.collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn labels_and_value_are_filled_in() {
        let template = Template::parse("{{ $labels.job }} is at {{$value}}!").unwrap();
        assert_eq!(template.expand(&Labels::from_pairs([("job", "x")]), 0.5), "x is at 0.5!");
        assert!(
            Template::parse("{{ humanize $value }}").unwrap_err().contains("not supported yet")
        );
        assert!(Template::parse("{{ $value").is_err());
    }
}
