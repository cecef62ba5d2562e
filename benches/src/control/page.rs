//! `CONTROL.md`: every figure of both servers beside its goal.

use super::{FIGURES, Figure};
use crate::results::{Results, median};
use crate::table::number;
use std::fmt::Write as _;

/// The page, in Markdown.
pub fn page(results: &Results) -> String {
    let loads = || results.runs.iter().map(|run| run.load_average[0]);
    let (least, most) = (loads().fold(f64::INFINITY, f64::min), loads().fold(0.0, f64::max));
    let mut text = format!(
        "# The control plane on Mechi and on etcd\n\n`{}`, {}; {}; commit {}\n\n- etcd: {}\n- Mechi: {}\n\
         - load average before a run: {least:.1} to {most:.1}\n\nMedian (least to most) over all rounds. Beside a throughput: CPU in µs of one pod, of all servers and of \
         all `mechi-control` processes. A goal is for Mechi.\n\n\
         | figure | members | etcd | Mechi | goal | reached |\n| --- | --- | --- | --- | --- | --- |\n",
        results.command, results.date, results.machine, results.commit, results.etcd, results.mechi
    );
    for figure in FIGURES {
        for (place, members) in [1, 3].into_iter().enumerate() {
            let metric = format!("{}_{members}", figure.name);
            if results.samples(&metric, "mechi").is_empty() && results.samples(&metric, "etcd").is_empty() {
                continue;
            }
            let goal = figure.goals.map(|goals| goals[place]);
            let cells = ["etcd", "mechi"].map(|server| cell(results, &metric, server));
            let shown = goal.map(number).unwrap_or_default();
            let reached = verdict(&figure, goal, results, &metric);
            let [etcd, mechi] = cells;
            writeln!(text, "| {} | {members} | {etcd} | {mechi} | {shown} | {reached} |", figure.title)
                .expect("a string takes all");
        }
    }
    text
}

fn cell(results: &Results, metric: &str, server: &str) -> String {
    let samples = results.samples(metric, server);
    let values = || samples.iter().map(|sample| sample.value);
    let Some(middle) = median(values()) else { return String::new() };
    let (least, most) = (values().fold(f64::INFINITY, f64::min), values().fold(0.0, f64::max));
    let mut text = format!("{} ({} to {})", number(middle), number(least), number(most));
    let cpu = [
        median(samples.iter().filter_map(|sample| sample.server_us)),
        median(samples.iter().filter_map(|sample| sample.client_us)),
    ];
    if let [Some(servers), Some(control)] = cpu {
        write!(text, "; {} + {} µs", number(servers), number(control)).expect("a string takes all");
    }
    text
}

fn verdict(figure: &Figure, goal: Option<f64>, results: &Results, metric: &str) -> &'static str {
    let values: Vec<f64> = results.samples(metric, "mechi").iter().map(|sample| sample.value).collect();
    let value = if figure.is_of_worst { values.iter().copied().max_by(f64::total_cmp) } else { median(values) };
    match (value, goal) {
        (Some(value), Some(goal))
            if (figure.is_more_better && value >= goal) || (!figure.is_more_better && value <= goal) =>
        {
            "yes"
        }
        (Some(_), Some(_)) => "**no**",
        _ => "",
    }
}
