//! What of a seed's run is left out, so that what is left still shows what went wrong.
//!
//! A plan changes nothing of what the seed draws: the n-th fault and the n-th operation are the same, they only do not
//! happen. What follows from that may of course go another way, so that only the run itself can tell.

use super::chaos::FaultKind;
use super::options::{COMMON, Options};
use std::collections::BTreeSet;
use std::fmt;
use std::ops::Range;
use std::str::FromStr;

/// Some numbers, as ascending ranges without overlap; written `1..5,9`, where `1..5` ends below 5.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Numbers(Vec<Range<u64>>);

impl Numbers {
    /// Whether it holds `number`.
    pub fn contains(&self, number: u64) -> bool {
        let after = self.0.partition_point(|range| range.start <= number);
        after.checked_sub(1).is_some_and(|place| number < self.0[place].end)
    }

    /// Whether it holds none.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// All of them, ascending.
    pub fn iter(&self) -> impl Iterator<Item = u64> + '_ {
        self.0.iter().flat_map(Clone::clone)
    }
}

impl FromIterator<u64> for Numbers {
    fn from_iter<T: IntoIterator<Item = u64>>(numbers: T) -> Self {
        let mut ranges: Vec<Range<u64>> = Vec::new();
        for number in numbers.into_iter().collect::<BTreeSet<_>>() {
            match ranges.last_mut() {
                Some(last) if last.end == number => last.end += 1,
                _ => ranges.push(number..number + 1),
            }
        }
        Self(ranges)
    }
}

impl fmt::Display for Numbers {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (place, range) in self.0.iter().enumerate() {
            let comma = if place > 0 { "," } else { "" };
            match range.end - range.start {
                1 => write!(f, "{comma}{}", range.start)?,
                _ => write!(f, "{comma}{}..{}", range.start, range.end)?,
            }
        }
        if self.0.is_empty() { write!(f, "none") } else { Ok(()) }
    }
}

/// The largest number in a list; none in a run is near it.
const NUMBER_MAX: u64 = 1 << 32;

impl FromStr for Numbers {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        if text == "none" {
            return Ok(Self::default());
        }
        let range = |part: &str| {
            let (from, to) = match part.split_once("..") {
                Some((from, to)) => (from.parse().ok()?, to.parse().ok()?),
                None => part.parse().ok().map(|number: u64| (number, number.saturating_add(1)))?,
            };
            (from < to && to <= NUMBER_MAX).then_some(from..to)
        };
        let mut ranges = text.split(',').map(range).collect::<Option<Vec<_>>>().unwrap_or_default();
        ranges.sort_by_key(|range| range.start);
        let apart = ranges.windows(2).all(|pair| pair[0].end <= pair[1].start);
        if ranges.is_empty() || !apart {
            return Err("it must be \"none\" or a list as 1..5,9 without overlap".to_owned());
        }
        Ok(Self(ranges))
    }
}

/// What of a run happens; by default all of it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Plan {
    /// Classes of faults and common troubles that do not happen.
    pub without: BTreeSet<&'static str>,
    /// No fault begins before, in milliseconds.
    pub from: Option<u64>,
    /// No fault and no operation begins later, in milliseconds.
    pub until: Option<u64>,
    /// The faults that happen, by number.
    pub faults: Option<Numbers>,
    /// The clients' operations that happen, by number.
    pub ops: Option<Numbers>,
}

impl Plan {
    /// Whether nothing is left out.
    pub fn is_whole(&self) -> bool {
        *self == Self::default()
    }

    /// The names of all classes of faults.
    pub fn classes() -> Vec<&'static str> {
        FaultKind::ALL.iter().map(|kind| kind.name()).collect()
    }

    /// The name of a class or trouble as it is written.
    ///
    /// - Errors: a sentence with all names.
    pub fn class(name: &str) -> Result<&'static str, String> {
        let all = [Self::classes(), COMMON.to_vec()].concat();
        let found = all.iter().copied().find(|known| known.eq_ignore_ascii_case(name));
        found.ok_or_else(|| format!("there are {}", all.join(", ")))
    }

    /// Takes the common troubles that do not happen out of a run's options.
    pub(super) fn ease(&self, options: &mut Options) {
        let troubles: [&mut u64; 5] = [
            &mut options.operator,
            &mut options.loss,
            &mut options.duplicates,
            &mut options.reordered,
            &mut options.skew,
        ];
        for (name, amount) in COMMON.iter().zip(troubles) {
            if self.without.contains(name) {
                *amount = 0;
            }
        }
    }

    /// Whether a fault happens that would begin at `now` microseconds.
    pub(super) fn has_fault(&self, number: u64, kind: FaultKind, now: u64) -> bool {
        !self.without.contains(kind.name())
            && self.from.is_none_or(|from| now >= from * 1_000)
            && !self.is_over(now)
            && self.faults.as_ref().is_none_or(|faults| faults.contains(number))
    }

    /// Whether an operation happens.
    pub(super) fn has_op(&self, number: u64) -> bool {
        self.ops.as_ref().is_none_or(|ops| ops.contains(number))
    }

    /// Whether nothing begins any more at `now` microseconds.
    pub(super) fn is_over(&self, now: u64) -> bool {
        self.until.is_some_and(|until| now > until * 1_000)
    }
}

impl fmt::Display for Plan {
    /// As arguments of the command line, each with a blank before it.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if !self.without.is_empty() {
            write!(f, " --without {}", self.without.iter().copied().collect::<Vec<_>>().join(","))?;
        }
        if let Some(from) = self.from {
            write!(f, " --from {from}")?;
        }
        if let Some(until) = self.until {
            write!(f, " --until {until}")?;
        }
        if let Some(faults) = &self.faults {
            write!(f, " --faults {faults}")?;
        }
        if let Some(ops) = &self.ops {
            write!(f, " --ops {ops}")?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_written_as_they_are_read() {
        for text in ["none", "7", "1..5,9", "0..2,3,8..10"] {
            assert_eq!(text.parse::<Numbers>().unwrap().to_string(), text);
        }
        let numbers: Numbers = "9,1..5".parse().unwrap();
        assert_eq!(numbers.iter().collect::<Vec<_>>(), [1, 2, 3, 4, 9]);
        assert!(numbers.contains(4) && numbers.contains(9) && !numbers.contains(5) && !numbers.contains(0));
        assert_eq!([4, 2, 3, 9].into_iter().collect::<Numbers>().to_string(), "2..5,9");
        for text in ["", "1..", "5..1", "3..3", "1..5,4", "a", "1,,2", "0..18446744073709551615"] {
            assert!(text.parse::<Numbers>().is_err(), "{text}");
        }
    }

    #[test]
    fn a_plan_is_written_as_arguments() {
        let plan = Plan {
            without: [Plan::class("powercut").unwrap(), Plan::class("Loss").unwrap()].into(),
            until: Some(700),
            faults: Some("3".parse().unwrap()),
            ..Plan::default()
        };
        assert_eq!(plan.to_string(), " --without Loss,PowerCut --until 700 --faults 3");
        assert!(Plan::default().is_whole() && Plan::default().to_string().is_empty());
        assert!(Plan::class("Meteor").unwrap_err().contains("PowerCut"));
    }
}
