//! Whether a measurement can be trusted, which is not whether it was fast.

use std::collections::HashSet;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{Distribution, Samples, value_of};
use crate::backend::config::Clock;
use crate::gate::config::{Threat, ValidityRules};
use crate::metric::Metric;
use crate::record::{Basis, Outcome};
use crate::run::ProcessorUse;
use crate::stats;
use crate::units::{MILLISECOND, Ns, ms};

/// Below so many requests a late p99 is one or two requests: it warns and decides nothing.
const LAG_SAMPLES: u64 = 100;
/// The largest share of the time that a thread which sends may run.
const MOST_BUSY: f64 = 0.9;
/// The largest share of the machine's processor time that may go to others.
const MOST_STOLEN: f64 = 0.05;
/// Whether latency has settled is looked at from so many requests on.
const STEADY_SAMPLES: usize = 200;

/// The verdict on the measurement itself.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Validity {
    /// Whether nothing stands against it.
    pub valid: bool,
    /// What stands against it.
    pub reasons: Vec<Reason>,
    /// What is doubtful without deciding.
    pub warnings: Vec<Reason>,
}

/// One threat that struck.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Reason {
    /// Its name under `validity`, such as `lag`.
    pub name: String,
    /// What happened and what to do about it.
    pub text: String,
}

impl Default for Validity {
    fn default() -> Self {
        Self { valid: true, reasons: Vec::new(), warnings: Vec::new() }
    }
}

/// What is known of a cell beside its pooled samples.
#[derive(Debug, Clone, Copy)]
pub struct Setting<'a> {
    /// The clock it was played on.
    pub clock: Clock,
    /// Its requests, repeat by repeat: what has to do with time is looked at in each of them.
    pub repeats: &'a [&'a Samples],
    /// Whether its load presses the same from start to end.
    pub is_constant: bool,
    /// What the client's threads got of the machine, in the worst repeat; `None` where nobody looked.
    pub processor: Option<ProcessorUse>,
    /// Requests that a fault of the scenario changed on purpose: repeat and index.
    pub faulted: &'a HashSet<(usize, u64)>,
    /// What a server's prefix cache gave that was to be cold; `None` where that is not known.
    pub reuse: Option<Reuse>,
}

/// What a prefix cache gave over some requests, in prompt tokens.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Reuse {
    /// How many requests.
    pub requests: u64,
    /// Tokens that were looked up.
    pub queried: u64,
    /// Tokens that were found.
    pub found: u64,
    /// Tokens of the prompts as planned.
    pub planned: u64,
    /// Tokens that the planned prompts share with those before them.
    pub shared: u64,
}

/// Beyond what the prompts share, a server may find less than a block of each prompt.
const PART_OF_BLOCK: u64 = 16;
/// What it may find more than that, as a share of what was looked up.
const FOUND_BEYOND: f64 = 0.05;

/// Judges the measurement of one cell. What each threat is stands at its field of [`ValidityRules`].
pub fn validity(setting: &Setting<'_>, samples: &Samples, rules: &ValidityRules) -> Validity {
    let mut verdict = Validity::default();
    let mut judge = |name: &str, rule: Threat, text: Option<String>| {
        let Some(text) = text.filter(|_| rule != Threat::Off) else { return };
        let reason = Reason { name: name.into(), text };
        if rule == Threat::Fail {
            verdict.valid = false;
            verdict.reasons.push(reason);
        } else {
            verdict.warnings.push(reason);
        }
    };
    let each = |look: fn(&Samples) -> Option<String>| setting.repeats.iter().find_map(|repeat| look(repeat));
    if setting.clock != Clock::Virtual {
        let sent = samples.records().iter().filter(|record| record.sent.is_some()).count() as u64;
        let decided = |rule| if sent >= LAG_SAMPLES || rule == Threat::Off { rule } else { Threat::Warn };
        let limit = late_limit(samples);
        judge("lag", decided(rules.lag), lag(samples, limit));
        judge("busy", decided(rules.busy), setting.processor.and_then(|used| busy(used, limit)));
        judge("steal", rules.steal, setting.processor.and_then(stolen));
        judge("rate", rules.rate, each(unsent_in_time));
    }
    judge("length", rules.length, lengths(setting));
    judge("cache", rules.cache, setting.reuse.and_then(warm));
    if setting.is_constant {
        judge("steady_state", rules.steady_state, each(unsettled));
        judge("littles_law", rules.littles_law, each(little));
    }
    verdict
}

/// What to say when the sends of an open load fell behind its plan.
fn unsent_in_time(samples: &Samples) -> Option<String> {
    let planned = || {
        let never = |outcome| matches!(outcome, Outcome::Skipped | Outcome::Interrupted);
        samples.records().iter().filter(move |record| !never(record.outcome))
    };
    let (first, last) = (planned().map(|r| r.due).min()?, planned().map(|r| r.due).max()?);
    let n = planned().count() as u64;
    if samples.basis() != Basis::Due || n < LAG_SAMPLES {
        return None;
    }
    // The last ones are due just now: a hundredth of the time, or a millisecond, is theirs.
    let then = last + ((last - first) / 100).max(MILLISECOND);
    let sent = planned().filter(|r| r.sent.is_some_and(|sent| sent.saturating_sub(r.cap_wait) <= then));
    let share = sent.count() as f64 / n as f64;
    (share < 0.95).then(|| {
        format!(
            "the client did not keep up with the plan: when the last of {n} requests was due, {:.1} % had been sent, of 95 % \
             or more that should; lower the rate, or run the client on a quieter machine or with more cores",
            100.0 * share
        )
    })
}

/// What to say when answers were not as long as was forced.
fn lengths(setting: &Setting<'_>) -> Option<String> {
    let forced = setting.repeats.iter().enumerate().flat_map(|(repeat, samples)| {
        samples.records().iter().filter(move |record| {
            let is_meant = setting.faulted.contains(&(repeat, record.index));
            record.outcome == Outcome::Success && record.forced && !is_meant
        })
    });
    let (mut n, mut other) = (0_u64, 0_u64);
    for record in forced {
        n += 1;
        other += u64::from(record.output_tokens != record.asked_tokens);
    }
    (other as f64 > 0.01 * n as f64).then(|| {
        format!(
            "{other} of {n} answers have another length than was forced, so the work is not what was planned; set the \
             backend's `flavor`, or say `max_tokens` instead of `tokens` where lengths are the server's choice"
        )
    })
}

/// What to say when more came from the prefix cache than the prompts share. What a chat template adds to each prompt is
/// shared as well.
fn warm(reuse: Reuse) -> Option<String> {
    let template = reuse.queried.saturating_sub(reuse.planned);
    let known = reuse.shared + template + PART_OF_BLOCK * reuse.requests;
    let beyond = reuse.found as f64 - known as f64;
    (beyond > FOUND_BEYOND * reuse.queried as f64).then(|| {
        format!(
            "the server found {} of {} prompt tokens in its prefix cache, and the prompts of the plan share only {}: it was \
             warm from before the run, or others use it too; restart it, or measure it alone",
            reuse.found, reuse.queried, reuse.shared
        )
    })
}

/// What to say when latency had not settled.
fn unsettled(samples: &Samples) -> Option<String> {
    let latencies: Vec<f64> = samples
        .by_due()
        .into_iter()
        .filter(|record| record.outcome == Outcome::Success)
        .filter_map(|record| record.e2e(samples.basis()).map(ms))
        .collect();
    let n = latencies.len();
    let cut = stats::mser5(&latencies).filter(|cut| n >= STEADY_SAMPLES && 3 * cut > n)?;
    Some(format!(
        "the latency of a constant load had not settled: MSER-5 would cut the first {cut} of {n} requests, over a third; \
         let it run longer, add a `warmup`, or ask for less than the backend's capacity"
    ))
}

/// What to say when Little's law does not hold in the middle half of a run: the mean number in flight there against the
/// rate times the mean time of the requests that end there.
fn little(samples: &Samples) -> Option<String> {
    let spans: Vec<(Ns, Ns)> =
        samples.records().iter().filter_map(|record| Some((record.sent?, record.end))).collect();
    let (start, end) = (spans.iter().map(|s| s.0).min()?, spans.iter().map(|s| s.1).max()?);
    let (from, to) = (start + (end - start) / 4, end - (end - start) / 4);
    let length = to.saturating_sub(from) as f64;
    let inside = |span: &&(Ns, Ns)| span.1 > from && span.1 <= to;
    let ended: Vec<f64> =
        spans.iter().filter(inside).map(|(sent, end)| end.saturating_sub(*sent) as f64).collect();
    let mean = ended.iter().sum::<f64>() / ended.len().max(1) as f64;
    // What lies over the window's edges must be small beside what lies in it.
    if ended.len() < 100 || length < 50.0 * mean {
        return None;
    }
    let overlap = |(sent, end): &(Ns, Ns)| (*end).min(to).saturating_sub((*sent).max(from)) as f64;
    let in_flight = spans.iter().map(overlap).sum::<f64>() / length;
    let expected = ended.len() as f64 / length * mean;
    ((in_flight / expected - 1.0).abs() > 0.05).then(|| {
        format!(
            "Little's law does not hold in the middle of the run: {in_flight:.2} requests were in flight, and the rate times \
             the mean time is {expected:.2}; the load or the backend changed on the way, or some times are wrong"
        )
    })
}

/// How late the client may be, in milliseconds: 1 ms, or 5 % of the median TTFT where that is more.
fn late_limit(samples: &Samples) -> f64 {
    let ttfts = Metric::named("ttft").map(|ttft| {
        samples.records().iter().filter_map(|record| value_of(record, ttft, samples.basis())).collect()
    });
    let median = Distribution::of(ttfts.unwrap_or_default()).quantile(0.5).unwrap_or(0.0);
    (0.05 * median).max(1.0)
}

/// What to say when requests left later than `limit`, in milliseconds.
fn lag(samples: &Samples, limit: f64) -> Option<String> {
    let sent = samples.records().iter().filter_map(|record| {
        let late = record.sent?.saturating_sub(record.due);
        Some(ms(late.saturating_sub(record.cap_wait).saturating_sub(record.connect)))
    });
    let lags = Distribution::of(sent.collect());
    let late = lags.quantile(0.99)?;
    (late > limit).then(|| {
        format!(
            "the client sent requests late: p99 of sent − due is {late:.3} ms, over the limit of {limit:.3} ms \
             (1 ms or 5 % of the median TTFT, n = {}); lower the load, or run the client on a quieter machine or with more cores",
            lags.count()
        )
    })
}

/// What to say when the client's threads had no processor to spare, or waited for one longer than `limit`, in milliseconds.
fn busy(used: ProcessorUse, limit: f64) -> Option<String> {
    if used.busy > MOST_BUSY {
        return Some(format!(
            "the client was the bottleneck: the busiest of its threads ran for {:.1} % of the time, over the limit of 90 %; lower \
             the load, or give the client more `threads` or cores",
            100.0 * used.busy
        ));
    }
    (used.wait_ms > limit).then(|| {
        format!(
            "the client waited for a processor: a thread of its own that had something to do waited {:.3} ms on average, over \
             the limit of {limit:.3} ms (1 ms or 5 % of the median TTFT), and all that it stamped is as late; stop what else \
             runs on this machine, or run the client on another one",
            used.wait_ms
        )
    })
}

/// What to say when the machine's host had others to serve.
fn stolen(used: ProcessorUse) -> Option<String> {
    (used.stolen > MOST_STOLEN).then(|| {
        format!(
            "the host of this virtual machine gave {:.1} % of its processor time to others, over the limit of 5 %; measure on a \
             machine of its own",
            100.0 * used.stolen
        )
    })
}

#[cfg(test)]
mod tests {
    use super::super::fixture::request;
    use super::*;
    use crate::record::Record;
    use crate::sample::Draws;
    use crate::units::SECOND;

    /// Requests of an open load every 100 ms, each changed by its index.
    fn every_100ms(requests: u64, change: impl Fn(u64, Record) -> Record) -> Samples {
        let mut samples = Samples::new(Basis::Due);
        for index in 0..requests {
            let (record, gaps) = request(index, index * 100 * MILLISECOND, 4, 5 * MILLISECOND);
            samples.push(change(index, record), &gaps);
        }
        samples
    }

    fn setting<'a>(
        clock: Clock,
        repeats: &'a [&'a Samples],
        faulted: &'a HashSet<(usize, u64)>,
    ) -> Setting<'a> {
        Setting { clock, repeats, is_constant: true, processor: None, faulted, reuse: None }
    }

    /// What is said of one repeat: the reasons and the warnings, by name.
    fn said(clock: Clock, samples: &Samples, rules: &ValidityRules) -> (Vec<Reason>, Vec<Reason>) {
        let found = validity(&setting(clock, &[samples], &HashSet::new()), samples, rules);
        assert_eq!(found.valid, found.reasons.is_empty());
        (found.reasons, found.warnings)
    }

    fn names(reasons: &[Reason]) -> Vec<&str> {
        reasons.iter().map(|reason| reason.name.as_str()).collect()
    }

    fn late(requests: u64, lag: u64) -> Samples {
        let wait = 50 * MILLISECOND;
        let start = SECOND;
        every_100ms(requests, |_, record| Record {
            due: record.due + start - lag - wait,
            sent: record.sent.map(|sent| sent + start),
            first: record.first.map(|first| first + start - lag - wait),
            end: record.end + start,
            cap_wait: wait,
            ..record
        })
    }

    #[test]
    fn lag() {
        let rules = ValidityRules::default();
        // TTFT is 10 ms, so the limit is 1 ms; waiting under the cap is no lag.
        assert_eq!(said(Clock::Real, &late(200, MILLISECOND), &rules), (vec![], vec![]));
        let (reasons, _) = said(Clock::Real, &late(200, 2 * MILLISECOND), &rules);
        insta::assert_snapshot!(reasons[0].text, @"the client sent requests late: p99 of sent − due is 2.000 ms, over the limit of 1.000 ms (1 ms or 5 % of the median TTFT, n = 200); lower the load, or run the client on a quieter machine or with more cores");
        let few = said(Clock::Real, &late(99, 2 * MILLISECOND), &rules);
        assert_eq!((names(&few.0), names(&few.1)), (vec![], vec!["lag"]));
        assert_eq!(said(Clock::Virtual, &late(200, 2 * MILLISECOND), &rules), (vec![], vec![]));
        let off = ValidityRules { lag: Threat::Off, ..ValidityRules::default() };
        assert_eq!(said(Clock::Real, &late(200, 2 * MILLISECOND), &off), (vec![], vec![]));
        let warn = ValidityRules { lag: Threat::Warn, ..ValidityRules::default() };
        assert_eq!(names(&said(Clock::Real, &late(200, 2 * MILLISECOND), &warn).1), ["lag"]);
    }

    #[test]
    fn cache() {
        let reuse = |found| {
            let reuse = Reuse { requests: 100, queried: 26_000, found, planned: 25_600, shared: 6_400 };
            let (samples, nothing) = (every_100ms(100, |_, record| record), HashSet::new());
            let repeats = [&samples];
            let setting = Setting { reuse: Some(reuse), ..setting(Clock::Real, &repeats, &nothing) };
            validity(&setting, &samples, &ValidityRules::default()).warnings
        };
        // Shared by plan, 4 tokens of a template and part of a block each, and a twentieth.
        assert_eq!(reuse(6_400 + 400 + 1_600 + 1_300), vec![]);
        insta::assert_snapshot!(reuse(20_000)[0].text, @"the server found 20000 of 26000 prompt tokens in its prefix cache, and the prompts of the plan share only 6400: it was warm from before the run, or others use it too; restart it, or measure it alone");
    }

    #[test]
    fn busy_and_steal() {
        let rules = ValidityRules::default();
        let samples = every_100ms(200, |_, record| record);
        let (few, repeats, nothing) = (every_100ms(99, |_, record| record), [&samples], HashSet::new());
        let judged = |clock, processor, samples, rules: &ValidityRules| {
            let setting = Setting { processor: Some(processor), ..setting(clock, &repeats, &nothing) };
            let found = validity(&setting, samples, rules);
            (found.reasons, found.warnings)
        };
        let used = |busy, wait_ms, stolen| ProcessorUse { busy, wait_ms, stolen };
        // TTFT is 10 ms, so a thread may wait for 1 ms.
        assert_eq!(judged(Clock::Real, used(0.9, 1.0, 0.05), &samples, &rules), (vec![], vec![]));
        let (reasons, _) = judged(Clock::Real, used(0.953, 2.0, 0.0), &samples, &rules);
        insta::assert_snapshot!(reasons[0].text, @"the client was the bottleneck: the busiest of its threads ran for 95.3 % of the time, over the limit of 90 %; lower the load, or give the client more `threads` or cores");
        let (reasons, _) = judged(Clock::Real, used(0.1, 2.0, 0.0), &samples, &rules);
        insta::assert_snapshot!(reasons[0].text, @"the client waited for a processor: a thread of its own that had something to do waited 2.000 ms on average, over the limit of 1.000 ms (1 ms or 5 % of the median TTFT), and all that it stamped is as late; stop what else runs on this machine, or run the client on another one");
        let (reasons, warnings) = judged(Clock::Real, used(0.1, 0.0, 0.071), &samples, &rules);
        assert_eq!(reasons, []);
        insta::assert_snapshot!(warnings[0].text, @"the host of this virtual machine gave 7.1 % of its processor time to others, over the limit of 5 %; measure on a machine of its own");
        let all = used(1.0, 9.0, 0.5);
        let (reasons, warnings) = judged(Clock::Real, all, &few, &rules);
        assert_eq!(
            (names(&reasons), names(&warnings)),
            (vec![], vec!["busy", "steal"]),
            "of few requests it warns"
        );
        assert_eq!(judged(Clock::Virtual, all, &samples, &rules), (vec![], vec![]));
        let off = ValidityRules { busy: Threat::Off, steal: Threat::Off, ..rules };
        assert_eq!(judged(Clock::Real, all, &samples, &off), (vec![], vec![]));
    }

    #[test]
    fn rate() {
        let rules = ValidityRules { lag: Threat::Off, littles_law: Threat::Off, ..ValidityRules::default() };
        // Each request takes the client a tenth longer than the plan has for it.
        let slow = every_100ms(300, |index, record| Record {
            sent: record.sent.map(|sent| sent + index * 10 * MILLISECOND),
            end: record.end + index * 10 * MILLISECOND,
            ..record
        });
        let (reasons, _) =
            said(Clock::Real, &slow, &ValidityRules { steady_state: Threat::Off, ..rules.clone() });
        insta::assert_snapshot!(reasons[0].text, @"the client did not keep up with the plan: when the last of 300 requests was due, 91.7 % had been sent, of 95 % or more that should; lower the rate, or run the client on a quieter machine or with more cores");
        assert_eq!(said(Clock::Real, &every_100ms(300, |_, record| record), &rules), (vec![], vec![]));
        // The user's wait under the cap is not the client's, and what is never to be sent is not late.
        let capped = every_100ms(300, |index, record| Record {
            sent: record.sent.map(|sent| sent + index * 10 * MILLISECOND),
            cap_wait: index * 10 * MILLISECOND,
            end: record.due + 30 * MILLISECOND,
            outcome: if index % 2 == 0 { Outcome::Skipped } else { record.outcome },
            ..record
        });
        assert_eq!(said(Clock::Real, &capped, &rules), (vec![], vec![]));
        let few = every_100ms(99, |_, record| Record { sent: None, ..record });
        assert_eq!(said(Clock::Real, &few, &rules), (vec![], vec![]));
    }

    #[test]
    fn length() {
        let rules = ValidityRules::default();
        let shortened = |every: u64| {
            every_100ms(300, move |index, record| Record {
                output_tokens: if index % every == 0 { 3 } else { 4 },
                ..record
            })
        };
        let (reasons, _) = said(Clock::Virtual, &shortened(50), &rules);
        insta::assert_snapshot!(reasons[0].text, @"6 of 300 answers have another length than was forced, so the work is not what was planned; set the backend's `flavor`, or say `max_tokens` instead of `tokens` where lengths are the server's choice");
        assert_eq!(said(Clock::Virtual, &shortened(100), &rules), (vec![], vec![]), "3 of 300 are 1 %");
        // What a fault of the scenario did is meant.
        let samples = shortened(50);
        let faulted: HashSet<(usize, u64)> = (0..6).map(|k| (0, 50 * k)).collect();
        assert!(validity(&setting(Clock::Virtual, &[&samples], &faulted), &samples, &rules).valid);
        // A limit is no forced length.
        let limited = every_100ms(300, |_, record| Record { forced: false, output_tokens: 3, ..record });
        assert_eq!(said(Clock::Virtual, &limited, &rules), (vec![], vec![]));
    }

    #[test]
    fn steady_state() {
        let rules = ValidityRules { littles_law: Threat::Off, ..ValidityRules::default() };
        let mut draws = Draws::new(5, "latencies", 0);
        let noise: Vec<Ns> = (0..400).map(|_| (draws.unit() * 10e6) as Ns).collect();
        let series = |extra: &dyn Fn(u64) -> Ns| {
            every_100ms(400, |index, record| Record {
                end: record.end + noise[index as usize] + extra(index),
                ..record
            })
        };
        assert_eq!(said(Clock::Real, &series(&|_| 0), &rules), (vec![], vec![]));
        let settling = series(&|index| if index < 180 { (180 - index) * MILLISECOND } else { 0 });
        let (reasons, warnings) = said(Clock::Real, &settling, &rules);
        assert_eq!(reasons, []);
        insta::assert_snapshot!(warnings[0].text, @"the latency of a constant load had not settled: MSER-5 would cut the first 180 of 400 requests, over a third; let it run longer, add a `warmup`, or ask for less than the backend's capacity");
        let (repeats, faulted) = ([&settling], HashSet::new());
        let ramp = Setting { is_constant: false, ..setting(Clock::Real, &repeats, &faulted) };
        assert_eq!(validity(&ramp, &settling, &rules), Validity::default());
    }

    #[test]
    fn littles_law() {
        let rules = ValidityRules { steady_state: Threat::Off, ..ValidityRules::default() };
        // 30 ms each, every 100 ms: 0.3 in flight.
        assert_eq!(said(Clock::Virtual, &every_100ms(400, |_, record| record), &rules), (vec![], vec![]));
        // Half of the requests say that they were sent long before, which nobody answered then.
        let wrong = every_100ms(400, |index, record| Record {
            sent: record.sent.map(|sent| if index == 250 { sent - 11 * SECOND } else { sent }),
            ..record
        });
        let (_, warnings) = said(Clock::Virtual, &wrong, &rules);
        assert_eq!(
            names(&warnings),
            Vec::<&str>::new(),
            "the sum of both sides agrees while all of it lies inside"
        );
        let stuck = every_100ms(400, |index, record| Record {
            end: if index == 110 { record.end + 25 * SECOND } else { record.end },
            ..record
        });
        let (_, warnings) = said(Clock::Virtual, &stuck, &rules);
        insta::assert_snapshot!(warnings[0].text, @"Little's law does not hold in the middle of the run: 1.20 requests were in flight, and the rate times the mean time is 0.25; the load or the backend changed on the way, or some times are wrong");
    }
}
