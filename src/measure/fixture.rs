//! Hand-made records for tests.

use super::{CellInput, Samples, Validity};
use crate::backend::EngineStats;
use crate::backend::config::Clock;
use crate::plan::config::Tags;
use crate::record::{Basis, GapRun, Outcome, Phase, Record, TokenSource};
use crate::run::{Ending, Played};
use crate::units::{MILLISECOND, Ns};

/// A successful request of `tokens` output tokens: due and sent at `at`, first token 10 ms later, then a token every
/// 5 ms, but for one gap of `long` in place of the last.
pub(crate) fn request(index: u64, at: Ns, tokens: u32, long: Ns) -> (Record, Vec<GapRun>) {
    let steady = GapRun { gap: 5 * MILLISECOND, count: tokens.saturating_sub(2) };
    let last = GapRun { gap: long, count: u32::from(tokens > 1) };
    let first = at + 10 * MILLISECOND;
    let record = Record {
        index,
        phase: Phase::Measured,
        session: None,
        due: at,
        sent: Some(at),
        connect: 0,
        scheduled: None,
        first: Some(first),
        first_answer: None,
        end: first + steady.gap * u64::from(steady.count) + last.gap * u64::from(last.count),
        cap_wait: 0,
        longest_gap: steady.gap.max(long),
        prompt_tokens: tokens,
        asked_tokens: tokens,
        forced: true,
        output_tokens: tokens,
        first_event_tokens: 1,
        events: tokens,
        stream: None,
        preemptions: u32::from(long > steady.gap),
        token_source: TokenSource::Engine,
        outcome: Outcome::Success,
        message: None,
        checked: None,
        retried: None,
    };
    (record, vec![steady, last])
}

/// A request that ended `after` with another outcome and without a token.
pub(crate) fn failed(index: u64, at: Ns, after: Ns, outcome: Outcome, message: Option<&str>) -> Record {
    let (record, _) = request(index, at, 4, 0);
    Record {
        first: None,
        end: at + after,
        output_tokens: 0,
        first_event_tokens: 0,
        events: 0,
        longest_gap: 0,
        outcome,
        message: message.map(Into::into),
        ..record
    }
}

/// The stress test of the first year's contract as the fixed mock plays it: ten requests of 256/256 tokens at once,
/// of which the ninth waits 325 ms and the tenth 565 ms for its KV blocks.
pub(crate) fn stress() -> (Samples, Played) {
    let mut samples = Samples::new(Basis::Sent);
    for index in 0..10 {
        let long = match index {
            8 => 325,
            9 => 565,
            _ => 5,
        };
        let (record, gaps) = request(index, 0, 256, long * MILLISECOND);
        samples.push(record, &gaps);
    }
    let stats = EngineStats {
        kv_used_tokens: Some(4088),
        kv_capacity_tokens: Some(4096),
        kv_total_tokens: Some(6000),
        kv_bytes_per_token: Some(32_768),
        prefix_queried_tokens: Some(2560),
        prefix_hit_tokens: Some(0),
        evict_count: Some(115),
        preempt_count: Some(2),
        peak_mem_bytes: Some(128 << 20),
        avg_mem_bytes: Some(f64::from(100 << 20)),
        unavailable: vec![
            ("evict_ms".into(), "the scenario sets no cost of an eviction".into()),
            ("spec_accept_rate".into(), "the mock drafts no tokens".into()),
        ],
        ..EngineStats::default()
    };
    (samples, played(0, 1845 * MILLISECOND, 10, stats))
}

pub(crate) fn played(start: Ns, end: Ns, max_in_flight: u32, stats: EngineStats) -> Played {
    Played {
        measure_start: start,
        measure_end: end,
        max_in_flight,
        stats,
        processor: None,
        ending: Ending::Complete,
    }
}

/// The input of a cell on the virtual clock, without SLO.
pub(crate) fn cell<'a>(
    workload: &'a str,
    samples: &'a Samples,
    played: &'a [Played],
    validity: &'a Validity,
    tags: &'a Tags,
) -> CellInput<'a> {
    CellInput {
        workload,
        backend: "mock",
        model: "mock",
        clock: Clock::Virtual,
        samples,
        played,
        slo: &[],
        tags,
        start_time: 0.0,
        end_time: None,
        seed: 42,
        schedule_digest: "5c0ffee5c0ffee",
        content_digest: "c0ffeec0ffee",
        trace_rows_skipped: 0,
        validity,
        capacity: None,
        checks: &[],
        custom: &[],
    }
}
