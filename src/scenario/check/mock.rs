//! Backends that simulate: keys that belong to a mode, sizes, faults.

use super::{Part, below};
use crate::backend::config::{Clock, Fault, FaultAction, Kv, MockBackend, Mode, TokenRange};
use crate::scenario::diagnostic::Diagnostic;

impl Part<'_> {
    /// Checks a mock backend.
    pub fn mock(&mut self, mock: &MockBackend) {
        match mock.mode {
            Mode::Fixed => self.fixed_mock(mock),
            Mode::Batched => self.batched_mock(mock),
            Mode::Replay => {
                self.out_of_mode(&["ttft", "tbt", "rate_cap"], "fixed");
                self.out_of_mode(&["preset", "cost", "engine", "speculative"], "batched");
                self.unknown_to_replay(&["kv", "weights"]);
            }
        }
        match (mock.clock, mock.speed) {
            (Clock::Scaled, None) => self.lacks("speed", "`clock: scaled`", "60"),
            (Clock::Scaled, Some(speed)) => self.above_zero("speed", Some(speed > 0.0)),
            (Clock::Virtual | Clock::Real, Some(_)) => {
                let diagnostic =
                    Diagnostic::error(self.at(&["speed"]).key_span(), "`speed` belongs to `clock: scaled`")
                        .help("take it out, or set `clock: scaled`");
                self.report(diagnostic);
            }
            (Clock::Virtual | Clock::Real, None) => {}
        }
        self.above_zero("rate_cap", mock.rate_cap.map(|rate| rate.0 > 0.0));
        if let Some(kv) = &mock.kv {
            self.at(&["kv"]).kv(kv);
        }
        for (index, fault) in mock.faults.iter().enumerate() {
            self.at(&["faults", &index.to_string()]).fault(fault, mock);
        }
    }

    fn fixed_mock(&mut self, mock: &MockBackend) {
        for (key, law) in [("ttft", &mock.ttft), ("tbt", &mock.tbt)] {
            match law {
                Some(law) => self.at(&[key]).time(law),
                None => self.lacks(key, "the mock's fixed mode", "10ms"),
            }
        }
        self.out_of_mode(&["preset", "cost", "engine", "speculative"], "batched");
    }

    fn batched_mock(&mut self, mock: &MockBackend) {
        self.out_of_mode(&["ttft", "tbt", "rate_cap"], "fixed");
        self.one_of("the mock's batched mode", &["preset", "cost"], "one of them says what a step costs");
        if mock.kv.is_none() {
            self.lacks("kv", "the mock's batched mode", "{ tokens: 65536 }");
        }
        if mock.cost.is_some_and(|cost| cost.base_ms + cost.weights_ms + cost.token_us <= 0.0) {
            self.at(&["cost"]).wrong("a step without a cost takes no time, so no load would ever end");
        }
        if let Some(speculative) = &mock.speculative {
            let given = speculative.accept.0.len();
            if given > 1 && given != speculative.tokens as usize {
                let message = format!("{given} probabilities for {} drafts", speculative.tokens);
                self.at(&["speculative", "accept"]).wrong(message);
            }
        }
    }

    fn lacks(&mut self, key: &str, owner: &str, example: &str) {
        let diagnostic = Diagnostic::error(self.key_span(), format!("{owner} needs `{key}`"))
            .help(format!("write `{key}: {example}`"));
        self.report(diagnostic);
    }

    /// Keys that describe an engine, of which a replay has none.
    fn unknown_to_replay(&mut self, keys: &[&str]) {
        for key in keys {
            if let Some(span) = below(self.node, key).1 {
                let message = format!("`mode: replay` has no `{key}`: it plays recorded times back");
                self.report(Diagnostic::error(span, message).help("take it out"));
            }
        }
    }

    /// Keys that only another mode reads.
    fn out_of_mode(&mut self, keys: &[&str], mode: &str) {
        for key in keys {
            if let Some(span) = below(self.node, key).1 {
                let diagnostic = Diagnostic::error(span, format!("`{key}` belongs to `mode: {mode}`"))
                    .help(format!("take it out, or set `mode: {mode}`"));
                self.report(diagnostic);
            }
        }
    }

    fn kv(&mut self, kv: &Kv) {
        self.one_of("the KV cache", &["tokens", "blocks", "bytes"], "one of them gives its size");
        if kv.bytes.is_some() && kv.bytes_per_token.is_none() {
            let diagnostic =
                Diagnostic::error(self.at(&["bytes"]).key_span(), "`bytes` needs `bytes_per_token`")
                    .note("bytes per token: 2 × layers × KV heads × head size × bytes per number");
            self.report(diagnostic);
        }
        let block = u64::from(kv.block_tokens);
        let short = match (kv.tokens, kv.bytes, kv.bytes_per_token) {
            (Some(tokens), _, _) => Some(("tokens", u64::from(tokens.0) < block)),
            (_, Some(bytes), Some(each)) => Some(("bytes", bytes.0 / each.max(1) < block)),
            _ => None,
        };
        if let Some((key, true)) = short {
            let message = format!("the KV cache holds not one block of {block} tokens");
            self.at(&[key]).wrong(message);
        }
    }

    fn fault(&mut self, fault: &Fault, mock: &MockBackend) {
        if fault.action.is_of_engine() && fault.matches.names_requests() {
            let message =
                format!("`{}` happens to the engine as a whole, not to requests", fault.action.kind());
            let diagnostic = Diagnostic::error(self.at(&["match"]).key_span(), message)
                .help("take the conditions out, or leave `workload` only");
            self.report(diagnostic);
        }
        if let Some(TokenRange { min: Some(min), max: Some(max) }) = fault.matches.prompt_tokens {
            self.at(&["match", "prompt_tokens"]).ordered(min, max);
        }
        if let FaultAction::KvShrink(shrink) = &fault.action {
            self.at(&["action"]).shrink(shrink.to.0, mock.kv.as_ref());
        }
    }

    /// A cache that shrinks has a size, and less of it is left: at least one block.
    fn shrink(&mut self, to: u32, kv: Option<&Kv>) {
        let Some(kv) = kv else {
            let diagnostic = Diagnostic::error(self.span(), "`kv_shrink` needs a cache that can shrink")
                .help("give the mock a `kv`");
            return self.report(diagnostic);
        };
        let block = kv.block_tokens;
        if to < block {
            self.at(&["to"]).wrong(format!("this leaves not one block of {block} tokens"));
        }
        let held = match (kv.tokens, kv.blocks, kv.bytes, kv.bytes_per_token) {
            (Some(tokens), ..) => u64::from(tokens.0),
            (_, Some(blocks), ..) => u64::from(blocks) * u64::from(block),
            (_, _, Some(bytes), Some(each)) => bytes.0 / each.max(1),
            _ => return,
        };
        if u64::from(to) >= held {
            self.at(&["to"]).wrong(format!("the cache holds {held} tokens: this is no less"));
        }
    }
}
