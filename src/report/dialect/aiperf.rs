//! NVIDIA `AIPerf`: its metrics reference (`docs/metrics-reference.md`) and `src/aiperf/metrics/`.

use super::sheet::{Answered, NO_GAPS, Sheet, Values, span_ms};
use crate::units::seconds;

pub(super) const ABOUT: &str = "ITL is one mean for each request, over its tokens − 1; a request ends with its last content; \
     the tool counts tokens with its own tokenizer unless told to use the server's; percentiles are interpolated";

const ITL: &str = "(request_latency − time_to_first_token) / (tokens − 1), requests of 2 tokens or more";

pub(super) fn fill(sheet: &mut Sheet, answered: &Answered) {
    let requests = answered.requests.len() as u64;
    let output = answered.sum(|request| request.tokens.into());
    let prompt = answered.sum(|request| request.prompt.into());
    let ttft = answered.each(|request| Some(request.ttft_ms()));
    spread(sheet, "time_to_first_token", "ms", &ttft, "first − sent");
    let latency = answered.each(|request| Some(span_ms(request.sent, request.last)));
    spread(sheet, "request_latency", "ms", &latency, "last − sent");
    let mean_gap = |request: &super::sheet::Request| {
        let gaps = request.tokens.checked_sub(1).filter(|gaps| *gaps > 0)?;
        Some(span_ms(request.first, request.last) / f64::from(gaps))
    };
    let itl = answered.each(mean_gap);
    spread(sheet, "inter_token_latency", "ms", &itl, ITL);
    let user = answered.each(|request| mean_gap(request).filter(|gap| *gap > 0.0).map(|gap| 1e3 / gap));
    spread(sheet, "output_token_throughput_per_user", "tok/s", &user, "1 / inter_token_latency of a request");
    let gaps = answered.sum(|request| u64::from(request.events.saturating_sub(1)));
    let decoding = answered.requests.iter().filter(|request| request.events > 1);
    let decoding: f64 = decoding.map(|request| span_ms(request.first, request.last)).sum();
    sheet.add(
        "inter_chunk_latency avg",
        "ms",
        (gaps > 0).then(|| decoding / gaps as f64),
        "Σ (last − first) / Σ (events with content − 1)",
    );
    let formula = "over the gaps between events with content, of all requests";
    let gaps = answered.event_gaps();
    for (name, q) in [
        ("inter_chunk_latency p50", 0.5),
        ("inter_chunk_latency p90", 0.9),
        ("inter_chunk_latency p99", 0.99),
    ] {
        match &gaps {
            Some(gaps) => sheet.add(name, "ms", gaps.linear(q), formula),
            None => sheet.lacks(name, "ms", formula, NO_GAPS),
        }
    }
    let outputs = answered.each(|request| Some(request.tokens.into()));
    sheet.add("output_sequence_length avg", "tokens", outputs.mean(), "tokens of a request");
    let prompts = answered.each(|request| Some(request.prompt.into()));
    sheet.add("input_sequence_length avg", "tokens", prompts.mean(), "prompt tokens of a request");
    let duration = seconds(answered.duration);
    sheet.add("benchmark_duration", "s", Some(duration), "last response − first sent");
    let rate = |amount| answered.per_second(amount);
    sheet.add("output_token_throughput", "tok/s", rate(output), "Σ tokens / benchmark_duration");
    let formula = "Σ (prompt tokens + tokens) / benchmark_duration";
    sheet.add("total_token_throughput", "tok/s", rate(prompt + output), formula);
    sheet.add("request_throughput", "req/s", rate(requests), "request_count / benchmark_duration");
    sheet.count("request_count", requests, "requests that succeeded");
    sheet.count("error_request_count", answered.failed, "requests that failed");
}

fn spread(sheet: &mut Sheet, name: &str, unit: &'static str, values: &Values, formula: &'static str) {
    sheet.add(format!("{name} avg"), unit, values.mean(), formula);
    sheet.add(format!("{name} min"), unit, values.min(), formula);
    sheet.add(format!("{name} max"), unit, values.max(), formula);
    for (word, q) in [("p50", 0.5), ("p90", 0.9), ("p95", 0.95), ("p99", 0.99)] {
        sheet.add(format!("{name} {word}"), unit, values.linear(q), formula);
    }
}
