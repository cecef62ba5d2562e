//! What becomes of a pod on a fake node, and when: a line of text, so that a command or an annotation can say it.
//!
//! `start=100ms,ready=1s,fail=5s@10%`: it runs after 100 ms, may be used a second later, and one of ten fails 5 s after that.

use crate::kv::Revision;
use crate::limits::SCRIPT_DELAY_MS_MAX;
use std::fmt;
use std::str::FromStr;

/// The annotation of a pod that amends the script of its node.
pub const ANNOTATION: &str = "mechi.dev/script";

/// When each stage comes, in milliseconds after the one before.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Script {
    /// From bound to running.
    pub start_ms: u64,
    /// From running to ready; `None` for never.
    pub ready_ms: Option<u64>,
    /// From being told to go to being gone.
    pub stop_ms: u64,
    /// From ready to failed for good.
    pub fail: Option<Mishap>,
    /// From ready to a crash, after which it is started anew, later each time.
    pub crash: Option<Mishap>,
}

/// Something that goes wrong for some.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Mishap {
    /// How long after it became ready.
    pub after_ms: u64,
    /// For so many of a hundred pods.
    pub percent: u64,
}

impl Default for Script {
    fn default() -> Self {
        Self { start_ms: 100, ready_ms: Some(100), stop_ms: 100, fail: None, crash: None }
    }
}

/// A text that is no script.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "{0:?} is no stage of a script: expected start=TIME, ready=TIME, ready=never, stop=TIME, fail=TIME or crash=TIME, the last two with @PERCENT% for some pods only"
)]
pub struct Malformed(String);

impl Script {
    /// This script, but for what a text says.
    ///
    /// - Errors: the first part of the text that says nothing.
    pub fn amended(mut self, text: &str) -> Result<Self, Malformed> {
        for part in text.split(',').map(str::trim).filter(|part| !part.is_empty()) {
            self.set(part).ok_or_else(|| Malformed(part.to_owned()))?;
        }
        Ok(self)
    }

    fn set(&mut self, part: &str) -> Option<()> {
        let (name, value) = part.split_once('=')?;
        match name {
            "start" => self.start_ms = milliseconds(value)?,
            "ready" if value == "never" => self.ready_ms = None,
            "ready" => self.ready_ms = Some(milliseconds(value)?),
            "stop" => self.stop_ms = milliseconds(value)?,
            "fail" => self.fail = Some(mishap(value)?),
            "crash" => self.crash = Some(mishap(value)?),
            _ => return None,
        }
        Some(())
    }
}

impl FromStr for Script {
    type Err = Malformed;

    fn from_str(text: &str) -> Result<Self, Malformed> {
        Self::default().amended(text)
    }
}

impl Mishap {
    /// Whether it happens to a pod: the same answer each time, and no dice.
    pub fn befalls(self, created: Revision) -> bool {
        let spread = (created as u64).wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 32;
        spread % 100 < self.percent
    }
}

fn mishap(text: &str) -> Option<Mishap> {
    let (after, percent) = match text.split_once('@') {
        Some((after, share)) => (after, share.strip_suffix('%')?.parse().ok().filter(|percent| *percent <= 100)?),
        None => (text, 100),
    };
    Some(Mishap { after_ms: milliseconds(after)?, percent })
}

/// Reads `250ms`, `3s` or `2m`.
fn milliseconds(text: &str) -> Option<u64> {
    let digits = text.find(|letter: char| !letter.is_ascii_digit())?;
    let (number, unit) = text.split_at(digits);
    let scale = match unit {
        "ms" => 1,
        "s" => 1_000,
        "m" => 60_000,
        _ => return None,
    };
    number.parse::<u64>().ok()?.checked_mul(scale).filter(|ms| *ms <= SCRIPT_DELAY_MS_MAX)
}

impl fmt::Display for Mishap {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}ms@{}%", self.after_ms, self.percent)
    }
}

impl fmt::Display for Script {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let ready = self.ready_ms.map_or_else(|| "never".to_owned(), |ms| format!("{ms}ms"));
        write!(f, "start={}ms,ready={ready},stop={}ms", self.start_ms, self.stop_ms)?;
        for (name, mishap) in [("fail", self.fail), ("crash", self.crash)] {
            if let Some(mishap) = mishap {
                write!(f, ",{name}={mishap}")?;
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_script_is_read_and_written() {
        let script: Script = "start=0ms, ready=2s,fail=1m@25%".parse().expect("a script");
        let wanted = Script {
            start_ms: 0,
            ready_ms: Some(2_000),
            fail: Some(Mishap { after_ms: 60_000, percent: 25 }),
            ..Script::default()
        };
        assert_eq!(script, wanted);
        assert_eq!(script.to_string().parse(), Ok(script));
        assert_eq!(script.amended("ready=never").map(|script| (script.start_ms, script.ready_ms)), Ok((0, None)));
        assert_eq!("".parse(), Ok(Script::default()));
        for text in
            ["start", "start=1", "start=1h", "ready=soon", "fail=1s@101%", "fail=1s@x", "stop=99999999999m", "x=1s"]
        {
            assert!(text.parse::<Script>().is_err(), "{text}");
        }
    }

    #[test]
    fn a_mishap_befalls_about_its_share_and_always_the_same() {
        let rare = Mishap { after_ms: 0, percent: 10 };
        let befallen = (0..10_000).filter(|created| rare.befalls(*created)).count();
        assert!((800..1_200).contains(&befallen), "{befallen}");
        assert!((0..1_000).all(|created| Mishap { percent: 100, ..rare }.befalls(created)));
        assert!((0..1_000).all(|created| !Mishap { percent: 0, ..rare }.befalls(created)));
    }
}
