//! One step of a continuous batch: what is computed, and what came out.

/// What one sequence does in a step.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Scheduled {
    /// The request.
    pub id: u64,
    /// The request's own seed.
    pub seed: u64,
    /// Tokens whose keys and values are in its blocks before the step.
    pub context: u32,
    /// Tokens that it computes in the step, drafts included: those behind `context`.
    pub tokens: u32,
    /// How many of them, the last ones, are drafts.
    pub drafts: u32,
    /// Output tokens that it had before the step.
    pub position: u32,
    /// Whether the step reaches the end of what is known of it, so that a token comes out.
    pub emits: bool,
    pub(super) slot: u32,
    pub(super) serial: u64,
}

impl Scheduled {
    /// Whether it goes on from its last token, rather than computing what came before.
    pub fn decodes(&self) -> bool {
        self.emits && self.context > 0 && self.tokens == self.drafts + 1
    }
}

/// A step: sequences in the order of their admission, and the totals that its duration depends on.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Step {
    /// What each sequence does that does not ride (see [`Scheduler::fold_steps`](super::Scheduler::fold_steps)).
    pub sequences: Vec<Scheduled>,
    /// Sequences that ride: each decodes one token.
    pub riding: u32,
    /// The requests among them that are in a step for the first time.
    pub admitted: Vec<u64>,
    /// Tokens in all, drafts included.
    pub tokens: u32,
    /// Sequences that decode.
    pub decoding: u32,
    /// Tokens that decoding sequences look back at: the sum of their `context`.
    pub kv_tokens: u64,
    /// Pairs of a token and one that it looks back at, over the sequences that do not decode: the sum of
    /// `tokens × (context + tokens / 2)`, each rounded down.
    pub prefill_pairs: u64,
    /// Cached blocks that were dropped for its slots.
    pub evictions: u32,
    /// Sequences that lost their blocks for it.
    pub preemptions: u32,
}

impl Step {
    /// Sequences in all. Never 0.
    pub fn batch(&self) -> u32 {
        self.sequences.len() as u32 + self.riding
    }

    /// `count` sequences decode one token each, behind `context` tokens together.
    pub(super) fn ride(&mut self, count: u32, context: u64) {
        self.riding += count;
        self.tokens += count;
        self.decoding += count;
        self.kv_tokens += context;
    }

    pub(super) fn clear(&mut self) {
        let mut sequences = std::mem::take(&mut self.sequences);
        let mut admitted = std::mem::take(&mut self.admitted);
        sequences.clear();
        admitted.clear();
        *self = Self { sequences, admitted, ..Self::default() };
    }

    pub(super) fn push(&mut self, scheduled: Scheduled) {
        self.tokens += scheduled.tokens;
        let (context, tokens) = (u64::from(scheduled.context), u64::from(scheduled.tokens));
        if scheduled.decodes() {
            self.decoding += 1;
            self.kv_tokens += context;
        } else {
            self.prefill_pairs += tokens * (2 * context + tokens) / 2;
        }
        self.sequences.push(scheduled);
    }
}

/// Output tokens of one sequence, out of one step.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Emission {
    /// The request.
    pub id: u64,
    /// How many, at least 1: accepted drafts and the token behind them.
    pub tokens: u32,
    /// Whether they are its first.
    pub first: bool,
    /// Whether they are its last. Its blocks are released.
    pub last: bool,
    /// Tokens of its prompt.
    pub prompt_tokens: u32,
    /// Times it was preempted so far.
    pub preemptions: u32,
    /// Whether it rode until then, so that the step itself brought this token.
    pub rode: bool,
}
