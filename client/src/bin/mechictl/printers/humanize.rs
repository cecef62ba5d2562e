//! Sizes as etcdctl's table shows them.

const UNITS: [&str; 7] = ["B", "kB", "MB", "GB", "TB", "PB", "EB"];

/// A size in powers of 1,000: `20 kB`, `1.5 MB`.
pub(super) fn bytes(size: u64) -> String {
    if size < 10 {
        return format!("{size} B");
    }
    let power = size.ilog10() / 3;
    let value = (size as f64 / 1000f64.powi(power as i32) * 10.0 + 0.5).floor() / 10.0;
    let unit = UNITS[power as usize];
    if value < 10.0 { format!("{value:.1} {unit}") } else { format!("{value:.0} {unit}") }
}

#[cfg(test)]
mod tests {
    use super::bytes;

    #[test]
    fn sizes_are_short() {
        for (size, want) in [
            (0, "0 B"),
            (999, "999 B"),
            (1000, "1.0 kB"),
            (20480, "20 kB"),
            (82_854_982, "83 MB"),
            (1_550_000_000, "1.6 GB"),
            (u64::MAX, "18 EB"),
        ] {
            assert_eq!(bytes(size), want);
        }
    }
}
