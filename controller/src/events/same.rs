//! Which happenings are one event: what is said in the same words, what is said in too many, and who says too much.

use crate::control::{About, Note};
use crate::keys::ObjectKey;
use crate::limits::{EVENT_BURST, EVENT_MESSAGES_MAX, EVENT_REFILL_MS, EVENT_SIMILAR_MS, EVENTS_KNOWN_MAX};
use std::collections::{BTreeMap, BTreeSet};

/// What one event tells of.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Happening {
    key: ObjectKey,
    uid: String,
    pub(super) component: String,
    pub(super) is_warning: bool,
    pub(super) reason: &'static str,
    /// In these words; `None` if there are too many.
    message: Option<String>,
}

impl Happening {
    /// What people are told.
    pub(super) fn words(&self, message: &str) -> String {
        match self.message {
            Some(_) => message.to_owned(),
            None => format!("(combined from similar events): {message}"),
        }
    }
}

/// In how many words the like of it was told lately.
#[derive(Clone, Debug, Default)]
struct Similar {
    last_ms: u64,
    messages: BTreeSet<String>,
}

/// How much more may be said of an object.
#[derive(Clone, Copy, Debug)]
struct Budget {
    /// Of what may be said, in milliseconds of its refilling.
    left_ms: u64,
    last_ms: u64,
}

/// What was told lately.
#[derive(Clone, Debug, Default)]
pub(super) struct Same {
    similar: BTreeMap<Happening, Similar>,
    budgets: BTreeMap<(String, ObjectKey, String), Budget>,
}

impl Same {
    /// The event that tells of it; `None` if too much has been said about the object lately.
    pub(super) fn of(&mut self, component: &str, about: &About, note: &Note, now_ms: u64) -> Option<Happening> {
        let mut happening = Happening {
            key: about.key.clone(),
            uid: about.uid.clone(),
            component: component.to_owned(),
            is_warning: note.is_warning,
            reason: note.reason,
            message: None,
        };
        let is_similar = self.similar(&happening, &note.message, now_ms);
        happening.message = (!is_similar).then(|| note.message.clone());
        self.spend((component.to_owned(), about.key.clone(), about.uid.clone()), now_ms).then_some(happening)
    }

    /// Whether it is told in too many words.
    fn similar(&mut self, group: &Happening, message: &str, now_ms: u64) -> bool {
        let is_over = |last_ms: u64| now_ms.saturating_sub(last_ms) > EVENT_SIMILAR_MS;
        if self.similar.len() >= EVENTS_KNOWN_MAX && !self.similar.contains_key(group) {
            self.similar.retain(|_, similar| !is_over(similar.last_ms));
            if self.similar.len() >= EVENTS_KNOWN_MAX {
                self.similar.clear();
            }
        }
        let similar = self.similar.entry(group.clone()).or_default();
        if is_over(similar.last_ms) {
            similar.messages.clear();
        }
        similar.last_ms = now_ms;
        if !similar.messages.contains(message) && similar.messages.len() < EVENT_MESSAGES_MAX {
            similar.messages.insert(message.to_owned());
            // The last one stands for all that come.
            return similar.messages.len() == EVENT_MESSAGES_MAX;
        }
        similar.messages.len() == EVENT_MESSAGES_MAX
    }

    #[cfg(test)]
    pub(super) fn is_bounded(&self) -> bool {
        self.similar.len() <= EVENTS_KNOWN_MAX && self.budgets.len() <= EVENTS_KNOWN_MAX
    }

    fn spend(&mut self, whose: (String, ObjectKey, String), now_ms: u64) -> bool {
        let full_ms = EVENT_BURST * EVENT_REFILL_MS;
        let refilled = |budget: &Budget| (budget.left_ms + now_ms.saturating_sub(budget.last_ms)).min(full_ms);
        if self.budgets.len() >= EVENTS_KNOWN_MAX && !self.budgets.contains_key(&whose) {
            self.budgets.retain(|_, budget| refilled(budget) < full_ms);
            if self.budgets.len() >= EVENTS_KNOWN_MAX {
                self.budgets.clear();
            }
        }
        let budget = self.budgets.entry(whose).or_insert(Budget { left_ms: full_ms, last_ms: now_ms });
        (budget.left_ms, budget.last_ms) = (refilled(budget), now_ms);
        let may = budget.left_ms >= EVENT_REFILL_MS;
        if may {
            budget.left_ms -= EVENT_REFILL_MS;
        }
        may
    }
}
