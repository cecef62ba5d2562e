//! What of the log is kept in memory for members that install a snapshot, and when to ask for a new one.

use crate::limits::{SNAPSHOT_ASK_MS, SNAPSHOT_PIN_MS};
use crate::types::{Index, MemberId, MonoMillis};
use std::collections::BTreeMap;

/// Snapshots on their way to members that lag.
///
/// Writes go on while a snapshot travels. If the log behind it left memory meanwhile, its receiver would need another
/// one at once, and so for ever under load.
#[derive(Default)]
pub(super) struct Pins {
    /// By receiver: the snapshot's last entry, and until when it is waited for.
    pinned: BTreeMap<MemberId, (Index, MonoMillis)>,
    /// When a snapshot was asked for that has not come.
    pub(super) asked: Option<MonoMillis>,
}

impl Pins {
    /// Takes note that `to` is offered the snapshot that ends at `index`.
    pub(super) fn pin(&mut self, to: MemberId, index: Index, now: MonoMillis) {
        self.pinned.insert(to, (index, MonoMillis(now.0 + SNAPSHOT_PIN_MS)));
    }

    /// The end of the oldest snapshot that is still waited for; entries behind it are wanted.
    pub(super) fn oldest(&mut self, now: MonoMillis) -> Option<Index> {
        self.pinned.retain(|_, (_, until)| now < *until);
        self.pinned.values().map(|(index, _)| *index).min()
    }

    /// Tells whether a snapshot is to be asked for, and notes that it was.
    pub(super) fn wants_snapshot(&mut self, now: MonoMillis) -> bool {
        let wants = self.asked.is_none_or(|asked| now.0 >= asked.0 + SNAPSHOT_ASK_MS);
        if wants {
            self.asked = Some(now);
        }
        wants
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_oldest_snapshot_under_way_pins_the_log_for_a_while() {
        let mut pins = Pins::default();
        assert_eq!(pins.oldest(MonoMillis(0)), None);
        pins.pin(MemberId(2), 70, MonoMillis(0));
        pins.pin(MemberId(3), 50, MonoMillis(5));
        assert_eq!(pins.oldest(MonoMillis(SNAPSHOT_PIN_MS)), Some(50));
        pins.pin(MemberId(3), 90, MonoMillis(6));
        assert_eq!(pins.oldest(MonoMillis(SNAPSHOT_PIN_MS)), Some(90));
        assert_eq!(pins.oldest(MonoMillis(SNAPSHOT_PIN_MS + 6)), None);
    }

    #[test]
    fn a_snapshot_is_asked_for_once_in_a_while() {
        let mut pins = Pins::default();
        assert!(pins.wants_snapshot(MonoMillis(0)));
        assert!(!pins.wants_snapshot(MonoMillis(SNAPSHOT_ASK_MS - 1)));
        assert!(pins.wants_snapshot(MonoMillis(SNAPSHOT_ASK_MS)));
    }
}
