//! `vllm bench serve`: `calculate_metrics` in `vllm/benchmarks/serve.py`, and the chat client in
//! `vllm/benchmarks/lib/endpoint_request_func.py`.

use super::sheet::{Answered, NO_GAPS, Request, Sheet, Values, span_ms};

pub(super) const ABOUT: &str = "the first chunk is the first token, also when it only names a role; a request ends with the \
     usage event; ITL is the gap between chunks however many tokens they carry; percentiles are interpolated";

const TTFT: &str = "opened − sent";
const TPOT: &str = "((closed − sent) − (opened − sent)) / (tokens − 1), requests of 2 tokens or more";
const E2EL: &str = "closed − sent";

pub(super) fn fill(sheet: &mut Sheet, answered: &Answered) {
    let requests = answered.requests.len() as u64;
    let (prompt, output) =
        (answered.sum(|request| request.prompt.into()), answered.sum(|request| request.tokens.into()));
    let duration = crate::units::seconds(answered.duration);
    sheet.add("duration", "s", Some(duration), "last closed − first sent");
    sheet.count("completed", requests, "requests that succeeded");
    sheet.count("failed", answered.failed, "requests that failed");
    sheet.count("total_input_tokens", prompt, "Σ prompt tokens");
    sheet.count("total_output_tokens", output, "Σ tokens");
    let rate = |amount| answered.per_second(amount);
    sheet.add("request_throughput", "req/s", rate(requests), "completed / duration");
    sheet.add("output_throughput", "tok/s", rate(output), "total_output_tokens / duration");
    sheet.add(
        "total_token_throughput",
        "tok/s",
        rate(prompt + output),
        "(total_input_tokens + total_output_tokens) / duration",
    );
    let ttft = answered.each(|request| Some(span_ms(request.sent, request.stream.opened)));
    let tpot = answered.each(|request| {
        (request.tokens > 1)
            .then(|| span_ms(request.stream.opened, request.stream.closed) / f64::from(request.tokens - 1))
    });
    let e2el = answered.each(|request| Some(span_ms(request.sent, request.stream.closed)));
    latency(sheet, "ttft", &ttft, TTFT);
    latency(sheet, "tpot", &tpot, TPOT);
    let gaps = |request: &Request| u64::from(request.stream.chunks.saturating_sub(1));
    let time = answered.requests.iter().filter(|request| gaps(request) > 0);
    let time: f64 = time.map(|request| span_ms(request.stream.opened, request.stream.last)).sum();
    let all = answered.sum(gaps);
    sheet.add(
        "mean_itl_ms",
        "ms",
        (all > 0).then(|| time / all as f64),
        "Σ (last chunk − opened) / Σ (chunks − 1)",
    );
    let formula = "over the gaps between chunks, of all requests";
    match answered.chunk_gaps() {
        Some(gaps) => {
            sheet.add("median_itl_ms", "ms", gaps.linear(0.5), formula);
            sheet.add("std_itl_ms", "ms", gaps.population_std(), formula);
            for (name, q) in [("p90_itl_ms", 0.9), ("p95_itl_ms", 0.95), ("p99_itl_ms", 0.99)] {
                sheet.add(name, "ms", gaps.linear(q), formula);
            }
        }
        None => {
            for name in ["median_itl_ms", "std_itl_ms", "p90_itl_ms", "p95_itl_ms", "p99_itl_ms"] {
                sheet.lacks(name, "ms", formula, NO_GAPS);
            }
        }
    }
    latency(sheet, "e2el", &e2el, E2EL);
}

fn latency(sheet: &mut Sheet, name: &str, values: &Values, formula: &'static str) {
    sheet.add(format!("mean_{name}_ms"), "ms", values.mean(), formula);
    sheet.add(format!("median_{name}_ms"), "ms", values.linear(0.5), formula);
    sheet.add(format!("std_{name}_ms"), "ms", values.population_std(), formula);
    for (word, q) in [("p90", 0.9), ("p95", 0.95), ("p99", 0.99)] {
        sheet.add(format!("{word}_{name}_ms"), "ms", values.linear(q), formula);
    }
}
