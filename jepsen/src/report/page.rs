//! The page: the matrix first, then what is wrong, then every run with its picture and the command to repeat it.

use super::chart;
use super::run::{Run, SECOND_NS, Word};
use crate::nemesis::Nemesis;
use crate::workload::Workload;
use mechi_checker::edn::Edn;
use mechi_checker::timeline::escape;
use std::collections::BTreeMap;
use std::fmt::Write;

const STYLE: &str = "\
body { font-family: sans-serif; margin: 1.5em; color: #222; max-width: 1200px }
table { border-collapse: collapse; font-size: 85% } th, td { border: 1px solid #ddd; padding: 3px 6px; text-align: center }
th { background: #f4f4f4; font-weight: normal } td.left { text-align: left }
.valid { background: #d9f0d3 } .invalid { background: #f4b6b6 } .unknown { background: #f9e3a2 } .missing { background: #ddd }
code { background: #f4f4f4; padding: 1px 4px } section { border-top: 1px solid #ccc; margin-top: 1.5em }
.finding { font-family: monospace; font-size: 90%; white-space: pre-wrap; margin: 2px 0 }";

/// All runs as one page.
pub(super) fn html(runs: &[Run]) -> String {
    let mut out = format!(
        "<!DOCTYPE html>\n<html lang=\"en\"><head><meta charset=\"utf-8\"><title>Mechi under torture</title>\
         <style>{STYLE}</style></head><body>\n<h1>Mechi under torture</h1>\n"
    );
    totals(runs, &mut out);
    matrix(runs, &mut out);
    service(runs, &mut out);
    for run in runs {
        section(run, &mut out);
    }
    out.push_str("</body></html>\n");
    out
}

fn class(word: Word) -> &'static str {
    match word {
        Word::Valid => "valid",
        Word::Invalid => "invalid",
        Word::Unknown => "unknown",
        Word::Missing => "missing",
    }
}

fn id(run: &Run) -> String {
    let name = run.dir.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
    name.chars().map(|letter| if letter.is_alphanumeric() { letter } else { '-' }).collect()
}

fn totals(runs: &[Run], out: &mut String) {
    let words = |word: Word| runs.iter().filter(|run| run.word == word).count();
    let sum = |count: &dyn Fn(&Run) -> u64| runs.iter().map(count).sum::<u64>();
    let requests = sum(&|run| ["ok", "fail", "info"].iter().map(|kind| run.count("requests", kind)).sum());
    let unknown = sum(&|run| run.count("requests", "info"));
    let effects = sum(&|run| run.results.get("effects").unsigned().unwrap_or(0));
    let events = sum(&|run| run.results.get("watch-events").unsigned().unwrap_or(0));
    let _ = writeln!(
        out,
        "<p>{} runs: <b>{} valid</b>, {} with findings, {} unknown, {} without a verdict. {requests} requests, {unknown} of \
         them of unknown outcome; {effects} faults with an effect; {events} watch events.</p>",
        runs.len(),
        words(Word::Valid),
        words(Word::Invalid),
        words(Word::Unknown),
        words(Word::Missing),
    );
    let mut where_run: BTreeMap<String, usize> = BTreeMap::new();
    for run in runs {
        let each = ["server", "members", "commit", "nproc"].map(|name| {
            let value = if name == "members" {
                run.options.get(name).items().map_or(0, <[Edn]>::len).to_string()
            } else {
                run.option(name)
            };
            format!("{name} {value}")
        });
        *where_run.entry(each.join(", ")).or_default() += 1;
    }
    for (what, count) in where_run {
        let _ = writeln!(out, "<p>{count} of them: {}.</p>", escape(&what));
    }
}

/// Workloads by nemeses: in each cell its runs, the worst deciding the colour.
fn matrix(runs: &[Run], out: &mut String) {
    let mut cells: BTreeMap<(String, String), Vec<&Run>> = BTreeMap::new();
    for run in runs {
        cells.entry((run.option("workload"), run.option("nemesis"))).or_default().push(run);
    }
    let used = |nemesis: &&Nemesis| cells.keys().any(|(_, name)| name == nemesis.name());
    let nemeses: Vec<&Nemesis> = Nemesis::ALL.iter().filter(used).collect();
    out.push_str("<table><tr><th></th>");
    for nemesis in &nemeses {
        let _ = write!(out, "<th>{}</th>", nemesis.name());
    }
    out.push_str("</tr>\n");
    for workload in Workload::ALL {
        let _ = write!(out, "<tr><th>{workload}</th>");
        for nemesis in &nemeses {
            let Some(runs) = cells.get(&(workload.name().to_owned(), nemesis.name().to_owned())) else {
                out.push_str("<td></td>");
                continue;
            };
            let bad = runs.iter().find(|run| run.word == Word::Invalid);
            let run = bad.or_else(|| runs.iter().find(|run| run.word != Word::Valid)).unwrap_or(&runs[0]);
            let good = runs.iter().filter(|run| run.word == Word::Valid).count();
            let text = if runs.len() == 1 { class(run.word).to_owned() } else { format!("{good}/{}", runs.len()) };
            let _ = write!(out, "<td class=\"{}\"><a href=\"#{}\">{text}</a></td>", class(run.word), id(run));
        }
        out.push_str("</tr>\n");
    }
    out.push_str("</table>\n");
}

/// How the service fared, by nemesis.
fn service(runs: &[Run], out: &mut String) {
    out.push_str(
        "<h2>Service under fault</h2>\n<p>Of all clients together, six of which know one member only: the longest time \
         without any success, and how long successful requests took, before the first fault and while faults were there. \
         A request may take 200 ms.</p>\n<table><tr><th>run</th><th>longest silence</th><th>calm, median</th><th>calm, \
         99 %</th><th>faults, median</th><th>faults, 99 %</th><th>successes per second, calm</th><th>with faults</th></tr>\n",
    );
    for run in runs.iter().filter(|run| !run.load.requests.is_empty()) {
        let load = &run.load;
        let first = load.bands.first().map_or_else(|| load.end_ns(), |(from, ..)| *from);
        let healed = run.facts.get("healed").unsigned().unwrap_or_else(|| load.end_ns()).max(first);
        let ms = |ns: u64| format!("{}.{} ms", ns / 1_000_000, ns / 100_000 % 10);
        let row = |from: u64, till: u64| {
            let quantiles = load.quantiles(from, till, &[500, 990]);
            quantiles.map_or(["–".to_owned(), "–".to_owned()], |found| [ms(found[0]), ms(found[1])])
        };
        let rate = |from: u64, till: u64| {
            let count = load.requests.iter().filter(|(at, _, ok)| *ok && (from..till).contains(at)).count() as u64;
            if till > from {
                (u128::from(count) * u128::from(SECOND_NS) / u128::from(till - from)).to_string()
            } else {
                "–".into()
            }
        };
        let ([calm, calm_high], [harm, harm_high]) = (row(0, first), row(first, healed));
        let (silence, at) = load.longest_silence();
        let _ = writeln!(
            out,
            "<tr><td class=\"left\"><a href=\"#{}\">{} / {}</a></td><td>{} at {} s</td><td>{calm}</td><td>{calm_high}</td>\
             <td>{harm}</td><td>{harm_high}</td><td>{}</td><td>{}</td></tr>",
            id(run),
            escape(&run.option("workload")),
            escape(&run.option("nemesis")),
            ms(silence),
            at / SECOND_NS,
            rate(0, first),
            rate(first, healed),
        );
    }
    out.push_str("</table>\n");
}

fn section(run: &Run, out: &mut String) {
    let _ = writeln!(
        out,
        "<section id=\"{}\"><h3>{} under {} <span class=\"{}\">{}</span></h3>\n<p><code>{}</code></p>",
        id(run),
        escape(&run.option("workload")),
        escape(&run.option("nemesis")),
        class(run.word),
        class(run.word),
        escape(&run.option("command"))
    );
    if let Some(error) = &run.error {
        let _ = writeln!(out, "<p class=\"finding\">{}</p>", escape(error));
    }
    let kinds = |of: &str| ["ok", "fail", "info"].map(|kind| run.count(of, kind));
    let [ok, fail, info] = kinds("operations");
    let [ok_requests, fail_requests, info_requests] = kinds("requests");
    let effects = run.results.get("effects").unsigned().unwrap_or(0);
    let events = run.results.get("watch-events").unsigned().unwrap_or(0);
    let _ = writeln!(
        out,
        "<p>Operations: {ok} succeeded, {fail} failed, {info} unknown. Requests: {ok_requests} succeeded, {fail_requests} \
         failed, {info_requests} unknown. {effects} faults with an effect; {events} watch events.</p>"
    );
    for (name, word, texts) in run.checkers() {
        if word != Word::Valid {
            let _ = writeln!(out, "<p><b class=\"{}\">{}</b></p>", class(word), escape(&name));
        }
        for text in texts {
            let _ = writeln!(out, "<p class=\"finding\">{}</p>", escape(&text));
        }
    }
    let fine: Vec<_> = run.checkers().into_iter().filter(|(_, word, _)| *word == Word::Valid).map(|it| it.0).collect();
    if !fine.is_empty() {
        let _ = writeln!(out, "<p>Nothing found by: {}.</p>", escape(&fine.join(", ")));
    }
    if !run.load.requests.is_empty() {
        out.push_str(&chart::svg(&run.load));
    }
    for picture in &run.pictures {
        let _ = writeln!(out, "<details><summary>The operations involved</summary>\n{picture}</details>");
    }
    out.push_str("</section>\n");
}
