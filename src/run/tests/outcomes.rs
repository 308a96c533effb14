//! How requests and runs end.

use super::*;
use crate::backend::config::{CloseBy, DisconnectFault, IndexList, StallFault, StatusFault, TimeoutFault};
use crate::backend::{EngineStats, Finish, RequestId, Sink};

fn indexes(list: &[u64]) -> RequestMatch {
    RequestMatch { index: Some(IndexList(list.to_vec())), ..RequestMatch::default() }
}

fn with(faults: Vec<Fault>) -> Faulty<Mock> {
    faulty(&MockBackend { faults, ..config(10 * MS, 5 * MS) })
}

fn all_faults() -> Vec<Fault> {
    vec![
        fault(indexes(&[1]), FaultAction::HttpStatus(StatusFault { code: 429, retry_after: None })),
        fault(indexes(&[2]), FaultAction::Timeout(TimeoutFault {})),
        fault(
            indexes(&[3]),
            FaultAction::Disconnect(DisconnectFault { after_tokens: 2, close: CloseBy::Fin }),
        ),
        fault(
            indexes(&[4]),
            FaultAction::Disconnect(DisconnectFault { after_tokens: 0, close: CloseBy::Fin }),
        ),
        fault(indexes(&[5]), FaultAction::Stall(StallFault { after_tokens: 1, pause: Duration(7 * MS) })),
        fault(
            indexes(&[6]),
            FaultAction::Disconnect(DisconnectFault { after_tokens: 4, close: CloseBy::Fin }),
        ),
    ]
}

#[test]
fn each_fault_has_its_outcome_and_is_logged() {
    use Outcome::{Disconnected, HttpStatus, Success, TimedOut};
    let plan = WorkloadPlan { timeout: 100 * MS, ..plan(closed(7)) };
    let (played, kept) = run_on(&plan, recipes(7, 16, 4), &mut with(all_faults()), Pace::Virtual);
    assert_eq!(
        kept.outcomes(),
        [Success, HttpStatus(429), TimedOut, Disconnected, Disconnected, Success, Success]
    );
    assert_eq!(kept.ends(), [25, 0, 100, 15, 10, 32, 25]);
    assert_eq!(kept.each(|record| record.output_tokens), [4, 0, 0, 2, 0, 4, 4]);
    assert_eq!(kept.records()[5].longest_gap, 12 * MS);
    let log: Vec<_> = played
        .stats
        .faults
        .iter()
        .map(|fault| (fault.index, fault.action.as_str(), fault.at_ns / MS))
        .collect();
    assert_eq!(
        log,
        [
            (Some(1), "http_status", 0),
            (Some(2), "timeout", 0),
            (Some(4), "disconnect", 10),
            (Some(5), "stall", 15),
            (Some(3), "disconnect", 20)
        ]
    );
    assert_eq!(kept.records()[1].message.as_deref(), Some("injected fault: HTTP status 429"));
    assert_eq!(kept.records()[2].message.as_deref(), Some("no complete answer within 100ms"));
}

#[test]
fn warm_up_is_spared() {
    let mut wanted = vec![warm(recipe(0, 16, 2))];
    wanted.extend(recipes(3, 16, 2));
    let always =
        fault(RequestMatch::default(), FaultAction::HttpStatus(StatusFault { code: 500, retry_after: None }));
    let plan = WorkloadPlan { warmup: WarmupPlan::Requests(1), ..plan(closed(1)) };
    let (played, kept) = run_on(&plan, wanted, &mut with(vec![always]), Pace::Virtual);
    assert_eq!(kept.outcomes()[0], Outcome::Success);
    assert_eq!(kept.outcomes()[1..], [Outcome::HttpStatus(500); 3]);
    assert_eq!(played.stats.faults.len(), 3);
}

#[test]
fn never_answered_requests_end_by_their_timeout() {
    let never = fault(RequestMatch::default(), FaultAction::Timeout(TimeoutFault {}));
    let plan = WorkloadPlan { timeout: 30 * MS, ..plan(closed(2)) };
    let (played, kept) = run_on(&plan, recipes(4, 16, 2), &mut with(vec![never]), Pace::Virtual);
    assert_eq!(kept.outcomes(), [Outcome::TimedOut; 4]);
    assert_eq!(kept.ends(), [30, 30, 60, 60]);
    assert_eq!(played.ending, Ending::Complete);
}

#[test]
fn an_answer_that_is_complete_at_its_deadline_counts() {
    let at = |timeout| run(&WorkloadPlan { timeout, ..plan(closed(1)) }, recipes(1, 16, 3)).1;
    assert_eq!(at(20 * MS).outcomes(), [Outcome::Success]);
    let late = at(20 * MS - 1);
    assert_eq!(late.outcomes(), [Outcome::TimedOut]);
    assert_eq!(late.records()[0].output_tokens, 2);
    assert_eq!(late.records()[0].end, 15 * MS, "the last token");
    assert_eq!(at(0).outcomes(), [Outcome::TimedOut]);
}

#[test]
fn a_timeout_frees_the_blocks_and_the_user() {
    let mut backend = mock(&MockBackend { kv: Some(kv(64)), ..config(10 * MS, 5 * MS) });
    let plan = WorkloadPlan { timeout: 22 * MS, ..plan(closed(1)) };
    let (_, kept) = run_on(&plan, recipes(3, 16, 40), &mut backend, Pace::Virtual);
    assert_eq!(kept.sent(), [Some(0), Some(22), Some(44)]);
    assert_eq!(kept.each(|record| record.output_tokens), [3; 3]);
    assert_eq!(backend.cache().unwrap().pool().used(), 0);
}

#[test]
fn our_side_cancels_after_so_many_tokens() {
    let wanted = recipes(3, 16, 10).into_iter().map(|recipe| Recipe { cancel_after: Some(3), ..recipe });
    let (played, kept) = run(&plan(closed(1)), wanted.collect());
    assert_eq!(kept.outcomes(), [Outcome::Cancelled; 3]);
    assert_eq!(kept.each(|record| record.output_tokens), [3; 3]);
    assert_eq!(kept.sent(), [Some(0), Some(20), Some(40)]);
    assert_eq!(played.measure_end, 60 * MS);
    let whole = vec![Recipe { cancel_after: Some(2), ..recipe(0, 16, 2) }];
    assert_eq!(
        run(&plan(closed(1)), whole).1.outcomes(),
        [Outcome::Success],
        "there is nothing left to cancel"
    );
}

#[test]
fn what_can_never_fit_is_refused() {
    let mut backend = mock(&MockBackend { kv: Some(kv(64)), ..config(10 * MS, 5 * MS) });
    let plan = WorkloadPlan { requests: Some(2), ..plan(closed(1)) };
    let wanted = vec![recipe(0, 32, 33), recipe(1, 32, 32)];
    let (_, kept) = run_on(&plan, wanted, &mut backend, Pace::Virtual);
    assert_eq!(kept.outcomes(), [Outcome::Refused, Outcome::Success]);
    let message = "32 prompt and 33 output tokens can never fit in a KV cache of 64";
    assert_eq!(kept.records()[0].message.as_deref(), Some(message));
    assert_eq!(kept.sent(), [Some(0), Some(0)]);
}

#[test]
fn total_timeout_cuts_off_what_is_in_flight() {
    use Outcome::{Skipped, Success, TimedOut};
    let plan = WorkloadPlan { total_timeout: Some(40 * MS), ..plan(open(Some(1))) };
    let (played, kept) = run(&plan, arriving(&[0, MS, 2 * MS, 3 * MS, 40 * MS, 50 * MS], 3));
    // One every 20 ms: the second is complete at 40 ms itself.
    assert_eq!(kept.outcomes(), [Success, Success, Skipped, Skipped, Skipped]);
    let (_, kept) =
        run(&WorkloadPlan { total_timeout: Some(39 * MS), ..plan }, arriving(&[0, MS, 2 * MS], 3));
    assert_eq!(kept.outcomes(), [Success, TimedOut, Skipped]);
    assert_eq!(played.ending, Ending::TimedOut);
}

#[test]
fn a_run_that_is_done_in_time_is_complete() {
    let plan = WorkloadPlan { total_timeout: Some(15 * MS), ..plan(closed(1)) };
    let (played, kept) = run(&plan, recipes(1, 16, 2));
    assert_eq!((played.ending, kept.outcomes()), (Ending::Complete, vec![Outcome::Success]));
}

/// Stops at the n-th record.
struct StopAt<'a> {
    kept: Kept,
    at: usize,
    stop: Option<&'a Stop>,
}

impl Observer for StopAt<'_> {
    fn on_record(&mut self, record: &Record, gaps: &[GapRun]) -> Flow {
        self.kept.on_record(record, gaps);
        match self.stop {
            _ if self.kept.0.len() != self.at => Flow::Continue,
            Some(stop) => {
                stop.request(2);
                Flow::Continue
            }
            None => Flow::Abort("enough".into()),
        }
    }
}

fn stopped(by_signal: bool) -> (Played, Kept) {
    let stop = Stop::default();
    let mut observer = StopAt { kept: Kept::default(), at: 2, stop: by_signal.then_some(&stop) };
    let mut wanted = arriving(&[0, 0, MS, 2 * MS, 3 * MS, 500 * MS], 2);
    wanted[2].output_tokens = 100;
    let (resume, mut backend) = (Resume::default(), mock(&config(10 * MS, 5 * MS)));
    let plan = plan(open(Some(3)));
    let played =
        play(&plan, Listed(wanted.into()), &mut backend, Pace::Virtual, &stop, &mut observer, &resume)
            .unwrap();
    assert_eq!(backend.next_event(), None, "nothing is left in the backend");
    (played, observer.kept)
}

#[test]
fn a_stop_records_what_was_due_and_nothing_else() {
    use Outcome::{Interrupted, Success};
    for by_signal in [true, false] {
        let (played, kept) = stopped(by_signal);
        let ending = if by_signal { Ending::Interrupted(2) } else { Ending::Aborted("enough".into()) };
        assert_eq!(played.ending, ending);
        // Two are done at 15 ms; one is in flight. Two more were due: a signal is seen after they were sent.
        assert_eq!(kept.outcomes(), [Success, Success, Interrupted, Interrupted, Interrupted]);
        assert_eq!(kept.records()[2].output_tokens, 1);
        assert_eq!(played.measure_end, 15 * MS);
    }
}

/// A backend that answers as it is told: one event for each entry of a script.
#[derive(Default)]
struct Scripted {
    events: std::collections::VecDeque<(Ns, Event)>,
}

enum Event {
    Tokens(Ns, u32),
    End(Outcome),
    Nothing,
}

impl Stepped for Scripted {
    fn keep_responses(&mut self) {}

    fn submit(&mut self, _: RequestId, _: &Recipe, _: Ns) {}
    fn cancel(&mut self, _: RequestId, _: Ns) {}
    fn next_event(&self) -> Option<Ns> {
        self.events.front().map(|(at, _)| *at)
    }
    fn advance(&mut self, to: Ns, sink: &mut dyn Sink) {
        while let Some((at, event)) = self.events.pop_front_if(|(at, _)| *at <= to) {
            match event {
                Event::Tokens(gap, count) => sink.tokens(0, at, gap, count),
                Event::End(outcome) => {
                    let end = Finish::new(9, 0, outcome, None::<String>);
                    sink.finished(0, at, end);
                }
                Event::Nothing => {
                    self.events.push_front((at, event));
                    return;
                }
            }
        }
    }
    fn start_measuring(&mut self, _: Ns) {}
    fn stats(&self, _: Ns) -> EngineStats {
        EngineStats::default()
    }
}

fn scripted(output: u32, events: Vec<(Ns, Event)>) -> (Record, Vec<GapRun>) {
    let mut backend = Scripted { events: events.into() };
    let (_, mut kept) = run_on(&plan(closed(1)), recipes(1, 16, output), &mut backend, Pace::Virtual);
    kept.0.remove(0)
}

#[test]
fn an_event_of_many_tokens_ends_as_many_equal_gaps() {
    let events = vec![
        (10, Event::Tokens(0, 2)),
        (20, Event::Tokens(0, 3)),
        (30, Event::Tokens(4, 3)),
        (38, Event::End(Outcome::Success)),
    ];
    let (record, gaps) = scripted(8, events);
    assert_eq!((record.first, record.end, record.first_event_tokens), (Some(10), 38, 2));
    assert_eq!((record.output_tokens, record.outcome, record.prompt_tokens), (8, Outcome::Success, 9));
    let run = |gap, count| GapRun { gap, count };
    assert_eq!(gaps, [run(3, 2), run(4, 1), run(10, 1), run(4, 2)]);
    assert_eq!(record.longest_gap, 10);
}

#[test]
fn a_success_has_a_token_and_the_forced_length() {
    let (record, _) = scripted(8, vec![(10, Event::Tokens(0, 2)), (11, Event::End(Outcome::Success))]);
    assert_eq!(record.outcome, Outcome::Truncated);
    assert_eq!(record.message.as_deref(), Some("the answer has 2 tokens, 8 were asked for"));
    let (record, _) = scripted(8, vec![(11, Event::End(Outcome::Success))]);
    assert_eq!((record.outcome, record.end), (Outcome::Truncated, 11));
    assert_eq!(record.message.as_deref(), Some("the answer has no token"));
}

#[test]
fn a_backend_that_stands_still_is_an_error() {
    let mut backend = Scripted { events: vec![(5, Event::Nothing)].into() };
    let (stop, resume) = (Stop::default(), Resume::default());
    let (plan, wanted) = (plan(closed(1)), Listed(recipes(1, 16, 1).into()));
    let error = play(&plan, wanted, &mut backend, Pace::Virtual, &stop, &mut Kept::default(), &resume);
    assert_eq!(error.unwrap_err(), RunError::StandsStill { at: Duration(5) });
}

/// The parts of a record that timer error does not touch.
fn structure(kept: &Kept) -> Vec<impl PartialEq + std::fmt::Debug> {
    kept.each(|record| {
        let tokens = (record.output_tokens, record.first_event_tokens, record.preemptions);
        (record.index, record.phase, record.outcome, tokens, record.sent.is_some(), record.message.clone())
    })
}

#[test]
fn both_clocks_give_the_same_records() {
    let scenario = || {
        let faults = all_faults();
        let cache = Kv { blocks: Some(12), tokens: None, ..kv(0) };
        let backend = faulty(&MockBackend { faults, kv: Some(cache), ..config(4 * MS, MS / 2) });
        let mut wanted = recipes(12, 20, 30);
        wanted[9].cancel_after = Some(2);
        (WorkloadPlan { timeout: 60 * MS, ..plan(closed(4)) }, wanted, backend)
    };
    let (plan, wanted, mut backend) = scenario();
    let (_, simulated) = run_on(&plan, wanted, &mut backend, Pace::Virtual);
    let (plan, wanted, mut backend) = scenario();
    let (played, real) = run_on(&plan, wanted, &mut backend, Pace::Real);
    assert_eq!(structure(&real), structure(&simulated));
    assert_eq!(played.ending, Ending::Complete);
    for record in real.records() {
        // Nothing comes before the model says so.
        let (sent, first) = (record.sent.unwrap(), record.first.unwrap_or(Ns::MAX));
        assert!(record.due <= sent && first - sent >= 4 * MS, "{record:?}");
        assert!(record.end >= first || record.first.is_none(), "{record:?}");
    }
    let gaps = |kept: &Kept| kept.0.iter().flat_map(|(_, gaps)| gaps).map(|run| run.count).sum::<u32>();
    assert_eq!(gaps(&real), gaps(&simulated));
    assert_eq!(backend.engine().cache().unwrap().pool().used(), 0);
}

/// Modelled times are those of the model, and what passes of them is so many times what passes on the machine's clock.
#[test]
fn a_scaled_clock_tells_modelled_time() {
    let speed = 2000.0;
    let wanted = || recipes(6, 16, 4);
    let mut backend = mock(&config(SECOND, SECOND / 2));
    let (_, simulated) = run_on(&plan(closed(2)), wanted(), &mut backend, Pace::Virtual);
    let mut backend = mock(&config(SECOND, SECOND / 2));
    let begun = std::time::Instant::now();
    let (played, scaled) = run_on(&plan(closed(2)), wanted(), &mut backend, Pace::Scaled(speed));
    let passed = begun.elapsed().as_nanos() as f64 * speed;
    assert_eq!(structure(&scaled), structure(&simulated));
    for record in scaled.records() {
        let (sent, first) = (record.sent.unwrap(), record.first.unwrap());
        assert!(first - sent >= SECOND && record.end - sent >= 5 * SECOND / 2, "{record:?}");
    }
    let end = played.measure_end as f64;
    assert!(end >= 7.5 * SECOND as f64 && end <= passed, "{end} of {passed}");
}

#[test]
fn a_real_run_hears_a_stop_while_it_waits() {
    let stop = Stop::default();
    let (resume, mut backend) = (Resume::default(), mock(&config(3600 * SECOND, 0)));
    let (plan, mut kept) = (plan(closed(1)), Kept::default());
    let other = stop.clone();
    let thread = std::thread::spawn(move || {
        std::thread::sleep(std::time::Duration::from_millis(5));
        other.request(15);
    });
    let wanted = Listed(recipes(1, 16, 2).into());
    let played = play(&plan, wanted, &mut backend, Pace::Real, &stop, &mut kept, &resume).unwrap();
    thread.join().unwrap();
    assert_eq!(played.ending, Ending::Interrupted(15));
    assert_eq!(kept.outcomes(), [Outcome::Interrupted]);
}
