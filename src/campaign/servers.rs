//! The servers of a run: each is found once, and talked to over the same connections in all of its cells.

use std::time::{SystemTime, UNIX_EPOCH};

use super::cell::Progress;
use super::conduct::{CampaignError, Settings};
use super::prepare::Prepared;
use crate::backend::openai::{Identity, OpenAi, Setup};
use crate::sample::key;

/// The servers among the chosen backends, by their position; those that were opened.
#[derive(Default)]
pub struct Servers {
    open: Vec<Option<OpenAi>>,
}

impl Servers {
    /// Opens the server of the chosen backend `at`, unless it is open or none.
    pub fn open(
        &mut self,
        at: usize,
        prepared: &Prepared,
        settings: &Settings<'_>,
        progress: &mut dyn Progress,
    ) -> Result<Option<&mut OpenAi>, CampaignError> {
        let chosen = &prepared.backends[at];
        let Some((config, flavor)) = chosen.config.server() else { return Ok(None) };
        if self.open.len() <= at {
            self.open.resize_with(at + 1, || None);
        }
        let slot = &mut self.open[at];
        if slot.is_none() {
            let mut setup = Setup {
                dir: &prepared.dir(),
                nonce: nonce(),
                say: &mut |what| progress.waiting(what),
                stopped: &|| settings.stop.requested().is_some(),
            };
            let opened = OpenAi::open(config, flavor, &mut setup)
                .map_err(|message| CampaignError::Backend { backend: chosen.name.clone(), message })?;
            *slot = Some(opened);
        }
        Ok(slot.as_mut())
    }

    /// What each chosen backend turned out to be; `None` for those that are no servers or were not reached.
    pub fn identities(&self, backends: usize) -> Vec<Option<Identity>> {
        let identity = |at: usize| self.open.get(at)?.as_ref().map(|server| server.identity().clone());
        (0..backends).map(identity).collect()
    }
}

/// Different in every run.
fn nonce() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_nanos() as u64);
    key(&[since, u64::from(std::process::id())])
}
