//! Drafts from the text itself: what followed the last tokens where they stood before.

use crate::backend::config::PromptLookup;

/// Appends at most `most` drafts for what comes behind `tokens`: what stands behind the last occurrence of the longest run
/// that ends them and was there before.
pub fn look_up(tokens: &[u32], settings: &PromptLookup, most: usize, drafts: &mut Vec<u32>) {
    for length in (settings.min_ngram..=settings.max_ngram).rev() {
        let length = length as usize;
        let Some(start) = tokens.len().checked_sub(length).filter(|start| *start > 0) else { continue };
        let (before, run) = (&tokens[..tokens.len() - 1], &tokens[start..]);
        if let Some(at) = before.windows(length).rposition(|window| window == run) {
            drafts.extend(tokens[at + length..].iter().take(most));
            return;
        }
    }
}

/// How many drafts a request tries: as many as were accepted lately, and one more.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Reach {
    now: u32,
    most: u32,
}

impl Reach {
    /// Begins with all of them.
    pub fn new(most: u32) -> Self {
        Self { now: most, most }
    }

    /// Drafts to try.
    pub fn drafts(self) -> u32 {
        self.now
    }

    /// Of so many drafts so many were accepted.
    pub fn learn(&mut self, drafts: u32, accepted: u32) {
        if drafts > 0 {
            self.now = (accepted + 1).min(self.most);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn drafts(tokens: &[u32], most: usize) -> Vec<u32> {
        let mut drafts = Vec::new();
        let settings = PromptLookup { tokens: 4, max_ngram: 3, min_ngram: 2 };
        look_up(tokens, &settings, most, &mut drafts);
        drafts
    }

    #[test]
    fn what_followed_the_last_time_is_proposed() {
        assert_eq!(drafts(&[1, 2, 3, 4, 5, 1, 2, 3], 2), [4, 5]);
        assert_eq!(drafts(&[1, 2, 3, 4, 5, 1, 2, 3], 9), [4, 5, 1, 2, 3]);
        assert_eq!(drafts(&[1, 2, 9, 1, 2, 8, 1, 2], 1), [8], "the last occurrence");
        assert_eq!(drafts(&[7, 1, 2, 9, 1, 2, 8, 7, 1, 2], 1), [9], "the longest run");
        assert_eq!(drafts(&[5, 5, 5], 3), [5], "a run may overlap itself");
        for none in [&[] as &[u32], &[1], &[1, 2], &[1, 2, 3], &[1, 9, 1]] {
            assert_eq!(drafts(none, 4), [] as [u32; 0], "{none:?}");
        }
    }

    #[test]
    fn the_reach_follows_what_was_accepted() {
        let mut reach = Reach::new(4);
        for (drafts, accepted, then) in [(4, 0, 1), (1, 1, 2), (2, 2, 3), (0, 0, 3), (3, 3, 4), (4, 4, 4)] {
            reach.learn(drafts, accepted);
            assert_eq!(reach.drafts(), then);
        }
    }
}
