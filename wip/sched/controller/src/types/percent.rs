//! A number or a share: `maxSurge: 25%`.

use serde::de::{self, Deserializer, Visitor};
use serde::{Deserialize, Serialize, Serializer};
use std::fmt;

/// A whole number, or text, which is a percentage if it is valid.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum IntOrPercent {
    /// So many.
    Int(i32),
    /// Text such as `25%`.
    Text(String),
}

impl Default for IntOrPercent {
    fn default() -> Self {
        Self::Int(0)
    }
}

impl IntOrPercent {
    /// The percentage, if it is one.
    pub fn percent(&self) -> Option<i32> {
        match self {
            Self::Int(_) => None,
            Self::Text(text) => {
                let digits =
                    text.strip_suffix('%').filter(|digits| digits.bytes().all(|digit| digit.is_ascii_digit()))?;
                digits.parse().ok()
            }
        }
    }

    /// How many of `total` it stands for; `None` if it is text of another form.
    pub fn of(&self, total: i32, up: bool) -> Option<i32> {
        let Self::Int(number) = self else {
            let parts = i64::from(self.percent()?) * i64::from(total);
            let share = if up { (parts + 99).div_euclid(100) } else { parts.div_euclid(100) };
            return Some(i32::try_from(share).unwrap_or(i32::MAX));
        };
        Some(*number)
    }
}

impl fmt::Display for IntOrPercent {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Int(number) => number.fmt(f),
            Self::Text(text) => f.write_str(text),
        }
    }
}

impl Serialize for IntOrPercent {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Self::Int(number) => serializer.serialize_i32(*number),
            Self::Text(text) => serializer.serialize_str(text),
        }
    }
}

impl<'de> Deserialize<'de> for IntOrPercent {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Reader;
        impl Visitor<'_> for Reader {
            type Value = IntOrPercent;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a number or a percentage")
            }

            fn visit_str<E: de::Error>(self, text: &str) -> Result<IntOrPercent, E> {
                Ok(IntOrPercent::Text(text.to_owned()))
            }

            fn visit_u64<E: de::Error>(self, number: u64) -> Result<IntOrPercent, E> {
                i32::try_from(number).map(IntOrPercent::Int).map_err(E::custom)
            }

            fn visit_i64<E: de::Error>(self, number: i64) -> Result<IntOrPercent, E> {
                i32::try_from(number).map(IntOrPercent::Int).map_err(E::custom)
            }
        }
        deserializer.deserialize_any(Reader)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shares_are_rounded_as_asked() {
        let share = |text: &str, total, up| IntOrPercent::Text(text.to_owned()).of(total, up);
        assert_eq!((share("25%", 10, true), share("25%", 10, false)), (Some(3), Some(2)));
        assert_eq!(
            (share("100%", 7, false), share("0%", 7, true), share("150%", 4, true)),
            (Some(7), Some(0), Some(6))
        );
        assert_eq!((share("25", 10, true), share("-5%", 10, true), share("%", 1, true)), (None, None, None));
        assert_eq!(IntOrPercent::Int(4).of(10, true), Some(4));
    }
}
