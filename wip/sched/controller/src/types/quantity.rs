//! Kubernetes' amounts: `500m`, `2`, `1.5Gi`, `1e3`; exact, and written back as they came.

use crate::limits::QUANTITY_DIGITS_MAX;
use serde::de::{self, Deserializer, Visitor};
use serde::{Deserialize, Serialize, Serializer};
use std::fmt;

/// An amount of something, with the text that it was written as.
///
/// Compares and adds by value; prints its text.
#[derive(Clone, Debug, Default)]
pub struct Quantity {
    text: String,
    /// Thousandths, rounded up as Kubernetes rounds what is finer.
    milli: i128,
}

/// Why a text is no amount: Kubernetes' words.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Malformed {
    /// It is no number with letters behind it.
    #[error("quantities must match the regular expression '^([+-]?[0-9.]+)([eEinumkKMGTP]*[-+]?[0-9]*)$'")]
    Format,
    /// The letters are none that stand for anything.
    #[error("unable to parse quantity's suffix")]
    Suffix,
}

/// The largest amount, in thousandths: Kubernetes caps at 2^63 - 1.
const MILLI_MAX: i128 = (i64::MAX as i128) * 1_000;

impl Quantity {
    /// So many whole units.
    pub fn whole(units: i64) -> Self {
        Self { text: units.to_string(), milli: i128::from(units) * 1_000 }
    }

    /// So many thousandths, written as `kubectl` does: whole units without a suffix.
    pub fn thousandths(milli: i64) -> Self {
        let text = if milli % 1_000 == 0 { (milli / 1_000).to_string() } else { format!("{milli}m") };
        Self { text, milli: i128::from(milli) }
    }

    /// Thousandths; saturates at an `i64`'s largest.
    pub fn milli(&self) -> i64 {
        i64::try_from(self.milli).unwrap_or(if self.milli > 0 { i64::MAX } else { i64::MIN })
    }

    /// Whole units, rounded up; saturates.
    pub fn units(&self) -> i64 {
        let up = self.milli.div_euclid(1_000) + i128::from(self.milli.rem_euclid(1_000) != 0);
        i64::try_from(up).unwrap_or(if up > 0 { i64::MAX } else { i64::MIN })
    }

    /// Whether it is less than nothing.
    pub fn is_negative(&self) -> bool {
        self.milli < 0
    }
}

impl std::str::FromStr for Quantity {
    type Err = Malformed;

    fn from_str(text: &str) -> Result<Self, Malformed> {
        let digits_from = usize::from(text.starts_with(['+', '-']));
        let is_number = |at: &char| at.is_ascii_digit() || *at == '.';
        let number: String = text[digits_from..].chars().take_while(is_number).collect();
        let suffix = &text[digits_from + number.len()..];
        let (whole, fraction) = number.split_once('.').unwrap_or((&number, ""));
        if whole.is_empty() && fraction.is_empty() || fraction.contains('.') || number.len() > QUANTITY_DIGITS_MAX {
            return Err(Malformed::Format);
        }
        let (base, exponent) = scale(suffix).ok_or_else(|| {
            let rest = suffix.trim_start_matches(|at| "eEinumkKMGTP".contains(at));
            let rest = rest.strip_prefix(['+', '-']).unwrap_or(rest);
            if rest.bytes().all(|at| at.is_ascii_digit()) { Malformed::Suffix } else { Malformed::Format }
        })?;
        // Everything in thousandths: digits × base^exponent × 1000 / 10^fraction.
        let digits = format!("{whole}{fraction}");
        let value = Exact::new(&digits).times(base, exponent + if base == 10 { 3 } else { 0 });
        let value = if base == 10 { value } else { value.times(10, 3) };
        let milli = value.times(10, -(fraction.len() as i32)).rounded_up().min(MILLI_MAX);
        let milli = if text.starts_with('-') { -milli } else { milli };
        Ok(Self { text: text.to_owned(), milli })
    }
}

/// What a suffix multiplies with: a base and its power.
fn scale(suffix: &str) -> Option<(u32, i32)> {
    let decimal = |power| Some((10, power));
    let binary = |power| Some((2, power));
    match suffix {
        "n" => decimal(-9),
        "u" => decimal(-6),
        "m" => decimal(-3),
        "" => decimal(0),
        "k" => decimal(3),
        "M" => decimal(6),
        "G" => decimal(9),
        "T" => decimal(12),
        "P" => decimal(15),
        "E" => decimal(18),
        "Ki" => binary(10),
        "Mi" => binary(20),
        "Gi" => binary(30),
        "Ti" => binary(40),
        "Pi" => binary(50),
        "Ei" => binary(60),
        _ => {
            let power = suffix.strip_prefix(['e', 'E'])?;
            let power: i32 = power.parse().ok()?;
            decimal(power.clamp(-100, 100))
        }
    }
}

/// A non-negative number over a divisor; saturates where no amount reaches.
struct Exact {
    value: u128,
    divisor: u128,
}

impl Exact {
    fn new(digits: &str) -> Self {
        let value =
            digits.bytes().fold(0_u128, |sum, digit| sum.saturating_mul(10).saturating_add((digit - b'0').into()));
        Self { value, divisor: 1 }
    }

    fn times(mut self, base: u32, power: i32) -> Self {
        for _ in 0..power.unsigned_abs() {
            let (grown, other) =
                if power > 0 { (&mut self.value, &mut self.divisor) } else { (&mut self.divisor, &mut self.value) };
            let base = u128::from(base);
            if other.is_multiple_of(base) && *other > 0 {
                *other /= base;
            } else {
                *grown = grown.saturating_mul(base);
            }
        }
        self
    }

    fn rounded_up(&self) -> i128 {
        i128::try_from(self.value.div_ceil(self.divisor)).unwrap_or(i128::MAX)
    }
}

impl PartialEq for Quantity {
    fn eq(&self, other: &Self) -> bool {
        self.milli == other.milli
    }
}

impl Eq for Quantity {}

impl PartialOrd for Quantity {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Quantity {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        self.milli.cmp(&other.milli)
    }
}

impl fmt::Display for Quantity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(if self.text.is_empty() { "0" } else { &self.text })
    }
}

impl Serialize for Quantity {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Quantity {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Reader;
        impl Visitor<'_> for Reader {
            type Value = Quantity;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an amount, as text or as a number")
            }

            fn visit_str<E: de::Error>(self, text: &str) -> Result<Quantity, E> {
                text.parse().map_err(E::custom)
            }

            fn visit_u64<E: de::Error>(self, number: u64) -> Result<Quantity, E> {
                self.visit_str(&number.to_string())
            }

            fn visit_i64<E: de::Error>(self, number: i64) -> Result<Quantity, E> {
                self.visit_str(&number.to_string())
            }

            fn visit_f64<E: de::Error>(self, number: f64) -> Result<Quantity, E> {
                self.visit_str(&number.to_string())
            }
        }
        deserializer.deserialize_any(Reader)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn milli(text: &str) -> Option<i64> {
        text.parse::<Quantity>().ok().map(|amount| amount.milli())
    }

    #[test]
    fn amounts_are_read_as_kubernetes_reads_them() {
        let cases = [
            ("0", 0),
            ("2", 2_000),
            ("500m", 500),
            ("0.1", 100),
            (".5", 500),
            ("1.", 1_000),
            ("1.5Gi", 1_610_612_736_000),
            ("128Mi", 134_217_728_000),
            ("1k", 1_000_000),
            ("1e3", 1_000_000),
            ("1E3", 1_000_000),
            ("1E", 1_000_000_000_000_000_000_000_i128 as i64),
            ("12e-1", 1_200),
            ("+3", 3_000),
            ("-3", -3_000),
            // Finer than a thousandth is rounded up.
            ("1u", 1),
            ("1n", 1),
            ("0.0001", 1),
        ];
        for (text, wanted) in cases {
            let wanted = if text == "1E" { i64::MAX } else { wanted };
            assert_eq!(milli(text), Some(wanted), "{text}");
        }
        for text in ["", "m", "1x", "1.2.3", "Ki", "1 Gi", "1ki", "--1", "e3", "1e", "0x10"] {
            assert_eq!(milli(text), None, "{text}");
        }
        assert_eq!("1ki".parse::<Quantity>(), Err(Malformed::Suffix));
        assert_eq!("1x".parse::<Quantity>(), Err(Malformed::Format));
    }

    #[test]
    fn amounts_are_written_as_they_came_and_compared_by_value() {
        let amount: Quantity = serde_json::from_str("\"1024Mi\"").expect("an amount");
        assert_eq!(serde_json::to_string(&amount).expect("text"), "\"1024Mi\"");
        assert_eq!(amount, "1Gi".parse().expect("an amount"));
        assert!(amount < "1025Mi".parse().expect("an amount"));
        assert_eq!(serde_json::from_str::<Quantity>("2").expect("a number"), Quantity::whole(2));
        assert_eq!(Quantity::thousandths(1_500).to_string(), "1500m");
        assert_eq!((Quantity::thousandths(1_001).units(), Quantity::default().to_string()), (2, "0".to_owned()));
    }

    #[test]
    fn no_text_makes_it_panic() {
        use proptest::prelude::*;
        proptest!(|(text in "[-+0-9.eEinumkKMGTPi]{0,80}")| {
            let _ = text.parse::<Quantity>();
        });
    }
}
