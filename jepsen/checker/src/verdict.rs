//! The judgement of a checker, how judgements are put together, and how they are written down.

use crate::edn::Edn;
use crate::limits::FINDINGS_MAX;
use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

/// One thing that is wrong, explained by as few operations as it takes.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Finding {
    /// The rule that was broken, by its short name: `K3`, `W5`, `G-single`.
    pub rule: String,
    /// What happened, in a sentence for a person.
    pub text: String,
    /// The indexes, in the history, of the operations involved.
    pub ops: Vec<u64>,
}

impl Finding {
    /// A finding about some operations.
    pub fn new(rule: &str, text: impl Into<String>, ops: impl IntoIterator<Item = u64>) -> Self {
        Self { rule: rule.to_owned(), text: text.into(), ops: ops.into_iter().collect() }
    }
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.rule, self.text)
    }
}

/// What a checker says of a history.
#[derive(Clone, Debug, PartialEq, Eq, Default)]
pub enum Verdict {
    /// Nothing is wrong that this checker can see.
    #[default]
    Valid,
    /// A bound was reached, or something was missing, before an answer was found.
    Unknown(Vec<String>),
    /// At least one rule is broken.
    Invalid(Vec<Finding>),
}

impl Verdict {
    /// Valid without findings, invalid with some; only [`FINDINGS_MAX`] are kept, the first ones of each rule.
    pub fn of(findings: Vec<Finding>) -> Self {
        if findings.is_empty() {
            return Self::Valid;
        }
        // Many of one rule do not hide another.
        let mut seen: BTreeMap<String, usize> = BTreeMap::new();
        let mut ranked: Vec<(usize, usize, Finding)> = Vec::new();
        for (place, finding) in findings.into_iter().enumerate() {
            let nth = seen.entry(finding.rule.clone()).or_insert(0);
            *nth += 1;
            ranked.push((*nth, place, finding));
        }
        ranked.sort_by_key(|(nth, place, _)| (*nth, *place));
        ranked.truncate(FINDINGS_MAX);
        ranked.sort_by_key(|(_, place, _)| *place);
        Self::Invalid(ranked.into_iter().map(|(_, _, finding)| finding).collect())
    }

    /// The worse of the two, with all that both have to say about it.
    pub fn and(self, other: Self) -> Self {
        match (self, other) {
            (Self::Invalid(mut all), Self::Invalid(more)) => {
                all.extend(more);
                Self::Invalid(all)
            }
            (Self::Unknown(mut all), Self::Unknown(more)) => {
                all.extend(more);
                Self::Unknown(all)
            }
            (Self::Invalid(all), _) | (_, Self::Invalid(all)) => Self::Invalid(all),
            (Self::Unknown(all), _) | (_, Self::Unknown(all)) => Self::Unknown(all),
            (Self::Valid, Self::Valid) => Self::Valid,
        }
    }

    /// What is wrong; nothing for the other two.
    pub fn findings(&self) -> &[Finding] {
        match self {
            Self::Invalid(findings) => findings,
            _ => &[],
        }
    }

    /// Whether nothing is wrong and nothing is open.
    pub fn is_valid(&self) -> bool {
        *self == Self::Valid
    }

    fn to_edn(&self) -> Edn {
        match self {
            Self::Valid => Edn::map([("valid?", Edn::Bool(true))]),
            Self::Unknown(why) => Edn::map([
                ("valid?", Edn::keyword("unknown")),
                ("why", Edn::Vector(why.iter().map(Edn::text).collect())),
            ]),
            Self::Invalid(findings) => {
                let findings = findings.iter().map(|finding| {
                    Edn::map([
                        ("rule", Edn::text(&finding.rule)),
                        ("text", Edn::text(&finding.text)),
                        ("ops", Edn::Vector(finding.ops.iter().map(|&op| op.into()).collect())),
                    ])
                });
                Edn::map([("valid?", Edn::Bool(false)), ("findings", Edn::Vector(findings.collect()))])
            }
        }
    }
}

impl FromIterator<Verdict> for Verdict {
    fn from_iter<I: IntoIterator<Item = Verdict>>(verdicts: I) -> Self {
        verdicts.into_iter().fold(Self::Valid, Self::and)
    }
}

/// What each checker said of one run.
#[derive(Clone, Debug, PartialEq, Eq, Default)]
pub struct Results(BTreeMap<String, Verdict>);

impl Results {
    /// Notes what the checker `name` says, beside what it said before.
    pub fn note(&mut self, name: &str, verdict: Verdict) {
        let before = self.0.remove(name).unwrap_or_default();
        self.0.insert(name.to_owned(), before.and(verdict));
    }

    /// The worst of all.
    pub fn verdict(&self) -> Verdict {
        self.0.values().cloned().collect()
    }

    /// Each checker's verdict, by its name.
    pub fn each(&self) -> impl Iterator<Item = (&str, &Verdict)> {
        self.0.iter().map(|(name, verdict)| (name.as_str(), verdict))
    }

    /// The operations that any finding names.
    pub fn involved(&self) -> BTreeSet<u64> {
        self.0.values().flat_map(Verdict::findings).flat_map(|finding| finding.ops.iter().copied()).collect()
    }

    /// The content of `results.edn`: `{:valid? true|false|:unknown, :checkers {...}}`.
    ///
    /// - Source: Jepsen's own file of that name, whose readers look at `:valid?`.
    pub fn to_edn(&self) -> Edn {
        let checkers = self.0.iter().map(|(name, verdict)| (Edn::keyword(name), verdict.to_edn()));
        let all = self.verdict().to_edn();
        Edn::map([("valid?", all.get("valid?").clone()), ("checkers", Edn::Map(checkers.collect()))])
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_worst_verdict_stands_for_all() {
        let bad = || Verdict::of(vec![Finding::new("K3", "went back", [4, 7])]);
        let open = || Verdict::Unknown(vec!["too many states".into()]);
        let mut results = Results::default();
        assert_eq!(results.to_edn().to_string(), "{:checkers {}, :valid? true}");
        results.note("revision", Verdict::Valid);
        results.note("wgl", open());
        assert_eq!(results.verdict(), open());
        assert_eq!(*results.to_edn().get("valid?"), Edn::keyword("unknown"));
        results.note("revision", bad());
        assert_eq!(results.verdict(), bad());
        assert_eq!(results.involved(), BTreeSet::from([4, 7]));
        let text = results.to_edn().to_string();
        assert!(text.contains(":revision {:findings [{:ops [4 7], :rule \"K3\", :text \"went back\"}]"), "{text}");
        assert_eq!([open(), bad(), Verdict::Valid].into_iter().collect::<Verdict>(), bad());
    }
}
