//! When requests are sent.

use super::*;

#[test]
fn users_arrive_over_the_ramp_and_think_between_requests() {
    let load = LoadPlan::Closed { users: UserCurve::Constant(2), ramp_up: 100 * MS };
    let wanted = recipes(4, 16, 2).into_iter().map(|recipe| Recipe { think: 20 * MS, ..recipe });
    let (_, kept) = run(&plan(load), wanted.collect());
    // A request takes 15 ms. The first of each user does not wait.
    // At 50 ms the first user takes the third request, to be sent at 70, and the second arrives and takes the fourth.
    assert_eq!(kept.sent(), [Some(0), Some(35), Some(70), Some(50)]);
    assert_eq!(kept.each(|record| record.due / MS), [0, 35, 70, 50]);
}

#[test]
fn a_closed_load_starts_nothing_at_or_after_its_end() {
    let plan = WorkloadPlan { duration: Some(45 * MS), ..plan(closed(1)) };
    let (played, kept) = run(&plan, recipes(100, 16, 2));
    assert_eq!(kept.sent(), [Some(0), Some(15), Some(30)], "45 ms is the end itself");
    assert_eq!(played.measure_end, 45 * MS);
    let longer = WorkloadPlan { duration: Some(46 * MS), ..plan };
    let (played, kept) = run(&longer, recipes(100, 16, 2));
    assert_eq!(kept.sent().last(), Some(&Some(45)));
    assert_eq!(played.measure_end, 60 * MS, "what is in flight finishes");
}

#[test]
fn the_window_of_a_load_that_numbers_end_is_its_last_answer() {
    let plan = WorkloadPlan { duration: Some(SECOND), requests: Some(2), ..plan(closed(1)) };
    assert_eq!(run(&plan, recipes(2, 16, 2)).0.measure_end, 30 * MS);
}

#[test]
fn open_arrivals_are_sent_on_time_and_wait_for_their_place() {
    let arrivals = [0, MS, 2 * MS, 100 * MS];
    let (_, free) = run(&plan(open(None)), arriving(&arrivals, 2));
    assert_eq!(free.sent(), [Some(0), Some(1), Some(2), Some(100)]);
    let (played, capped) = run(&plan(open(Some(1))), arriving(&arrivals, 2));
    assert_eq!(capped.sent(), [Some(0), Some(15), Some(30), Some(100)]);
    assert_eq!(capped.each(|record| record.due), arrivals, "due stays the arrival");
    assert_eq!(capped.each(|record| record.cap_wait / MS), [0, 14, 28, 0]);
    assert_eq!(played.max_in_flight, 1);
    let (_, two) = run(&plan(open(Some(2))), arriving(&[0, 0, MS, MS, 16 * MS], 2));
    assert_eq!(two.sent(), [Some(0), Some(0), Some(15), Some(15), Some(30)]);
    assert_eq!(two.each(|record| record.cap_wait / MS), [0, 0, 14, 14, 14]);
}

#[test]
fn what_waits_for_a_place_at_the_end_is_skipped() {
    let plan = WorkloadPlan { duration: Some(20 * MS), ..plan(open(Some(1))) };
    let (_, kept) = run(&plan, arriving(&[0, MS, 2 * MS, 19 * MS, 20 * MS], 2));
    assert_eq!(kept.sent(), [Some(0), Some(15), None, None]);
    assert_eq!(kept.outcomes()[2..], [Outcome::Skipped, Outcome::Skipped]);
    assert_eq!(kept.ends()[2..], [20, 20]);
    assert_eq!(
        kept.records()[2].message.as_deref(),
        Some("the load ended while it waited under `max_in_flight`")
    );
}

#[test]
fn users_follow_their_curve() {
    // 0 to 4 users over 40 ms, 4 for 40 ms, 1 for 40 ms.
    let pieces = vec![(40 * MS, 0, 4), (40 * MS, 4, 4), (40 * MS, 1, 1)];
    let load = LoadPlan::Closed { users: UserCurve::Pieces(pieces), ramp_up: 0 };
    let wanted = recipes(100, 16, 3);
    let (played, kept) = run(&plan(load), wanted);
    let sent: Vec<u64> = kept.sent().into_iter().flatten().collect();
    // Users arrive at 10, 20, 30 and 40 ms; a request takes 20 ms, so each sends again at once; at 80
    // ms two leave and at 90 ms one.
    assert_eq!(sent, [10, 20, 30, 30, 40, 40, 50, 50, 60, 60, 70, 70, 90, 110]);
    assert_eq!(played.measure_end, 130 * MS);
}

#[test]
fn a_warm_up_of_requests_runs_into_the_measured_ones() {
    let mut wanted: Vec<Recipe> = recipes(2, 16, 2).into_iter().map(warm).collect();
    wanted.extend(recipes(2, 16, 2));
    let plan = WorkloadPlan {
        warmup: WarmupPlan::Requests(2),
        duration: Some(SECOND),
        requests: Some(2),
        ..plan(closed(1))
    };
    let (played, kept) = run(&plan, wanted);
    assert_eq!(kept.sent(), [Some(0), Some(15), Some(30), Some(45)]);
    assert_eq!((played.measure_start, played.measure_end), (30 * MS, 60 * MS));
    assert_eq!(played.max_in_flight, 1);
}

#[test]
fn a_warm_up_of_fixed_length_ends_at_its_time() {
    let think = |recipe| Recipe { think: 10 * MS, ..recipe };
    let mut wanted: Vec<Recipe> = recipes(50, 16, 2).into_iter().map(|recipe| think(warm(recipe))).collect();
    wanted.extend(recipes(3, 16, 2).into_iter().map(think));
    let plan = WorkloadPlan { warmup: WarmupPlan::Duration(44 * MS), requests: Some(3), ..plan(closed(1)) };
    let (played, kept) = run(&plan, wanted);
    // The user's third request would be due at 50 ms, after the warm-up: it is a measured one.
    assert_eq!(kept.sent(), [Some(0), Some(25), Some(50), Some(75), Some(100)]);
    assert_eq!(kept.each(|record| record.index), [0, 1, 0, 1, 2]);
    assert_eq!(played.measure_start, 44 * MS);
}

#[test]
fn open_warm_up_and_measured_arrivals() {
    let mut wanted: Vec<Recipe> = arriving(&[0, 30 * MS], 2).into_iter().map(warm).collect();
    wanted.extend(arriving(&[60 * MS, 95 * MS], 2));
    let timed =
        WorkloadPlan { warmup: WarmupPlan::Duration(50 * MS), duration: Some(45 * MS), ..plan(open(None)) };
    let (played, kept) = run(&timed, wanted.clone());
    assert_eq!(kept.sent(), [Some(0), Some(30), Some(60)], "95 ms is the end");
    assert_eq!((played.measure_start, played.measure_end), (50 * MS, 95 * MS));
    let counted = WorkloadPlan { warmup: WarmupPlan::Requests(2), ..timed };
    let (played, kept) = run(&counted, wanted);
    assert_eq!(kept.0.len(), 4, "the end counts from the first measured arrival");
    assert_eq!((played.measure_start, played.measure_end), (60 * MS, 110 * MS));
}

#[test]
fn requests_can_be_had_ahead_and_nothing_else_comes_early() {
    let mut wanted: Vec<Recipe> = arriving(&[10 * MS], 2).into_iter().map(warm).collect();
    wanted.extend(arriving(&[51 * MS, 52 * MS], 2));
    let plan = WorkloadPlan { warmup: WarmupPlan::Duration(50 * MS), ..plan(open(None)) };
    let resume = Resume::default();
    let mut load = Load::new(&plan, Listed(wanted.into()), &resume).ahead(2 * MS);
    assert_eq!(load.next_due(), Some(8 * MS));
    assert!(load.poll(8 * MS - 1).is_none());
    assert_eq!(load.poll(8 * MS).unwrap().due, 10 * MS);
    assert_eq!(load.next_due(), Some(50 * MS), "the warm-up ends at its time");
    assert!(load.poll(50 * MS - 1).is_none() && load.measuring().is_none());
    let dues = std::iter::from_fn(|| load.poll(50 * MS)).map(|start| start.due);
    assert_eq!(dues.collect::<Vec<_>>(), [51 * MS, 52 * MS]);
    assert_eq!(load.measuring(), Some(50 * MS));
}

fn after(index: u64, parent: u64, delay: Ns) -> Recipe {
    Recipe { after: Some(crate::plan::After { index: parent, delay }), ..recipe(index, 16, 2) }
}

#[test]
fn a_chain_belongs_to_its_user() {
    // One user: the chain 0, 1, 2, then 3.
    let wanted = vec![recipe(0, 16, 2), after(1, 0, 5 * MS), after(2, 1, 7 * MS), recipe(3, 16, 2)];
    let (_, kept) = run(&plan(closed(1)), wanted);
    assert_eq!(kept.sent(), [Some(0), Some(20), Some(42), Some(57)]);
}

#[test]
fn a_chain_is_released_by_the_end_of_its_parent() {
    let mut wanted = arriving(&[0, MS], 2);
    wanted.extend([after(2, 1, 4 * MS), after(3, 0, 0)]);
    wanted.extend([Recipe { index: 4, ..arriving(&[500 * MS], 2).remove(0) }]);
    // This one stands far behind the end of what it follows: it is late, and says so.
    wanted.extend([after(5, 0, MS)]);
    let (_, kept) = run(&plan(open(None)), wanted);
    assert_eq!(kept.sent(), [Some(0), Some(1), Some(20), Some(15), Some(500), Some(16)]);
}

#[test]
fn a_request_that_follows_one_long_ended_is_sent_at_once_and_its_delay_shows() {
    let mut wanted = arriving(&[0, 100 * MS, 200 * MS], 2);
    wanted.push(after(3, 0, MS));
    let (_, kept) = run(&plan(open(None)), wanted);
    let late = kept.records()[3];
    assert_eq!((late.due, late.sent), (16 * MS, Some(100 * MS)));
}

#[test]
fn what_follows_a_failure_is_skipped_to_the_end() {
    use Outcome::{HttpStatus, Skipped, Success};
    let wanted = vec![recipe(0, 16, 2), after(1, 0, MS), after(2, 1, MS), after(3, 2, MS), recipe(4, 16, 2)];
    let index =
        RequestMatch { index: Some(crate::backend::config::IndexList(vec![1])), ..RequestMatch::default() };
    let status =
        FaultAction::HttpStatus(crate::backend::config::StatusFault { code: 503, retry_after: None });
    let mut backend = faulty(&MockBackend { faults: vec![fault(index, status)], ..config(10 * MS, 5 * MS) });
    let (_, kept) = run_on(&plan(closed(1)), wanted, &mut backend, Pace::Virtual);
    assert_eq!(kept.outcomes(), [Success, HttpStatus(503), Skipped, Skipped, Success]);
    assert_eq!(kept.sent(), [Some(0), Some(16), None, None, Some(17)]);
    assert_eq!(kept.ends()[2..4], [16, 16]);
    assert_eq!(kept.records()[2].message.as_deref(), Some("the request it follows failed"));
}

fn resume_after(plan: &WorkloadPlan, wanted: Vec<Recipe>, finished: &[u64]) -> (Played, Kept) {
    let finished = finished.iter().map(|index| (Phase::Measured, *index)).collect();
    let resume = Resume { finished, elapsed: 0 };
    let (mut kept, mut backend) = (Kept::default(), mock(&config(10 * MS, 5 * MS)));
    let clock = Pace::Virtual;
    let stop = Stop::default();
    let played = play(plan, Listed(wanted.into()), &mut backend, clock, &stop, &mut kept, &resume).unwrap();
    (played, kept)
}

#[test]
fn a_resumed_open_load_counts_from_its_first_request_left() {
    let plan = WorkloadPlan { duration: Some(100 * MS), ..plan(open(None)) };
    let (played, kept) = resume_after(
        &plan,
        arriving(&[10 * MS, 40 * MS, 50 * MS, 70 * MS, 99 * MS, 100 * MS], 2),
        &[0, 1, 3],
    );
    assert_eq!(kept.each(|record| record.index), [2, 4]);
    assert_eq!(kept.sent(), [Some(0), Some(49)]);
    assert_eq!((played.measure_start, played.measure_end), (0, 64 * MS));
    let counted = WorkloadPlan { warmup: WarmupPlan::Requests(0), ..plan };
    let (_, kept) = resume_after(&counted, arriving(&[10 * MS, 40 * MS, 105 * MS, 110 * MS], 2), &[0]);
    assert_eq!(kept.sent(), [Some(0), Some(65)], "the end is 110 ms, 100 after the first arrival");
}

#[test]
fn a_resumed_closed_load_goes_on() {
    let (_, kept) = resume_after(&plan(closed(2)), recipes(6, 16, 2), &[0, 2, 3]);
    assert_eq!(kept.each(|record| record.index), [1, 4, 5]);
    assert_eq!(kept.sent(), [Some(0), Some(0), Some(15)]);
    let (played, kept) = resume_after(&plan(closed(2)), recipes(2, 16, 2), &[0, 1]);
    assert_eq!((kept.0.len(), played.ending), (0, Ending::Complete));
}

#[test]
fn a_user_whose_requests_take_no_time_does_not_stop_the_clock() {
    let mut backend = mock(&MockBackend { kv: Some(kv(16)), ..config(0, 0) });
    let plan = WorkloadPlan { duration: Some(10 * MS), ..plan(closed(2)) };
    let (_, kept) = run_on(&plan, recipes(100, 16, 2), &mut backend, Pace::Virtual);
    assert_eq!(kept.0.len(), 20);
    assert!(kept.outcomes().iter().all(|outcome| *outcome == Outcome::Refused));
}
