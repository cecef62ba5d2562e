//! Which labels are meant.

use super::object::object;
use std::collections::BTreeMap;

/// Labels by name.
pub type Labels = BTreeMap<String, String>;

object! {
    /// All of `matchLabels` and all of `matchExpressions`.
    LabelSelector [] {
        /// Labels that must be there with these values.
        match_labels: Labels = "matchLabels",
        /// Further requirements.
        match_expressions: Vec<Requirement> = "matchExpressions",
    }

    /// What must hold of one label.
    Requirement [] {
        /// The label.
        key: String = "key",
        /// In, NotIn, Exists or DoesNotExist; nodes are also compared by Gt and Lt.
        operator: String = "operator",
        /// What it is held against.
        values: Vec<String> = "values",
    }
}

impl LabelSelector {
    /// Whether nothing is asked, which matches everything.
    pub fn is_empty(&self) -> bool {
        self.match_labels.is_empty() && self.match_expressions.is_empty()
    }

    /// Whether the labels are meant; an operator that is none matches nothing.
    pub fn matches(&self, labels: &Labels) -> bool {
        self.match_labels.iter().all(|(key, value)| labels.get(key) == Some(value))
            && self.match_expressions.iter().all(|requirement| requirement.matches(labels))
    }
}

impl Requirement {
    /// Whether it holds.
    pub fn matches(&self, labels: &Labels) -> bool {
        let value = labels.get(&self.key);
        let number = |text: &String| text.parse::<i64>().ok();
        let compare = |holds: fn(i64, i64) -> bool| match (value.and_then(number), self.values.first().and_then(number))
        {
            (Some(value), Some(bound)) => holds(value, bound),
            _ => false,
        };
        match self.operator.as_str() {
            "In" => value.is_some_and(|value| self.values.contains(value)),
            "NotIn" => value.is_none_or(|value| !self.values.contains(value)),
            "Exists" => value.is_some(),
            "DoesNotExist" => value.is_none(),
            "Gt" => compare(|value, bound| value > bound),
            "Lt" => compare(|value, bound| value < bound),
            _ => false,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn requirements_hold_as_kubernetes_says() {
        let labels: Labels =
            [("app", "web"), ("tier", "2")].map(|(key, value)| (key.to_owned(), value.to_owned())).into();
        let holds = |key: &str, operator: &str, values: &[&str]| {
            let values = values.iter().map(|&value| value.to_owned()).collect();
            let requirement =
                Requirement { key: key.to_owned(), operator: operator.to_owned(), values, ..Default::default() };
            LabelSelector { match_expressions: vec![requirement], ..Default::default() }.matches(&labels)
        };
        assert!(holds("app", "In", &["db", "web"]) && !holds("app", "In", &["db"]) && !holds("zone", "In", &["web"]));
        assert!(holds("app", "NotIn", &["db"]) && !holds("app", "NotIn", &["web"]) && holds("zone", "NotIn", &["web"]));
        assert!(holds("app", "Exists", &[]) && !holds("zone", "Exists", &[]));
        assert!(holds("zone", "DoesNotExist", &[]) && !holds("app", "DoesNotExist", &[]));
        assert!(holds("tier", "Gt", &["1"]) && !holds("tier", "Gt", &["2"]) && holds("tier", "Lt", &["3"]));
        assert!(!holds("app", "Gt", &["1"]) && !holds("app", "Like", &["web"]));
        assert!(LabelSelector::default().matches(&labels));
    }
}
