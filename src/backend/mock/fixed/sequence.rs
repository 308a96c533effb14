//! One request inside the mock, and the order in which requests were admitted.

use crate::backend::RequestId;
use crate::engine::BlockTable;
use crate::plan::Recipe;
use crate::sample::Draws;

/// Where a request stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum State {
    /// In the queue.
    Waiting,
    /// Holds blocks and has a token due.
    Running,
    /// Ends without a token, and holds nothing.
    Ending,
    /// Its place is vacant.
    Gone,
}

/// One request.
#[derive(Debug)]
pub(super) struct Sequence {
    pub(super) id: RequestId,
    pub(super) recipe: Recipe,
    pub(super) state: State,
    pub(super) table: BlockTable,
    /// Why it can never run.
    pub(super) refusal: Option<Box<str>>,
    /// Changes whenever what was scheduled for it no longer holds.
    pub(super) stamp: u64,
    /// Output tokens so far; they stay when it is preempted.
    pub(super) emitted: u32,
    /// Tokens whose keys and values are in its blocks.
    pub(super) computed: u32,
    pub(super) admissions: u32,
    pub(super) preemptions: u32,
    /// Its place in the order of admissions.
    pub(super) order: u64,
    gaps: Option<Box<Draws>>,
    before: Option<u32>,
    behind: Option<u32>,
}

impl Sequence {
    pub(super) fn new(id: RequestId, recipe: Recipe) -> Self {
        Self {
            id,
            recipe,
            state: State::Waiting,
            table: BlockTable::default(),
            refusal: None,
            stamp: 0,
            emitted: 0,
            computed: 0,
            admissions: 0,
            preemptions: 0,
            order: 0,
            gaps: None,
            before: None,
            behind: None,
        }
    }

    /// Tokens of prompt and answer so far.
    pub(super) fn total(&self) -> u32 {
        self.recipe.prompt.tokens() + self.emitted
    }

    /// Its draws of times between tokens: one stream per request, one draw per position.
    pub(super) fn gaps(&mut self) -> &mut Draws {
        let seed = self.recipe.seed;
        self.gaps.get_or_insert_with(|| Box::new(Draws::new(seed, "mock tbt", 0)))
    }

    /// Tells the table the content of the first `blocks` full blocks.
    pub(super) fn know_blocks(&mut self, blocks: u32, block_tokens: u32) {
        for index in self.table.known_blocks() as u64..u64::from(blocks) {
            self.table.push_content(self.recipe.block(index, block_tokens));
        }
    }
}

/// The running sequences in the order of admission: a list through their slots.
#[derive(Debug, Default)]
pub(super) struct Running {
    last: Option<u32>,
    admitted: u64,
    len: usize,
}

impl Running {
    pub(super) fn is_empty(&self) -> bool {
        self.last.is_none()
    }

    pub(super) fn len(&self) -> usize {
        self.len
    }

    /// The one that was admitted last.
    pub(super) fn last(&self) -> Option<u32> {
        self.last
    }

    pub(super) fn push(&mut self, sequences: &mut [Sequence], slot: u32) {
        let before = self.last.replace(slot);
        if let Some(before) = before {
            sequences[before as usize].behind = Some(slot);
        }
        let sequence = &mut sequences[slot as usize];
        (sequence.before, sequence.behind) = (before, None);
        sequence.order = self.admitted;
        self.admitted += 1;
        self.len += 1;
    }

    pub(super) fn remove(&mut self, sequences: &mut [Sequence], slot: u32) {
        self.len -= 1;
        let (before, behind) = (sequences[slot as usize].before, sequences[slot as usize].behind);
        if let Some(before) = before {
            sequences[before as usize].behind = behind;
        }
        match behind {
            Some(behind) => sequences[behind as usize].before = before,
            None => self.last = before,
        }
    }
}
