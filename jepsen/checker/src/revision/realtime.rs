//! K3: what was answered before something else was asked has no larger revision, and if that wrote, a smaller one.

use super::items::Item;
use crate::history::Kind;
use crate::verdict::Finding;

/// Compares the order of revisions with the order of time, in O(n log n).
pub(super) fn check(items: &[Item<'_>]) -> Vec<Finding> {
    let known: Vec<_> =
        items.iter().filter(|item| item.kind == Kind::Ok && !item.serializable && item.revision > 0).collect();
    let mut returned: Vec<_> = known.iter().collect();
    returned.sort_by_key(|item| item.returned_ns);
    let mut returned = returned.into_iter().peekable();
    let mut invoked = known.clone();
    invoked.sort_by_key(|item| item.invoked_ns);
    let mut newest: Option<&Item<'_>> = None;
    let mut findings = Vec::new();
    for item in invoked {
        while let Some(before) = returned.next_if(|before| before.returned_ns < item.invoked_ns) {
            if newest.is_none_or(|newest| before.revision > newest.revision) {
                newest = Some(before);
            }
        }
        let Some(before) = newest else { continue };
        if item.revision < before.revision {
            let text = format!(
                "operation {} answered with revision {}, although operation {} had answered with {} before it was asked",
                item.id, item.revision, before.id, before.revision
            );
            findings.push(Finding::new("K3", text, [before.id, item.id]));
        } else if item.writes && item.revision == before.revision {
            let text = format!(
                "operation {} wrote revision {}, which operation {} had seen before that was asked",
                item.id, item.revision, before.id
            );
            findings.push(Finding::new("K3", text, [before.id, item.id]));
        }
    }
    findings
}
