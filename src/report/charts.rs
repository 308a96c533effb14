//! Charts as inline SVG. Colours are classes, so that the page's style decides them in light and in dark.

use std::fmt::Write as _;

use super::format::{escape_xml, number};
use crate::measure::{Bar, Timeline};

const WIDTH: f64 = 560.0;
const LEFT: f64 = 58.0;
const RIGHT: f64 = 14.0;
const TOP: f64 = 12.0;

/// The opening of a chart: its size, and its title and description for who can not see it.
fn open(height: f64, title: &str, description: &str) -> String {
    format!(
        "<svg class=\"chart\" viewBox=\"0 0 {WIDTH:.0} {height:.0}\" role=\"img\" xmlns=\"http://www.w3.org/2000/svg\">\
         <title>{}</title><desc>{}</desc>",
        escape_xml(title),
        escape_xml(description)
    )
}

/// Round steps that divide `0..=max` into about four parts.
fn ticks(max: f64) -> Vec<f64> {
    if max <= 0.0 {
        return vec![0.0];
    }
    let rough = max / 4.0;
    let power = libm::pow(10.0, libm::floor(libm::log10(rough)));
    let step = [1.0, 2.0, 2.5, 5.0, 10.0].into_iter().map(|m| m * power).find(|s| *s >= rough).unwrap_or(max);
    (0..=(max / step) as u32).map(|k| f64::from(k) * step).collect()
}

/// A quantile curve over a scale that gives each further nine of the percentile the same width. Milliseconds upwards
/// from 0. Empty text without points.
pub(super) fn curve(points: Vec<[f64; 2]>, title: &str) -> String {
    let (Some(first), Some(last)) = (points.first(), points.last()) else { return String::new() };
    let (height, bottom) = (220.0, 182.0);
    // The maximum has no place on a scale of nines; it stands a little right of the last point before it.
    let nines = |q: f64| if q < 1.0 { -libm::log10(1.0 - q) } else { f64::INFINITY };
    let before = points.iter().map(|p| nines(p[0])).filter(|x| x.is_finite()).fold(0.0, f64::max);
    let widest = before.max(2.0) + 0.3;
    let x = |q: f64| LEFT + nines(q).min(widest) / widest * (WIDTH - LEFT - RIGHT);
    let highest = if last[1] > 0.0 { last[1] * 1.08 } else { 1.0 };
    let y = |value: f64| bottom - value / highest * (bottom - TOP);
    let description = format!(
        "Quantile curve from {} ms at the lowest to {} ms at the highest value.",
        number(first[1]),
        number(last[1])
    );
    let mut svg = open(height, title, &description);
    for tick in ticks(highest) {
        let at = y(tick);
        let _ = write!(
            svg,
            "<line class=\"grid\" x1=\"{LEFT}\" x2=\"{:.1}\" y1=\"{at:.1}\" y2=\"{at:.1}\"/>\
             <text x=\"{:.1}\" y=\"{:.1}\" text-anchor=\"end\">{}</text>",
            WIDTH - RIGHT,
            LEFT - 6.0,
            at + 4.0,
            number(tick)
        );
    }
    for (q, name) in [(0.0, "min"), (0.5, "p50"), (0.9, "p90"), (0.99, "p99"), (0.999, "p99.9"), (1.0, "max")]
    {
        if q < 1.0 && nines(q) > before.max(2.0) {
            continue;
        }
        let at = x(q);
        let anchor = if q >= 1.0 { "end" } else { "middle" };
        let _ = write!(
            svg,
            "<line class=\"grid\" x1=\"{at:.1}\" x2=\"{at:.1}\" y1=\"{TOP}\" y2=\"{bottom}\"/>\
             <text x=\"{at:.1}\" y=\"{:.1}\" text-anchor=\"{anchor}\">{name}</text>",
            bottom + 17.0
        );
    }
    // Nearest rank: a value holds from the quantile before it up to its own.
    let mut path = format!("M{:.1} {:.1}", x(0.0), y(first[1]));
    for point in &points {
        let _ = write!(path, "V{:.1}H{:.1}", y(point[1]), x(point[0]));
    }
    let _ = write!(
        svg,
        "<path class=\"curve\" d=\"{path}\"/><text x=\"{LEFT}\" y=\"{:.1}\">ms by percentile</text></svg>",
        height - 4.0
    );
    svg
}

/// Requests as bars over time: waiting in the client, up to the first token, tokens. Empty text without requests.
pub(super) fn timeline(timeline: &Timeline, title: &str) -> String {
    let bars = &timeline.bars;
    if bars.is_empty() {
        return String::new();
    }
    let start = bars.iter().map(|bar| bar.due_ms).fold(f64::INFINITY, f64::min);
    let end = bars.iter().map(|bar| bar.end_ms).fold(start, f64::max);
    let span = (end - start).max(1e-6);
    let row = (240.0 / bars.len() as f64).clamp(3.0, 16.0);
    let bottom = TOP + row * bars.len() as f64 + 4.0;
    let left = 14.0;
    let x = |ms: f64| left + (ms - start).max(0.0) / span * (WIDTH - left - RIGHT);
    let (unit, scale) = if span >= 2000.0 { ("s", 1e3) } else { ("ms", 1.0) };
    let failed = bars.iter().filter(|bar| bar.outcome != "success").count();
    let description = format!(
        "{} of {} requests over {} {unit}, one bar each, by due time: waiting in the client, then up to the first token, then its tokens. {failed} of them did not succeed.",
        bars.len(),
        timeline.requests,
        number(span / scale)
    );
    let mut svg = open(bottom + 36.0, title, &description);
    for tick in ticks(span / scale) {
        let at = x(start + tick * scale);
        let anchor = if tick == 0.0 { "start" } else { "middle" };
        let _ = write!(
            svg,
            "<line class=\"grid\" x1=\"{at:.1}\" x2=\"{at:.1}\" y1=\"{TOP}\" y2=\"{bottom:.1}\"/>\
             <text x=\"{at:.1}\" y=\"{:.1}\" text-anchor=\"{anchor}\">{}</text>",
            bottom + 16.0,
            number(tick)
        );
    }
    for (at, bar) in bars.iter().enumerate() {
        bar_parts(&mut svg, bar, TOP + row * at as f64 + 2.0, row * 0.8, &x);
    }
    let _ = write!(
        svg,
        "<text x=\"{left}\" y=\"{:.1}\">{unit} since the first was due</text></svg>",
        bottom + 32.0
    );
    svg
}

fn bar_parts(svg: &mut String, bar: &Bar, y: f64, height: f64, x: &dyn Fn(f64) -> f64) {
    let sent = bar.sent_ms.unwrap_or(bar.end_ms);
    let first = bar.first_ms.unwrap_or(bar.end_ms);
    let done = if bar.outcome == "success" { "decode" } else { "failed" };
    let prefill = if bar.first_ms.is_some() { "prefill" } else { done };
    let _ = write!(svg, "<g><title>request {}: {}</title>", bar.index, escape_xml(&bar.outcome));
    for (class, from, to) in [("queue", bar.due_ms, sent), (prefill, sent, first), (done, first, bar.end_ms)]
    {
        let width = x(to) - x(from);
        if width >= 0.05 {
            let _ = write!(
                svg,
                "<rect class=\"{class}\" x=\"{:.1}\" y=\"{y:.1}\" width=\"{width:.1}\" height=\"{height:.1}\"/>",
                x(from)
            );
        }
    }
    if x(bar.end_ms) - x(bar.due_ms) < 0.05 {
        let _ = write!(
            svg,
            "<rect class=\"{done}\" x=\"{:.1}\" y=\"{y:.1}\" width=\"1.5\" height=\"{height:.1}\"/>",
            x(bar.due_ms)
        );
    }
    svg.push_str("</g>");
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ticks_are_round_and_few() {
        assert_eq!(ticks(1845.0), [0.0, 500.0, 1000.0, 1500.0]);
        assert_eq!(ticks(0.9), [0.0, 0.25, 0.5, 0.75]);
        assert_eq!(ticks(0.0), [0.0]);
    }

    #[test]
    fn charts_of_nothing_and_of_zeros_hold_no_broken_number() {
        assert_eq!(curve(Vec::new(), "t"), "");
        assert_eq!(timeline(&Timeline::default(), "t"), "");
        let flat = curve(vec![[0.5, 0.0], [1.0, 0.0]], "t");
        let bar = Bar {
            index: 0,
            due_ms: 0.0,
            sent_ms: None,
            first_ms: None,
            end_ms: 0.0,
            outcome: "skipped".into(),
        };
        let point = timeline(&Timeline { requests: 1, bars: vec![bar] }, "t");
        for svg in [flat, point] {
            assert!(!svg.contains("NaN") && !svg.contains("inf"), "{svg}");
        }
    }
}
