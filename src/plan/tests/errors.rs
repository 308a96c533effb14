//! What can not be planned is told at its place, with what to do.

use std::path::Path;

use super::{try_plan, under};

/// Errors of a workload as `path: message (help)`, over a folder with some files.
fn errors(workload: &str) -> String {
    let dir = tempfile::tempdir().unwrap();
    for (name, content) in [
        ("empty", ""),
        ("rows.jsonl", "{\"prompt\": \"one\"}\n\n{\"prompt\": 2}\n"),
        ("three.jsonl", "{\"prompt\": \"a\"}\n{\"prompt\": \"b\"}\n{\"prompt\": \"c\"}\n"),
        ("blank.jsonl", "{\"prompt\": \"\"}\n"),
        ("broken.jsonl", "{\"prompt\": \"a\"\n"),
        ("unsorted", "{\"t\": 2, \"p\": 1, \"o\": 1}\n{\"t\": 1, \"p\": 1, \"o\": 1}\n"),
        ("two", "{\"t\": 1, \"p\": 1, \"o\": 1}\n{\"t\": 2, \"p\": 1, \"o\": 1}\n"),
        ("zero", "{\"t\": 1, \"p\": 0, \"o\": 1}\n"),
        ("when", "{\"t\": \"noon\", \"p\": 1, \"o\": 1}\n"),
        ("azure", "TIMESTAMP,ContextTokens,GeneratedTokens\n2023-11-16 18:15:46.68,374,44\nnoon,1,1\n"),
        ("mooncake", "{\"timestamp\": 0, \"input_length\": 600, \"output_length\": 1, \"hash_ids\": [1]}\n"),
        ("lengths.csv", "id,tokens\n1,5\n2,many\n"),
    ] {
        std::fs::write(dir.path().join(name), content).unwrap();
    }
    let errors = try_plan(workload, dir.path()).expect_err("the workload can not be planned");
    let lines: Vec<String> =
        errors.iter().map(|e| format!("{}: {} ({})", e.path, e.message, e.help)).collect();
    lines.join("\n")
}

fn closed(prompt: &str) -> String {
    format!(
        r#"{{"prompt": {prompt}, "output": {{"tokens": 1}}, "load": {{"kind": "closed", "concurrency": 1, "requests": 4}}}}"#
    )
}

fn tokens(law: &str) -> String {
    closed(&format!(r#"{{"kind": "synthetic", "tokens": {law}}}"#))
}

fn trace(path: &str, more: &str) -> String {
    format!(
        r#"{{"prompt": {{"kind": "trace", "path": "{path}", "format": "jsonl",
            "fields": {{"timestamp": "t", "prompt_tokens": "p", "output_tokens": "o"}}{more}}}, "load": {{"kind": "replay"}}}}"#
    )
}

#[test]
fn laws() {
    let all = [
        tokens(r#"{"kind": "uniform", "min": 9, "max": 8}"#),
        tokens(r#"{"kind": "normal", "mean": 9, "std": 0, "min": 9, "max": 8}"#),
        tokens(r#"{"kind": "zipf", "min": 1, "max": 16777216, "exponent": 1.0}"#),
        tokens(r#"{"kind": "zipf", "min": 1, "max": 9, "exponent": 0.0}"#),
        tokens("0"),
        tokens(r#"{"kind": "empirical", "path": "lengths.csv", "column": "tokens"}"#),
        tokens(r#"{"kind": "empirical", "path": "lengths.csv", "column": "length"}"#),
        tokens(r#"{"kind": "empirical", "path": "no.csv", "column": "length"}"#),
        tokens(r#"{"kind": "empirical", "path": "empty", "column": "length"}"#),
        closed(r#"{"kind": "synthetic", "tokens": 10, "prefix": {"tokens": 20}}"#),
        closed(
            r#"{"kind": "synthetic", "tokens": {"kind": "normal", "mean": 90, "std": 9}, "prefix": {"tokens": 20}}"#,
        ),
    ];
    insta::assert_snapshot!(all.map(|workload| errors(&workload)).join("\n"), @r#"
    prompt.tokens.min: `min` is larger than `max` (exchange the two)
    prompt.tokens.min: `min` is larger than `max` (exchange the two)
    prompt.tokens.max: 16777216 different values are more than the 1048576 a Zipf law may have (bring `min` and `max` closer together)
    prompt.tokens.exponent: the exponent 0 is not above 0 and at most 20 (1 is the classical law)
    prompt.tokens.value: 0 is no number of tokens (write a number from 1 to 16777216)
    prompt.tokens.path: lengths.csv:3: `tokens` is "many", which is not a number of tokens: a whole number from 1 to 16777216 (name a CSV or JSONL file with such a column)
    prompt.tokens.path: lengths.csv:1: has no column `length`; it has id, tokens (name a CSV or JSONL file with such a column)
    prompt.tokens.path: no.csv: can not be read: No such file or directory (os error 2) (name a CSV or JSONL file with such a column)
    prompt.tokens.path: empty: has no rows (name a CSV or JSONL file with such a column)
    prompt.prefix.tokens: a prompt may be as short as 10 tokens, but its prefix has 20 (set the smallest `prompt.tokens` to 20 or more; the prefix is part of it)
    prompt.prefix.tokens: a prompt may be as short as 1 tokens, but its prefix has 20 (set the smallest `prompt.tokens` to 20 or more; the prefix is part of it)
    "#);
    assert!(try_plan(&tokens(r#"{"kind": "normal", "mean": 9, "std": 0}"#), Path::new(".")).is_ok());
}

#[test]
fn files_and_texts() {
    let file = |path: &str, more: &str| {
        closed(&format!(r#"{{"kind": "file", "path": "{path}", "format": "jsonl"{more}}}"#))
    };
    let all = [
        file("none.jsonl", ""),
        file("empty", ""),
        file("rows.jsonl", ""),
        file("blank.jsonl", ""),
        file("broken.jsonl", ""),
        file("three.jsonl", r#", "fields": {"prompt": "text"}"#),
        file("three.jsonl", r#", "wrap": false"#),
        file("three.jsonl", r#", "wrap": false"#)
            .replace("\"requests\": 4", "\"requests\": 1")
            .replace("\"load\"", "\"warmup\": {\"requests\": 3}, \"load\""),
        closed(r#"{"kind": "text", "text": ""}"#),
    ];
    insta::assert_snapshot!(all.map(|workload| errors(&workload)).join("\n"), @r#"
    prompt.path: none.jsonl: can not be read: No such file or directory (os error 2) (a prompt file has one JSON object per line, with the prompt as a string)
    prompt.path: empty: has no rows (a prompt file has one JSON object per line, with the prompt as a string)
    prompt.path: rows.jsonl:3: `prompt` is not a string (a prompt file has one JSON object per line, with the prompt as a string)
    prompt.path: blank.jsonl:1: the prompt is empty (a prompt file has one JSON object per line, with the prompt as a string)
    prompt.path: broken.jsonl:1: is not JSON: EOF while parsing an object at column 14 (a prompt file has one JSON object per line, with the prompt as a string)
    prompt.path: three.jsonl:1: has no `text` (a prompt file has one JSON object per line, with the prompt as a string)
    load.requests: the plan needs 4 rows, but the file of `prompt.path` has 3 (send fewer requests, or name a longer file; a file may also `wrap`)
    warmup.requests: the plan needs 4 or more rows, but the file of `prompt.path` has 3 (send fewer requests, or name a longer file; a file may also `wrap`)
    prompt.text: the prompt is empty (write the prompt that every request sends)
    "#);
}

#[test]
fn traces() {
    let all = [
        trace("unsorted", ""),
        trace("zero", ""),
        trace("when", ""),
        trace("empty", ""),
        trace("two", r#", "window": ["5s", "5s"]"#),
        trace("two", r#", "window": ["5s", "6s"]"#),
        trace("two", r#", "too_long": "skip""#),
        trace("two", r#", "max_tokens": 100"#),
        trace("two", r#", "too_long": "skip", "max_tokens": 1"#),
        trace("two", r#", "too_long": "clip", "max_tokens": 1"#),
        trace("two", r#", "block_tokens": 16"#),
        trace("two", "").replace("jsonl", "azure"),
        r#"{"prompt": {"kind": "trace", "path": "azure", "format": "azure"}, "load": {"kind": "replay"}}"#.into(),
        r#"{"prompt": {"kind": "trace", "path": "azure", "format": "burstgpt"}, "load": {"kind": "replay"}}"#.into(),
        r#"{"prompt": {"kind": "trace", "path": "mooncake", "format": "mooncake"}, "load": {"kind": "replay"}}"#.into(),
        trace("two", "").replace(r#""load""#, r#""output": {"tokens": 4}, "load""#),
        trace("two", "").replace(r#""kind": "replay""#, r#""kind": "open", "rate": "9/s", "duration": "9s""#),
        trace("two", "").replace(r#""kind": "replay""#, r#""kind": "closed", "concurrency": 1, "requests": 3"#),
        trace("two", "").replace(r#""kind": "replay""#, r#""kind": "open", "rate": "9/s""#),
        trace("two", "").replace(r#""kind": "replay""#, r#""kind": "replay", "speed": 0"#),
        trace("two", "").replace(r#""load""#, r#""warmup": {"requests": 2}, "load""#),
    ];
    insta::assert_snapshot!(all.map(|workload| errors(&workload)).join("\n"), @r#"
    prompt.path: unsorted:2: arrives before the row above it; sort the trace by time (a trace's rows stand in order of time, one request each)
    prompt.path: zero:1: 0 prompt tokens; it must be from 1 to 16777216 (a trace's rows stand in order of time, one request each)
    prompt.path: when:1: `t` is "noon", which is no time (a trace's rows stand in order of time, one request each)
    prompt.path: empty: has no rows to send (a trace's rows stand in order of time, one request each)
    prompt.window: the window from 5s to 5s is empty (the first time comes before the second)
    prompt.path: two: has no rows to send (a trace's rows stand in order of time, one request each)
    prompt.too_long: `too_long` needs to know what is too long (set `max_tokens`)
    prompt.max_tokens: `max_tokens` has no effect with `too_long: reject`, which sends every row (set `too_long: skip` or `too_long: clip`, or remove `max_tokens`)
    prompt.path: two: has no rows to send; 2 were left out (a trace's rows stand in order of time, one request each)
    prompt.max_tokens: nothing can be clipped below 2 tokens (raise `max_tokens`)
    prompt.block_tokens: `block_tokens` is given, but the rows name no blocks (remove it, or name `fields.blocks`)
    prompt.fields: `fields` is for `format: jsonl`; this format has its own names (remove `fields`)
    prompt.path: azure:3: `TIMESTAMP` is `noon`, which is no time (a trace's rows stand in order of time, one request each)
    prompt.path: azure:1: has no column `Timestamp`; it has TIMESTAMP, ContextTokens, GeneratedTokens (a trace's rows stand in order of time, one request each)
    prompt.path: mooncake:1: names 1 block ids for 600 prompt tokens, which are 2 blocks of 512; check `block_tokens` (a trace's rows stand in order of time, one request each)
    output: a trace supplies the length of each answer (remove `output`)
    load: the plan needs more than 2 rows, but the file of `prompt.path` has 2 (send fewer requests, or name a longer file; a file may also `wrap`)
    load.requests: the plan needs 3 rows, but the file of `prompt.path` has 2 (send fewer requests, or name a longer file; a file may also `wrap`)
    load: the load has no end (set `requests`, `duration`, or both)
    load.speed: a speed of 0 is not above 0 and at most 1000000 (1 is the trace's own speed, 2 is twice as fast)
    load: the load measures no request (raise its rate or its duration, or shorten the warm-up)
    "#);
}

#[test]
fn loads() {
    let load = |load: &str| under(load, "");
    let stages =
        |stages: &str, more: &str| under(&format!(r#"{{"kind": "stages", "stages": [{stages}]}}"#), more);
    let all = [
        load(r#"{"kind": "closed", "concurrency": 1}"#),
        load(r#"{"kind": "closed", "concurrency": 0, "requests": 1}"#),
        load(r#"{"kind": "closed", "concurrency": 1, "duration": "0s"}"#),
        load(r#"{"kind": "closed", "concurrency": 9, "requests": "18446744073709551615x"}"#),
        load(
            r#"{"kind": "closed", "concurrency": 1, "requests": 1, "think_time": {"kind": "lognormal", "mean": "0s", "std": "1s"}}"#,
        ),
        load(r#"{"kind": "open", "rate": "0/s", "requests": 1}"#),
        load(r#"{"kind": "open", "rate": "1/s"}"#),
        load(r#"{"kind": "open", "rate": "1/h", "duration": "1ms"}"#),
        load(
            r#"{"kind": "open", "rate": "1/s", "requests": 1, "arrival": {"kind": "gamma", "burstiness": 0}}"#,
        ),
        load(r#"{"kind": "replay"}"#),
        stages("", ""),
        stages(r#"{"duration": "0s", "rate": "1/s"}"#, ""),
        stages(r#"{"duration": "1s"}"#, ""),
        stages(r#"{"duration": "1s", "rate": "1/s"}, {"duration": "1s", "concurrency": 1}"#, ""),
        stages(r#"{"duration": "1s", "rate": "0/s"}"#, ""),
        stages(r#"{"duration": "1s", "concurrency": 0}"#, ""),
        stages(r#"{"duration": "1s", "rate": "9/s", "shape": "linear"}"#, r#", "warmup": {"requests": 1}"#),
        stages(r#"{"duration": "1s", "concurrency": 4}"#, r#", "warmup": {"requests": 1}"#),
        stages(r#"{"duration": "1s", "concurrency": 4}"#, "")
            .replace(r#""stages": ["#, r#""max_in_flight": 4, "stages": ["#),
        stages(r#"{"duration": "2000000h", "rate": "1/s"}"#, ""),
        under(r#"{"kind": "closed", "concurrency": 1, "requests": 1}"#, r#", "warmup": {}"#),
        under(r#"{"kind": "closed", "concurrency": 1, "requests": 1}"#, r#", "repeats": 0"#),
    ];
    insta::assert_snapshot!(all.map(|workload| errors(&workload)).join("\n"), @r#"
    load: the load has no end (set `requests`, `duration`, or both)
    load.concurrency: there is at least 1 user (raise `concurrency`)
    load.duration: nothing is sent in no time (raise `duration`)
    load.requests: that many requests for each user can not be counted (lower it)
    load.think_time.mean: the mean of a log-normal law is above 0 (raise `mean`)
    load.rate: nothing arrives at a rate of 0 (raise `rate`)
    load: the load has no end (set `requests`, `duration`, or both)
    load: the load measures no request (raise its rate or its duration, or shorten the warm-up)
    load.arrival.burstiness: a burstiness of 0 is not between 0.001 and 1000 (1 is Poisson; below 1 comes in bursts)
    load.kind: `replay` sends at the times of a trace, but the prompts come from no trace (use `prompt: { kind: trace, .. }`, or another load)
    load.stages: there is no stage (add one)
    load.stages.0.duration: the stage lasts no time (raise `duration`)
    load.stages.0: a stage sets either `rate` or `concurrency` (set exactly one)
    load.stages.1: all stages set a rate, or all set a concurrency (split them into two workloads)
    load.stages: nothing arrives at a rate of 0 (raise the rate of a stage)
    load.stages: there are no users (raise the concurrency of a stage)
    warmup: a warm-up holds the value that the first stage starts with, and that is 0 (begin with a stage of `shape: step` above 0, or remove `warmup`)
    warmup.requests: stages of users follow the clock, so their warm-up must be a time (set `warmup.duration` instead)
    load.max_in_flight: `max_in_flight` is for stages that set a rate; these set a concurrency (remove `max_in_flight`)
    load.stages.0: the stages together last more than 140 years (shorten them)
    warmup: a warm-up has either `requests` or `duration`, above 0 (set exactly one of them, or remove `warmup`)
    repeats: a workload is played at least once (raise `repeats`)
    "#);
}

#[test]
fn outputs() {
    let output = |output: &str| {
        format!(
            r#"{{"prompt": {{"kind": "text", "text": "hello"}}, {output}
                "load": {{"kind": "closed", "concurrency": 1, "requests": 4}}}}"#
        )
    };
    let all = [
        output(""),
        output(r#""output": {},"#),
        output(r#""output": {"tokens": 1, "max_tokens": 2},"#),
        output(r#""output": {"max_tokens": {"kind": "uniform", "min": 2, "max": 1}},"#),
    ];
    insta::assert_snapshot!(all.map(|workload| errors(&workload)).join("\n"), @r#"
    output: nothing says how long answers are (set `output: { tokens: 128 }`, or `max_tokens` as a limit)
    output: an output has either `tokens` (forced) or `max_tokens` (a limit) (set exactly one of them)
    output: an output has either `tokens` (forced) or `max_tokens` (a limit) (set exactly one of them)
    output.max_tokens.min: `min` is larger than `max` (exchange the two)
    "#);
}
