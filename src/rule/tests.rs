//! The language as a whole: what is read, what is refused and how.

use std::fmt::Write as _;

use proptest::prelude::*;

use super::*;
use crate::metric::{Better, Kind, METRICS, Metric, Unit};

/// Every error under the text it is about.
fn errors(text: &str) -> String {
    let errors = match parse(text) {
        Ok(rule) => panic!("`{text}` is a rule: {rule}"),
        Err(errors) => errors,
    };
    render(text, &errors)
}

fn render(text: &str, errors: &[RuleError]) -> String {
    let mut out = format!("{text}\n");
    for error in errors {
        let before = text[..error.at.start].chars().count();
        let width = text[error.at.clone()].chars().count().max(1);
        writeln!(out, "{}{} {}", " ".repeat(before), "^".repeat(width), error.message).unwrap();
        writeln!(out, "{}= help: {}", " ".repeat(before), error.help).unwrap();
    }
    out
}

#[test]
fn checks_and_declared_metrics_have_rules() {
    let lines = Metric::declared(0, "lines", Unit::Count, Better::Higher, "Lines of code.");
    let rule =
        |text: &str| parse_with(text, &[lines]).map(|rule| rule.to_string()).map_err(|e| e[0].help.clone());
    assert_eq!(rule("check(json) >= 99%").unwrap(), "check(json) >= 99%");
    assert_eq!(rule("check(no-html.v2) == 100%").unwrap(), "check(no-html.v2) == 100%");
    assert_eq!(
        rule("checks_pass_rate >= 0.9 where output_tokens > 3").unwrap(),
        "checks_pass_rate >= 90% where output_tokens > 3"
    );
    assert_eq!(rule("p95(lines) >= 3 where lines < 9").unwrap(), "p95(lines) >= 3 where lines < 9");
    assert_eq!(rule("avg_lines >= 3").unwrap(), "avg(lines) >= 3");
    assert_eq!(rule("avg(line) >= 3").unwrap_err(), "did you mean `lines`?");
    assert!(parse("avg(lines) >= 3").is_err(), "another scenario's metric is not known");
    assert_eq!(condition("lines >= 3", &[lines]).unwrap().to_string(), "lines >= 3");
}

#[test]
fn what_is_read() {
    for (text, plain) in [
        ("p99(ttft) < 80ms", "p99(ttft) < 80ms"),
        ("  p99 ( ttft )<0.08s ", "p99(ttft) < 80ms"),
        ("p99.9(itl) <= 250us", "p99.9(tbt) <= 0.25ms"),
        ("p50(latency) > 1.5 s", "p50(e2e) > 1500ms"),
        ("p0.5(throughput) >= 50 tok/s", "p0.5(throughput) >= 50tok/s"),
        ("med(tpot) < 20µs", "med(tpot) < 0.02ms"),
        ("count(ttft) <= 5 where ttft > 1s", "count(ttft) <= 5 where ttft > 1000ms"),
        ("sum(output_tokens) >= 1000", "sum(output_tokens) >= 1000"),
        ("min(output_tokens) == 128", "min(output_tokens) == 128"),
        ("error_rate == 0", "error_rate == 0%"),
        ("error_rate <= 5%", "error_rate <= 5%"),
        ("error_rate <= .05%", ""),
        ("error_rate <= 0.05", "error_rate <= 5%"),
        ("prefix_hit_rate >= 99.9%", "prefix_hit_rate >= 99.9%"),
        ("slo_share == 100%", "slo_share == 100%"),
        ("share(ttft <= 200ms and tpot <= 20ms) >= 99%", "share(ttft <= 200ms and tpot <= 20ms) >= 99%"),
        ("output_throughput >= 50/s", "output_throughput >= 50tok/s"),
        ("request_rate >= 90/m", "request_rate >= 1.5/s"),
        ("goodput >= 2 req/s", "goodput >= 2/s"),
        ("peak_mem <= 32GiB", "peak_mem <= 32768MiB"),
        ("kv_used_bytes <= 128MiB", "kv_used_bytes <= 134217728B"),
        ("kv_used_bytes <= 4096", "kv_used_bytes <= 4096B"),
        ("evict_ms <= 2.5", "evict_ms <= 2.5ms"),
        ("total_time <= 2m", "total_time <= 120s"),
        ("evict_count == 0", "evict_count == 0"),
        // The names of the result files carry their units.
        ("p99_ttft_ms < 80", "p99(ttft) < 80ms"),
        ("p99_ttft_ms < 1s", "p99(ttft) < 1000ms"),
        ("p99.9_itl_ms < 80", "p99.9(tbt) < 80ms"),
        ("avg_throughput_tps >= 50", "avg(throughput) >= 50tok/s"),
        ("output_throughput_tps >= 50", "output_throughput >= 50tok/s"),
        ("goodput_rps >= 2", "goodput >= 2/s"),
        ("peak_mem_mb <= 32768", "peak_mem <= 32768MiB"),
        ("avg_mem_mb <= 24576", "avg_mem <= 24576MiB"),
        ("total_time_s <= 15.5", "total_time <= 15.5s"),
        ("max_output_tokens <= 128", "max(output_tokens) <= 128"),
        // Conditions.
        (
            "p95(ttft) < 250ms where prompt_tokens >= 1000 and tier == gold",
            "p95(ttft) < 250ms where prompt_tokens >= 1000 and tier == gold",
        ),
        ("error_rate <= 1% where tier != \"not paid\"", "error_rate <= 1% where tier != \"not paid\""),
        ("peak_mem <= 1GiB where size == 7b", "peak_mem <= 1024MiB where size == 7b"),
        ("p95(ttft) < 80ms where turn == 2", "p95(ttft) < 80ms where turn == 2"),
    ] {
        match (parse(text), plain) {
            (Ok(rule), plain) => assert_eq!(rule.to_string(), plain, "{text}"),
            (Err(_), "") => {}
            (Err(errors), _) => panic!("{}", render(text, &errors)),
        }
    }
}

#[test]
fn parts_know_where_they_stand() {
    let text = "share( ttft <= 200ms ) >= 99 % where tier == \"no 1\"";
    let rule = parse(text).unwrap();
    assert_eq!(&text[rule.subject_at.clone()], "share( ttft <= 200ms )");
    assert_eq!(&text[rule.limit_at.clone()], "99 %");
    assert_eq!(&text[rule.filter[0].at.clone()], "tier == \"no 1\"");
    let Subject::Share(conditions) = &rule.subject else { panic!("a share") };
    assert_eq!(&text[conditions[0].at.clone()], "ttft <= 200ms");
}

#[test]
fn every_flat_name_of_the_table_is_read() {
    for metric in METRICS {
        if metric.kind == Kind::Samples {
            for aggregate in ["avg", "p50", "p99", "max"] {
                let rule = parse(&format!("{} <= 0.5", metric.flat_of(aggregate))).unwrap();
                assert!(
                    matches!(rule.subject, Subject::Aggregate(_, found) if found == metric),
                    "{}",
                    metric.name
                );
            }
        } else {
            let rule = parse(&format!("{} <= 0.5", metric.flat())).unwrap();
            assert_eq!((rule.subject, rule.limit), (Subject::Plain(metric), Limit::Number(0.5)));
        }
    }
}

#[test]
fn unknown_names() {
    insta::assert_snapshot!(errors("p99(tttf) < 80ms"), @r"
    p99(tttf) < 80ms
        ^^^^ unknown metric `tttf`
        = help: did you mean `ttft`?
    ");
    insta::assert_snapshot!(errors("p99(speed) < 80ms"), @r"
    p99(speed) < 80ms
        ^^^^^ unknown metric `speed`
        = help: write one of ttft, answer_ttft, tbt, tpot, e2e, queue_delay, queue_time, throughput, prompt_tokens, output_tokens
    ");
    insta::assert_snapshot!(errors("tttf < 80ms"), @r"
    tttf < 80ms
    ^^^^ unknown metric `tttf`
    = help: did you mean `ttft`, as in `p99(ttft)`?
    ");
    insta::assert_snapshot!(errors("p99_ttft < 80"), @r"
    p99_ttft < 80
    ^^^^^^^^ unknown metric `p99_ttft`
    = help: did you mean `p99_ttft_ms`?
    ");
    insta::assert_snapshot!(errors("eror_rate <= 1%"), @r"
    eror_rate <= 1%
    ^^^^^^^^^ unknown metric `eror_rate`
    = help: did you mean `error_rate`?
    ");
    insta::assert_snapshot!(errors("median(ttft) < 80ms"), @r"
    median(ttft) < 80ms
    ^^^^^^ unknown aggregation `median`
    = help: did you mean `med`?
    ");
    insta::assert_snapshot!(errors("p95th(ttft) < 80ms"), @r"
    p95th(ttft) < 80ms
    ^^^^^ unknown aggregation `p95th`
    = help: write one of avg, min, max, med, stddev, sum, count, or a percentile such as p99
    ");
    insta::assert_snapshot!(errors("check() >= 99%"), @r"
    check() >= 99%
          ^ expected the name of a check
          = help: a workload's checks stand in `expect`
    ");
    insta::assert_snapshot!(errors("p99(ttft) < 80ms where promt_tokens > 5"), @r"
    p99(ttft) < 80ms where promt_tokens > 5
                           ^^^^^^^^^^^^ unknown metric `promt_tokens`
                           = help: did you mean `prompt_tokens`? (a tag is compared with == or !=)
    ");
}

#[test]
fn names_of_the_wrong_kind() {
    insta::assert_snapshot!(errors("ttft < 80ms"), @r"
    ttft < 80ms
    ^^^^ `ttft` is one value for each request
    = help: say which, such as `p99(ttft)`
    ");
    insta::assert_snapshot!(errors("tbt < 80ms"), @r"
    tbt < 80ms
    ^^^ `tbt` is one value for each token
    = help: say which, such as `p99(tbt)`
    ");
    insta::assert_snapshot!(errors("throughput >= 50tok/s"), @r"
    throughput >= 50tok/s
    ^^^^^^^^^^ `throughput` is one value for each request
    = help: say which, such as `avg(throughput)`
    ");
    insta::assert_snapshot!(errors("p99(error_rate) < 1%"), @r"
    p99(error_rate) < 1%
        ^^^^^^^^^^ `error_rate` is one number for the whole workload, not one for each request
        = help: write it bare: `error_rate`
    ");
    insta::assert_snapshot!(errors("p99 < 80ms"), @r"
    p99 < 80ms
    ^^^ `p99` needs the metric that it is of
    = help: write `p99(ttft)`
    ");
    insta::assert_snapshot!(errors("share(tbt <= 20ms) >= 99%"), @r"
    share(tbt <= 20ms) >= 99%
          ^^^ `tbt` is one value for each token, so no single request has it
          = help: write `tpot`, a request's own mean
    ");
    insta::assert_snapshot!(errors("share(error_rate <= 1%) >= 99%"), @r"
    share(error_rate <= 1%) >= 99%
          ^^^^^^^^^^ `error_rate` is one number for the whole workload, not one for each request
          = help: a condition looks at ttft, answer_ttft, tpot, e2e, latency, queue_delay, queue_time, throughput, prompt_tokens, output_tokens
    ");
    insta::assert_snapshot!(errors("share(tier == gold) >= 99%"), @r"
    share(tier == gold) >= 99%
          ^^^^ unknown metric `tier`
          = help: write one of ttft, answer_ttft, tpot, e2e, queue_delay, queue_time, throughput, prompt_tokens, output_tokens (a tag stands behind `where`)
    ");
    insta::assert_snapshot!(errors("peak_mem <= 1GiB where ttft <= 1s"), @r"
    peak_mem <= 1GiB where ttft <= 1s
                           ^^^^^^^^^^ `peak_mem` is one number for the whole workload and can not be narrowed to some requests
                           = help: leave the condition out
    ");
}

#[test]
fn limits_without_sense() {
    insta::assert_snapshot!(errors("p99(ttft) < 80"), @r"
    p99(ttft) < 80
                ^^ 80 what? `p99(ttft)` is a time and needs a unit
                = help: write `80ms`
    ");
    insta::assert_snapshot!(errors("output_throughput >= 50"), @r"
    output_throughput >= 50
                         ^^ 50 what? `output_throughput` is a rate of tokens and needs a unit
                         = help: write `50tok/s`
    ");
    insta::assert_snapshot!(errors("peak_mem <= 32"), @r"
    peak_mem <= 32
                ^^ 32 what? `peak_mem` is a size and needs a unit
                = help: write `32MiB`
    ");
    insta::assert_snapshot!(errors("error_rate <= 5"), @r"
    error_rate <= 5
                  ^ 5 is more than 100%
                  = help: is 5% meant?
    ");
    insta::assert_snapshot!(errors("error_rate <= 1"), @r"
    error_rate <= 1
                  ^ 1 is 100%, which may not be meant
                  = help: write 1% or 100%
    ");
    insta::assert_snapshot!(errors("error_rate <= 500"), @r"
    error_rate <= 500
                  ^^^ 500 is more than 100%
                  = help: a share lies between 0% and 100%
    ");
    insta::assert_snapshot!(errors("error_rate <= 120%"), @r"
    error_rate <= 120%
                  ^^^^ 120% is more than 100%
                  = help: a share lies between 0% and 100%
    ");
    insta::assert_snapshot!(errors("p99(ttft) < 80%"), @r"
    p99(ttft) < 80%
                  ^ `%` does not fit `p99(ttft)`, which is a time
                  = help: write `80ms`; the units are ns, us, ms, s, m, h
    ");
    insta::assert_snapshot!(errors("p99(ttft) < 80msec"), @r"
    p99(ttft) < 80msec
                  ^^^^ unknown unit `msec`; `p99(ttft)` is a time
                  = help: did you mean `80ms`?
    ");
    insta::assert_snapshot!(errors("peak_mem <= 32 gib"), @r"
    peak_mem <= 32 gib
                   ^^^ unknown unit `gib`; `peak_mem` is a size
                   = help: did you mean `32GiB`?
    ");
    insta::assert_snapshot!(errors("evict_count <= 3ms"), @r"
    evict_count <= 3ms
                    ^^ `ms` does not fit `evict_count`, which is a plain number
                    = help: write `3`
    ");
    insta::assert_snapshot!(errors("request_rate >= 3tok/s"), @r"
    request_rate >= 3tok/s
                     ^^^^^ `tok/s` does not fit `request_rate`, which is a rate of requests
                     = help: write `3/s`; the units are /s, /m, /h, req/s
    ");
    insta::assert_snapshot!(errors("p99(ttft) < 1,000ms"), @r"
    p99(ttft) < 1,000ms
                ^^^^^ `1,000` is no number
                = help: write digits and at most one point, such as 1000 or 0.5
    ");
    insta::assert_snapshot!(errors("p99(ttft) < -3ms"), @r"
    p99(ttft) < -3ms
                ^^^^ no metric is ever negative
                = help: write a limit of 0 or more
    ");
    insta::assert_snapshot!(errors("p99(ttft) < 99999999999999999999h"), @r"
    p99(ttft) < 99999999999999999999h
                ^^^^^^^^^^^^^^^^^^^^^ this number is too large
                = help: write one that can be reached
    ");
    insta::assert_snapshot!(errors("error_rate < 0"), @r"
    error_rate < 0
                 ^ `error_rate < 0` can never hold
                 = help: write a limit that can be both met and missed
    ");
    insta::assert_snapshot!(errors("error_rate <= 100%"), @r"
    error_rate <= 100%
                  ^^^^ `error_rate <= 100%` always holds
                  = help: write a limit that can be both met and missed
    ");
    insta::assert_snapshot!(errors("avg(ttft) >= 0ms"), @r"
    avg(ttft) >= 0ms
                 ^^^ `avg(ttft) >= 0ms` always holds
                 = help: write a limit that can be both met and missed
    ");
}

#[test]
fn references_are_read() {
    for (text, plain) in [
        ("avg(tpot) <= main + 5%", "avg(tpot) <= main + 5%"),
        ("output_throughput>=main-eu - 3 %", "output_throughput >= main-eu - 3%"),
        ("p99(ttft) <= chat_alone + 0.02s", "p99(ttft) <= chat_alone + 20ms"),
        ("p99_ttft_ms <= chat_alone + 20", "p99(ttft) <= chat_alone + 20ms"),
        ("avg(tpot) <= \"chat@concurrency=4\"", "avg(tpot) <= \"chat@concurrency=4\""),
        // What is added to a share are points of 100 %.
        ("error_rate <= main + 1%", "error_rate <= main + 1%"),
        ("failed_requests == main", "failed_requests == main"),
        ("p99(ttft) <= main where prompt_tokens >= 100", "p99(ttft) <= main where prompt_tokens >= 100"),
    ] {
        let rule = parse(text).unwrap_or_else(|errors| panic!("{}", render(text, &errors)));
        assert_eq!(rule.to_string(), plain, "{text}");
        assert_eq!(parse(plain).unwrap().limit, rule.limit);
    }
    let limit = |text: &str| match parse(text).unwrap().limit {
        Limit::Reference(reference) => reference.change,
        Limit::Number(_) => panic!("a reference"),
    };
    assert_eq!(limit("avg(tpot) <= main + 5%"), Change::Share(0.05));
    assert_eq!(limit("error_rate <= main + 5%"), Change::By(0.05));
    assert_eq!(limit("avg(tpot) <= main - 2ms"), Change::By(-2.0));
}

#[test]
fn references_that_are_none() {
    let wrong = [
        "avg(tpot) <= main+5%",
        "avg(tpot) <= main-5%",
        "avg(tpot) <= main + 5",
        "avg(tpot) <= main + 5GiB",
        "avg(tpot) == main",
        "avg(tpot) <= main +",
        "p99(ttft) <= 80ms + 5%",
    ];
    insta::assert_snapshot!(wrong.map(errors).concat(), @r"
    avg(tpot) <= main+5%
                 ^^^^ where does the name `main` end?
                 = help: write a space before `+` and `-`, as in `main + 5%`
    avg(tpot) <= main-5%
                 ^^^^^^ where does the name `main-5` end?
                 = help: write a space before `+` and `-`, as in `main + 5%`
    avg(tpot) <= main + 5
                        ^ 5 what? `avg(tpot)` is a time and needs a unit
                        = help: write `5ms`
    avg(tpot) <= main + 5GiB
                         ^^^ `GiB` does not fit `avg(tpot)`, which is a time
                         = help: write `5ms`; the units are ns, us, ms, s, m, h
    avg(tpot) == main
              ^^ `avg(tpot)` is never exactly one number, so `==` says nothing about it
              = help: write <, <=, > or >=
    avg(tpot) <= main +
                       ^ expected a limit
                       = help: a limit is a number with a unit, such as 80ms or 5%, or the name of a baseline, workload or backend, such as `main + 5%`
    p99(ttft) <= 80ms + 5%
                      ^^^^ `+ 5%` is left over
                      = help: a limit is a number with a unit, such as 80ms or 5%, or the name of a baseline, workload or backend, such as `main + 5%`
    ");
}

#[test]
fn percentiles_out_of_range() {
    insta::assert_snapshot!(errors("p0(ttft) < 80ms"), @r"
    p0(ttft) < 80ms
    ^^ `p0` is the smallest value
    = help: write `min(...)`
    ");
    insta::assert_snapshot!(errors("p100(ttft) < 80ms"), @r"
    p100(ttft) < 80ms
    ^^^^ `p100` is the largest value
    = help: write `max(...)`
    ");
    insta::assert_snapshot!(errors("p101(ttft) < 80ms"), @r"
    p101(ttft) < 80ms
    ^^^^ there is no percentile 101
    = help: a percentile lies between 0 and 100, such as p99
    ");
    assert!(parse("p99.99999999999999999999(ttft) < 80ms").is_err(), "it rounds to 100");
}

#[test]
fn comparisons() {
    insta::assert_snapshot!(errors("p99(ttft) == 80ms"), @r"
    p99(ttft) == 80ms
              ^^ `p99(ttft)` is never exactly one number, so `==` says nothing about it
              = help: write <, <=, > or >=
    ");
    insta::assert_snapshot!(errors("error_rate == 1%"), @r"
    error_rate == 1%
               ^^ `error_rate` is never exactly one number, so `==` says nothing about it
               = help: write <, <=, > or >=
    ");
    insta::assert_snapshot!(errors("avg(output_tokens) != 128"), @r"
    avg(output_tokens) != 128
                       ^^ `avg(output_tokens)` is never exactly one number, so `!=` says nothing about it
                       = help: write <, <=, > or >=
    ");
    insta::assert_snapshot!(errors("p99(ttft) =< 80ms"), @r"
    p99(ttft) =< 80ms
              ^^ `=<` is no comparison
              = help: write `<=`
    ");
    insta::assert_snapshot!(errors("p99(ttft) ≤ 80ms"), @r"
    p99(ttft) ≤ 80ms
              ^ `≤` is no comparison
              = help: write `<=`
    ");
    insta::assert_snapshot!(errors("error_rate = 0"), @r"
    error_rate = 0
               ^ `=` is no comparison
               = help: write `==`
    ");
    insta::assert_snapshot!(errors("p99(ttft) 80ms"), @r"
    p99(ttft) 80ms
              ^ expected a comparison
              = help: write one of <, <=, >, >=, ==, !=
    ");
    insta::assert_snapshot!(errors("p99(ttft) <"), @r"
    p99(ttft) <
               ^ expected a limit
               = help: a limit is a number with a unit, such as 80ms or 5%, or the name of a baseline, workload or backend, such as `main + 5%`
    ");
}

#[test]
fn form() {
    insta::assert_snapshot!(errors(""), @r"

    ^ this rule is empty
    = help: write one such as `p99(ttft) < 80ms`
    ");
    insta::assert_snapshot!(errors("80ms > p99(ttft)"), @r"
    80ms > p99(ttft)
    ^ expected what is measured
    = help: a rule starts with it, such as `p99(ttft)` or `error_rate`
    ");
    insta::assert_snapshot!(errors("p99(ttft < 80ms"), @r"
    p99(ttft < 80ms
             ^ expected `)`
             = help: close the parenthesis of `p99(`
    ");
    insta::assert_snapshot!(errors("p99() < 80ms"), @r"
    p99() < 80ms
        ^ expected a metric
        = help: write one such as `p99(ttft)`
    ");
    insta::assert_snapshot!(errors("p99(ttft) < 80ms and p50(ttft) < 10ms"), @r"
    p99(ttft) < 80ms and p50(ttft) < 10ms
                     ^^^^^^^^^^^^^^^^^^^^ `and p50(ttft) < 10ms` is left over
                     = help: conditions stand behind `where`
    ");
    insta::assert_snapshot!(errors("p99(ttft) < 80ms where"), @r"
    p99(ttft) < 80ms where
                          ^ expected a condition
                          = help: write one such as `ttft <= 500ms`
    ");
    insta::assert_snapshot!(errors("p99(ttft) < 80ms where tier == \"gold"), @r#"
    p99(ttft) < 80ms where tier == "gold
                                   ^^^^^ this quote is not closed
                                   = help: end the word with `"`
    "#);
    insta::assert_snapshot!(errors("p99(ttft) < 80ms where tier =="), @r"
    p99(ttft) < 80ms where tier ==
                                  ^ expected a word
                                  = help: a tag is compared with a word, such as `tier == gold`
    ");
    insta::assert_snapshot!(errors("p99(延迟) < 80ms"), @r"
    p99(延迟) < 80ms
        ^^ unknown metric `延迟`
        = help: write one of ttft, answer_ttft, tbt, tpot, e2e, queue_delay, queue_time, throughput, prompt_tokens, output_tokens
    ");
}

#[test]
fn all_errors_at_once() {
    insta::assert_snapshot!(errors("p101(tttf) = 80mss where ttft < 5 and tbt > 3ms"), @r"
    p101(tttf) = 80mss where ttft < 5 and tbt > 3ms
    ^^^^ there is no percentile 101
    = help: a percentile lies between 0 and 100, such as p99
         ^^^^ unknown metric `tttf`
         = help: did you mean `ttft`?
               ^ `=` is no comparison
               = help: write `==`
                                    ^ 5 what? `ttft` is a time and needs a unit
                                    = help: write `5ms`
                                          ^^^ `tbt` is one value for each token, so no single request has it
                                          = help: write `tpot`, a request's own mean
    ");
}

#[test]
fn a_very_long_text_takes_no_time() {
    let long = "x".repeat(1_000_000);
    for text in [
        format!("{long} < 80ms"),
        format!("p99({long}) < 80ms"),
        format!("p99(ttft) < 80{long}"),
        "9".repeat(1_000_000),
    ] {
        assert!(parse(&text).is_err());
    }
}

#[test]
fn limits_of_one_request() {
    assert_eq!(condition(" ttft <= 500ms ", &[]).unwrap().to_string(), "ttft <= 500ms");
    assert_eq!(condition("output_tokens == 128", &[]).unwrap().to_string(), "output_tokens == 128");
    let refused = |text: &str| render(text, &[condition(text, &[]).unwrap_err()]);
    insta::assert_snapshot!(refused("tbt <= 30ms"), @r"
    tbt <= 30ms
    ^^^ `tbt` is one value for each token, so no single request has it
    = help: write `tpot`, a request's own mean
    ");
    insta::assert_snapshot!(refused("error_rate <= 1%"), @r"
    error_rate <= 1%
    ^^^^^^^^^^ `error_rate` is one number for the whole workload, not one for each request
    = help: a condition looks at ttft, answer_ttft, tpot, e2e, latency, queue_delay, queue_time, throughput, prompt_tokens, output_tokens
    ");
    insta::assert_snapshot!(refused("p99(ttft) <= 30ms"), @r"
    p99(ttft) <= 30ms
    ^^^ a condition looks at one request, so `p99(...)` has nothing to gather
    = help: leave the aggregation out, as in `ttft <= 500ms`
    ");
    insta::assert_snapshot!(refused("tier == gold"), @r"
    tier == gold
    ^^^^ unknown metric `tier`
    = help: write one of ttft, answer_ttft, tpot, e2e, queue_delay, queue_time, throughput, prompt_tokens, output_tokens (a tag stands behind `where`)
    ");
    insta::assert_snapshot!(refused("ttft <= 500ms and tpot <= 30ms"), @r"
    ttft <= 500ms and tpot <= 30ms
                  ^^^^^^^^^^^^^^^^ `and tpot <= 30ms` is left over
                  = help: one entry is one condition; write a further one as an entry of its own
    ");
    insta::assert_snapshot!(refused(""), @r"

    ^ expected a condition
    = help: write one such as `ttft <= 500ms`
    ");
}

fn conditions() -> impl Strategy<Value = String> {
    let metric = (
        prop::sample::select(vec!["ttft", "tpot", "e2e", "latency", "queue_delay"]),
        prop::sample::select(vec!["<", "<=", ">", ">="]),
        1_u64..10_000_000,
        prop::sample::select(vec!["us", "ms", "s"]),
    )
        .prop_map(|(metric, op, limit, unit)| format!("{metric} {op} {limit}{unit}"));
    metric.boxed()
}

fn rules() -> impl Strategy<Value = String> {
    let upper = prop::sample::select(vec!["<", "<=", ">", ">="]);
    let samples: Vec<&Metric> =
        METRICS.iter().filter(|m| m.kind == Kind::Samples && m.flat().ends_with("_ms")).collect();
    let percent = "(0\\.[1-9][0-9]{0,3}|[1-9][0-9]?(\\.[0-9]{1,4})?)";
    let aggregate = prop_oneof![
        percent.prop_map(|p| format!("p{p}")),
        prop::sample::select(vec!["avg", "min", "max", "med", "sum"]).prop_map(str::to_owned)
    ];
    let of_samples =
        (aggregate, prop::sample::select(samples), upper.clone(), "[1-9][0-9]{0,5}(\\.[0-9]{1,5})?")
            .prop_map(|(aggregate, metric, op, limit)| {
                format!("{aggregate}({}) {op} {limit}ms", metric.name)
            });
    let of_rates = (prop::sample::select(vec!["error_rate", "slo_share", "prefix_hit_rate"]), upper, percent)
        .prop_map(|(rate, op, limit)| format!("{rate} {op} {limit}%"));
    let shares = prop::collection::vec(conditions(), 1..4)
        .prop_map(|conditions| format!("share({}) >= 99%", conditions.join(" and ")));
    let filter = prop::collection::vec(
        prop_oneof![conditions(), "tag_[a-z]{1,6} (==|!=) ([a-z0-9.-]{1,6}|\"[a-zé ]{0,6}\")"],
        1..3,
    );
    prop_oneof![
        (of_samples, filter).prop_map(|(rule, filter)| format!("{rule} where {}", filter.join(" and "))),
        of_rates,
        shares
    ]
}

proptest! {
    #[test]
    fn any_text_is_a_rule_or_has_errors_within_it(text in "\\PC{0,60}") {
        check_errors(&text)?;
    }

    #[test]
    fn pieces_of_rules_are_rules_or_have_errors_within_them(
        pieces in prop::collection::vec(prop::sample::select(vec![
            "p99", "(", ")", "ttft", " ", "<", "=", "<=", "80", "ms", "%", "where", "and", "share", "\"", "error_rate",
            "p99_ttft_ms", ".", "-", "tier", "5", "é", "≤", "/s", "check", "1e9", "_",
        ]), 0..14)
    ) {
        check_errors(&pieces.concat())?;
    }

    #[test]
    fn the_plain_form_is_the_same_rule(text in rules()) {
        let rule = parse(&text).map_err(|errors| TestCaseError::fail(render(&text, &errors)))?;
        let plain = rule.to_string();
        let again = parse(&plain).map_err(|errors| TestCaseError::fail(render(&plain, &errors)))?;
        prop_assert_eq!(again.to_string(), plain);
        prop_assert_eq!(without_places(again), without_places(rule));
    }
}

fn without_places(mut rule: Rule) -> Rule {
    let clear =
        |conditions: &mut Vec<Condition>| conditions.iter_mut().for_each(|condition| condition.at = 0..0);
    rule.subject_at = 0..0;
    rule.limit_at = 0..0;
    clear(&mut rule.filter);
    if let Subject::Share(conditions) = &mut rule.subject {
        clear(conditions);
    }
    rule
}

fn check_errors(text: &str) -> Result<(), TestCaseError> {
    let lists = [parse(text).err().unwrap_or_default(), condition(text, &[]).err().into_iter().collect()];
    prop_assert!(parse(text).is_ok() || !lists[0].is_empty());
    for error in lists.iter().flatten() {
        prop_assert!(text.get(error.at.clone()).is_some(), "{:?} of {:?}", error, text);
        prop_assert!(!error.message.is_empty());
    }
    Ok(())
}
