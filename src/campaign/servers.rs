//! The servers of a run: each is found once, and talked to over the same connections in all of its cells.

use std::collections::BTreeMap;
use std::time::{SystemTime, UNIX_EPOCH};

use super::cell::Progress;
use super::conduct::{CampaignError, Settings};
use super::prepare::Prepared;
use crate::backend::openai::{Identity, OpenAi, Setup};
use crate::report::slug;
use crate::sample::key;

/// The servers among the chosen backends, by their position; those that were opened.
#[derive(Default)]
pub struct Servers {
    open: Vec<Option<OpenAi>>,
    /// Those that were left.
    left: BTreeMap<usize, Identity>,
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
            let log = settings.folder.dir().join(format!("server-{}.log", slug(&chosen.name)));
            let mut setup = Setup {
                dir: &prepared.dir(),
                log: settings.allow_exec.then_some(&log),
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

    /// Leaves a server that this program started: it is stopped.
    pub fn leave(&mut self, at: usize) {
        if let Some(slot) = self.open.get_mut(at)
            && let Some(server) = slot.take()
        {
            self.left.insert(at, server.identity().clone());
        }
    }

    /// What each chosen backend turned out to be; `None` for those that are no servers or were not reached.
    pub fn identities(&self, backends: usize) -> Vec<Option<Identity>> {
        let identity = |at: usize| {
            let open = self.open.get(at).and_then(Option::as_ref);
            open.map(|server| server.identity().clone()).or_else(|| self.left.get(&at).cloned())
        };
        (0..backends).map(identity).collect()
    }
}

/// Different in every run.
fn nonce() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_nanos() as u64);
    key(&[since, u64::from(std::process::id())])
}
