//! A soak on paper: its record as JSON, plots, and a page with the verdict.

use super::{Record, Sample, judge};
use crate::plot::{Series, lines};
use crate::table::number;
use anyhow::Result;
use std::collections::BTreeSet;
use std::fmt::Write;
use std::fs;
use std::path::Path;

/// Writes `soak.json`, the plots and `SOAK.md` into a folder.
pub fn write(record: &Record, folder: &Path) -> Result<()> {
    fs::write(folder.join("soak.json"), serde_json::to_string(record)? + "\n")?;
    let series = |name: &str, of: fn(&Sample) -> f64| Series {
        name: name.to_owned(),
        points: record.samples.iter().map(|sample| (sample.at, of(sample))).collect(),
    };
    let mut memory = vec![
        series("together", |sample| (sample.anonymous + sample.file) as f64 / 1e6),
        series("anonymous", |sample| sample.anonymous as f64 / 1e6),
        series("mapped files", |sample| sample.file as f64 / 1e6),
    ];
    for member in 0..record.members {
        let bytes = |sample: &Sample| sample.members.get(member).copied().unwrap_or(0) as f64 / 1e6;
        let points = record.samples.iter().map(|sample| (sample.at, bytes(sample))).collect();
        memory.push(Series { name: format!("member {}", member + 1), points });
    }
    let mut disk = vec![series("together", |sample| sample.disk as f64 / 1e6)];
    let parts: BTreeSet<&String> = record.samples.iter().flat_map(|sample| sample.disk_parts.keys()).collect();
    for part in parts {
        let bytes = |sample: &Sample| sample.disk_parts.get(part).copied().unwrap_or(0) as f64 / 1e6;
        let points = record.samples.iter().map(|sample| (sample.at, bytes(sample))).collect();
        disk.push(Series { name: part.clone(), points });
    }
    let latency = [series("p50", |sample| sample.p50), series("p99", |sample| sample.p99)];
    let work = [series("guarded writes", |sample| sample.writes)];
    let machine = [series("cores of all members", |sample| sample.cores), series("load average", |s| s.load_average)];
    let bound = 4.0 * (record.live_bytes * record.members as u64) as f64 / 1e6;
    for (name, plot) in [
        ("memory", lines("Memory of all members", "MB", &memory, None)),
        ("disk", lines("Disk of all members, and four times the live data", "MB", &disk, Some(bound))),
        ("latency", lines("Latency of the guarded writes, from when they were due", "ms", &latency, None)),
        ("work", lines("Guarded writes", "1/s", &work, None)),
        ("machine", lines("Processors", "cores", &machine, None)),
    ] {
        fs::write(folder.join(format!("soak-{name}.svg")), plot)?;
    }
    fs::write(folder.join("SOAK.md"), page(record))?;
    Ok(())
}

fn page(record: &Record) -> String {
    let (verdict, mut page) = (judge(record), String::from("# Soak\n\n"));
    let said = if verdict.wrong.is_empty() { "everything holds".to_owned() } else { verdict.wrong.join("; ") };
    // Writing into a string cannot fail.
    let _ = writeln!(page, "Verdict: **{said}**.\n");
    let mut row = |what: &str, figure: String| {
        let _ = writeln!(page, "- {what}: {figure}");
    };
    row("Command", format!("`{}`", record.command));
    row("Date", record.date.clone());
    row("Machine", record.machine.clone());
    row("Server", format!("{}, {} members", record.server, record.members));
    row("Guarded writes offered", format!("{}/s, open loop", number(record.rate)));
    if let Some(maximum) = record.maximum {
        row("Their measured maximum", format!("{}/s", number(maximum)));
    }
    row("Live data of each member", format!("{} MB", number(record.live_bytes as f64 / 1e6)));
    row("Settling, the same load with memory not judged", format!("{} s", number(record.settling)));
    row("Judged after it", format!("{} s", number(verdict.span)));
    row("Memory of all members, mean", format!("{} MB", number(verdict.memory / 1e6)));
    row("Drift of a straight line through it", format!("{:+.1} % (at most 10 % either way)", verdict.drift * 100.0));
    row("Swing, most less least", format!("{:.1} %", verdict.swing * 100.0));
    row("Most disk, settling included", format!("{} times the live data (at most 4)", number(verdict.disk)));
    for (name, done) in &record.sides {
        row(&format!("Beside them, {name}"), number(*done as f64));
    }
    for name in ["memory", "disk", "latency", "work", "machine"] {
        let _ = writeln!(page, "\n![{name}](soak-{name}.svg)");
    }
    page
}
