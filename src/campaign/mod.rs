//! The conductor: prepares scenarios, plays their cells in order, judges them and writes the results.

mod assemble;
mod baselines;
mod cell;
mod changes;
mod compare;
mod conduct;
mod evidence;
mod fit;
mod folder;
mod group;
mod imported;
mod judging;
mod output;
mod prepare;
mod recorder;
mod search;
mod servers;
mod shipped;
mod together;

pub use cell::{CellStart, Progress};
pub use changes::Changes;
pub use compare::{Comparing, Named, compare, halves};
pub use conduct::{CampaignError, Conducted, Settings, conduct};
pub use folder::{Earlier, Folder, FolderError, JOURNAL_FILE, RUN_FILE, is_inside, write_whole};
pub use imported::{ImportedRun, Importing, import_run};
pub use prepare::{Chosen, Prepared, Rejected, complete, folders, prepare, prepare_plan, read};
pub use shipped::{SHIPPED, Shipped};
