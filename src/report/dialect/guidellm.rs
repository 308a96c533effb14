//! `guidellm benchmark`: `GenerativeRequestStats` in `src/guidellm/schemas/request_stats.py`, `GenerativeMetrics` in
//! `src/guidellm/benchmark/schemas/metrics.py` and `DistributionSummary` in `src/guidellm/schemas/statistics.py`.

use super::sheet::{Answered, Sheet, Values, span_ms};

pub(super) const ABOUT: &str = "TPOT contains the time to the first token and is weighted by tokens; ITL is one mean for each \
     request, weighted by its tokens − 1; a request ends when its response does; percentiles are nearest rank";

pub(super) fn fill(sheet: &mut Sheet, answered: &Answered) {
    let (prompt, output) =
        (answered.sum(|request| request.prompt.into()), answered.sum(|request| request.tokens.into()));
    sheet.count("requests successful", answered.requests.len() as u64, "requests that succeeded");
    sheet.count("requests errored", answered.failed, "requests that failed");
    let rate = |amount| answered.per_second(amount);
    let requests = answered.requests.len() as u64;
    sheet.add("requests_per_second mean", "req/s", rate(requests), "successful / (last closed − first sent)");
    let busy = answered.sum(|request| request.stream.closed.saturating_sub(request.sent));
    let concurrency = (answered.duration > 0).then(|| busy as f64 / answered.duration as f64);
    sheet.add("request_concurrency mean", "", concurrency, "Σ (closed − sent) / (last closed − first sent)");
    let latency = answered.each(|request| Some(span_ms(request.sent, request.stream.closed) / 1e3));
    summary(sheet, "request_latency", "s", &latency, "closed − sent");
    let ttft = answered.each(|request| Some(request.ttft_ms()));
    summary(sheet, "time_to_first_token_ms", "ms", &ttft, "first − sent");
    let tpot = answered.weighted(|request| {
        let tokens = f64::from(request.tokens);
        (request.tokens > 0).then(|| (span_ms(request.sent, request.last) / tokens, request.tokens.into()))
    });
    summary(
        sheet,
        "time_per_output_token_ms",
        "ms",
        &tpot,
        "(last − sent) / tokens, TTFT included; weight: tokens",
    );
    let itl = answered.weighted(|request| {
        let gaps = request.tokens.saturating_sub(1);
        (gaps > 0).then(|| (span_ms(request.first, request.last) / f64::from(gaps), gaps.into()))
    });
    summary(sheet, "inter_token_latency_ms", "ms", &itl, "(last − first) / (tokens − 1); weight: tokens − 1");
    let prompts = answered.each(|request| Some(request.prompt.into()));
    sheet.add("prompt_token_count mean", "tokens", prompts.mean(), "prompt tokens of a request");
    let outputs = answered.each(|request| Some(request.tokens.into()));
    sheet.add("output_token_count mean", "tokens", outputs.mean(), "tokens of a request");
    let formula = "Σ prompt tokens / (last closed − first sent)";
    sheet.add("prompt_tokens_per_second mean", "tok/s", rate(prompt), formula);
    let formula = "Σ tokens / (last closed − first sent)";
    sheet.add("output_tokens_per_second mean", "tok/s", rate(output), formula);
    let formula = "Σ (prompt tokens + tokens) / (last closed − first sent)";
    sheet.add("tokens_per_second mean", "tok/s", rate(prompt + output), formula);
}

fn summary(sheet: &mut Sheet, name: &str, unit: &'static str, values: &Values, formula: &'static str) {
    sheet.add(format!("{name} mean"), unit, values.mean(), formula);
    sheet.add(format!("{name} median"), unit, values.nearest_rank(0.5), formula);
    for (word, q) in [("p90", 0.9), ("p95", 0.95), ("p99", 0.99)] {
        sheet.add(format!("{name} {word}"), unit, values.nearest_rank(q), formula);
    }
}
