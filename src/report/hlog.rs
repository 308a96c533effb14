//! Latencies as a log of `HdrHistogram`s (`.hlog`), which other tools read, plot and add up.

use std::time::Duration;

use hdrhistogram::Histogram;
use hdrhistogram::serialization::V2DeflateSerializer;
use hdrhistogram::serialization::interval_log::{IntervalLogWriterBuilder, Tag};

use super::slug;
use crate::measure::{Samples, value_of};
use crate::metric::Metric;
use crate::units::MICROSECOND;

/// What is written of each cell, beside the gaps between tokens.
const LATENCIES: [&str; 3] = ["ttft", "tpot", "e2e"];

/// One cell of the log.
#[derive(Debug, Clone, Copy)]
pub struct Interval<'a> {
    /// The workload's full name.
    pub workload: &'a str,
    /// The backend's name.
    pub backend: &'a str,
    /// When measuring started: Unix seconds, or seconds since the run's start on the virtual clock.
    pub start_time: f64,
    /// When it ended.
    pub end_time: f64,
    /// Its requests.
    pub samples: &'a Samples,
}

/// The log: for each cell a histogram each of TTFT, TPOT, E2E and the gaps between tokens (TBT), in whole microseconds with 3
/// significant digits, compressed in the format V2, tagged `workload/backend/metric`.
///
/// # Panics
/// Never: it is written to memory.
pub fn hlog(cells: &[Interval<'_>]) -> Vec<u8> {
    let mut bytes = Vec::new();
    let mut serializer = V2DeflateSerializer::new();
    let mut builder = IntervalLogWriterBuilder::new();
    builder.add_comment("values in microseconds; a tag is workload/backend/metric");
    let mut log = builder.begin_log_with(&mut bytes, &mut serializer).expect("it goes to memory");
    for cell in cells {
        let seconds = |seconds: f64| Duration::try_from_secs_f64(seconds).unwrap_or_default();
        let (start, length) = (seconds(cell.start_time), seconds(cell.end_time - cell.start_time));
        for (metric, histogram) in histograms(cell.samples) {
            // A slug has no comma and no space, which a tag must not have.
            let name = format!("{}/{}/{metric}", slug(cell.workload), slug(cell.backend));
            log.write_histogram(&histogram, start, length, Tag::new(&name))
                .expect("a histogram of 3 digits can be serialised, and it goes to memory");
        }
    }
    drop(log);
    bytes
}

/// The cell's histograms by metric; one without a value is left out.
fn histograms(samples: &Samples) -> Vec<(&'static str, Histogram<u64>)> {
    let micros = |ms: f64| libm::round(ms * 1e3) as u64;
    let mut all = Vec::new();
    for name in LATENCIES {
        let Some(metric) = Metric::named(name) else { continue };
        let records = samples.records().iter();
        let values =
            records.filter_map(|record| Some((micros(value_of(record, metric, samples.basis())?), 1)));
        all.push((name, histogram(values)));
    }
    let gaps = samples.gaps().sorted();
    let gaps = gaps.iter().map(|(gap, count)| (gap.saturating_add(MICROSECOND / 2) / MICROSECOND, *count));
    all.push(("tbt", histogram(gaps)));
    all.retain(|(_, histogram)| !histogram.is_empty());
    all
}

fn histogram(values: impl Iterator<Item = (u64, u64)>) -> Histogram<u64> {
    let mut histogram = Histogram::new(3).expect("3 significant digits are within the 0 to 5 that exist");
    for (value, count) in values {
        histogram.record_n(value, count).expect("a histogram of 3 digits grows to any value");
    }
    histogram
}

#[cfg(test)]
mod tests {
    use base64::Engine;
    use base64::prelude::BASE64_STANDARD;
    use hdrhistogram::serialization::Deserializer;
    use hdrhistogram::serialization::interval_log::{IntervalLogIterator, LogEntry};

    use super::*;
    use crate::measure::fixture;

    #[test]
    fn what_is_written_is_read_back() {
        let (samples, _) = fixture::stress();
        let cell = Interval {
            workload: "stress test",
            backend: "mock",
            start_time: 1.5,
            end_time: 3.345,
            samples: &samples,
        };
        let text = hlog(&[cell, cell]);
        let entries: Vec<LogEntry<'_>> =
            IntervalLogIterator::new(&text).map(|entry| entry.expect("a log")).collect();
        let intervals: Vec<_> = entries
            .iter()
            .filter_map(|entry| match entry {
                LogEntry::Interval(interval) => Some(interval),
                _ => None,
            })
            .collect();
        let tags: Vec<_> = intervals.iter().filter_map(|interval| Some(interval.tag()?.as_str())).collect();
        let once = ["ttft", "tpot", "e2e", "tbt"].map(|metric| format!("stress_test/mock/{metric}"));
        assert_eq!(tags, [once.clone(), once].concat());
        assert_eq!(intervals[0].start_timestamp(), Duration::from_millis(1500));
        assert_eq!(intervals[0].duration(), Duration::from_millis(1845));
        let read = |at: usize| -> Histogram<u64> {
            let bytes = BASE64_STANDARD.decode(intervals[at].encoded_histogram()).expect("base64");
            Deserializer::new().deserialize(&mut bytes.as_slice()).expect("a histogram")
        };
        let ttft = Metric::named("ttft").expect("it exists");
        let (e2e, tbt) = (read(2), read(3));
        assert_eq!(tbt.len(), samples.gaps().count());
        let longest = samples.gaps().max().expect("there are gaps") / MICROSECOND;
        assert!(tbt.equivalent(tbt.max(), longest), "{} {longest}", tbt.max());
        let values = samples.records().iter().filter_map(|record| value_of(record, ttft, samples.basis()));
        assert_eq!(read(0).len(), values.count() as u64);
        assert!(e2e.max() >= tbt.max());
        let few = histogram([(1999, 3), (7, 1)].into_iter());
        assert_eq!((few.min(), few.max(), few.len()), (7, 1999, 4), "values below 2,048 us are exact");
    }
}
