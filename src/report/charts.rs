//! Charts as inline SVG. Colours are classes, so that the page's style decides them in light and in dark.

use std::fmt::Write as _;

use super::Series;
use super::format::{escape_xml, number};
use crate::measure::{Bar, Timeline};

/// Height of a curve's plot, in pixels.
const PLOT: f64 = 176.0;

/// The opening of a chart: its height in pixels, and its title and description for who can not see it. Its width is
/// the page's: horizontal places are percentages, so that texts keep their size on every screen.
fn open(class: &str, height: f64, title: &str, description: &str) -> String {
    format!(
        "<svg class=\"chart {class}\" width=\"100%\" height=\"{height:.0}\" role=\"img\" xmlns=\"http://www.w3.org/2000/svg\">\
         <title>{}</title><desc>{}</desc>",
        escape_xml(title),
        escape_xml(description)
    )
}

/// A vertical line with a label under it, at `x` percent.
fn vertical(svg: &mut String, x: f64, bottom: f64, label: &str) {
    let anchor = match x {
        x if x < 4.0 => "start",
        x if x > 96.0 => "end",
        _ => "middle",
    };
    let _ = write!(
        svg,
        "<line class=\"grid\" x1=\"{x:.2}%\" x2=\"{x:.2}%\" y1=\"0\" y2=\"{bottom:.0}\"/>\
         <text x=\"{x:.2}%\" y=\"{:.0}\" text-anchor=\"{anchor}\">{label}</text>",
        bottom + 16.0
    );
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

/// Horizontal lines with their values, from 0 at the bottom of the plot to `highest` at its top.
fn horizontals(svg: &mut String, highest: f64) {
    for tick in ticks(highest) {
        let at = PLOT - tick / highest * PLOT;
        let _ = write!(
            svg,
            "<line class=\"grid\" x1=\"0\" x2=\"100%\" y1=\"{at:.1}\" y2=\"{at:.1}\"/>\
             <text x=\"-6\" y=\"{:.1}\" text-anchor=\"end\">{}</text>",
            at + 4.0,
            number(tick)
        );
    }
}

/// A stepped line in the plot, and what stands under it.
fn plot(svg: &mut String, path: &str, caption: &str) {
    let _ = write!(
        svg,
        "<svg width=\"100%\" height=\"{PLOT}\" viewBox=\"0 0 100 {PLOT}\" preserveAspectRatio=\"none\">\
         <path class=\"curve\" d=\"{path}\"/></svg>\
         <text x=\"0\" y=\"{:.0}\">{caption}</text></svg>",
        PLOT + 32.0
    );
}

/// A quantile curve over a scale that gives each further nine of the percentile the same width. Milliseconds upwards
/// from 0. Empty text without points.
pub(super) fn curve(points: &[[f64; 2]], title: &str) -> String {
    let (Some(first), Some(last)) = (points.first(), points.last()) else { return String::new() };
    // The maximum has no place on a scale of nines; it stands a little right of the last point before it.
    let nines = |q: f64| if q < 1.0 { -libm::log10(1.0 - q) } else { f64::INFINITY };
    let before = points.iter().map(|p| nines(p[0])).filter(|x| x.is_finite()).fold(2.0, f64::max);
    let x = |q: f64| nines(q).min(before + 0.6) / (before + 0.6) * 100.0;
    let highest = if last[1] > 0.0 { last[1] * 1.08 } else { 1.0 };
    let y = |value: f64| PLOT - value / highest * PLOT;
    let description = format!(
        "Quantile curve from {} ms at the lowest to {} ms at the highest value.",
        number(first[1]),
        number(last[1])
    );
    let mut svg = open("quantiles", PLOT + 36.0, title, &description);
    horizontals(&mut svg, highest);
    for (q, name) in [(0.5, "p50"), (0.9, "p90"), (0.99, "p99"), (0.999, "p99.9"), (1.0, "max")] {
        if q >= 1.0 || nines(q) <= before {
            vertical(&mut svg, x(q), PLOT, name);
        }
    }
    // Nearest rank: a value holds from the quantile before it up to its own.
    let mut path = format!("M0 {:.1}", y(first[1]));
    for point in points {
        let _ = write!(path, "V{:.1}H{:.2}", y(point[1]), x(point[0]));
    }
    plot(&mut svg, &path, "ms by percentile");
    svg
}

/// A number over time, as steps from 0 upwards. Empty text without values.
pub(super) fn series(series: &Series, title: &str) -> String {
    let values = &series.values;
    if values.is_empty() {
        return String::new();
    }
    let largest = values.iter().copied().fold(0.0, f64::max);
    let highest = if largest > 0.0 { largest * 1.08 } else { 1.0 };
    let span = series.step_ms * values.len() as f64;
    let (unit, scale) = if span >= 2000.0 { ("s", 1e3) } else { ("ms", 1.0) };
    let y = |value: f64| PLOT - value / highest * PLOT;
    let x = |at: usize| at as f64 / values.len() as f64 * 100.0;
    let description = format!("{} at the highest, over {} {unit}.", number(largest), number(span / scale));
    let mut svg = open("quantiles", PLOT + 36.0, title, &description);
    horizontals(&mut svg, highest);
    for tick in ticks(span / scale) {
        vertical(&mut svg, tick * scale / span * 100.0, PLOT, &number(tick));
    }
    let mut path = format!("M0 {:.1}", y(values[0]));
    for (at, value) in values.iter().enumerate() {
        let _ = write!(path, "V{:.1}H{:.2}", y(*value), x(at + 1));
    }
    plot(&mut svg, &path, &format!("{unit} since measuring started"));
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
    let bottom = row * bars.len() as f64 + 4.0;
    let x = |ms: f64| (ms - start).max(0.0) / span * 100.0;
    let (unit, scale) = if span >= 2000.0 { ("s", 1e3) } else { ("ms", 1.0) };
    let failed = bars.iter().filter(|bar| bar.outcome != "success").count();
    let description = format!(
        "{} of {} requests over {} {unit}, one bar each, by due time: waiting in the client, then up to the first token, then its tokens. {failed} of them did not succeed.",
        bars.len(),
        timeline.requests,
        number(span / scale)
    );
    let mut svg = open("requests", bottom + 36.0, title, &description);
    for tick in ticks(span / scale) {
        vertical(&mut svg, x(start + tick * scale), bottom, &number(tick));
    }
    for (at, bar) in bars.iter().enumerate() {
        bar_parts(&mut svg, bar, row * at as f64 + 2.0, row * 0.8, &x);
    }
    let _ =
        write!(svg, "<text x=\"0\" y=\"{:.0}\">{unit} since the first was due</text></svg>", bottom + 32.0);
    svg
}

fn bar_parts(svg: &mut String, bar: &Bar, y: f64, height: f64, x: &dyn Fn(f64) -> f64) {
    let sent = bar.sent_ms.unwrap_or(bar.end_ms);
    let first = bar.first_ms.unwrap_or(bar.end_ms);
    let done = if bar.outcome == "success" { "decode" } else { "failed" };
    let prefill = if bar.first_ms.is_some() { "prefill" } else { done };
    let _ = write!(svg, "<g><title>request {}: {}</title>", bar.index, escape_xml(&bar.outcome));
    let parts = [("queue", bar.due_ms, sent), (prefill, sent, first), (done, first, bar.end_ms)];
    let mut drawn = false;
    for (class, from, to) in parts {
        let width = x(to) - x(from);
        if width >= 0.005 {
            drawn = true;
            let _ = write!(
                svg,
                "<rect class=\"{class}\" x=\"{:.2}%\" y=\"{y:.1}\" width=\"{width:.2}%\" height=\"{height:.1}\"/>",
                x(from)
            );
        }
    }
    if !drawn {
        // Too short to see at this scale: a mark of two pixels.
        let _ = write!(
            svg,
            "<rect class=\"{done}\" x=\"{:.2}%\" y=\"{y:.1}\" width=\"2\" height=\"{height:.1}\"/>",
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
        assert_eq!(curve(&[], "t"), "");
        assert_eq!(timeline(&Timeline::default(), "t"), "");
        let flat = curve(&[[0.5, 0.0], [1.0, 0.0]], "t");
        let bar = Bar {
            index: 0,
            due_ms: 0.0,
            sent_ms: None,
            first_ms: None,
            end_ms: 0.0,
            outcome: "skipped".into(),
        };
        let point = timeline(&Timeline { requests: 1, bars: vec![bar] }, "t");
        assert_eq!(series(&Series::default(), "t"), "");
        let idle = series(&Series { step_ms: 1.0, values: vec![0.0, 0.0] }, "t");
        for svg in [flat, point, idle] {
            assert!(!svg.contains("NaN") && !svg.contains("inf"), "{svg}");
        }
    }
}
