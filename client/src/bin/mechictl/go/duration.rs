//! Go's durations as nanoseconds: `time.ParseDuration` and `Duration.String`.

use super::quote::quote;

const UNITS: [(&str, f64); 8] =
    [("ns", 1.0), ("us", 1e3), ("µs", 1e3), ("μs", 1e3), ("ms", 1e6), ("s", 1e9), ("m", 60e9), ("h", 3600e9)];

/// Parses `1h2m3.5s` and the like into nanoseconds.
pub(crate) fn parse(text: &str) -> Result<i64, String> {
    let invalid = || format!("time: invalid duration {}", quote(text.as_bytes()));
    let (negative, mut rest) = match text.as_bytes().first() {
        Some(b'-') => (true, &text[1..]),
        Some(b'+') => (false, &text[1..]),
        _ => (false, text),
    };
    if rest == "0" {
        return Ok(0);
    }
    if rest.is_empty() {
        return Err(invalid());
    }
    let mut total = 0f64;
    while !rest.is_empty() {
        let digits = rest.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(rest.len());
        let (number, tail) = rest.split_at(digits);
        if !number.contains(|c: char| c.is_ascii_digit()) || number.matches('.').count() > 1 {
            return Err(invalid());
        }
        let letters = tail.find(|c: char| c.is_ascii_digit() || c == '.').unwrap_or(tail.len());
        let (unit, tail) = tail.split_at(letters);
        if unit.is_empty() {
            return Err(format!("time: missing unit in duration {}", quote(text.as_bytes())));
        }
        let Some((_, nanos)) = UNITS.iter().find(|(name, _)| *name == unit) else {
            let (unit, text) = (quote(unit.as_bytes()), quote(text.as_bytes()));
            return Err(format!("time: unknown unit {unit} in duration {text}"));
        };
        total += number.parse::<f64>().map_err(|_| invalid())? * nanos;
        rest = tail;
    }
    if total > i64::MAX as f64 {
        return Err(invalid());
    }
    let nanos = total.round() as i64;
    Ok(if negative { -nanos } else { nanos })
}

/// Writes nanoseconds as Go prints them: `5s`, `1.5ms`, `2h0m0s`.
pub(crate) fn text(nanos: i64) -> String {
    let sign = if nanos < 0 { "-" } else { "" };
    let n = nanos.unsigned_abs();
    let body = match n {
        0 => "0s".into(),
        1..1_000 => format!("{n}ns"),
        1_000..1_000_000 => format!("{}µs", fraction(n, 1_000)),
        1_000_000..1_000_000_000 => format!("{}ms", fraction(n, 1_000_000)),
        _ => {
            let (minutes, nanos) = (n / 60_000_000_000, n % 60_000_000_000);
            let seconds = fraction(nanos, 1_000_000_000);
            match (minutes / 60, minutes % 60) {
                (0, 0) => format!("{seconds}s"),
                (0, minutes) => format!("{minutes}m{seconds}s"),
                (hours, minutes) => format!("{hours}h{minutes}m{seconds}s"),
            }
        }
    };
    format!("{sign}{body}")
}

/// `n / unit` with as many decimals as it has, no trailing zeros.
fn fraction(n: u64, unit: u64) -> String {
    let digits = unit.ilog10() as usize;
    let decimals = format!("{:0digits$}", n % unit);
    match decimals.trim_end_matches('0') {
        "" => (n / unit).to_string(),
        decimals => format!("{}.{decimals}", n / unit),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_are_gos() {
        for (given, nanos, printed) in [
            ("5s", 5_000_000_000, "5s"),
            ("1500us", 1_500_000, "1.5ms"),
            ("2h", 7_200_000_000_000, "2h0m0s"),
            ("-1m0.25s", -60_250_000_000, "-1m0.25s"),
            ("890995ns", 890_995, "890.995µs"),
            ("0", 0, "0s"),
            (".5s", 500_000_000, "500ms"),
        ] {
            assert_eq!(parse(given), Ok(nanos));
            assert_eq!(text(nanos), printed);
        }
        assert_eq!(parse("x"), Err("time: invalid duration \"x\"".into()));
        assert_eq!(parse("5"), Err("time: missing unit in duration \"5\"".into()));
        assert_eq!(parse("5x"), Err("time: unknown unit \"x\" in duration \"5x\"".into()));
        assert_eq!(parse(""), Err("time: invalid duration \"\"".into()));
    }
}
