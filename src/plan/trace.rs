//! Trace files: recorded arrivals and lengths, read into exact integer nanoseconds.

use std::path::Path;
use std::sync::Arc;

use rustc_hash::FxHashMap;
use serde_json::Value;

use super::Recorded;
use super::config::{TimeUnit, TooLong, TraceFields, TraceFormat, TracePrompt};
use super::source::{Problem, TraceRow, TraceRows};
use crate::sample::{FileError, Lines, csv_fields, json_fault};
use crate::units::{Ns, TokenCount};

/// Tokens in one block of Mooncake's published traces.
const MOONCAKE_BLOCK: u32 = 512;
/// The longest trace: what a duration can be written as.
const LONGEST: i128 = 9_000_000_000_000_000_000;

/// One row as it stands in the file; `at` counts from the file's own origin.
struct RawRow {
    at: i128,
    prompt: u64,
    output: u64,
    ids: Option<Vec<u64>>,
    session: Option<Session>,
    /// How long the first token took, and the last one from there, in nanoseconds.
    answer: Option<(i128, i128)>,
}

/// What a row says about its session.
struct Session {
    id: String,
    /// How long it waits for the turn before it, in nanoseconds; `None` where it says nothing.
    delay: Option<i128>,
    /// Whether it says when it arrived.
    has_time: bool,
}

/// Reads the trace that a scenario names.
pub(super) fn read(prompt: &TracePrompt, dir: &Path) -> Result<TraceRows, Problem> {
    check_options(prompt)?;
    let block_tokens = prompt.block_tokens.map_or(MOONCAKE_BLOCK, |count| count.0);
    let mut reader = Reader::open(prompt, dir).map_err(|error| at_path(&error))?;
    let mut trace = TraceRows { rows: Vec::new(), block_tokens, skipped: 0 };
    read_rows(&mut reader, prompt, &mut trace).map_err(|error| at_path(&error))?;
    if trace.rows.is_empty() {
        let message = match trace.skipped {
            0 => "has no rows to send".to_owned(),
            skipped => format!("has no rows to send; {skipped} were left out"),
        };
        return Err(at_path(&reader.lines.file_error(message)));
    }
    Ok(trace)
}

fn at_path(error: &FileError) -> Problem {
    Problem::new("prompt.path", error.to_string(), "a trace's rows stand in order of time, one request each")
}

/// Options that contradict each other.
fn check_options(prompt: &TracePrompt) -> Result<(), Problem> {
    let blocks = match prompt.format {
        TraceFormat::Mooncake => true,
        TraceFormat::Jsonl => prompt.fields.as_ref().is_some_and(|fields| fields.blocks.is_some()),
        TraceFormat::Azure | TraceFormat::Burstgpt => false,
    };
    if prompt.fields.is_some() && prompt.format != TraceFormat::Jsonl {
        let message = "`fields` is for `format: jsonl`; this format has its own names";
        return Err(Problem::new("prompt.fields", message, "remove `fields`"));
    }
    if let Some(fields) = &prompt.fields {
        check_times(fields)?;
    }
    if let Some(count) = prompt.block_tokens {
        if !blocks {
            let message = "`block_tokens` is given, but the rows name no blocks";
            return Err(Problem::new("prompt.block_tokens", message, "remove it, or name `fields.blocks`"));
        }
        if count.0 == 0 {
            return Err(Problem::new(
                "prompt.block_tokens",
                "a block has at least 1 token",
                "such as 16 or 512",
            ));
        }
    }
    if let Some([from, to]) = prompt.window
        && from >= to
    {
        let message = format!("the window from {from} to {to} is empty");
        return Err(Problem::new("prompt.window", message, "the first time comes before the second"));
    }
    match (prompt.too_long, prompt.max_tokens) {
        (TooLong::Reject, Some(_)) => Err(Problem::new(
            "prompt.max_tokens",
            "`max_tokens` has no effect with `too_long: reject`, which sends every row",
            "set `too_long: skip` or `too_long: clip`, or remove `max_tokens`",
        )),
        (TooLong::Skip | TooLong::Clip, None) => Err(Problem::new(
            "prompt.too_long",
            "`too_long` needs to know what is too long",
            "set `max_tokens`",
        )),
        (TooLong::Clip, Some(TokenCount(0 | 1))) => Err(Problem::new(
            "prompt.max_tokens",
            "nothing can be clipped below 2 tokens",
            "raise `max_tokens`",
        )),
        _ => Ok(()),
    }
}

/// The keys of an answer's times come in pairs.
fn check_times(fields: &TraceFields) -> Result<(), Problem> {
    let TraceFields { first, last, ttft, tpot, latency_unit, .. } = fields;
    let at = |key: &str, message: &str, help: &str| {
        Err(Problem::new(format!("prompt.fields.{key}"), message, help))
    };
    let pair = "name `first` and `last`, or `ttft` and `tpot`";
    match (first, last, ttft, tpot) {
        (None, None, None, None) | (Some(_), Some(_), None, None) if latency_unit.is_some() => {
            at("latency_unit", "`latency_unit` is that of `ttft` and `tpot`", "remove it, or name them")
        }
        (None, None, None, None) | (Some(_), Some(_), None, None) | (None, None, Some(_), Some(_)) => Ok(()),
        (Some(_), None, None, None) => {
            at("first", "`first` without `last` does not tell an answer's times", pair)
        }
        (None, Some(_), None, None) => {
            at("last", "`last` without `first` does not tell an answer's times", pair)
        }
        (None, None, Some(_), None) => {
            at("ttft", "`ttft` without `tpot` does not tell an answer's times", pair)
        }
        (None, None, None, Some(_)) => {
            at("tpot", "`tpot` without `ttft` does not tell an answer's times", pair)
        }
        _ => {
            let key = if ttft.is_some() { "ttft" } else { "tpot" };
            at(key, "an answer's times are told twice", pair)
        }
    }
}

fn read_rows(reader: &mut Reader, prompt: &TracePrompt, trace: &mut TraceRows) -> Result<(), FileError> {
    let (from, to) = prompt.window.map_or((0, Ns::MAX), |[from, to]| (from.0, to.0));
    let limit = prompt.limit.unwrap_or(u64::MAX);
    let (mut first, mut last, mut taken) = (None, i128::MIN, 0);
    // Where each session's first row went; nowhere when it was left out.
    let mut sessions: FxHashMap<String, Option<usize>> = FxHashMap::default();
    while taken < limit {
        let Some(mut row) = reader.row()? else { break };
        let session = row.session.take();
        if let Some(session) = &session
            && let Some(begun) = sessions.get(&session.id)
        {
            let Some(begun) = *begun else { continue };
            later_turn(reader, row, session, &mut trace.rows[begun], prompt, trace.block_tokens)?;
            continue;
        }
        if let Some(Session { has_time: false, id, .. }) = &session {
            return Err(reader.lines.error(format!("begins session `{id}` and has no `timestamp`")));
        }
        if row.at < last {
            return Err(reader.lines.error("arrives before the row above it; sort the trace by time"));
        }
        last = row.at;
        let since = row.at - *first.get_or_insert(row.at);
        if since > LONGEST {
            return Err(reader.lines.error("arrives more than 280 years after the first row"));
        }
        let since = since as Ns;
        if since >= to {
            break;
        }
        if since < from {
            sessions.extend(session.map(|session| (session.id, None)));
            continue;
        }
        taken += 1;
        let place = if let Some(row) = fit(reader, row, since - from, prompt, trace.block_tokens)? {
            trace.rows.push(row);
            Some(trace.rows.len() - 1)
        } else {
            trace.skipped += 1;
            None
        };
        sessions.extend(session.map(|session| (session.id, place)));
    }
    Ok(())
}

/// Adds a turn to the session that an earlier row began.
fn later_turn(
    reader: &Reader,
    row: RawRow,
    session: &Session,
    begun: &mut TraceRow,
    prompt: &TracePrompt,
    block_tokens: u32,
) -> Result<(), FileError> {
    if prompt.too_long != TooLong::Reject {
        let message =
            "is a later turn of a session, and turns can neither be left out nor cut: use `too_long: reject`";
        return Err(reader.lines.error(message));
    }
    if session.has_time && session.delay.is_none() {
        let message = format!(
            "is a later turn of session `{}`, which waits for the turn before it: give `delay`, the milliseconds it \
             waits, in place of `timestamp`",
            session.id
        );
        return Err(reader.lines.error(message));
    }
    let delay = session.delay.unwrap_or(0);
    if !(0..=LONGEST).contains(&delay) {
        return Err(reader.lines.error("`delay` is no length of time"));
    }
    let turn = fit(reader, row, delay as Ns, prompt, block_tokens)?;
    begun.later.extend(turn);
    let tokens = |row: &TraceRow| u64::from(row.prompt) + u64::from(row.output);
    if tokens(begun) + begun.later.iter().map(tokens).sum::<u64>() > u64::from(TokenCount::MAX) {
        return Err(reader.lines.error(format!("makes its session longer than {} tokens", TokenCount::MAX)));
    }
    Ok(())
}

/// Checks a row's lengths and makes it fit. `None` when it is left out.
fn fit(
    reader: &Reader,
    row: RawRow,
    at: Ns,
    prompt: &TracePrompt,
    block_tokens: u32,
) -> Result<Option<TraceRow>, FileError> {
    if prompt.format == TraceFormat::Burstgpt && row.output == 0 {
        return Ok(None);
    }
    let count = |name: &str, value: u64| match u32::try_from(value) {
        Ok(tokens @ 1..=TokenCount::MAX) => Ok(tokens),
        _ => Err(reader
            .lines
            .error(format!("{value} {name} tokens; it must be from 1 to {}", TokenCount::MAX))),
    };
    let (mut tokens, mut output) = (count("prompt", row.prompt)?, count("output", row.output)?);
    let mut ids = row.ids;
    if let Some(ids) = &ids
        && ids.len() as u64 != u64::from(tokens.div_ceil(block_tokens))
    {
        return Err(reader.lines.error(format!(
            "names {} block ids for {tokens} prompt tokens, which are {} blocks of {block_tokens}; check `block_tokens`",
            ids.len(),
            tokens.div_ceil(block_tokens)
        )));
    }
    let recorded = recorded(reader, row.answer, output)?;
    let most = prompt.max_tokens.map_or(u32::MAX, |most| most.0);
    if u64::from(tokens) + u64::from(output) > u64::from(most) {
        match prompt.too_long {
            TooLong::Reject => {}
            TooLong::Skip => return Ok(None),
            TooLong::Clip => {
                tokens = most.saturating_sub(output).max(1);
                output = output.min(most - tokens);
                if let Some(ids) = &mut ids {
                    ids.truncate(tokens.div_ceil(block_tokens) as usize);
                }
            }
        }
    }
    Ok(Some(TraceRow { at, prompt: tokens, output, ids: ids.map(Arc::from), recorded, later: Vec::new() }))
}

/// Checks when a row's answer of so many tokens came.
fn recorded(
    reader: &Reader,
    answer: Option<(i128, i128)>,
    tokens: u32,
) -> Result<Option<Recorded>, FileError> {
    let Some((ttft, rest)) = answer else { return Ok(None) };
    if ttft < 0 || rest < 0 {
        return Err(reader.lines.error("its arrival, first and last token do not follow each other"));
    }
    if ttft > LONGEST || rest > LONGEST {
        return Err(reader.lines.error("its answer took more than 280 years"));
    }
    Ok(Some(Recorded { ttft: ttft as Ns, rest: rest as Ns, tokens }))
}

struct Reader {
    lines: Lines,
    format: Format,
}

enum Format {
    Json(TraceFields),
    /// Mooncake's own keys, with or without sessions.
    Mooncake(TraceFields),
    /// Columns of time, prompt tokens and output tokens; and what reads a time.
    Csv([(&'static str, usize); 3], fn(&str) -> Option<i128>),
}

impl Reader {
    fn open(prompt: &TracePrompt, dir: &Path) -> Result<Self, FileError> {
        let mut lines = Lines::open(dir, &prompt.path)?;
        let format = match prompt.format {
            TraceFormat::Jsonl => Format::Json(prompt.fields.clone().unwrap_or_default()),
            TraceFormat::Mooncake => Format::Mooncake(TraceFields {
                timestamp: "timestamp".into(),
                timestamp_unit: TimeUnit::Ms,
                prompt_tokens: "input_length".into(),
                output_tokens: "output_length".into(),
                blocks: Some("hash_ids".into()),
                ..TraceFields::default()
            }),
            TraceFormat::Azure => {
                csv(&mut lines, ["TIMESTAMP", "ContextTokens", "GeneratedTokens"], calendar_ns)?
            }
            TraceFormat::Burstgpt => {
                csv(&mut lines, ["Timestamp", "Request tokens", "Response tokens"], |text| {
                    decimal_ns(text, 9)
                })?
            }
        };
        Ok(Self { lines, format })
    }

    fn row(&mut self) -> Result<Option<RawRow>, FileError> {
        let Some((_, line)) = self.lines.read()? else { return Ok(None) };
        let row = match &self.format {
            Format::Json(fields) => json_row(line, fields, false),
            Format::Mooncake(fields) => json_row(line, fields, true),
            Format::Csv(columns, time) => csv_row(line, columns, *time),
        };
        row.map(Some).map_err(|message| self.lines.error(message))
    }
}

fn csv(
    lines: &mut Lines,
    names: [&'static str; 3],
    time: fn(&str) -> Option<i128>,
) -> Result<Format, FileError> {
    let Some((_, line)) = lines.read()? else { return Err(lines.file_error("is empty")) };
    let header = csv_fields(line).unwrap_or_default();
    let mut columns = [("", 0); 3];
    for (column, name) in columns.iter_mut().zip(names) {
        match header.iter().position(|field| field.trim() == name) {
            Some(at) => *column = (name, at),
            None => {
                return Err(lines.error(format!("has no column `{name}`; it has {}", header.join(", "))));
            }
        }
    }
    Ok(Format::Csv(columns, time))
}

fn csv_row(
    line: &str,
    columns: &[(&'static str, usize); 3],
    time: fn(&str) -> Option<i128>,
) -> Result<RawRow, String> {
    let fields = csv_fields(line).ok_or("has a quote that is not closed")?;
    let field = |(name, at): (&str, usize)| {
        fields.get(at).map(|field| field.trim()).ok_or_else(|| format!("has no `{name}`"))
    };
    let count = |column: (&str, usize)| {
        let text = field(column)?;
        text.parse::<u64>().map_err(|_| format!("`{}` is `{text}`, which is no number of tokens", column.0))
    };
    let text = field(columns[0])?;
    let at = time(text).ok_or_else(|| format!("`{}` is `{text}`, which is no time", columns[0].0))?;
    Ok(RawRow {
        at,
        prompt: count(columns[1])?,
        output: count(columns[2])?,
        ids: None,
        session: None,
        answer: None,
    })
}

fn json_row(line: &str, fields: &TraceFields, sessions: bool) -> Result<RawRow, String> {
    let row: Value =
        serde_json::from_str(line).map_err(|error| format!("is not JSON: {}", json_fault(&error)))?;
    let field = |name: &str| row.get(name).ok_or_else(|| format!("has no `{name}`"));
    let count = |name: &str| {
        let value = field(name)?;
        value.as_u64().ok_or_else(|| format!("`{name}` is {value}, which is no number of tokens"))
    };
    let session = if sessions { session_of(&row)? } else { None };
    let no_time = Value::from(0);
    let time = match &session {
        Some(Session { has_time: false, .. }) => &no_time,
        _ => field(&fields.timestamp)?,
    };
    let of = |name: &str, time: &Value, unit| {
        let at = time.as_number().and_then(|number| decimal_ns(&number.to_string(), digits(unit)));
        at.ok_or_else(|| format!("`{name}` is {time}, which is no time"))
    };
    let at = of(&fields.timestamp, time, fields.timestamp_unit)?;
    let ids = match &fields.blocks {
        None => None,
        Some(name) if session.is_some() && row.get(name).is_none() => None,
        Some(name) => {
            let ids = field(name)?.as_array().and_then(|ids| ids.iter().map(Value::as_u64).collect());
            Some(ids.ok_or_else(|| format!("`{name}` is no list of block ids"))?)
        }
    };
    let (prompt, output) = (count(&fields.prompt_tokens)?, count(&fields.output_tokens)?);
    let answer = match (&fields.first, &fields.last, &fields.ttft, &fields.tpot) {
        (Some(first), Some(last), ..) => {
            let of = |name: &str| of(name, field(name)?, fields.timestamp_unit);
            let (first, last) = (of(first)?, of(last)?);
            Some((first - at, last - first))
        }
        (_, _, Some(ttft), Some(tpot)) => {
            let unit = fields.latency_unit.unwrap_or_default();
            let of = |name: &str| of(name, field(name)?, unit);
            let gaps = i128::from(output) - 1;
            let rest = if gaps > 0 { of(tpot)?.saturating_mul(gaps) } else { 0 };
            Some((of(ttft)?, rest))
        }
        _ => None,
    };
    Ok(RawRow { at, prompt, output, ids, session, answer })
}

/// How many decimal digits of the unit a nanosecond is.
fn digits(unit: TimeUnit) -> i32 {
    match unit {
        TimeUnit::S => 9,
        TimeUnit::Ms => 6,
        TimeUnit::Us => 3,
        TimeUnit::Ns => 0,
    }
}

/// What a row of Mooncake's format says about its session.
fn session_of(row: &Value) -> Result<Option<Session>, String> {
    let id = match row.get("session_id") {
        None | Some(Value::Null) => return Ok(None),
        Some(Value::String(id)) => id.clone(),
        Some(Value::Number(id)) => id.to_string(),
        Some(id) => return Err(format!("`session_id` is {id}, which is no name")),
    };
    let delay = match row.get("delay") {
        None | Some(Value::Null) => None,
        Some(delay) => {
            let ns = delay.as_number().and_then(|number| decimal_ns(&number.to_string(), 6));
            Some(ns.ok_or_else(|| format!("`delay` is {delay}, which is no time in milliseconds"))?)
        }
    };
    let has_time = row.get("timestamp").is_some_and(|time| !time.is_null());
    Ok(Some(Session { id, delay, has_time }))
}

/// Nanoseconds of a decimal number whose unit is 10^`digits` ns, exact; what is finer is rounded half up.
fn decimal_ns(text: &str, digits: i32) -> Option<i128> {
    let (negative, text) = text.strip_prefix('-').map_or((false, text), |rest| (true, rest));
    let (number, exponent) = match text.split_once(['e', 'E']) {
        Some((number, exponent)) => (number, exponent.parse::<i32>().ok().filter(|e| e.abs() < 100)?),
        None => (text, 0),
    };
    let (whole, fraction) = number.split_once('.').unwrap_or((number, ""));
    let plain = !whole.is_empty() && whole.len() + fraction.len() <= 30;
    if !plain || !whole.bytes().chain(fraction.bytes()).all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    let value: i128 = format!("{whole}{fraction}").parse().ok()?;
    let scale = digits + exponent - i32::try_from(fraction.len()).ok()?;
    let power = 10_i128.checked_pow(scale.unsigned_abs());
    let ns = match power {
        Some(power) if scale >= 0 => value.checked_mul(power)?,
        Some(power) => (value + power / 2) / power,
        None if scale < 0 || value == 0 => 0,
        None => return None,
    };
    Some(if negative { -ns } else { ns })
}

/// Nanoseconds since 1970 of `2023-11-16 18:17:03.9799600` or `2024-05-10 00:00:00.009930+00:00`. Without an offset the
/// time is UTC.
fn calendar_ns(text: &str) -> Option<i128> {
    let instant: Result<jiff::Timestamp, _> = text.parse();
    let instant = instant.or_else(|_| format!("{text}Z").parse());
    Some(instant.ok()?.as_nanosecond())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn decimals_are_exact() {
        assert_eq!(decimal_ns("46.926808", 6), Some(46_926_808));
        assert_eq!(decimal_ns("19440110.0", 9), Some(19_440_110_000_000_000));
        assert_eq!(decimal_ns("1787267980.0827403", 9), Some(1_787_267_980_082_740_300));
        assert_eq!(decimal_ns("0.00000000049", 9), Some(0));
        assert_eq!(decimal_ns("0.0000000005", 9), Some(1));
        assert_eq!(decimal_ns("1.5e3", 0), Some(1500));
        assert_eq!(decimal_ns("1e-99", 0), Some(0));
        assert_eq!(decimal_ns("-2", 3), Some(-2000));
        for junk in ["", ".5", "1_0", "0x1", "1e400", "nan", "--1", "1e99"] {
            assert_eq!(decimal_ns(junk, 9), None, "{junk}");
        }
    }

    #[test]
    fn both_years_of_azure() {
        let first = calendar_ns("2023-11-16 18:17:03.9799600").unwrap();
        assert_eq!(calendar_ns("2023-11-16 18:17:04.0319600").unwrap() - first, 52_000_000);
        assert_eq!(first % 1_000_000_000, 979_960_000);
        assert_eq!(
            calendar_ns("2024-05-10 00:00:00.009930+00:00").unwrap(),
            1_715_299_200_000_000_000 + 9_930_000
        );
        assert_eq!(calendar_ns("2024-05-10"), None);
        assert_eq!(calendar_ns("yesterday"), None);
    }
}
