//! How numbers and texts are written in reports: escaping for each kind of output, and the helpers of templates.

use handlebars::{
    Context, Handlebars, Helper, HelperResult, Output, RenderContext, RenderErrorReason, Renderable as _,
    handlebars_helper,
};
use serde_json::Value;

use super::charts;
use crate::units::human;

/// What stands for a value that is not known.
const UNKNOWN: &str = "n/a";

/// Four significant digits without trailing zeros; whole numbers in full.
pub(super) fn number(value: f64) -> String {
    human(value, "")
}

/// A share as a percentage.
pub(super) fn percent(ratio: f64) -> String {
    human(ratio, "%")
}

/// Seconds as a length of time: `12.5 ms`, `2.79 s`, `3 min 5 s`, `2 h 10 min`.
pub(super) fn duration(seconds: f64) -> String {
    let whole = libm::round(seconds) as u64;
    if seconds >= 3600.0 {
        format!("{} h {} min", whole / 3600, whole % 3600 / 60)
    } else if seconds >= 120.0 {
        format!("{} min {} s", whole / 60, whole % 60)
    } else if seconds >= 1.0 || seconds == 0.0 {
        format!("{} s", number(seconds))
    } else {
        format!("{} ms", number(seconds * 1e3))
    }
}

/// Escapes a text for Markdown, table cells included, and no more than it takes: an underscore within a word is no
/// emphasis, a `<` before a blank or a `=` opens no tag.
pub(super) fn escape_markdown(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    let mut before = ' ';
    let mut rest = text.chars().peekable();
    while let Some(c) = rest.next() {
        let next = rest.peek().copied().unwrap_or(' ');
        match c {
            '_' if before.is_alphanumeric() && next.is_alphanumeric() => escaped.push('_'),
            '<' if next == ' ' || next == '=' => escaped.push('<'),
            '<' => escaped.push_str("&lt;"),
            '>' if escaped.is_empty() => escaped.push_str("&gt;"),
            '\\' | '`' | '*' | '_' | '[' | ']' | '|' | '#' | '~' => escaped.extend(['\\', c]),
            '&' => escaped.push_str("&amp;"),
            '\n' | '\r' => escaped.push(' '),
            c if c.is_control() => {}
            c => escaped.push(c),
        }
        before = c;
    }
    escaped
}

/// A code span of Markdown that survives a table cell. Longer fences enclose backticks.
fn code_span(text: &str) -> String {
    let clean: String = text.chars().map(|c| if c.is_control() { ' ' } else { c }).collect();
    let longest = clean.split(|c| c != '`').map(str::len).max().unwrap_or(0);
    let fence = "`".repeat(longest + 1);
    let space = if longest > 0 { " " } else { "" };
    format!("{fence}{space}{}{space}{fence}", clean.replace('|', "\\|"))
}

/// Escapes a text for XML 1.0, attributes included. What XML can not hold at all becomes U+FFFD.
pub(super) fn escape_xml(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '&' => escaped.push_str("&amp;"),
            '<' => escaped.push_str("&lt;"),
            '>' => escaped.push_str("&gt;"),
            '"' => escaped.push_str("&quot;"),
            '\'' => escaped.push_str("&apos;"),
            '\t' => escaped.push_str("&#9;"),
            '\n' => escaped.push_str("&#10;"),
            '\r' => escaped.push_str("&#13;"),
            '\0'..='\x1f' | '\u{fffe}' | '\u{ffff}' => escaped.push('\u{fffd}'),
            c => escaped.push(c),
        }
    }
    escaped
}

/// A text for a terminal: control characters can neither move the cursor nor change colours.
pub(super) fn escape_text(text: &str) -> String {
    text.chars().map(|c| if c.is_control() { ' ' } else { c }).collect()
}

fn or_unknown(value: &Value, written: impl Fn(f64) -> String) -> String {
    match value {
        Value::Null => UNKNOWN.into(),
        value => value.as_f64().map_or_else(|| super::files::plain(value), written),
    }
}

/// Registers every helper.
pub(super) fn register(registry: &mut Handlebars<'_>) {
    // num x: four significant digits; n/a for null.  num x "ms": with its unit.
    registry.register_helper("num", Box::new(num));
    // quantity x unit: as gates print it.
    handlebars_helper!(quantity_helper: |value: Value, unit: str| or_unknown(&value, |v| human(v, unit)));
    registry.register_helper("quantity", Box::new(quantity_helper));
    // pct x: a ratio as a percentage.
    handlebars_helper!(pct: |value: Value| or_unknown(&value, percent));
    registry.register_helper("pct", Box::new(pct));
    // dur x: seconds as a length of time.
    handlebars_helper!(dur: |value: Value| or_unknown(&value, duration));
    registry.register_helper("dur", Box::new(dur));
    // text x: x, or n/a for null.
    handlebars_helper!(text: |value: Value| if value.is_null() { UNKNOWN.to_owned() } else { super::files::plain(&value) });
    registry.register_helper("text", Box::new(text));
    // times n one many: "1 request", "3 requests".
    handlebars_helper!(times: |value: Value, one: str, many: str| or_unknown(&value, |n| format!("{} {}", number(n), if (n - 1.0).abs() < f64::EPSILON { one } else { many })));
    registry.register_helper("times", Box::new(times));
    // json x: x as JSON, unescaped.
    registry.register_helper("json", Box::new(json));
    // code x: a Markdown code span.
    registry.register_helper("code", Box::new(code));
    // align: lines of cells separated by ¦ become columns.
    registry.register_helper("align", Box::new(align));
    // curve_svg points title, series_svg series title, timeline_svg timeline title: inline SVG.
    registry.register_helper("curve_svg", Box::new(curve_svg));
    registry.register_helper("series_svg", Box::new(series_svg));
    registry.register_helper("timeline_svg", Box::new(timeline_svg));
}

fn param<'a>(helper: &'a Helper<'_>, name: &'static str, at: usize) -> Result<&'a Value, RenderErrorReason> {
    helper
        .param(at)
        .map(handlebars::PathAndJson::value)
        .ok_or(RenderErrorReason::ParamNotFoundForIndex(name, at))
}

macro_rules! helper {
    ($name:ident, |$helper:ident, $registry:ident, $context:ident, $render:ident| $body:expr) => {
        fn $name<'reg, 'rc>(
            $helper: &Helper<'rc>,
            $registry: &'reg Handlebars<'reg>,
            $context: &'rc Context,
            $render: &mut RenderContext<'reg, 'rc>,
            out: &mut dyn Output,
        ) -> HelperResult {
            let written: String = $body;
            out.write(&written)?;
            Ok(())
        }
    };
}

helper!(num, |h, _r, _c, _rc| {
    let unit = h.param(1).and_then(|unit| unit.value().as_str()).unwrap_or("");
    or_unknown(param(h, "num", 0)?, |value| human(value, unit))
});
helper!(json, |h, _r, _c, _rc| param(h, "json", 0)?.to_string());
helper!(code, |h, _r, _c, _rc| code_span(&super::files::plain(param(h, "code", 0)?)));
helper!(align, |h, r, c, rc| {
    let block = h.template().ok_or(RenderErrorReason::BlockContentRequired)?;
    columns(&block.renders(r, c, rc)?)
});
helper!(curve_svg, |h, _r, _c, _rc| {
    let points: Vec<[f64; 2]> =
        serde_json::from_value(param(h, "curve_svg", 0)?.clone()).map_err(RenderErrorReason::from)?;
    charts::curve(&points, param(h, "curve_svg", 1)?.as_str().unwrap_or_default())
});
helper!(series_svg, |h, _r, _c, _rc| {
    let series =
        serde_json::from_value(param(h, "series_svg", 0)?.clone()).map_err(RenderErrorReason::from)?;
    charts::series(&series, param(h, "series_svg", 1)?.as_str().unwrap_or_default())
});
helper!(timeline_svg, |h, _r, _c, _rc| {
    let timeline =
        serde_json::from_value(param(h, "timeline_svg", 0)?.clone()).map_err(RenderErrorReason::from)?;
    charts::timeline(&timeline, param(h, "timeline_svg", 1)?.as_str().unwrap_or_default())
});

/// Pads the cells of each column to the same width; columns of numbers end on the right. Lines without a separator
/// stand as they are.
pub fn columns(text: &str) -> String {
    let rows: Vec<Vec<&str>> = text.lines().map(|line| line.split('¦').map(str::trim).collect()).collect();
    let count = rows.iter().map(Vec::len).max().unwrap_or(0);
    let width = |cell: &str| cell.chars().count();
    let cells = |column: usize| {
        rows.iter().filter(|row| row.len() > 1).filter_map(move |row| row.get(column)).copied()
    };
    let numeric =
        |cell: &str| cell.is_empty() || cell == UNKNOWN || cell.starts_with(|c: char| c.is_ascii_digit());
    let layout: Vec<(usize, bool)> = (0..count)
        .map(|column| (cells(column).map(width).max().unwrap_or(0), cells(column).skip(1).all(numeric)))
        .collect();
    let mut aligned = String::with_capacity(text.len() * 2);
    for (row, line) in rows.iter().zip(text.lines()) {
        if row.len() == 1 {
            aligned.push_str(line);
        } else {
            let padded = row.iter().zip(&layout).map(|(cell, (widest, right))| {
                let gap = " ".repeat(widest - width(cell));
                if *right { format!("{gap}{cell}") } else { format!("{cell}{gap}") }
            });
            let joined = padded.collect::<Vec<_>>().join("  ");
            let indent = line.len() - line.trim_start().len();
            aligned.push_str(&line[..indent]);
            aligned.push_str(joined.trim_end());
        }
        aligned.push('\n');
    }
    aligned
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_have_four_significant_digits() {
        let written: Vec<String> =
            [0.0, 10.0, 5.345_029, 189.249, 0.012_345_6, 1234.56, 134_217_728.0, 99.999_9, -2.5]
                .into_iter()
                .map(number)
                .collect();
        assert_eq!(written.join(" "), "0 10 5.345 189.2 0.01235 1,235 134,217,728 100 -2.5");
        assert_eq!(
            [0.0125, 0.0, 2.79, 185.0, 7800.0].map(duration).join(", "),
            "12.5 ms, 0 s, 2.79 s, 3 min 5 s, 2 h 10 min"
        );
        assert_eq!(percent(0.0125), "1.25%");
    }

    #[test]
    fn texts_are_escaped_for_where_they_stand() {
        assert_eq!(escape_markdown("a_b _c_ x|y <b> `"), "a_b \\_c\\_ x\\|y &lt;b> \\`");
        assert_eq!(escape_markdown("> x <= 3 > 2"), "&gt; x <= 3 > 2");
        assert_eq!(code_span("a | `b`"), "`` a \\| `b` ``");
        assert_eq!(escape_xml("<a b=\"c\">\u{1}\n&"), "&lt;a b=&quot;c&quot;&gt;\u{fffd}&#10;&amp;");
        assert_eq!(escape_text("a\u{1b}[31mb"), "a [31mb");
    }

    #[test]
    fn columns_line_up() {
        assert_eq!(columns("name ¦ ms\nshort ¦ 10\nx ¦ 9.5\n"), "name    ms\nshort   10\nx      9.5\n");
    }
}
