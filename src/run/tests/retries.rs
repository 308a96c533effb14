//! Requests that are sent again.

use super::*;
use crate::backend::config::{CloseBy, CrashFault, DisconnectFault, IndexList, StatusFault, TimeoutFault};

fn status(code: u16, retry_after: Option<Ns>) -> FaultAction {
    FaultAction::HttpStatus(StatusFault { code, retry_after: retry_after.map(Duration) })
}

fn first(attempts: u32) -> RequestMatch {
    RequestMatch { index: Some(IndexList(vec![0])), attempts: Some(attempts), ..RequestMatch::default() }
}

fn always() -> RequestMatch {
    RequestMatch::default()
}

fn retrying(retries: u32, load: LoadPlan) -> WorkloadPlan {
    WorkloadPlan { retries, ..plan(load) }
}

fn play_with(plan: &WorkloadPlan, recipes: Vec<Recipe>, faults: Vec<Fault>) -> (Played, Kept) {
    let mut backend = faulty(&MockBackend { faults, ..config(10 * MS, 5 * MS) });
    run_on(plan, recipes, &mut backend, Pace::Virtual)
}

#[test]
fn what_the_server_asks_for_is_waited_and_latency_counts_from_the_first_attempt() {
    let faults = vec![fault(first(2), status(429, Some(3 * SECOND)))];
    let (played, kept) = play_with(&retrying(2, closed(1)), recipes(2, 16, 4), faults);
    let records = kept.records();
    assert_eq!(kept.outcomes(), [Outcome::Success; 2]);
    assert_eq!((records[0].sent, records[0].attempts(), records[1].attempts()), (Some(0), 3, 1));
    let retried = records[0].retried.as_ref().unwrap();
    let at: Vec<_> = retried.attempts.iter().map(|one| (one.sent / MS, one.end / MS, one.outcome)).collect();
    assert_eq!(at, [(0, 0, Outcome::HttpStatus(429)), (3000, 3000, Outcome::HttpStatus(429))]);
    assert_eq!(retried.sent, 6 * SECOND);
    assert_eq!(records[0].ttft(crate::record::Basis::Sent), Some(6 * SECOND + 10 * MS));
    // Its user sends nothing meanwhile, and each of the attempts that a fault struck is in the log.
    assert_eq!(kept.sent(), [Some(0), Some(6025)]);
    assert_eq!((played.max_in_flight, played.stats.faults.len()), (1, 2));
}

#[test]
fn waits_double_and_the_last_failure_counts() {
    let faults = vec![fault(always(), status(503, None))];
    let (_, kept) = play_with(&retrying(5, closed(1)), recipes(1, 16, 4), faults.clone());
    let record = kept.records()[0];
    assert_eq!((record.outcome, record.attempts()), (Outcome::HttpStatus(503), 6));
    let retried = record.retried.as_ref().unwrap();
    let mut sent: Vec<Ns> = retried.attempts.iter().map(|one| one.sent).collect();
    sent.push(retried.sent);
    for (pair, most) in sent.windows(2).zip([500, 1000, 2000, 4000, 8000]) {
        let wait = pair[1] - pair[0];
        assert!((most * MS * 3 / 4..=most * MS).contains(&wait), "{wait} of {most} ms");
    }
    assert_eq!(record.end, retried.sent);
    let (_, again) = play_with(&retrying(5, closed(1)), recipes(1, 16, 4), faults.clone());
    assert_eq!(again.records(), kept.records(), "the same draws");
    let (_, never) = play_with(&retrying(0, closed(1)), recipes(1, 16, 4), faults);
    assert_eq!((never.records()[0].attempts(), &never.records()[0].retried), (1, &None));
}

#[test]
fn only_what_may_pass_is_tried_again() {
    let broken =
        |after_tokens| FaultAction::Disconnect(DisconnectFault { after_tokens, close: CloseBy::Fin });
    for (action, attempts) in [
        (status(400, None), 1),
        (status(404, None), 1),
        (status(408, None), 2),
        (status(500, None), 2),
        (broken(2), 1),
        (broken(0), 2),
    ] {
        let what = format!("{action:?}");
        let (_, kept) = play_with(&retrying(1, closed(1)), recipes(1, 16, 4), vec![fault(first(1), action)]);
        assert_eq!(kept.records()[0].attempts(), attempts, "{what}");
        let ends_well = attempts == 2;
        assert_eq!(kept.outcomes()[0] == Outcome::Success, ends_well, "{what}");
    }
}

#[test]
fn the_timeout_covers_all_attempts() {
    let faults =
        || vec![fault(first(1), status(500, None)), fault(first(2), FaultAction::Timeout(TimeoutFault {}))];
    let timed = |timeout| {
        let plan = WorkloadPlan { timeout, ..retrying(3, closed(2)) };
        play_with(&plan, recipes(3, 16, 200), faults()).1
    };
    // The wait alone would be longer.
    let short = timed(300 * MS);
    assert_eq!((short.outcomes()[0], short.records()[0].attempts()), (Outcome::HttpStatus(500), 1));
    // The second attempt is never answered, and others with later deadlines end before.
    let long = timed(1010 * MS);
    let record = long.records()[0];
    assert_eq!((record.outcome, record.attempts(), record.end), (Outcome::TimedOut, 2, 1010 * MS));
    assert_eq!(long.outcomes()[1..], [Outcome::Success, Outcome::Success]);
}

#[test]
fn who_waits_for_another_attempt_is_cut_off_too() {
    let plan = WorkloadPlan { total_timeout: Some(100 * MS), ..retrying(3, closed(1)) };
    let (played, kept) = play_with(&plan, recipes(2, 16, 4), vec![fault(always(), status(500, None))]);
    assert_eq!(played.ending, Ending::TimedOut);
    let records = kept.records();
    assert_eq!(records.len(), 1, "the user had sent nothing else");
    assert_eq!((records[0].outcome, records[0].sent, records[0].attempts()), (Outcome::TimedOut, Some(0), 1));
    // Its second attempt had failed as well.
    let plan = WorkloadPlan { total_timeout: Some(600 * MS), ..plan };
    let (_, kept) = play_with(&plan, recipes(2, 16, 4), vec![fault(always(), status(500, None))]);
    assert_eq!(kept.records()[0].attempts(), 2);
}

#[test]
fn it_keeps_its_place_under_max_in_flight() {
    let faults = vec![fault(first(1), status(503, Some(SECOND)))];
    let recipes = arriving(&[0, 10 * MS], 4);
    let (played, kept) = play_with(&retrying(1, open(Some(1))), recipes, faults);
    assert_eq!(kept.sent(), [Some(0), Some(1025)]);
    assert_eq!(kept.records()[1].cap_wait, 1015 * MS);
    assert_eq!(played.max_in_flight, 1);
    // Latency counts from when it was due.
    assert_eq!(kept.records()[0].ttft(crate::record::Basis::Due), Some(SECOND + 10 * MS));
}

#[test]
fn an_engine_that_comes_back_answers_then() {
    let crash = FaultAction::EngineCrash(CrashFault { at: Duration(15 * MS), restart: Duration(200 * MS) });
    let (_, kept) = play_with(&retrying(2, closed(1)), recipes(2, 16, 1), vec![fault(always(), crash)]);
    // The second request, sent at 10 ms, is lost at 15 ms before its first token and sent again.
    assert_eq!(kept.outcomes(), [Outcome::Success; 2]);
    assert_eq!(kept.each(Record::attempts), [1, 2]);
}

#[test]
fn a_warm_up_and_the_turns_of_a_session_are_tried_again() {
    let mut recipes = recipes(2, 16, 2);
    recipes[1].after = Some(crate::plan::After { index: 0, delay: 7 * MS });
    let faults = vec![fault(first(1), status(503, Some(SECOND)))];
    let (_, kept) = play_with(&retrying(1, closed(1)), recipes, faults);
    assert_eq!(kept.sent(), [Some(0), Some(1000 + 15 + 7)]);
}
