//! What the mock counts, and what of it is known.

use super::occupancy::Occupancy;
use crate::backend::config::MockBackend;
use crate::backend::{CACHE_METRICS, EngineStats, MEMORY_METRICS};
use crate::engine::KvCache;
use crate::units::Ns;

/// Counters since measuring started.
#[derive(Debug, Clone)]
pub(super) struct Counters {
    pub(super) written: u64,
    pub(super) queried: u64,
    pub(super) hits: u64,
    pub(super) evictions: u64,
    pub(super) evict_ns: u64,
    pub(super) preemptions: u64,
    /// Tokens in held blocks, and their peak.
    resident: u64,
    resident_peak: u64,
    /// Held blocks, their peak, and their integral over time in block-nanoseconds.
    used: u64,
    used_peak: u64,
    used_integral: u128,
    since: Ns,
    last: Ns,
    /// Tokens that the cache held at the start, however it shrinks.
    capacity: u64,
    /// Requests that are admitted.
    running: Occupancy,
    weights: u64,
    bytes_per_token: Option<u64>,
    eviction_is_charged: bool,
}

impl Counters {
    pub(super) fn new(config: &MockBackend, cache: Option<&KvCache>) -> Self {
        Self {
            written: 0,
            queried: 0,
            hits: 0,
            evictions: 0,
            evict_ns: 0,
            preemptions: 0,
            resident: 0,
            resident_peak: 0,
            used: 0,
            used_peak: 0,
            used_integral: 0,
            since: 0,
            last: 0,
            capacity: cache
                .map_or(0, |cache| u64::from(cache.pool().total()) * u64::from(cache.block_tokens())),
            running: Occupancy::new(),
            weights: config.weights.map_or(0, |size| size.0),
            bytes_per_token: config.kv.as_ref().and_then(|kv| kv.bytes_per_token),
            eviction_is_charged: config.kv.as_ref().is_some_and(|kv| kv.evict.is_some()),
        }
    }

    /// Notes what the cache holds from `at` on.
    pub(super) fn observe(&mut self, at: Ns, cache: &KvCache) {
        let used = u64::from(cache.pool().used());
        if used != self.used {
            self.used_integral += u128::from(self.used) * u128::from(at.saturating_sub(self.last));
            self.last = at.max(self.last);
            self.used = used;
            self.used_peak = self.used_peak.max(used);
        }
        self.resident = cache.pool().resident_tokens();
        self.resident_peak = self.resident_peak.max(self.resident);
    }

    /// Notes how many requests are admitted from `at` on.
    pub(super) fn run(&mut self, at: Ns, requests: usize) {
        self.running.observe(at, requests as u32);
    }

    /// Counts from `now` on.
    pub(super) fn restart(&mut self, now: Ns) {
        self.running.restart(now);
        (self.written, self.queried, self.hits) = (0, 0, 0);
        (self.evictions, self.evict_ns, self.preemptions) = (0, 0, 0);
        self.resident_peak = self.resident;
        self.used_peak = self.used;
        self.used_integral = 0;
        (self.since, self.last) = (now, now);
    }

    pub(super) fn stats(&self, now: Ns, cache: Option<&KvCache>) -> EngineStats {
        let mut stats = EngineStats { batch: Some(self.running.summary(now)), ..EngineStats::default() };
        stats.unavailable.push(("spec_accept_rate".into(), "speculation is off".into()));
        let Some(cache) = cache else {
            let reason = "the mock has no `kv`: its cache is unlimited and not modelled";
            let names = CACHE_METRICS.into_iter().chain(MEMORY_METRICS);
            stats.unavailable.extend(names.map(|name| (name.into(), reason.to_owned())));
            return stats;
        };
        stats.kv_used_tokens = Some(self.resident_peak);
        stats.kv_capacity_tokens = Some(self.capacity);
        stats.kv_total_tokens = Some(self.written);
        stats.evict_count = Some(self.evictions);
        stats.preempt_count = Some(self.preemptions);
        if cache.reuses() {
            stats.prefix_queried_tokens = Some(self.queried);
            stats.prefix_hit_tokens = Some(self.hits);
        } else {
            stats.unavailable.push(("prefix_hit_rate".into(), "the prefix cache is off".into()));
        }
        if self.eviction_is_charged {
            stats.evict_ns = Some(self.evict_ns);
        } else {
            stats.unavailable.push(("evict_ms".into(), "no eviction cost is modelled".into()));
        }
        self.memory(&mut stats, now, cache);
        stats
    }

    fn memory(&self, stats: &mut EngineStats, now: Ns, cache: &KvCache) {
        stats.kv_bytes_per_token = self.bytes_per_token;
        let Some(per_token) = self.bytes_per_token else {
            for name in ["kv_used_bytes", "peak_mem_mb", "avg_mem_mb"] {
                stats.unavailable.push((name.into(), "the mock has no `kv.bytes_per_token`".into()));
            }
            return;
        };
        let block = per_token.saturating_mul(u64::from(cache.block_tokens()));
        stats.peak_mem_bytes = Some(self.weights.saturating_add(self.used_peak.saturating_mul(block)));
        let tail = u128::from(self.used) * u128::from(now.saturating_sub(self.last));
        let time = now.max(self.last).saturating_sub(self.since);
        let blocks = match time {
            0 => self.used as f64,
            time => (self.used_integral + tail) as f64 / time as f64,
        };
        stats.avg_mem_bytes = Some(self.weights as f64 + blocks * block as f64);
    }
}
