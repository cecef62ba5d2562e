//! Plots as SVG, without a library: bars of ratios with their rounds, and lines over time.

use crate::metrics::METRICS;
use crate::results::Results;
use crate::table::{Row, number};
use std::fmt::Write;

const WIDTH: f64 = 960.0;
const LEFT: f64 = 430.0;
const RIGHT: f64 = 60.0;
const ROW: f64 = 22.0;
const TOP: f64 = 50.0;
const FONT: &str = "font-family=\"sans-serif\" font-size=\"12\"";
const COLOURS: [&str; 6] = ["#1f6f8b", "#d1603d", "#4a7c3a", "#7a4a8c", "#b8860b", "#555555"];

/// How many times better Mechi is than etcd, on a logarithmic axis: a bar for the medians, a dot for each round, a line
/// for the goal and a dashed one for the least.
pub fn ratios(results: &Results) -> String {
    let rows: Vec<_> = METRICS.iter().filter_map(|metric| Some((metric, Row::of(results, metric)?))).collect();
    let rows: Vec<_> = rows.iter().filter_map(|(metric, row)| Some((*metric, row, row.ratio?))).collect();
    let exponents = || rows.iter().map(|(metric, _, ratio)| ratio.max(metric.goal.map_or(1.0, |goal| goal.0)).log10());
    let most = exponents().fold(1.0, f64::max).ceil();
    let least = rows.iter().map(|(_, _, ratio)| ratio.log10()).fold(0.0, f64::min).floor();
    let x = |ratio: f64| LEFT + (ratio.log10() - least) / (most - least) * (WIDTH - LEFT - RIGHT);
    let height = TOP + ROW * rows.len() as f64 + 20.0;
    let mut svg = begin("Times better than etcd (medians; dots are rounds, lines are goals, dashes the least)", height);
    let mut exponent = least;
    while exponent <= most {
        let ratio = 10f64.powf(exponent);
        let colour = if exponent == 0.0 { "#333" } else { "#ddd" };
        line(&mut svg, (x(ratio), TOP - 8.0), (x(ratio), height - 20.0), colour, "");
        text(&mut svg, x(ratio), height - 6.0, "middle", &number(ratio));
        exponent += 1.0;
    }
    for (n, (metric, row, ratio)) in rows.iter().enumerate() {
        let y = TOP + ROW * n as f64;
        text(&mut svg, LEFT - 8.0, y + 13.0, "end", metric.title);
        let (from, to) = (x(1.0).min(x(*ratio)), x(1.0).max(x(*ratio)));
        let colour = if *ratio >= 1.0 { COLOURS[0] } else { COLOURS[1] };
        let _ = write!(
            svg,
            "<rect x=\"{from:.1}\" y=\"{:.1}\" width=\"{:.1}\" height=\"14\" fill=\"{colour}\" opacity=\"0.75\"/>",
            y + 2.0,
            (to - from).max(1.0)
        );
        let (etcd, mechi) = row.values();
        for (etcd, mechi) in etcd.iter().zip(&mechi) {
            let ratio = metric.ratio(*etcd, *mechi);
            if ratio.is_finite() && ratio > 0.0 {
                let at = x(ratio).clamp(LEFT, WIDTH - RIGHT);
                let _ = write!(svg, "<circle cx=\"{at:.1}\" cy=\"{:.1}\" r=\"2.5\" fill=\"#222\"/>", y + 9.0);
            }
        }
        if let Some((goal, floor)) = metric.goal {
            line(&mut svg, (x(goal), y), (x(goal), y + 18.0), "#000", "");
            line(&mut svg, (x(floor), y), (x(floor), y + 18.0), "#000", "stroke-dasharray=\"2 2\"");
        }
        text(&mut svg, to + 6.0, y + 13.0, "start", &number(*ratio));
    }
    svg + "</svg>\n"
}

/// A line of a plot over time: its name, and (seconds, value).
pub struct Series {
    /// What the line shows.
    pub name: String,
    /// In the order of time.
    pub points: Vec<(f64, f64)>,
}

/// Lines over time, from zero on, with an optional bound drawn through.
pub fn lines(title: &str, unit: &str, series: &[Series], bound: Option<f64>) -> String {
    const HEIGHT: f64 = 320.0;
    const AXIS: f64 = 70.0;
    let points = || series.iter().flat_map(|series| series.points.iter());
    let seconds = points().map(|point| point.0).fold(1.0, f64::max);
    let most = points().map(|point| point.1).chain(bound).fold(f64::MIN_POSITIVE, f64::max) * 1.1;
    let x = |at: f64| AXIS + at / seconds * (WIDTH - AXIS - 20.0);
    let y = |value: f64| HEIGHT - 40.0 - value / most * (HEIGHT - 40.0 - TOP);
    let mut svg = begin(title, HEIGHT);
    for part in 0..=4 {
        let part = f64::from(part) / 4.0;
        line(&mut svg, (AXIS, y(most * part)), (WIDTH - 20.0, y(most * part)), "#ddd", "");
        text(&mut svg, AXIS - 6.0, y(most * part) + 4.0, "end", &number(most * part));
        text(&mut svg, x(seconds * part), HEIGHT - 22.0, "middle", &format!("{:.1} min", seconds * part / 60.0));
    }
    text(&mut svg, AXIS, TOP - 6.0, "start", unit);
    if let Some(bound) = bound {
        line(&mut svg, (AXIS, y(bound)), (WIDTH - 20.0, y(bound)), "#000", "stroke-dasharray=\"4 3\"");
    }
    let mut at = AXIS;
    for (series, colour) in series.iter().zip(COLOURS.iter().cycle()) {
        let path: Vec<String> = series.points.iter().map(|(t, v)| format!("{:.1},{:.1}", x(*t), y(*v))).collect();
        let _ = write!(
            svg,
            "<polyline points=\"{}\" fill=\"none\" stroke=\"{colour}\" stroke-width=\"1.5\"/>\
             <rect x=\"{at:.1}\" y=\"{:.1}\" width=\"10\" height=\"10\" fill=\"{colour}\"/>",
            path.join(" "),
            HEIGHT - 14.0
        );
        text(&mut svg, at + 14.0, HEIGHT - 5.0, "start", &series.name);
        at += 30.0 + 7.0 * series.name.len() as f64;
    }
    svg + "</svg>\n"
}

fn begin(title: &str, height: f64) -> String {
    let mut svg = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {WIDTH} {height}\" width=\"{WIDTH}\" \
         height=\"{height}\" {FONT}>\n<rect width=\"100%\" height=\"100%\" fill=\"white\"/>"
    );
    let _ = write!(svg, "<text x=\"10\" y=\"22\" font-size=\"15\">{}</text>", escape(title));
    svg
}

fn line(svg: &mut String, from: (f64, f64), to: (f64, f64), colour: &str, more: &str) {
    // Writing into a string cannot fail.
    let _ = writeln!(
        svg,
        "<line x1=\"{:.1}\" y1=\"{:.1}\" x2=\"{:.1}\" y2=\"{:.1}\" stroke=\"{colour}\" {more}/>",
        from.0, from.1, to.0, to.1
    );
}

fn text(svg: &mut String, x: f64, y: f64, anchor: &str, text: &str) {
    let _ = writeln!(svg, "<text x=\"{x:.1}\" y=\"{y:.1}\" text-anchor=\"{anchor}\">{}</text>", escape(text));
}

fn escape(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::results::Run;
    use crate::scenario::Sample;

    #[test]
    fn bars_stand_for_what_both_measured() {
        let run = |server: &str, metric: &str, value| Run {
            round: 1,
            scenario: metric.into(),
            server: server.into(),
            load_average: [0.0; 3],
            seconds: 1.0,
            samples: vec![Sample { metric: metric.into(), value, server_us: None, client_us: None }],
        };
        let results = Results {
            command: String::new(),
            date: String::new(),
            machine: String::new(),
            etcd: String::new(),
            mechi: String::new(),
            commit: String::new(),
            half_rate: None,
            runs: vec![
                run("etcd", "put_3", 10.0),
                run("mechi", "put_3", 40.0),
                run("etcd", "lone_put_1_p50", 1.0),
                run("mechi", "lone_put_1_p50", 2.0),
                run("etcd", "failover", 5.0),
            ],
        };
        let svg = ratios(&results);
        assert_eq!(svg.matches("<circle").count(), 2, "one round of two figures: {svg}");
        assert!(svg.contains(">4.00<") && svg.contains(">0.50<") && svg.contains(COLOURS[1]));
        assert!(!svg.contains("kill -9"), "a figure of one server has no bar");
        assert!(svg.ends_with("</svg>\n") && !svg.contains("NaN") && !svg.contains("inf"));
    }

    #[test]
    fn lines_stay_within_their_plot() {
        let series = |name: &str, points: &[(f64, f64)]| Series { name: name.into(), points: points.into() };
        let all = [series("a & b", &[(0.0, 1.0), (60.0, 3.0)]), series("none", &[])];
        let svg = lines("memory", "MB", &all, Some(4.0));
        assert!(svg.contains("a &amp; b") && svg.contains("1.0 min") && svg.contains("stroke-dasharray"));
        assert!(!lines("empty", "MB", &[], None).contains("NaN"));
    }
}
