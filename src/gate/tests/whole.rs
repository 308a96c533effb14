//! A judgement in words, and what a run comes to.

use super::super::config::{Confidence, Inconclusive, NoData};
use super::super::{Facts, Judgement, Verdict, exit, explain, outcome};
use super::{Made, judged, judged_at};

#[test]
fn judgements_in_words() {
    let mixed = |n: u32| Made::of_samples((0..n).map(|at| f64::from(at * 7 % n + 1) / 4.0));
    let ramp = |n: u32| Made::of_samples((1..=n).map(|at| f64::from(at) / 4.0));
    let lines = [
        explain(&judged("p90(ttft) < 80ms", &mixed(300))),
        explain(&judged("p95(ttft) < 80ms", &ramp(300))),
        explain(&judged("p50(ttft) < 10ms", &mixed(150))),
        explain(&judged("p99(ttft) < 80ms", &mixed(100))),
        explain(&judged("p90(ttft) < 35ms", &mixed(150))),
        explain(&judged("error_rate <= 5%", &Made::of_events(3, 190))),
        explain(&judged("error_rate == 0", &Made::of_events(3, 10))),
        explain(&judged("avg(ttft) < 1285ms", &Made::of_samples([1285.0]))),
        explain(&judged("peak_mem <= 32GiB", &Made { number: Some(24576.0), ..Made::default() })),
        explain(&judged("peak_mem <= 32GiB", &Made::default())),
        explain(&judged_at("peak_mem <= 32GiB", Confidence::None, NoData::Skip, &Made::default())),
    ];
    insta::assert_snapshot!(lines.join("\n"), @r"
    measured 67.5 ms (90% interval 61.75 to 73 ms, n = 300, effective 73)
    measured 71.25 ms (n = 300, effective 3): neighbours are alike, so 300 samples count as 3, too few to pass at 95%, which takes 59
    measured 18.75 ms (90% interval 16.25 to 21.5 ms, n = 150)
    measured 24.75 ms (n = 100): 100 samples are too few to pass at 95%, which takes 299
    measured 33.75 ms (90% interval 32.25 to 35.5 ms, n = 150): 11 of 150 break the limit; at 95% a pass allows 8 at most and a failure takes 22
    measured 1.579% (90% interval 0.4317% to 4.03%, n = 190)
    measured 30% (90% interval 8.726% to 60.66%, n = 10)
    measured 1,285 ms (n = 1): one value tells nothing of how far the mean may be from it
    measured 24,576 MiB
    no data: the server does not export it
    no data: the server does not export it; left out, as the rule says `no_data: skip`
    ");
}

fn with(verdicts: &[Verdict]) -> Vec<Judgement> {
    let template = judged("error_rate == 0", &Made::of_events(0, 10));
    verdicts.iter().map(|verdict| Judgement { verdict: *verdict, ..template.clone() }).collect()
}

#[test]
fn a_verdict_reads_as_it_is_written() {
    for verdict in [Verdict::Pass, Verdict::Fail, Verdict::Inconclusive, Verdict::NoData] {
        assert_eq!(serde_json::to_value(verdict).unwrap(), verdict.to_string());
    }
}

#[test]
fn outcomes() {
    use Verdict::{Fail, Inconclusive as Unsure, NoData as Nothing, Pass};
    let come = |judgements: &[Judgement], facts: Facts<'_>| {
        let found = outcome(&Facts { judgements, ..facts });
        (found.word, found.code)
    };
    let plain = Facts::default();
    assert_eq!(come(&[], plain), ("passed", exit::PASS));
    assert_eq!(come(&with(&[Pass, Pass]), plain), ("passed", exit::PASS));
    assert_eq!(come(&with(&[Pass, Fail]), plain), ("failed", exit::FAILED));
    assert_eq!(come(&with(&[Pass, Nothing]), plain), ("failed", exit::FAILED));

    let unsure = with(&[Pass, Unsure]);
    let policy = |inconclusive, strict| Facts { inconclusive, strict, ..plain };
    assert_eq!(come(&unsure, policy(Inconclusive::Pass, false)), ("passed", exit::PASS));
    assert_eq!(come(&unsure, policy(Inconclusive::Warn, false)), ("passed", exit::PASS));
    assert_eq!(come(&unsure, policy(Inconclusive::Fail, false)), ("inconclusive", exit::INCONCLUSIVE));
    assert_eq!(come(&unsure, policy(Inconclusive::Warn, true)), ("inconclusive", exit::INCONCLUSIVE));
    assert_eq!(come(&with(&[Unsure, Fail]), policy(Inconclusive::Fail, false)), ("failed", exit::FAILED));

    let failed = with(&[Fail]);
    assert_eq!(come(&failed, Facts { invalid: 1, ..plain }), ("invalid", exit::INVALID));
    assert_eq!(come(&failed, Facts { invalid: 1, broken: 1, ..plain }), ("not run", exit::RUN));
    assert_eq!(
        come(&failed, Facts { broken: 1, signal: Some(2), ..plain }),
        ("interrupted", exit::INTERRUPTED)
    );
    assert_eq!(come(&[], Facts { signal: Some(15), ..plain }), ("interrupted", exit::TERMINATED));

    let aside =
        |judgement: &Judgement, suspended| Judgement { suspended, decides: suspended, ..judgement.clone() };
    assert_eq!(come(&[aside(&failed[0], true)], plain), ("passed", exit::PASS), "suspended");
    assert_eq!(come(&[aside(&failed[0], false)], plain), ("passed", exit::PASS), "does not decide");
}
