//! maxSurge and maxUnavailable as numbers of pods.

use serde_json::Value;

use crate::cache::Object;

/// How far a rolling update may stray from the asked number of pods.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Budget {
    /// Pods above the asked number.
    pub(super) surge: i64,
    /// Pods below it that need not be available.
    pub(super) unavailable: i64,
}

impl Budget {
    /// The budget of a deployment; none for the strategy Recreate.
    pub(super) fn of(deployment: &Object) -> Self {
        let replicas = deployment.int("/spec/replicas").unwrap_or(1);
        if deployment.text("/spec/strategy/type") == "Recreate" {
            return Self { surge: 0, unavailable: 0 };
        }
        let quarter = Value::String("25%".to_owned());
        let part = |name| deployment.at(&format!("/spec/strategy/rollingUpdate/{name}"));
        let surge = scaled(part("maxSurge").unwrap_or(&quarter), replicas, true);
        let unavailable = scaled(part("maxUnavailable").unwrap_or(&quarter), replicas, false);
        // With neither, the update could never begin.
        let unavailable = if surge == 0 && unavailable == 0 { 1 } else { unavailable };
        Self { surge, unavailable: unavailable.min(replicas) }
    }
}

/// A number, or a percentage of `whole` rounded up or down.
pub(crate) fn scaled(value: &Value, whole: i64, up: bool) -> i64 {
    if let Some(number) = value.as_i64() {
        return number.max(0);
    }
    let text = value.as_str().unwrap_or_default();
    let percent: i64 = text.strip_suffix('%').and_then(|p| p.parse().ok()).unwrap_or(0);
    let product = percent.max(0).saturating_mul(whole.max(0));
    if up { product.div_euclid(100) + i64::from(product % 100 != 0) } else { product / 100 }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn budget(replicas: i64, surge: Value, unavailable: Value) -> (i64, i64) {
        let deployment: Object = serde_json::from_value(json!({"spec": {"replicas": replicas,
            "strategy": {"rollingUpdate": {"maxSurge": surge, "maxUnavailable": unavailable}}}}))
        .unwrap();
        let budget = Budget::of(&deployment);
        (budget.surge, budget.unavailable)
    }

    #[test]
    fn surge_rounds_up_and_unavailable_down() {
        assert_eq!(budget(10, json!("25%"), json!("25%")), (3, 2));
        assert_eq!(budget(1, json!("25%"), json!("25%")), (1, 0));
        assert_eq!(budget(10, json!(4), json!("100%")), (4, 10));
        assert_eq!(budget(10, Value::Null, Value::Null), (3, 2));
    }

    #[test]
    fn something_must_be_allowed_to_change() {
        assert_eq!(budget(3, json!(0), json!("1%")), (0, 1));
        assert_eq!(budget(0, json!(0), json!(0)), (0, 0));
    }
}
