//! Counts and sums over a cell's requests and over the engines of its repeats.

use std::collections::BTreeMap;

use super::Samples;
use crate::record::Outcome;
use crate::run::Played;
use crate::units::Ns;

/// How many requests ended how, and their tokens.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Totals {
    /// Answered completely.
    pub successful: u64,
    /// Failed, whatever the reason.
    pub failed: u64,
    /// Given up by the client, as the scenario asks.
    pub cancelled: u64,
    /// Never sent, because the request they follow failed.
    pub skipped: u64,
    /// In flight when the run was interrupted.
    pub interrupted: u64,
    /// Successful and failed ones that were sent more than once.
    pub retried: u64,
    /// How often these were sent again.
    pub retries: u64,
    /// Prompt tokens of successful requests.
    pub prompt_tokens: u64,
    /// Output tokens that came, of every measured request, however it ended.
    pub output_tokens: u64,
    /// Output tokens that successful requests asked for.
    pub asked_tokens: u64,
    /// Successful requests whose length was forced and came out otherwise.
    pub length_mismatches: u64,
    /// Failures by kind (`timed_out`, `http_503`).
    pub errors: BTreeMap<String, u64>,
}

impl Totals {
    /// Counts a cell's measured requests.
    pub fn of(samples: &Samples) -> Self {
        let mut totals = Self::default();
        for record in samples.records() {
            totals.output_tokens += u64::from(record.output_tokens);
            let again = record.attempts().saturating_sub(1);
            if again > 0 && record.outcome.is_counted() {
                totals.retried += 1;
                totals.retries += u64::from(again);
            }
            match record.outcome {
                Outcome::Success => {
                    totals.successful += 1;
                    totals.prompt_tokens += u64::from(record.prompt_tokens);
                    totals.asked_tokens += u64::from(record.asked_tokens);
                    totals.length_mismatches +=
                        u64::from(record.forced && record.output_tokens != record.asked_tokens);
                }
                Outcome::Cancelled => totals.cancelled += 1,
                Outcome::Skipped => totals.skipped += 1,
                Outcome::Interrupted => totals.interrupted += 1,
                failure => {
                    totals.failed += 1;
                    *totals.errors.entry(failure.label()).or_default() += 1;
                }
            }
        }
        totals
    }

    /// Successful plus failed requests.
    pub fn counted(&self) -> u64 {
        self.successful + self.failed
    }
}

/// What the engines of all repeats counted together: counters add, peaks are the largest, means are weighted by the
/// measured time. A value that one repeat lacks is missing in all.
#[derive(Debug, Clone, Default, PartialEq)]
pub(super) struct Engines {
    pub(super) measured: Ns,
    pub(super) max_in_flight: u32,
    pub(super) kv_used_tokens: Option<u64>,
    pub(super) kv_capacity_tokens: Option<u64>,
    pub(super) kv_total_tokens: Option<u64>,
    pub(super) kv_bytes_per_token: Option<u64>,
    pub(super) prefix_queried_tokens: Option<u64>,
    pub(super) prefix_hit_tokens: Option<u64>,
    pub(super) evict_count: Option<u64>,
    pub(super) evict_ns: Option<u64>,
    pub(super) preempt_count: Option<u64>,
    pub(super) draft_tokens: Option<u64>,
    pub(super) accepted_tokens: Option<u64>,
    pub(super) max_batch_size: Option<u64>,
    pub(super) avg_batch_size: Option<f64>,
    pub(super) spec_accept_share: Option<f64>,
    pub(super) peak_mem_bytes: Option<u64>,
    pub(super) avg_mem_bytes: Option<f64>,
}

impl Engines {
    pub(super) fn of(played: &[Played]) -> Self {
        let sum = |read: fn(&Played) -> Option<u64>| combine(played, read, |a, b| a + b);
        let max = |read: fn(&Played) -> Option<u64>| combine(played, read, u64::max);
        Self {
            measured: played.iter().map(measured).sum(),
            max_in_flight: played.iter().map(|run| run.max_in_flight).max().unwrap_or(0),
            kv_used_tokens: max(|run| run.stats.kv_used_tokens),
            kv_capacity_tokens: max(|run| run.stats.kv_capacity_tokens),
            kv_total_tokens: sum(|run| run.stats.kv_total_tokens),
            kv_bytes_per_token: max(|run| run.stats.kv_bytes_per_token),
            prefix_queried_tokens: sum(|run| run.stats.prefix_queried_tokens),
            prefix_hit_tokens: sum(|run| run.stats.prefix_hit_tokens),
            evict_count: sum(|run| run.stats.evict_count),
            evict_ns: sum(|run| run.stats.evict_ns),
            preempt_count: sum(|run| run.stats.preempt_count),
            draft_tokens: sum(|run| run.stats.draft_tokens),
            accepted_tokens: sum(|run| run.stats.accepted_tokens),
            peak_mem_bytes: max(|run| run.stats.peak_mem_bytes),
            max_batch_size: max(|run| run.stats.batch.as_ref().map(|batch| u64::from(batch.max))),
            avg_batch_size: weighted_mean(played, |run| run.stats.batch.as_ref().map(|batch| batch.mean)),
            spec_accept_share: weighted_mean(played, |run| run.stats.spec_accept_share),
            avg_mem_bytes: weighted_mean(played, |run| run.stats.avg_mem_bytes),
        }
    }
}

fn measured(run: &Played) -> Ns {
    run.measure_end.saturating_sub(run.measure_start)
}

fn combine(played: &[Played], read: fn(&Played) -> Option<u64>, join: fn(u64, u64) -> u64) -> Option<u64> {
    played.iter().map(read).reduce(|a, b| Some(join(a?, b?))).flatten()
}

fn weighted_mean(played: &[Played], read: fn(&Played) -> Option<f64>) -> Option<f64> {
    // A run of no length weighs one nanosecond, so that its reading is not lost.
    let weight = |run: &Played| measured(run).max(1) as f64;
    let total: f64 = played.iter().map(weight).sum();
    let parts = played.iter().map(|run| Some(read(run)? * weight(run)));
    (!played.is_empty()).then(|| parts.sum::<Option<f64>>().map(|sum| sum / total)).flatten()
}
