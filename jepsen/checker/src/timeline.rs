//! The operations that a finding names, as a picture: time goes to the right, each client has a row, faults are bands.
//!
//! The picture is one SVG file without scripts; what a bar cannot hold is shown when the mouse rests on it.

use crate::history::{History, Kind, Op, Pair, Process};
use crate::limits::PICTURE_OPS_MAX;
use crate::verdict::Results;
use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write;

const WIDTH: u64 = 1_200;
const LEFT: u64 = 110;
const ROW: u64 = 34;
const TOP: u64 = 40;
const LINE: u64 = 18;

/// Draws the operations that the findings name, or the first ones if they name none.
pub fn svg(history: &History, results: &Results) -> String {
    let involved = results.involved();
    let pairs = history.pairs().unwrap_or_default();
    let mut shown: Vec<&Pair<'_>> = pairs.iter().filter(|pair| involved.contains(&pair.id())).collect();
    if shown.is_empty() {
        shown = pairs.iter().collect();
    }
    shown.truncate(PICTURE_OPS_MAX);
    let from = shown.iter().map(|pair| pair.invoke.time_ns).min().unwrap_or(0);
    let till = shown.iter().map(|pair| pair.done.time_ns).max().unwrap_or(1).max(from + 1);
    // Some air on both sides, so that what came just before is seen too.
    let air = (till - from) / 20 + 1;
    let scale = Scale { from: from.saturating_sub(air), till: till.saturating_add(air) };
    let processes: BTreeSet<Process> = shown.iter().map(|pair| pair.invoke.process).collect();
    let rows: BTreeMap<Process, u64> = processes.into_iter().zip(0..).collect();
    let chart = TOP + rows.len() as u64 * ROW;
    let texts: Vec<String> = results
        .each()
        .flat_map(|(name, verdict)| verdict.findings().iter().map(move |finding| format!("{name} {finding}")))
        .collect();
    let height = chart + 40 + texts.len() as u64 * LINE;
    let mut out = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"{WIDTH}\" height=\"{height}\" \
         viewBox=\"0 0 {WIDTH} {height}\" font-family=\"sans-serif\" font-size=\"12\">\n\
         <rect width=\"{WIDTH}\" height=\"{height}\" fill=\"#ffffff\"/>\n"
    );
    for (band_from, band_till, name) in bands(history) {
        if band_till < scale.from || band_from > scale.till {
            continue;
        }
        let (x, end) = (scale.x(band_from), scale.x(band_till));
        let width = end.saturating_sub(x).max(2);
        let name = escape(&name);
        let _ = writeln!(
            out,
            "<g><title>{name}: {band_from} to {band_till} ns</title><rect x=\"{x}\" y=\"{TOP}\" width=\"{width}\" \
             height=\"{}\" fill=\"#f6d5d5\"/><text x=\"{}\" y=\"{}\" fill=\"#a03030\">{name}</text></g>",
            chart - TOP,
            x + 3,
            TOP - 6
        );
    }
    for (process, row) in &rows {
        let y = TOP + row * ROW;
        let _ = writeln!(
            out,
            "<line x1=\"{LEFT}\" y1=\"{y}\" x2=\"{WIDTH}\" y2=\"{y}\" stroke=\"#dddddd\"/>\
             <text x=\"6\" y=\"{}\">{process}</text>",
            y + 21
        );
    }
    for pair in &shown {
        out.push_str(&bar(pair, &scale, TOP + rows[&pair.invoke.process] * ROW));
    }
    let _ = writeln!(
        out,
        "<text x=\"{LEFT}\" y=\"{}\" fill=\"#666666\">{} ms</text>\
         <text x=\"{}\" y=\"{}\" fill=\"#666666\" text-anchor=\"end\">{} ms</text>",
        chart + 16,
        milliseconds(scale.from),
        WIDTH - 6,
        chart + 16,
        milliseconds(scale.till)
    );
    for (text, line) in texts.iter().zip(1..) {
        let _ = writeln!(out, "<text x=\"6\" y=\"{}\">{}</text>", chart + 20 + line * LINE, escape(&cut(text, 190)));
    }
    out.push_str("</svg>\n");
    out
}

struct Scale {
    from: u64,
    till: u64,
}

impl Scale {
    fn x(&self, at_ns: u64) -> u64 {
        let at = at_ns.clamp(self.from, self.till) - self.from;
        let all = u128::from(self.till - self.from).max(1);
        LEFT + u64::try_from(u128::from(at) * u128::from(WIDTH - LEFT - 6) / all).unwrap_or(0)
    }
}

fn bar(pair: &Pair<'_>, scale: &Scale, y: u64) -> String {
    let (fill, end) = match pair.done.kind {
        Kind::Ok | Kind::Invoke => ("#bfe3bf", pair.done.time_ns),
        Kind::Fail => ("#d9d9d9", pair.done.time_ns),
        // It may take effect at any later time.
        Kind::Info => ("#f7e0a3", u64::MAX),
    };
    let (x, end) = (scale.x(pair.invoke.time_ns), scale.x(end));
    let width = end.saturating_sub(x).max(3);
    let text = format!("{} {}", pair.id(), describe(pair));
    // About seven dots per letter; what does not fit stands in the title.
    let room = usize::try_from(width / 7).unwrap_or(0);
    let label = if room < 3 { pair.id().to_string() } else { cut(&text, room) };
    let error = pair.done.error.as_ref().map_or(String::new(), |error| format!(" ({error})"));
    let node = pair.done.node.as_ref().map_or(String::new(), |node| format!(" on {node}"));
    format!(
        "<g><title>{}</title><rect x=\"{x}\" y=\"{}\" width=\"{width}\" height=\"{}\" rx=\"3\" fill=\"{fill}\" \
         stroke=\"#888888\"/><text x=\"{}\" y=\"{}\">{}</text></g>\n",
        escape(&format!("{text}{node}{error}")),
        y + 5,
        ROW - 10,
        x + 4,
        y + 21,
        escape(&label)
    )
}

/// What an operation asked and, if it was answered, what it heard.
fn describe(pair: &Pair<'_>) -> String {
    let line = |op: &Op| {
        let mut text = Vec::new();
        let mut one = History::default();
        one.push(op.clone());
        crate::history::file::write(&one, crate::history::file::Form::Plain, &mut text)
            .expect("memory takes every byte");
        let text = String::from_utf8(text).unwrap_or_default();
        let value = crate::edn::parse(&text).map(|line| line.get("value").clone()).unwrap_or(crate::edn::Edn::Nil);
        (value, op.value.f().to_owned())
    };
    let (asked, f) = line(pair.invoke);
    let (heard, _) = line(pair.done);
    let answer = if asked == heard { String::new() } else { format!(" -> {heard}") };
    let asked = if asked == crate::edn::Edn::Nil { String::new() } else { format!(" {asked}") };
    let kind = match pair.done.kind {
        Kind::Fail => " refused",
        Kind::Info => " unknown",
        _ => "",
    };
    format!("{f}{asked}{answer}{kind}")
}

/// From when till when each fault was there. A fault `x` ends with `heal`, `stop-x` or `heal-x`; another one with the
/// next line of the same name, which is its own completion.
pub fn bands(history: &History) -> Vec<(u64, u64, String)> {
    let lines: Vec<&Op> = history.nemesis().collect();
    let mut bands = Vec::new();
    let mut own: BTreeSet<u64> = BTreeSet::new();
    for (place, op) in lines.iter().enumerate() {
        let f = op.value.f();
        let ends = f == "heal" || f.starts_with("heal-") || f.starts_with("stop-");
        if ends || own.contains(&op.index) {
            continue;
        }
        let rest = &lines[place + 1..];
        let completion = rest.first().filter(|next| next.value.f() == f);
        if let Some(completion) = completion {
            own.insert(completion.index);
        }
        let end = rest.iter().find(|next| {
            let next = next.value.f();
            next == "heal" || next.strip_prefix("heal-").or(next.strip_prefix("stop-")) == Some(f)
        });
        let end = end.or(completion).map_or(op.time_ns, |end| end.time_ns);
        bands.push((op.time_ns, end, f.to_owned()));
    }
    bands
}

fn milliseconds(ns: u64) -> String {
    format!("{}.{:03}", ns / 1_000_000, ns / 1_000 % 1_000)
}

fn cut(text: &str, letters: usize) -> String {
    if text.chars().count() <= letters {
        return text.to_owned();
    }
    text.chars().take(letters.saturating_sub(1)).chain(['…']).collect()
}

/// Makes a text part of a picture or a page; control characters but line ends, which XML does not know, become spaces.
pub fn escape(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for letter in text.chars() {
        match letter {
            '&' => out.push_str("&amp;"),
            '<' => out.push_str("&lt;"),
            '>' => out.push_str("&gt;"),
            '"' => out.push_str("&quot;"),
            letter if letter.is_control() && letter != '\n' => out.push(' '),
            letter => out.push(letter),
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::edn::Edn;
    use crate::history::value::{Set, Value};
    use crate::verdict::{Finding, Verdict};

    #[test]
    fn the_picture_shows_the_operations_involved_and_the_faults() {
        let mut history = History::default();
        let fault =
            |at, f: &str| Op::new(at, Kind::Info, Process::Nemesis, Value::Other { f: f.into(), value: Edn::Nil });
        let add = |element| Value::Set(Set::Add(element));
        history.push(Op::new(1_000_000, Kind::Invoke, Process::Client(0), add(1)));
        history.push(fault(2_000_000, "partition"));
        history.push(fault(2_100_000, "partition"));
        history.push(Op::new(3_000_000, Kind::Info, Process::Client(0), add(1)));
        history.push(Op::new(4_000_000, Kind::Invoke, Process::Client(1), add(2)));
        history.push(Op::new(5_000_000, Kind::Ok, Process::Client(1), add(2)));
        history.push(fault(6_000_000, "heal"));
        assert_eq!(bands(&history), [(2_000_000, 6_000_000, "partition".to_owned())]);
        let mut results = Results::default();
        results.note("set", Verdict::of(vec![Finding::new("lost", "1 < 2 & gone", [0])]));
        let picture = svg(&history, &results);
        for wanted in ["0 add 1 unknown", "client 0", ">partition<", "set lost: 1 &lt; 2 &amp; gone", "</svg>"] {
            assert!(picture.contains(wanted), "{wanted} is missing:\n{picture}");
        }
        assert!(!picture.contains("client 1") && !picture.contains("<script"), "{picture}");
        assert_eq!(picture.matches('<').count(), picture.matches('>').count());
    }
}
