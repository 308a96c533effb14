//! What the engine says of a request's times: what a client should have measured.

use std::fmt::Write as _;

use super::desk::Heard;
use crate::units::{Ns, ms};

/// A request's times, as modelled.
#[derive(Debug, Clone, Default)]
pub(super) struct Truth {
    submitted: Option<Ns>,
    scheduled: Option<Ns>,
    first: Option<Ns>,
    last: Option<Ns>,
    longest_gap: Ns,
    tokens: u32,
}

impl Truth {
    pub(super) fn hear(&mut self, heard: &Heard) {
        match heard {
            Heard::Accepted(at) => self.submitted = Some(*at),
            Heard::Scheduled(at) => self.scheduled = Some(*at),
            Heard::Tokens { at, gap, count } => {
                if let Some(last) = self.last {
                    self.longest_gap = self.longest_gap.max(at.saturating_sub(last));
                }
                let rest = count.saturating_sub(1);
                if rest > 0 {
                    self.longest_gap = self.longest_gap.max(*gap);
                }
                self.first.get_or_insert(*at);
                self.last = Some(at.saturating_add(gap.saturating_mul(Ns::from(rest))));
                self.tokens += count;
            }
            Heard::Ids(_) | Heard::Usage(_) | Heard::Finished { .. } => {}
        }
    }

    /// Output tokens so far.
    pub(super) fn tokens(&self) -> u32 {
        self.tokens
    }

    /// One line of JSON, in milliseconds since the request arrived: `queue_ms` (`null` where the engine does not tell it),
    /// `ttft_ms` and `e2e_ms` to the first and the last token, the longest gap between two tokens, tokens of prompt and
    /// answer, preemptions. `ended` is when the request ended; a request that ended at the instant of its arrival was
    /// submitted then.
    pub(super) fn json(&self, ended: Ns, prompt_tokens: u32, preemptions: u32) -> String {
        let start = self.submitted.unwrap_or(ended);
        let since = |at: Option<Ns>| {
            at.map_or_else(|| "null".to_owned(), |at| ms(at.saturating_sub(start)).to_string())
        };
        let mut out = String::with_capacity(160);
        let _ = write!(
            out,
            "{{\"queue_ms\":{},\"ttft_ms\":{},\"e2e_ms\":{},\"longest_gap_ms\":{},\"prompt_tokens\":{prompt_tokens},\"output_tokens\":{},\"preemptions\":{preemptions}}}",
            since(self.scheduled),
            since(self.first),
            since(self.last),
            ms(self.longest_gap),
            self.tokens
        );
        out
    }
}
