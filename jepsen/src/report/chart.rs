//! One run as a picture: requests that succeeded per second, how long they took, and the faults as bands behind them.

use super::run::{Load, SECOND_NS};
use mechi_checker::timeline::escape;
use std::fmt::Write;

const WIDTH: u64 = 900;
const LEFT: u64 = 60;
const RIGHT: u64 = 60;
const TOP: u64 = 22;
const HEIGHT: u64 = 150;
const BOTTOM: u64 = 24;

/// The latency axis is logarithmic from 1 ms to this many powers of ten above it.
const DECADES: u64 = 4;

/// Draws a run.
pub(super) fn svg(load: &Load) -> String {
    let end_ns = load.end_ns().max(SECOND_NS);
    let counts = load.per_second();
    let top = counts.iter().copied().max().unwrap_or(0).max(1);
    let x = |at_ns: u64| {
        let at = u128::from(at_ns.min(end_ns)) * u128::from(WIDTH - LEFT - RIGHT) / u128::from(end_ns);
        LEFT + u64::try_from(at).unwrap_or(0)
    };
    let mut out = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"{WIDTH}\" height=\"{h}\" viewBox=\"0 0 {WIDTH} {h}\" \
         font-family=\"sans-serif\" font-size=\"11\">\n<rect width=\"{WIDTH}\" height=\"{h}\" fill=\"#ffffff\"/>\n",
        h = TOP + HEIGHT + BOTTOM
    );
    let mut row = 0;
    for (from, till, name) in &load.bands {
        let (left, right) = (x(*from), x(*till));
        let width = right.saturating_sub(left).max(2);
        let name = escape(name);
        let _ = writeln!(
            out,
            "<g><title>{name}: {} to {} ms</title><rect x=\"{left}\" y=\"{TOP}\" width=\"{width}\" height=\"{HEIGHT}\" \
             fill=\"#d03030\" fill-opacity=\"0.14\"/><text x=\"{left}\" y=\"{}\" fill=\"#a03030\" font-size=\"9\">{name}</text></g>",
            from / 1_000_000,
            till / 1_000_000,
            9 + row * 9
        );
        row = 1 - row;
    }
    // Successes: one bar per second.
    for (second, count) in (0_u64..).zip(&counts) {
        let (left, right) = (x(second * SECOND_NS), x((second + 1) * SECOND_NS));
        let height = HEIGHT * count / top;
        let _ = writeln!(
            out,
            "<g><title>second {second}: {count} succeeded</title><rect x=\"{left}\" y=\"{}\" width=\"{}\" \
             height=\"{height}\" fill=\"#9cc4e4\" fill-opacity=\"0.8\"/></g>",
            TOP + HEIGHT - height,
            right.saturating_sub(left).saturating_sub(1).max(1)
        );
    }
    for (share, color) in [(500, "#205080"), (990, "#c07000")] {
        let mut points = String::new();
        for second in 0..counts.len() as u64 {
            let (from, till) = (second * SECOND_NS, (second + 1) * SECOND_NS);
            if let Some(quantiles) = load.quantiles(from, till, &[share]) {
                let _ = write!(points, "{},{} ", x(from + SECOND_NS / 2), TOP + HEIGHT - latency_height(quantiles[0]));
            }
        }
        let _ = writeln!(
            out,
            "<polyline points=\"{}\" fill=\"none\" stroke=\"{color}\" stroke-width=\"1.5\"/>",
            points.trim_end()
        );
    }
    for decade in 0..=DECADES {
        let y = TOP + HEIGHT - HEIGHT * decade / DECADES;
        let _ = writeln!(
            out,
            "<line x1=\"{LEFT}\" y1=\"{y}\" x2=\"{right}\" y2=\"{y}\" stroke=\"#e0e0e0\"/>\
             <text x=\"{}\" y=\"{}\" fill=\"#666666\">{} ms</text>",
            WIDTH - RIGHT + 4,
            y + 4,
            10_u64.pow(u32::try_from(decade).unwrap_or(0)),
            right = WIDTH - RIGHT
        );
    }
    let _ = writeln!(
        out,
        "<text x=\"4\" y=\"{}\" fill=\"#205080\">{top}/s</text><text x=\"4\" y=\"{}\" fill=\"#205080\">0</text>\
         <text x=\"{LEFT}\" y=\"{y}\" fill=\"#666666\">0 s</text>\
         <text x=\"{}\" y=\"{y}\" fill=\"#666666\" text-anchor=\"end\">{} s</text>\
         <text x=\"{}\" y=\"{y}\" fill=\"#444444\" text-anchor=\"middle\">bars: successes per second; \
         dark line: median latency; orange line: 99 %; red: faults</text>",
        TOP + 10,
        TOP + HEIGHT,
        WIDTH - RIGHT,
        end_ns / SECOND_NS,
        WIDTH / 2,
        y = TOP + HEIGHT + 16
    );
    out.push_str("</svg>\n");
    out
}

/// Where a latency is on its axis: in thousandths of a decade, from a table, since a picture needs no floats.
fn latency_height(took_ns: u64) -> u64 {
    let (mut micros, mut thousandths) = ((took_ns / 1_000).max(1_000), 0);
    while micros >= 10_000 {
        micros /= 10;
        thousandths += 1_000;
    }
    // log10 of 1.0 to 9.9, in thousandths, linear between the whole numbers.
    const LOG10: [u64; 10] = [0, 301, 477, 602, 699, 778, 845, 903, 954, 1_000];
    let whole = usize::try_from(micros / 1_000).unwrap_or(1).clamp(1, 9);
    let rest = micros % 1_000;
    thousandths += LOG10[whole - 1] + (LOG10[whole] - LOG10[whole - 1]) * rest / 1_000;
    (HEIGHT * thousandths / (DECADES * 1_000)).min(HEIGHT)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn latencies_are_higher_the_longer_they_are() {
        let heights: Vec<u64> =
            [0, 1, 5, 20, 99, 100, 900, 9_000, 90_000].map(|ms| latency_height(ms * 1_000_000)).into();
        assert!(heights.windows(2).all(|pair| pair[0] <= pair[1]), "{heights:?}");
        assert_eq!((heights[0], heights[5], heights[8]), (0, HEIGHT / 2, HEIGHT));
    }
}
