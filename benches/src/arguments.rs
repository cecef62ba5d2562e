//! The arguments that the programs of this crate share: the servers' programs, and the size of a load.

use crate::load::drive::Shape;
use crate::load::limits::{IN_FLIGHT_MAX, KEYS_MAX, RATE_MAX, RATE_MIN};
use crate::servers::Programs;
use anyhow::Result;
use clap::Args;
use clap::builder::RangedU64ValueParser;
use mechi_tests::{arguments, oracle};
use std::path::PathBuf;

/// Where Mechi's program is.
#[derive(Clone, Debug, Args)]
pub struct MechiProgram {
    /// Mechi's program [default: `mechi` beside this program]
    #[arg(long = "mechi", value_name = "PATH")]
    path: Option<PathBuf>,
}

impl MechiProgram {
    /// The program that was named, or the one of this build.
    pub fn find(&self) -> PathBuf {
        self.path.clone().unwrap_or_else(oracle::mechi)
    }
}

/// Where the programs of both servers are.
#[derive(Clone, Debug, Args)]
pub struct BothPrograms {
    /// etcd's program, 3.5 or newer [default: 3.5.1 as tests/oracles.sh fetches it]
    #[arg(long, value_name = "PATH")]
    etcd: Option<PathBuf>,
    #[command(flatten)]
    mechi: MechiProgram,
}

impl BothPrograms {
    /// The programs that were named, or those of this build, with what they say of themselves.
    ///
    /// - Errors: those of [`Programs::find`].
    pub fn find(&self) -> Result<Programs> {
        Programs::find(self.etcd.clone().unwrap_or_else(oracle::etcd), self.mechi.find())
    }
}

/// Reads a number of keys.
pub fn keys() -> RangedU64ValueParser<u64> {
    RangedU64ValueParser::new().range(1..=KEYS_MAX)
}

/// Reads the rate of an open loop, operations per second.
pub fn rate() -> impl Fn(&str) -> Result<f64, String> + Clone + Send + Sync + 'static {
    arguments::between(RATE_MIN..=RATE_MAX)
}

/// Reads connections and the streams on each: `16x16`.
///
/// - Errors: a sentence with the bounds.
pub fn shape(text: &str) -> Result<Shape, String> {
    let numbers = text.split_once('x').and_then(|(one, other)| Some((one.parse().ok()?, other.parse().ok()?)));
    numbers
        .filter(|(connections, streams): &(usize, usize)| {
            connections.checked_mul(*streams).is_some_and(|clients| (1..=IN_FLIGHT_MAX).contains(&clients))
        })
        .map(|(connections, streams)| Shape { connections, streams })
        .ok_or_else(|| format!("it must be CxS, such as 16x16, with C times S from 1 to {IN_FLIGHT_MAX}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_shape_has_a_client_and_not_too_many() {
        assert_eq!(shape("2x3").map(|shape| (shape.connections, shape.streams)), Ok((2, 3)));
        assert!(shape(&format!("{IN_FLIGHT_MAX}x1")).is_ok());
        let too_many = format!("{IN_FLIGHT_MAX}x2");
        for text in ["0x1", "1x0", "16", "x", "1x-1", "1x1x1", "ax1", "18446744073709551615x2", &too_many] {
            assert!(shape(text).is_err(), "{text}");
        }
    }
}
