//! The Markdown table of a comparison.

use crate::metrics::{METRICS, Metric};
use crate::results::{Results, median};
use crate::scenario::Sample;
use std::fmt::Write;

/// Writes the whole page.
pub fn page(results: &Results) -> String {
    let mut page = String::new();
    // Writing into a string cannot fail.
    let _ = body(&mut page, results);
    page
}

fn body(page: &mut String, results: &Results) -> std::fmt::Result {
    let rounds = results.runs.iter().map(|run| run.round).max().unwrap_or(0);
    let loads = || results.runs.iter().map(|run| run.load_average[0]);
    writeln!(page, "# Mechi beside etcd\n")?;
    writeln!(
        page,
        "Medians of {rounds} rounds, and in brackets the least and the most; a ratio above 1 means that Mechi is"
    )?;
    writeln!(
        page,
        "better, and is of the medians. Both servers fsync before they answer and have their defaults, but for a"
    )?;
    writeln!(page, "quota of 8 GiB; they and the load share the machine, one after the other.\n")?;
    writeln!(page, "- Command: `{}`", results.command)?;
    writeln!(page, "- Date: {}", results.date)?;
    writeln!(page, "- Machine: {}", results.machine)?;
    writeln!(page, "- etcd: {}", results.etcd)?;
    writeln!(page, "- Mechi: {}, repository at {}", results.mechi, results.commit)?;
    let (least, most) = (loads().fold(f64::MAX, f64::min), loads().fold(0.0, f64::max));
    let middle = median(loads()).unwrap_or_default();
    writeln!(page, "- Load average (one minute) before each run: {least:.1} to {most:.1}, median {middle:.1}")?;
    if let Some(rate) = results.half_rate {
        writeln!(page, "- Half of etcd's maximum on three members: {rate:.0} puts/s")?;
    }
    writeln!(page, "\n| what | unit | etcd | Mechi | times better | goal (least) | reached |")?;
    writeln!(page, "| --- | --- | --- | --- | --- | --- | --- |")?;
    for metric in METRICS {
        let Some(row) = Row::of(results, metric) else { continue };
        writeln!(
            page,
            "| {} | {} | {} | {} | {} | {} | {} |",
            metric.title,
            metric.unit,
            row.etcd.text(|sample| Some(sample.value)),
            row.mechi.text(|sample| Some(sample.value)),
            row.ratio.map(|ratio| format!("**{}**", number(ratio))).unwrap_or_default(),
            metric.goal.map(|(goal, floor)| format!("{} ({})", number(goal), number(floor))).unwrap_or_default(),
            row.verdict(),
        )?;
    }
    writeln!(page, "\nCPU of one operation in µs: of all server processes, and of the load generator beside it.\n")?;
    writeln!(page, "| what | etcd | Mechi | times less | load beside etcd | load beside Mechi |")?;
    writeln!(page, "| --- | --- | --- | --- | --- | --- |")?;
    for metric in METRICS {
        let Some(row) = Row::of(results, metric) else { continue };
        let (etcd, mechi) = (row.etcd.median(|sample| sample.server_us), row.mechi.median(|sample| sample.server_us));
        if etcd.or(mechi).is_none() {
            continue;
        }
        let ratio = etcd.zip(mechi).map(|(etcd, mechi)| format!("**{}**", number(etcd / mechi)));
        writeln!(
            page,
            "| {} | {} | {} | {} | {} | {} |",
            metric.title,
            row.etcd.text(|sample| sample.server_us),
            row.mechi.text(|sample| sample.server_us),
            ratio.unwrap_or_default(),
            row.etcd.text(|sample| sample.client_us),
            row.mechi.text(|sample| sample.client_us),
        )?;
    }
    Ok(())
}

/// All samples of one figure.
pub struct Row<'a> {
    etcd: Column<'a>,
    mechi: Column<'a>,
    metric: &'static Metric,
    /// How many times better Mechi is, if both were measured.
    pub ratio: Option<f64>,
}

struct Column<'a>(Vec<&'a Sample>);

impl Column<'_> {
    fn median(&self, of: impl Fn(&Sample) -> Option<f64>) -> Option<f64> {
        median(self.0.iter().filter_map(|sample| of(sample)))
    }

    /// The median, and the least and the most where there are several.
    fn text(&self, of: impl Fn(&Sample) -> Option<f64>) -> String {
        let values: Vec<f64> = self.0.iter().filter_map(|sample| of(sample)).collect();
        let Some(middle) = median(values.iter().copied()) else { return String::new() };
        let (least, most) =
            (values.iter().copied().fold(f64::MAX, f64::min), values.iter().copied().fold(0.0, f64::max));
        match values.len() {
            1 => number(middle),
            _ => format!("{} ({} to {})", number(middle), number(least), number(most)),
        }
    }
}

impl<'a> Row<'a> {
    /// The row of a figure; `None` if nobody measured it.
    pub fn of(results: &'a Results, metric: &'static Metric) -> Option<Self> {
        let column = |server| Column(results.samples(metric.name, server));
        let (etcd, mechi) = (column("etcd"), column("mechi"));
        if etcd.0.is_empty() && mechi.0.is_empty() {
            return None;
        }
        let value = |sample: &Sample| Some(sample.value);
        let both = etcd.median(value).zip(mechi.median(value));
        let ratio = both.map(|(etcd, mechi)| metric.ratio(etcd, mechi)).filter(|ratio| ratio.is_finite());
        Some(Self { etcd, mechi, metric, ratio })
    }

    /// The values of both servers in the order of the rounds.
    pub fn values(&self) -> (Vec<f64>, Vec<f64>) {
        let values = |column: &Column<'_>| column.0.iter().map(|sample| sample.value).collect();
        (values(&self.etcd), values(&self.mechi))
    }

    fn verdict(&self) -> &'static str {
        match (self.metric.goal, self.ratio) {
            (Some((goal, _)), Some(ratio)) if ratio >= goal => "goal",
            (Some((_, floor)), Some(ratio)) if ratio >= floor => "least",
            (Some(_), Some(_)) => "**no**",
            _ => "",
        }
    }
}

/// A number with three digits that say something.
pub fn number(value: f64) -> String {
    let size = value.abs();
    if size >= 100.0 {
        let mut digits = format!("{value:.0}");
        let mut at = digits.len();
        while at > 3 && digits.as_bytes()[at - 4].is_ascii_digit() {
            at -= 3;
            digits.insert(at, ',');
        }
        return digits;
    }
    match size {
        10.0.. => format!("{value:.1}"),
        0.1.. | 0.0 => format!("{value:.2}"),
        _ => format!("{value:.3}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::results::Run;

    fn run(round: usize, server: &str, metric: &str, value: f64, server_us: Option<f64>) -> Run {
        Run {
            round,
            scenario: metric.into(),
            server: server.into(),
            load_average: [round as f64, 0.0, 0.0],
            seconds: 1.0,
            samples: vec![Sample { metric: metric.into(), value, server_us, client_us: Some(2.0) }],
        }
    }

    #[test]
    fn numbers_keep_what_matters() {
        let cases = [
            (0.0, "0.00"),
            (0.0123, "0.012"),
            (0.5, "0.50"),
            (12.34, "12.3"),
            (100.0, "100"),
            (999.6, "1,000"),
            (1_234_567.0, "1,234,567"),
            (-1_234.0, "-1,234"),
        ];
        for (value, text) in cases {
            assert_eq!(number(value), text);
        }
    }

    #[test]
    fn a_table_says_medians_spread_ratio_and_what_was_reached() {
        let results = Results {
            command: "compare --etcd e".into(),
            date: "d".into(),
            machine: "m".into(),
            etcd: "etcd Version: 3.5.1".into(),
            mechi: "M".into(),
            commit: "c".into(),
            half_rate: Some(5_000.0),
            runs: vec![
                run(1, "etcd", "put_3", 9_000.0, Some(90.0)),
                run(1, "mechi", "put_3", 20_000.0, Some(30.0)),
                run(2, "etcd", "put_3", 11_000.0, Some(110.0)),
                run(2, "mechi", "put_3", 40_000.0, Some(20.0)),
                run(3, "etcd", "put_3", 10_000.0, Some(100.0)),
                run(3, "mechi", "put_3", 28_000.0, Some(25.0)),
                run(1, "etcd", "failover", 1_200.0, None),
            ],
        };
        let page = page(&results);
        let rows: Vec<&str> = page.lines().filter(|line| line.starts_with("| puts, three members, 256")).collect();
        let first = "| puts, three members, 256 clients | 1/s | 10,000 (9,000 to 11,000) | 28,000 (20,000 to 40,000) | \
                     **2.80** | 3.00 (1.50) | least |";
        let second = "| puts, three members, 256 clients | 100 (90.0 to 110) | 25.0 (20.0 to 30.0) | **4.00** | 2.00 (2.00 to \
                      2.00) | 2.00 (2.00 to 2.00) |";
        assert_eq!(rows, [first, second]);
        assert!(page.contains("| 1,200 |  |  |  |  |\n"), "a figure of one server has no ratio:\n{page}");
        assert!(page.contains("1.0 to 3.0, median 2.0"), "{page}");
    }
}
