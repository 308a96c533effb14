//! An engine in which things go wrong on purpose.
//!
//! [`Faulty`] stands between an engine and whoever uses it, in either mode: it keeps requests from the engine, delays and
//! cuts what comes out of it, and does to it as a whole what a scenario asks for. The engine knows nothing of faults, so a
//! run without them pays nothing for them. At one instant the engine comes first, then what is late, then what happens to
//! the engine as a whole.

#[cfg(test)]
mod tests;

use std::cmp::Reverse;
use std::collections::{BTreeMap, BinaryHeap, VecDeque};

use super::Engine;
use super::fault::FaultPlan;
use crate::backend::config::{CloseBy, FaultAction};
use crate::backend::{EngineStats, Finish, InjectedFault, RequestId, Sink, Standing, Stepped};
use crate::plan::Recipe;
use crate::record::{Outcome, Phase};
use crate::units::Ns;

/// A request that has not ended for whoever waits for it.
#[derive(Debug)]
struct Live {
    lane: u32,
    index: u64,
    /// Whether faults that hit it are logged: a warm-up request is in no metric.
    measured: bool,
    prompt_tokens: u32,
    /// Prompt and output.
    tokens: u64,
    fault: Option<FaultAction>,
    /// Tokens that the engine has emitted.
    emitted: u32,
    /// How much later than they are computed its tokens come out.
    behind: Ns,
    /// Nothing more of the engine's is handed on.
    cut: bool,
}

/// Something that comes out later than it was computed. Ordered by time, then by when it was put there.
#[derive(Debug)]
struct Later {
    at: Ns,
    order: u64,
    id: RequestId,
    what: Out,
}

#[derive(Debug)]
enum Out {
    Tokens { gap: Ns, count: u32 },
    End(Finish),
}

impl PartialEq for Later {
    fn eq(&self, other: &Self) -> bool {
        (self.at, self.order) == (other.at, other.order)
    }
}
impl Eq for Later {}
impl PartialOrd for Later {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}
impl Ord for Later {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        (self.at, self.order).cmp(&(other.at, other.order))
    }
}

/// What is kept beside the engine.
#[derive(Debug)]
struct Books {
    live: BTreeMap<RequestId, Live>,
    later: BinaryHeap<Reverse<Later>>,
    orders: u64,
    log: Vec<InjectedFault>,
    /// Requests that the engine is to give up.
    cuts: Vec<Cut>,
    shrunk: Option<Shrunk>,
}

/// An answer that was cut: when, and what is said of it.
#[derive(Debug)]
struct Cut {
    id: RequestId,
    at: Ns,
    end: Finish,
}

/// Tokens that the cache held before and after it shrank.
#[derive(Debug, Clone, Copy)]
struct Shrunk {
    from: u64,
    to: u64,
}

/// An engine with its faults. One per cell.
#[derive(Debug)]
pub struct Faulty<E> {
    engine: E,
    /// For each workload that it serves, in the order of [`Recipe::lane`].
    plans: Vec<FaultPlan>,
    books: Books,
    /// What happens to the engine as a whole, the next one first.
    ahead: VecDeque<(Ns, FaultAction)>,
    /// The engine has crashed and is not back before this.
    down_until: Ns,
}

impl<E: Engine> Faulty<E> {
    /// The engine, at its start, with the faults of `plan`.
    pub fn new(engine: E, plan: FaultPlan) -> Self {
        Self::group(engine, vec![plan])
    }

    /// The same for several workloads that share the engine, in the order of [`Recipe::lane`].
    pub fn group(engine: E, plans: Vec<FaultPlan>) -> Self {
        let when = |action: &FaultAction| match action {
            FaultAction::EngineStall(fault) => fault.at.0,
            FaultAction::EngineCrash(fault) => fault.at.0,
            FaultAction::KvShrink(fault) => fault.at.0,
            _ => 0,
        };
        let whole = FaultPlan::of_shared_engine(&plans);
        let mut ahead: Vec<_> = whole.into_iter().map(|action| (when(&action), action)).collect();
        ahead.sort_by_key(|(at, _)| *at);
        let books = Books {
            live: BTreeMap::new(),
            later: BinaryHeap::new(),
            orders: 0,
            log: Vec::new(),
            cuts: Vec::new(),
            shrunk: None,
        };
        let mut faulty = Self { engine, plans, books, ahead: ahead.into(), down_until: 0 };
        while let Some((_, action)) =
            faulty.ahead.pop_front_if(|(_, action)| matches!(action, FaultAction::StartupDelay(_)))
        {
            faulty.startup(&action);
        }
        faulty
    }

    /// The engine.
    pub fn engine(&self) -> &E {
        &self.engine
    }

    fn startup(&mut self, action: &FaultAction) {
        if let FaultAction::StartupDelay(fault) = action {
            self.engine.hold(0, fault.delay.0);
            self.books.note(None, action, 0);
        }
    }

    /// Takes in what is wrong with a request before the engine sees it. Whether the engine shall see it.
    fn is_let_in(&mut self, id: RequestId, now: Ns) -> bool {
        let live = &self.books.live[&id];
        let (prompt, fault) = (live.prompt_tokens, live.fault.clone());
        if now < self.down_until {
            let message = "injected fault: the engine has crashed and is not back".to_owned();
            let index = live.measured.then_some(live.index);
            if index.is_some() {
                self.books.log.push(InjectedFault {
                    index,
                    lane: live.lane,
                    action: "engine_crash".into(),
                    at_ns: now,
                });
            }
            // Whoever comes back later may find it.
            let end = Finish { retry_after: Some(0), ..finish(prompt, 0, Outcome::Refused, message) };
            self.books.end(now, id, end);
            return false;
        }
        let (outcome, message) = match &fault {
            Some(FaultAction::HttpStatus(status)) => {
                let again =
                    status.retry_after.map_or(String::new(), |after| format!(", retry after {after}"));
                let message = format!("injected fault: HTTP status {}{again}", status.code);
                (Some(Outcome::HttpStatus(status.code)), message)
            }
            Some(FaultAction::Reject(_)) => {
                (Some(Outcome::Refused), "injected fault: the engine rejects the request".to_owned())
            }
            Some(FaultAction::Timeout(_)) => (None, String::new()),
            _ => return true,
        };
        self.books.strikes(id, now);
        // Also what is never answered is kept from the engine.
        if let Some(live) = self.books.live.get_mut(&id) {
            live.cut = true;
        }
        if let Some(outcome) = outcome {
            let retry_after = match &fault {
                Some(FaultAction::HttpStatus(status)) => status.retry_after.map(|after| after.0),
                _ => None,
            };
            self.books.end(now, id, Finish { retry_after, ..finish(prompt, 0, outcome, message) });
        }
        false
    }

    /// What happens to the engine as a whole.
    fn happen(&mut self, at: Ns, action: &FaultAction, sink: &mut dyn Sink) {
        match action {
            FaultAction::EngineStall(fault) => {
                self.books.note(None, action, at);
                self.engine.hold(at, at.saturating_add(fault.pause.0));
            }
            FaultAction::EngineCrash(fault) => {
                self.books.note(None, action, at);
                let ids: Vec<RequestId> = self.books.live.keys().copied().collect();
                for id in ids {
                    self.lose(
                        id,
                        at,
                        action,
                        Outcome::Disconnected,
                        "injected fault: the engine crashed",
                        sink,
                    );
                }
                if let Some(cache) = self.engine.cache_mut() {
                    cache.forget();
                }
                self.down_until = at.saturating_add(fault.restart.0);
            }
            FaultAction::KvShrink(fault) => self.shrink(at, action, u64::from(fault.to.0), sink),
            _ => self.startup(action),
        }
    }

    fn shrink(&mut self, at: Ns, action: &FaultAction, tokens: u64, sink: &mut dyn Sink) {
        let Some(cache) = self.engine.cache_mut() else { return };
        let size = u64::from(cache.block_tokens());
        let before = u64::from(cache.pool().total()) * size;
        cache.shrink(u32::try_from(tokens / size).unwrap_or(u32::MAX));
        let capacity = u64::from(cache.pool().total()) * size;
        let from = self.books.shrunk.map_or(before, |shrunk| shrunk.from);
        self.books.shrunk = Some(Shrunk { from, to: capacity });
        self.books.note(None, action, at);
        let too_long: Vec<(RequestId, u64)> = self
            .books
            .live
            .iter()
            .filter(|(_, live)| !live.cut && live.tokens.div_ceil(size) * size > capacity)
            .map(|(id, live)| (*id, live.tokens))
            .collect();
        for (id, tokens) in too_long {
            let message = format!(
                "injected fault: the KV cache shrank to {capacity} tokens, which can never hold the {tokens} of the request"
            );
            self.lose(id, at, action, Outcome::CancelledByServer, &message, sink);
        }
    }

    /// Ends a request because of what happened to the engine.
    fn lose(
        &mut self,
        id: RequestId,
        at: Ns,
        action: &FaultAction,
        outcome: Outcome,
        message: &str,
        sink: &mut dyn Sink,
    ) {
        let Some(live) = self.books.live.remove(&id) else { return };
        let preemptions = self.engine.preemptions(id);
        self.engine.cancel(id, at);
        if live.measured {
            self.books.note(Some((live.lane, live.index)), action, at);
        }
        sink.finished(id, at, finish(live.prompt_tokens, preemptions, outcome, message.to_owned()));
    }

    /// Plays the engine at `at`, and has it give up what was cut.
    fn play(&mut self, at: Ns, sink: &mut dyn Sink) {
        self.engine.advance(at, &mut Gate { books: &mut self.books, sink });
        for mut cut in std::mem::take(&mut self.books.cuts) {
            // One that has just ended is not known any more; then the gate has heard it.
            cut.end.preemptions = cut.end.preemptions.max(self.engine.preemptions(cut.id));
            self.engine.cancel(cut.id, at);
            self.books.end(cut.at, cut.id, cut.end);
        }
    }

    /// Tells what is late and due at `at`.
    fn tell_late(&mut self, at: Ns, sink: &mut dyn Sink) {
        while self.books.later.peek().is_some_and(|Reverse(later)| later.at <= at) {
            let Some(Reverse(Later { at, id, what, .. })) = self.books.later.pop() else { return };
            if !self.books.live.contains_key(&id) {
                continue;
            }
            match what {
                Out::Tokens { gap, count } => sink.tokens(id, at, gap, count),
                Out::End(end) => self.books.close(id, at, end, sink),
            }
        }
    }
}

impl Books {
    /// `hit` is the place of the workload and the index of the request that it hit.
    fn note(&mut self, hit: Option<(u32, u64)>, action: &FaultAction, at: Ns) {
        let (lane, index) = (hit.map_or(0, |hit| hit.0), hit.map(|hit| hit.1));
        self.log.push(InjectedFault { index, lane, action: action.kind().into(), at_ns: at });
    }

    /// Logs that a request's own fault has struck.
    fn strikes(&mut self, id: RequestId, at: Ns) {
        let Some(live) = self.live.get(&id) else { return };
        let (hit, fault) = ((live.lane, live.index), live.fault.clone());
        if let Some(action) = fault {
            self.note(Some(hit), &action, at);
        }
    }

    fn put(&mut self, at: Ns, id: RequestId, what: Out) {
        self.orders += 1;
        self.later.push(Reverse(Later { at, order: self.orders, id, what }));
    }

    /// Ends a request at `at` without another token.
    fn end(&mut self, at: Ns, id: RequestId, end: Finish) {
        if let Some(live) = self.live.get_mut(&id) {
            live.cut = true;
        }
        self.put(at, id, Out::End(end));
    }

    /// Tells that a request is over.
    fn close(&mut self, id: RequestId, at: Ns, end: Finish, sink: &mut dyn Sink) {
        let Some(live) = self.live.remove(&id) else { return };
        if end.outcome == Outcome::Success
            && let Some(action @ FaultAction::WrongUsage(usage)) = &live.fault
        {
            sink.usage(id, usage.completion_tokens);
            self.note(Some((live.lane, live.index)), action, at);
        }
        if let (Outcome::Refused, Some(shrunk)) = (end.outcome, &self.shrunk)
            && live.measured
            && live.tokens > shrunk.to
            && live.tokens <= shrunk.from
        {
            self.log.push(InjectedFault {
                index: Some(live.index),
                lane: live.lane,
                action: "kv_shrink".into(),
                at_ns: at,
            });
        }
        sink.finished(id, at, end);
    }
}

/// What comes out of the engine, on its way to whoever waits.
struct Gate<'a> {
    books: &'a mut Books,
    sink: &'a mut dyn Sink,
}

impl Gate<'_> {
    /// Hands tokens on, late if they are.
    fn pass(&mut self, id: RequestId, at: Ns, gap: Ns, count: u32, behind: Ns) {
        match (count, behind) {
            (0, _) => {}
            (_, 0) => self.sink.tokens(id, at, gap, count),
            _ => self.books.put(at.saturating_add(behind), id, Out::Tokens { gap, count }),
        }
    }
}

/// How an answer is cut, and what is said of it.
fn cut(action: &FaultAction) -> Option<(u32, Outcome, String)> {
    Some(match action {
        FaultAction::Disconnect(fault) => {
            let how = match fault.close {
                CloseBy::Fin => "disconnected",
                CloseBy::Rst => "connection reset",
            };
            let message = format!("injected fault: {how} after {} tokens", fault.after_tokens);
            (fault.after_tokens, Outcome::Disconnected, message)
        }
        FaultAction::Truncate(fault) => {
            let message = format!(
                "injected fault: the stream ended after {} tokens without saying so",
                fault.after_tokens
            );
            (fault.after_tokens, Outcome::Truncated, message)
        }
        FaultAction::Malformed(fault) => {
            let message = format!("injected fault: a malformed event after {} tokens", fault.after_tokens);
            (fault.after_tokens, Outcome::Malformed, message)
        }
        _ => return None,
    })
}

impl Sink for Gate<'_> {
    fn scheduled(&mut self, id: RequestId, at: Ns) {
        self.sink.scheduled(id, at);
    }

    fn tokens(&mut self, id: RequestId, at: Ns, gap: Ns, count: u32) {
        let Some(live) = self.books.live.get_mut(&id).filter(|live| !live.cut) else { return };
        let Some(action) = live.fault.clone() else { return self.sink.tokens(id, at, gap, count) };
        let (before, behind) = (live.emitted, live.behind);
        live.emitted += count;
        let time_of = |token: u32| at.saturating_add(gap.saturating_mul(Ns::from(token)));
        // The fault strikes before or at the n-th of these tokens.
        let strikes = |after: u32| after.checked_sub(before).filter(|n| *n < count);
        if let Some((after, outcome, message)) = cut(&action)
            && let Some(early) = strikes(after)
        {
            live.cut = true;
            let (struck, prompt) = (time_of(early), live.prompt_tokens);
            self.pass(id, at, gap, early, behind);
            self.books.strikes(id, struck);
            let end = finish(prompt, 0, outcome, message);
            self.books.cuts.push(Cut { id, at: struck.saturating_add(behind), end });
            return;
        }
        match &action {
            FaultAction::SlowTtft(fault) if before == 0 => {
                live.behind = fault.delay.0;
                self.books.strikes(id, at);
                self.pass(id, at, gap, count, fault.delay.0);
            }
            FaultAction::Stall(fault) if strikes(fault.after_tokens).is_some() => {
                let early = fault.after_tokens - before;
                live.behind = fault.pause.0;
                self.pass(id, at, gap, early, behind);
                self.books.strikes(id, time_of(early));
                self.pass(id, time_of(early), gap, count - early, fault.pause.0);
            }
            FaultAction::DuplicateToken(fault) if strikes(fault.token - 1).is_some() => {
                let early = fault.token - before;
                self.pass(id, at, gap, early, behind);
                self.books.strikes(id, time_of(early - 1));
                self.pass(id, time_of(early - 1), 0, 1, behind);
                self.pass(id, time_of(early), gap, count - early, behind);
            }
            _ => self.pass(id, at, gap, count, behind),
        }
    }

    fn finished(&mut self, id: RequestId, at: Ns, end: Finish) {
        let Some(live) = self.books.live.get(&id) else { return };
        if live.cut {
            if let Some(cut) = self.books.cuts.iter_mut().find(|cut| cut.id == id) {
                cut.end.preemptions = end.preemptions;
            }
        } else if live.behind > 0 {
            let late = at.saturating_add(live.behind);
            self.books.put(late, id, Out::End(end));
        } else {
            self.books.close(id, at, end, self.sink);
        }
    }
}

fn finish(prompt_tokens: u32, preemptions: u32, outcome: Outcome, message: String) -> Finish {
    Finish::new(prompt_tokens, preemptions, outcome, Some(message))
}

impl<E: Engine> Stepped for Faulty<E> {
    fn keep_responses(&mut self) {
        self.engine.keep_responses();
    }

    fn submit(&mut self, id: RequestId, recipe: &Recipe, now: Ns) {
        let prompt_tokens = recipe.prompt.tokens();
        let measured = recipe.phase == Phase::Measured;
        let plan = self.plans.get(recipe.lane as usize);
        let own = plan
            .and_then(|plan| plan.action(recipe.index, recipe.attempt, prompt_tokens))
            .filter(|_| measured);
        let live = Live {
            lane: recipe.lane,
            index: recipe.index,
            measured,
            prompt_tokens,
            tokens: u64::from(prompt_tokens) + u64::from(recipe.output_tokens),
            fault: own.cloned(),
            emitted: 0,
            behind: 0,
            cut: false,
        };
        self.books.live.insert(id, live);
        if self.is_let_in(id, now) {
            self.engine.submit(id, recipe, now);
        }
    }

    fn cancel(&mut self, id: RequestId, now: Ns) {
        self.books.live.remove(&id);
        self.engine.cancel(id, now);
    }

    fn next_event(&self) -> Option<Ns> {
        let late = self.books.later.peek().map(|Reverse(later)| later.at);
        let ahead = self.ahead.front().map(|(at, _)| *at);
        [self.engine.next_event(), late, ahead].into_iter().flatten().min()
    }

    fn advance(&mut self, to: Ns, sink: &mut dyn Sink) {
        while let Some(at) = self.next_event().filter(|at| *at <= to) {
            self.play(at, sink);
            self.tell_late(at, sink);
            while let Some((_, action)) = self.ahead.pop_front_if(|(due, _)| *due <= at) {
                self.happen(at, &action, sink);
            }
            // What begins at this instant begins when those are there who arrive at it.
            if at == to {
                return;
            }
        }
    }

    fn start_measuring(&mut self, now: Ns) {
        self.engine.start_measuring(now);
    }

    fn stats(&self, now: Ns) -> EngineStats {
        EngineStats { faults: self.books.log.clone(), ..self.engine.stats(now) }
    }

    fn standing(&self) -> Option<Standing> {
        self.engine.standing()
    }

    fn forget_prefixes(&mut self) -> bool {
        self.engine.forget_prefixes()
    }
}
