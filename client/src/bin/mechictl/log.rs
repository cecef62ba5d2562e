//! Lines that are no output: as etcdctl its logger's JSON, as mechictl a sentence.

use crate::go::json::{Object, string};
use crate::output::complain;
use crate::program::Program;
use crate::style;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// Says something about the environment; `fatal` if the program ends for it.
pub(crate) fn about_environment(program: &Program, fatal: bool, message: &str, variable: &str) {
    if !program.is_etcdctl() {
        complain(&format!("{} {message}: {variable}", style::label(if fatal { "Error:" } else { "Warning:" }, fatal)));
        return;
    }
    let (level, caller) = if fatal { ("fatal", "flags/flag.go:85") } else { ("warn", "flags/flag.go:93") };
    let now = since_epoch();
    let line = Object::new().text("level", level).raw("ts", format!("{}.{:06}", now.as_secs(), now.subsec_micros()));
    let line = line.text("caller", caller).text("msg", message).raw("environment-variable", string(variable));
    complain(&line.end());
}

/// Tells of a call that failed, as etcdctl's client library does beside the error itself.
pub(crate) fn about_call(program: &Program, endpoint: &str, error: &str) {
    if !program.is_etcdctl() {
        return;
    }
    let line = Object::new().text("level", "warn").text("ts", &timestamp(since_epoch())).text("logger", "etcd-client");
    let line = line.text("caller", "v3/retry_interceptor.go:62").text("msg", "retrying of unary invoker failed");
    let line = line.text("target", &format!("etcd-endpoints://{endpoint}")).raw("attempt", 0).text("error", error);
    complain(&line.end());
}

fn since_epoch() -> Duration {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default()
}

/// RFC 3339 with milliseconds, in UTC.
fn timestamp(now: Duration) -> String {
    let (days, seconds) = (now.as_secs() / 86400, now.as_secs() % 86400);
    // Days from 1 March of year 0, so that a leap day ends its year (Hinnant, "chrono-compatible date algorithms").
    let shifted = days + 719_468;
    let (era, day_of_era) = (shifted / 146_097, shifted % 146_097);
    let year_of_era = (day_of_era - day_of_era / 1460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let month_from_march = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * month_from_march + 2) / 5 + 1;
    let month = if month_from_march < 10 { month_from_march + 3 } else { month_from_march - 9 };
    let year = era * 400 + year_of_era + u64::from(month <= 2);
    let (hour, minute, second) = (seconds / 3600, seconds / 60 % 60, seconds % 60);
    format!("{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}.{:03}Z", now.subsec_millis())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn days_become_dates() {
        for (seconds, want) in [
            (0, "1970-01-01T00:00:00.000Z"),
            (951_782_400, "2000-02-29T00:00:00.000Z"),
            (1_795_327_199, "2026-11-22T05:59:59.000Z"),
        ] {
            assert_eq!(timestamp(Duration::from_secs(seconds)), want);
        }
    }
}
