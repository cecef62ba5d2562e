//! What the arguments of this project's own tools have in common: numbers within bounds, times, and ranges of seeds.

use clap::builder::RangedU64ValueParser;
use std::ops::{Range, RangeInclusive};
use std::str::FromStr;
use std::time::Duration;

/// Rounds of a measurement; a round takes seconds at least, so that more would run for days.
pub const ROUNDS_MAX: u64 = 10_000;

/// Reads a number of rounds.
pub fn rounds() -> RangedU64ValueParser<usize> {
    RangedU64ValueParser::new().range(1..=ROUNDS_MAX)
}

/// Reads a number within bounds, with or without a fraction.
///
/// - Errors: a sentence with the bounds.
pub fn between(bounds: RangeInclusive<f64>) -> impl Fn(&str) -> Result<f64, String> + Clone + Send + Sync + 'static {
    move |text| {
        let number = text.parse().ok().filter(|number| bounds.contains(number));
        number.ok_or_else(|| format!("it must be a number from {} to {}", bounds.start(), bounds.end()))
    }
}

/// Reads a time that is given as a number of units of so many seconds; the bounds are in that unit.
pub fn time(
    unit_seconds: f64,
    bounds: RangeInclusive<f64>,
) -> impl Fn(&str) -> Result<Duration, String> + Clone + Send + Sync + 'static {
    let number = between(bounds);
    move |text| Ok(Duration::from_secs_f64(number(text)? * unit_seconds))
}

/// Seeds from one on and below another.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Seeds(pub Range<u64>);

impl FromStr for Seeds {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let ends = text.split_once("..").and_then(|(from, to)| Some(from.parse().ok()?..to.parse().ok()?));
        let seeds = ends.filter(|seeds| !seeds.is_empty());
        seeds.map(Self).ok_or_else(|| format!("it must be A..B with A below B, both from 0 to {}", u64::MAX))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_and_times_keep_to_their_bounds() {
        let number = between(0.5..=10.0);
        assert_eq!((number("0.5"), number("10"), number("3.25")), (Ok(0.5), Ok(10.0), Ok(3.25)));
        for text in ["0.4", "10.1", "-1", "inf", "NaN", "", "1s"] {
            assert_eq!(number(text), Err("it must be a number from 0.5 to 10".to_owned()), "{text}");
        }
        assert_eq!(time(60.0, 0.1..=5.0)("0.5"), Ok(Duration::from_secs(30)));
        assert!(time(60.0, 0.1..=5.0)("6").is_err());
    }

    #[test]
    fn a_range_of_seeds_holds_at_least_one() {
        assert_eq!("3..5".parse(), Ok(Seeds(3..5)));
        assert_eq!("0..18446744073709551615".parse(), Ok(Seeds(0..u64::MAX)));
        for text in ["3", "5..3", "3..3", "..3", "3..", "a..b", "-1..3", "0..18446744073709551616", "0...3"] {
            assert!(text.parse::<Seeds>().is_err(), "{text}");
        }
    }
}
