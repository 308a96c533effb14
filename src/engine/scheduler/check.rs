//! The rules that hold between any two calls.

use super::{Content, Scheduler, Sequence, State};

impl<C: Content> Scheduler<C> {
    /// Holds the scheduler against its rules: [`KvCache::check`](super::KvCache::check), who waits holds no blocks, who runs
    /// has slots exactly for what is computed of it or will be when the step in flight is done, and every request that was
    /// submitted is finished, rejected, cancelled or in flight.
    ///
    /// # Errors
    /// The first rule that does not hold.
    pub fn check(&mut self) -> Result<(), String> {
        self.catch_up();
        self.check_wheel()?;
        self.cache.check(self.sequences.iter().map(|sequence| &sequence.table))?;
        let mut states = [0; 2];
        for (slot, sequence) in (0..).zip(&self.sequences) {
            match sequence.state {
                State::Waiting | State::Gone if !sequence.table.blocks().is_empty() => {
                    return Err(format!("request {} holds blocks and does not run", sequence.id));
                }
                State::Waiting => states[0] += 1,
                State::Running => {
                    states[1] += 1;
                    self.check_running(slot, sequence)?;
                }
                State::Gone => continue,
            }
            if self.ids.get(&sequence.id) != Some(&slot) {
                return Err(format!("request {} is not found by its id", sequence.id));
            }
        }
        let listed = self.waiting.iter().filter(|(slot, serial)| {
            let sequence = &self.sequences[*slot as usize];
            sequence.serial == *serial && sequence.state == State::Waiting
        });
        let found = [listed.count(), self.running.len()];
        if found != states || self.ids.len() != states[0] + states[1] {
            return Err(format!("{states:?} requests wait and run, {found:?} are listed"));
        }
        let ledger = self.ledger;
        let accounted = ledger.rejected + ledger.finished + ledger.cancelled + self.ids.len() as u64;
        if accounted != ledger.submitted {
            return Err(format!(
                "{accounted} requests are accounted for, {} were submitted",
                ledger.submitted
            ));
        }
        if self.running.len() > self.limits.sequences as usize || self.step.tokens > self.limits.tokens {
            return Err(format!(
                "{} sequences or {} tokens are too many",
                self.running.len(),
                self.step.tokens
            ));
        }
        Ok(())
    }

    fn check_running(&self, slot: u32, sequence: &Sequence<C>) -> Result<(), String> {
        if !self.running.contains(&slot) {
            return Err(format!("request {} runs and is not listed", sequence.id));
        }
        let steps = if self.in_flight { self.step.sequences.as_slice() } else { &[] };
        let scheduled = steps.iter().find(|s| s.slot == slot && s.serial == sequence.serial);
        let riding = u32::from(self.in_flight && sequence.rides);
        let slots = sequence.computed + riding + scheduled.map_or(0, |scheduled| scheduled.tokens);
        if slots != sequence.table.tokens() || sequence.computed >= sequence.total() {
            return Err(format!(
                "request {} has {} slots and {} computed of {} tokens",
                sequence.id,
                sequence.table.tokens(),
                sequence.computed,
                sequence.total()
            ));
        }
        let size = self.cache.block_tokens();
        let most = (slots + self.limits.drafts).div_ceil(size) as usize;
        if sequence.table.blocks().len() > most {
            return Err(format!("request {} has {} blocks", sequence.id, sequence.table.blocks().len()));
        }
        Ok(())
    }
}
