//! Progress on standard error: a bar on a terminal, plain lines elsewhere, nothing when quiet.

use std::io::IsTerminal;
use std::time::Duration;

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

use super::terminal;
use crate::campaign::{CellStart, Progress};

/// Shows one cell after another.
pub struct Shown {
    bar: Option<ProgressBar>,
    quiet: bool,
    done: u64,
    /// What was waited for last.
    waiting: String,
}

impl Shown {
    /// Progress that suits standard error.
    pub fn new(quiet: bool) -> Self {
        let bar = (!quiet && std::io::stderr().is_terminal())
            .then(|| ProgressBar::with_draw_target(None, ProgressDrawTarget::stderr_with_hz(10)));
        Self { bar, quiet, done: 0, waiting: String::new() }
    }
}

impl Progress for Shown {
    fn started(&mut self, cell: &CellStart<'_>) {
        self.done = 0;
        let Some(bar) = &self.bar else { return };
        let name = cell.to_string();
        if let Some(total) = cell.requests {
            bar.set_length(total);
            bar.set_style(style("{prefix} {wide_bar} {pos}/{len} {elapsed}"));
        } else {
            bar.set_style(style("{prefix} {spinner} {pos} requests {elapsed}"));
        }
        bar.set_prefix(name);
        bar.reset();
        bar.enable_steady_tick(Duration::from_millis(200));
    }

    fn waiting(&mut self, what: &str) {
        match &self.bar {
            Some(bar) => {
                bar.set_style(style("{spinner} {prefix} {elapsed}"));
                bar.set_prefix(what.to_owned());
                bar.tick();
            }
            // Said once, not every time it is tried.
            None if !self.quiet && self.waiting != what => terminal::say(what),
            None => {}
        }
        what.clone_into(&mut self.waiting);
    }

    fn recorded(&mut self) {
        self.done += 1;
        // A virtual run records faster than anyone can read.
        if let Some(bar) = self.bar.as_ref().filter(|_| self.done.is_multiple_of(64)) {
            bar.set_position(self.done);
        }
    }

    fn finished(&mut self, cell: &CellStart<'_>, seconds: f64) {
        if let Some(bar) = &self.bar {
            bar.set_position(self.done);
            bar.finish_and_clear();
        }
        if !self.quiet {
            let clock = if cell.is_virtual { " of virtual time" } else { "" };
            terminal::say(&format!("{cell}: {} requests in {seconds:.3} s{clock}", self.done));
        }
    }
}

fn style(template: &str) -> ProgressStyle {
    ProgressStyle::with_template(template).unwrap_or_else(|_| ProgressStyle::default_bar())
}
