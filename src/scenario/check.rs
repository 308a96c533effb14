//! What no schema can say: keys that need or exclude each other, and values that make no sense.

mod candle;
mod mock;

use super::diagnostic::{Diagnostic, quote};
use super::found::Found;
use super::node::Node;
use super::references::no_name;
use super::source::Span;
use super::types::Workload;
use crate::check::config::Check;
use crate::hook::config::Hooks;
use crate::plan::config::{
    FileFormat, FilePrompt, Load, MixPrompt, MixedPrompt, Output, Prompt, SessionsPrompt, StagesLoad,
    TooLong, TraceFormat, TracePrompt, Turns, Warmup,
};
use crate::sample::{Time, Tokens};

/// One part of the tree under check.
pub struct Part<'a> {
    /// The value, if it is there.
    pub node: Option<&'a Node>,
    /// Where its key stands.
    pub key: Option<Span>,
    /// Where findings go.
    pub found: &'a mut Found,
}

/// Whether the rows of a prompt file may say how long their answers are. Whether each does, the file tells.
fn gives_lengths(prompt: &Prompt) -> bool {
    let Prompt::File(file) = prompt else { return false };
    let own = file.format != FileFormat::Jsonl;
    own || file.fields.as_ref().is_some_and(|fields| fields.output_tokens.is_some())
}

/// One step down: the value and its key's place.
pub fn below<'a>(node: Option<&'a Node>, step: &str) -> (Option<&'a Node>, Option<Span>) {
    node.and_then(|node| node.step(step)).map_or((None, None), |(node, key)| (Some(node), key))
}

impl Part<'_> {
    pub(super) fn at(&mut self, path: &[&str]) -> Part<'_> {
        let (mut node, mut key) = (self.node, self.key);
        for step in path {
            (node, key) = below(node, step);
        }
        Part { node, key, found: self.found }
    }

    /// The value's place; of what is missing, the key's.
    fn span(&self) -> Option<Span> {
        self.node.map(|node| node.span).or(self.key)
    }

    pub(super) fn key_span(&self) -> Option<Span> {
        self.key.or_else(|| self.span())
    }

    pub(super) fn report(&mut self, diagnostic: Diagnostic) {
        if !self.found.knows(diagnostic.span) {
            self.found.push(diagnostic);
        }
    }

    pub(super) fn wrong(&mut self, message: impl Into<String>) {
        let diagnostic = Diagnostic::error(self.span(), message);
        self.report(diagnostic);
    }

    /// Reports a name that is not among those that are known.
    pub fn stranger(&mut self, what: &str, name: &str, names: &[&str]) {
        let diagnostic = Diagnostic::error(self.span(), format!("there is no {what} {}", quote(name)))
            .suggest(name, names.iter().copied())
            .note(format!("{what}s: {}", names.join(", ")));
        self.report(diagnostic);
    }

    /// Exactly one of these keys. Says so at the second one, or at the map when there is none.
    fn one_of(&mut self, owner: &str, keys: &[&str], why: &str) {
        let given: Vec<(&str, Option<Span>)> = keys
            .iter()
            .map(|key| (*key, below(self.node, key).1))
            .filter(|(_, span)| span.is_some())
            .collect();
        let list = keys.iter().map(|key| format!("`{key}`")).collect::<Vec<_>>().join(" or ");
        let diagnostic = match given.as_slice() {
            [_] => return,
            [] => Diagnostic::error(self.key_span(), format!("{owner} needs {list}")).note(why),
            [(first, first_at), (second, second_at), ..] => {
                Diagnostic::error(*second_at, format!("{owner} takes `{first}` or `{second}`, not both"))
                    .related(*first_at, "also given")
                    .note(why)
            }
        };
        self.report(diagnostic);
    }

    pub(super) fn above_zero(&mut self, key: &str, value: Option<bool>) {
        if value == Some(false) {
            self.at(&[key]).wrong(format!("`{key}` must be more than 0"));
        }
    }

    fn ordered<T: PartialOrd + Copy>(&mut self, min: T, max: T) {
        if min > max {
            let first = below(self.node, "min").1;
            let diagnostic = Diagnostic::error(self.at(&["max"]).span(), "`max` is less than `min`")
                .related(first, "`min` is here");
            self.report(diagnostic);
        }
    }

    fn tokens(&mut self, tokens: &Tokens) {
        match tokens {
            Tokens::Uniform(law) => self.ordered(law.min, law.max),
            Tokens::Zipf(law) => self.ordered(law.min, law.max),
            Tokens::Normal(law) => self.bounded(law.min, law.max),
            Tokens::Lognormal(law) => self.bounded(law.min, law.max),
            Tokens::Fixed(_) | Tokens::Empirical(_) => {}
        }
    }

    fn time(&mut self, time: &Time) {
        match time {
            Time::Uniform(law) => self.ordered(law.min, law.max),
            Time::Normal(law) => self.bounded(law.min, law.max),
            Time::Lognormal(law) => {
                self.above_zero("mean", Some(law.mean.0 > 0));
                self.bounded(law.min, law.max);
            }
            Time::Fixed(_) | Time::Empirical(_) => {}
        }
    }

    fn bounded<T: PartialOrd + Copy>(&mut self, min: Option<T>, max: Option<T>) {
        if let (Some(min), Some(max)) = (min, max) {
            self.ordered(min, max);
        }
    }

    /// Checks an expanded workload. `follows` says that another one ends it.
    pub fn workload(&mut self, workload: &Workload, follows: bool) {
        self.prompt(workload);
        self.load(&workload.load, matches!(workload.prompt, Prompt::Trace(_)), follows);
        if let Some(Warmup { duration, .. }) = &workload.warmup {
            let mut warmup = self.at(&["warmup"]);
            warmup.one_of(
                "a warm-up",
                &["requests", "duration"],
                "it ends after so many requests or after so long",
            );
            warmup.above_zero("duration", duration.map(|duration| duration.0 > 0));
        }
        self.hooks(workload.hooks.as_ref());
        self.expect(workload);
        self.above_zero("timeout", Some(workload.timeout.0 > 0));
        self.above_zero("total_timeout", workload.total_timeout.map(|timeout| timeout.0 > 0));
    }

    /// Checks the `hooks` of the scenario or of a workload.
    pub fn hooks(&mut self, hooks: Option<&Hooks>) {
        if hooks.is_some() {
            self.at(&["hooks"]).one_of(
                "`hooks`",
                &["file", "inline"],
                "the functions stand in a file or in place",
            );
        }
    }

    /// Checks what is expected of responses.
    fn expect(&mut self, workload: &Workload) {
        let names: Vec<&str> = workload.expect.iter().map(Check::name).collect();
        for (index, check) in workload.expect.iter().enumerate() {
            let at = index.to_string();
            if let Some(first) = names[..index].iter().position(|name| *name == names[index]) {
                let earlier = self.at(&["expect", &first.to_string()]).span();
                let diagnostic = Diagnostic::error(
                    self.at(&["expect", &at]).span(),
                    format!("two checks are named `{}`", names[index]),
                )
                .related(earlier, "the first one")
                .help("give it a `name` of its own");
                self.report(diagnostic);
            }
            let name_at = self.at(&["expect", &at, "name"]).span();
            if let Some(diagnostic) = no_name(names[index], name_at) {
                self.report(diagnostic);
            }
            if let Check::JsonSchema(_) = check {
                let why = "the schema stands in place or in a file";
                self.at(&["expect", &at]).one_of("`kind: json_schema`", &["schema", "path"], why);
            }
            let forced = workload.output.as_ref().is_some_and(|output| output.tokens.is_some());
            if forced && check.needs_an_end() {
                let forced_at = self.at(&["output", "tokens"]).key_span();
                let diagnostic = Diagnostic::error(
                    self.at(&["expect", &at]).span(),
                    format!("`kind: {}` with a forced length", check.kind()),
                )
                .related(forced_at, "forces the length")
                .note("a forced answer goes on behind the end of its JSON, or is cut off before it")
                .help("limit the length instead: `output: { max_tokens: .. }`");
                self.report(diagnostic);
            }
        }
    }

    fn prompt(&mut self, workload: &Workload) {
        match &workload.prompt {
            Prompt::Synthetic(prompt) => {
                self.at(&["prompt", "tokens"]).tokens(&prompt.tokens);
                let longest = match &prompt.tokens {
                    Tokens::Fixed(law) => Some(law.value),
                    Tokens::Uniform(law) => Some(law.max),
                    Tokens::Zipf(law) => Some(law.max),
                    Tokens::Normal(law) => law.max,
                    Tokens::Lognormal(law) => law.max,
                    Tokens::Empirical(_) => None,
                };
                if let (Some(prefix), Some(longest)) = (&prompt.prefix, longest)
                    && prefix.tokens > longest
                {
                    let message = format!("the prefix is longer than every prompt ({} tokens)", longest.0);
                    self.at(&["prompt", "prefix", "tokens"]).wrong(message);
                }
            }
            Prompt::Trace(trace) => {
                self.at(&["prompt"]).trace(trace);
                if workload.output.is_some() {
                    let diagnostic = Diagnostic::error(
                        self.at(&["output"]).key_span(),
                        "a trace supplies its own output lengths",
                    )
                    .help("remove `output`");
                    self.report(diagnostic);
                }
                return;
            }
            Prompt::Corpus(prompt) => self.at(&["prompt", "tokens"]).tokens(&prompt.tokens),
            Prompt::Sessions(prompt) => self.at(&["prompt"]).sessions(prompt),
            Prompt::Mix(prompt) => self.mix(prompt, workload.output.is_some()),
            Prompt::File(prompt) => self.at(&["prompt"]).file(prompt),
            Prompt::Text(_) | Prompt::Script(_) => {}
        }
        if workload.output.is_some() || !matches!(workload.prompt, Prompt::Mix(_)) {
            self.output(workload.output.as_ref(), &workload.prompt);
        }
    }

    fn output(&mut self, output: Option<&Output>, prompt: &Prompt) {
        match output {
            None if gives_lengths(prompt) => {}
            None => {
                let diagnostic = Diagnostic::error(self.key_span(), "the workload does not say how long answers are")
                    .help("write `output: { tokens: 128 }` to force a length, or `output: { max_tokens: 128 }` to limit it");
                self.report(diagnostic);
            }
            Some(output) => {
                let why = "`tokens` forces a length, `max_tokens` limits it";
                self.at(&["output"]).one_of("`output`", &["tokens", "max_tokens"], why);
                for (key, tokens) in [("tokens", &output.tokens), ("max_tokens", &output.max_tokens)] {
                    if let Some(tokens) = tokens {
                        self.at(&["output", key]).tokens(tokens);
                    }
                }
            }
        }
    }

    fn sessions(&mut self, prompt: &SessionsPrompt) {
        self.at(&["user", "tokens"]).tokens(&prompt.user.tokens);
        if let Some(think) = &prompt.think_time {
            self.at(&["think_time"]).time(think);
        }
        if let Turns::Uniform(law) = &prompt.turns {
            self.at(&["turns"]).ordered(law.min, law.max);
        }
    }

    fn file(&mut self, prompt: &FilePrompt) {
        if prompt.fields.is_some() && prompt.format != FileFormat::Jsonl {
            let diagnostic =
                Diagnostic::error(self.at(&["fields"]).key_span(), "`fields` is for `format: jsonl` only")
                    .note("the other formats have fixed names");
            self.report(diagnostic);
        }
        let Some(sessions) = &prompt.sessions else { return };
        if let Some(think) = &sessions.think_time {
            self.at(&["sessions", "think_time"]).time(think);
        }
        if matches!(prompt.format, FileFormat::Jsonl | FileFormat::Vllm) {
            let span = self.at(&["sessions"]).key_span();
            let diagnostic =
                Diagnostic::error(span, "the rows of this format are single prompts, not sessions")
                    .help("remove `sessions`, or use `format: openai` or `format: sharegpt`");
            self.report(diagnostic);
        }
    }

    fn mix(&mut self, prompt: &MixPrompt, has_output: bool) {
        for (index, part) in prompt.parts.iter().enumerate() {
            let index = index.to_string();
            let mut own = self.at(&["prompt", "parts", &index]);
            match &part.prompt {
                MixedPrompt::Synthetic(prompt) => own.at(&["prompt", "tokens"]).tokens(&prompt.tokens),
                MixedPrompt::Corpus(prompt) => own.at(&["prompt", "tokens"]).tokens(&prompt.tokens),
                MixedPrompt::File(prompt) => own.at(&["prompt"]).file(prompt),
                MixedPrompt::Text(_) => {}
            }
            if part.output.is_some() || !has_output {
                own.output(part.output.as_ref(), &part.prompt.whole());
            }
        }
    }

    fn trace(&mut self, trace: &TracePrompt) {
        if trace.fields.is_some() && trace.format != TraceFormat::Jsonl {
            let diagnostic =
                Diagnostic::error(self.at(&["fields"]).key_span(), "`fields` is for `format: jsonl` only")
                    .note("the other formats have fixed names");
            self.report(diagnostic);
        }
        if trace.block_tokens.is_some() && matches!(trace.format, TraceFormat::Azure | TraceFormat::Burstgpt)
        {
            let diagnostic =
                Diagnostic::error(self.at(&["block_tokens"]).key_span(), "this trace format has no blocks")
                    .help("remove `block_tokens`");
            self.report(diagnostic);
        }
        if let Some([from, to]) = trace.window
            && from >= to
        {
            self.at(&["window"]).wrong("the window ends before it starts");
        }
        if trace.too_long != TooLong::Reject && trace.max_tokens.is_none() {
            let diagnostic =
                Diagnostic::error(self.at(&["too_long"]).key_span(), "`too_long` needs `max_tokens`")
                    .note("without `max_tokens` every row fits");
            self.report(diagnostic);
        }
    }

    fn load(&mut self, load: &Load, trace: bool, follows: bool) {
        let mut part = self.at(&["load"]);
        let end = match load {
            Load::Closed(load) => {
                if let Some(think) = &load.think_time {
                    part.at(&["think_time"]).time(think);
                }
                part.above_zero("duration", load.duration.map(|duration| duration.0 > 0));
                load.requests.is_some() || load.sessions.is_some() || load.duration.is_some()
            }
            Load::Open(load) => {
                part.above_zero("rate", Some(load.rate.0 > 0.0));
                part.above_zero("duration", load.duration.map(|duration| duration.0 > 0));
                load.requests.is_some() || load.sessions.is_some() || load.duration.is_some()
            }
            Load::Stages(load) => {
                part.stages(load);
                true
            }
            Load::Search(load) => {
                if let Some(think) = &load.think_time {
                    part.at(&["think_time"]).time(think);
                }
                true
            }
            Load::Replay(load) => {
                part.above_zero("duration", load.duration.map(|duration| duration.0 > 0));
                if !trace {
                    let diagnostic =
                        Diagnostic::error(part.at(&["kind"]).span(), "`kind: replay` needs a trace")
                            .help("it replays the arrivals of `prompt: { kind: trace, .. }`");
                    part.report(diagnostic);
                }
                true
            }
        };
        if !end && !follows {
            let diagnostic = Diagnostic::error(part.key_span(), "the load never ends")
                .help("add `requests`, `duration`, or both: whichever comes first ends it");
            part.report(diagnostic);
        }
    }

    fn stages(&mut self, load: &StagesLoad) {
        let by_rate = load.stages.first().is_some_and(|stage| stage.rate.is_some());
        let (own, other) = if by_rate { ("rate", "concurrency") } else { ("concurrency", "rate") };
        for (index, stage) in load.stages.iter().enumerate() {
            let index = index.to_string();
            let mut part = self.at(&["stages", &index]);
            part.above_zero("duration", Some(stage.duration.0 > 0));
            if stage.rate.is_some() == stage.concurrency.is_some() {
                part.one_of("a stage", &["rate", "concurrency"], "a stage sets one of them");
            } else if stage.rate.is_some() != by_rate {
                let diagnostic = Diagnostic::error(
                    part.at(&[other]).key_span(),
                    format!("the first stage sets `{own}`, this one `{other}`"),
                )
                .note("all stages set a rate, or all set a concurrency");
                part.report(diagnostic);
            }
        }
        let idle = load.stages.iter().all(|stage| {
            stage.rate.is_none_or(|rate| rate.0 <= 0.0) && stage.concurrency.is_none_or(|users| users == 0)
        });
        if idle && load.stages.iter().all(|stage| stage.rate.is_some() != stage.concurrency.is_some()) {
            let diagnostic = Diagnostic::error(self.at(&["stages"]).key_span(), "no stage sends a request")
                .help("give one of them a rate or concurrency above 0");
            self.report(diagnostic);
        }
        if !by_rate {
            for (key, given) in
                [("arrival", load.arrival.is_some()), ("max_in_flight", load.max_in_flight.is_some())]
            {
                if given {
                    let diagnostic = Diagnostic::error(
                        self.at(&[key]).key_span(),
                        format!("`{key}` is for stages that set a rate"),
                    )
                    .help(format!("remove `{key}`"));
                    self.report(diagnostic);
                }
            }
        }
    }
}
