//! The results folder: what is in it already, and files that appear whole or not at all.

use std::fs;
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use serde_json::Value;

/// The file that holds the whole run.
pub const RUN_FILE: &str = "run.json";
/// The record of a real-time run while it lasts; it stays when the run is cut short.
pub const JOURNAL_FILE: &str = "journal.bin";
/// Where earlier runs go.
const HISTORY: &str = "history";

/// Why the folder can not be used.
#[derive(Debug, thiserror::Error)]
pub enum FolderError {
    /// An operation on a path failed.
    #[error("cannot {action} {}: {source}", path.display())]
    Io {
        /// What was tried.
        action: &'static str,
        /// On which path.
        path: PathBuf,
        /// Why it failed.
        source: io::Error,
    },
    /// There is an incomplete run and nobody said what to do with it.
    #[error("{} holds an incomplete run; --resume finishes it, --force moves it to {}", .0.display(), .0.join(HISTORY).display())]
    Incomplete(PathBuf),
    /// `--resume` without anything to resume.
    #[error("{} holds no incomplete run to resume", .0.display())]
    NothingToResume(PathBuf),
}

fn io_error(action: &'static str, path: &Path) -> impl FnOnce(io::Error) -> FolderError {
    let path = path.to_owned();
    move |source| FolderError::Io { action, path, source }
}

/// What an earlier run left.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Earlier {
    /// Nothing.
    Nothing,
    /// A finished run.
    Complete,
    /// A run that was interrupted or killed.
    Incomplete,
}

/// A results folder that exists and can be written to.
#[derive(Debug, Clone)]
pub struct Folder {
    dir: PathBuf,
}

impl Folder {
    /// Makes the folder if need be and tries that a file can be written, before anything is measured.
    pub fn open(dir: &Path) -> Result<Self, FolderError> {
        fs::create_dir_all(dir).map_err(io_error("make the results folder", dir))?;
        let probe = dir.join(".sagebench.probe");
        fs::write(&probe, b"x").map_err(io_error("write into the results folder", dir))?;
        fs::remove_file(&probe).map_err(io_error("remove", &probe))?;
        Ok(Self { dir: dir.to_owned() })
    }

    /// The folder's path.
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// Where the journal of a real-time run stands.
    pub fn journal(&self) -> PathBuf {
        self.dir.join(JOURNAL_FILE)
    }

    fn run_file(&self) -> Option<Value> {
        serde_json::from_slice(&fs::read(self.dir.join(RUN_FILE)).ok()?).ok()
    }

    /// What an earlier run left here.
    pub fn earlier(&self) -> Earlier {
        let is = |run: &Value, key: &str| run[key] == Value::Bool(true);
        let complete = self.run_file().map(|run| is(&run, "complete") || is(&run, "stopped_early"));
        match complete {
            Some(true) if !self.journal().exists() => Earlier::Complete,
            None if !self.journal().exists() => Earlier::Nothing,
            _ => Earlier::Incomplete,
        }
    }

    /// Makes room: a complete earlier run moves to the history; an incomplete one does so only with `force`.
    pub fn make_room(&self, force: bool) -> Result<(), FolderError> {
        match self.earlier() {
            Earlier::Nothing => Ok(()),
            Earlier::Incomplete if !force => Err(FolderError::Incomplete(self.dir.clone())),
            _ => self.archive(),
        }
    }

    /// Moves the files of the earlier run, and no others, to `history/<start>/`.
    fn archive(&self) -> Result<(), FolderError> {
        let run = self.run_file();
        let listed = run.as_ref().and_then(|run| run["files"].as_array().cloned()).unwrap_or_default();
        let mut names: Vec<PathBuf> = listed.iter().filter_map(Value::as_str).map(PathBuf::from).collect();
        names.extend([RUN_FILE.into(), JOURNAL_FILE.into()]);
        let start =
            run.as_ref().and_then(|run| run["environment"]["started_at"].as_str()).unwrap_or("killed");
        let slug: String =
            start.chars().map(|c| if c.is_ascii_alphanumeric() || c == '-' { c } else { '-' }).collect();
        let history = self.dir.join(HISTORY);
        let target = (1..u32::MAX)
            .map(|n| history.join(if n == 1 { slug.clone() } else { format!("{slug}-{n}") }))
            .find(|path| !path.exists())
            .unwrap_or(history);
        for name in names.iter().filter(|name| is_inside(name)) {
            let from = self.dir.join(name);
            if !from.is_file() {
                continue;
            }
            let to = target.join(name);
            let parent = to.parent().unwrap_or(&target);
            fs::create_dir_all(parent).map_err(io_error("make", parent))?;
            fs::rename(&from, &to).map_err(io_error("move to the history", &from))?;
        }
        Ok(())
    }

    /// Writes a file under a temporary name and renames it, so that it is whole or not there.
    pub fn write(&self, name: &Path, bytes: &[u8]) -> Result<(), FolderError> {
        write_whole(&self.dir.join(name), bytes)
    }

    /// Removes the journal of a run that is complete.
    pub fn drop_journal(&self) -> Result<(), FolderError> {
        let path = self.journal();
        match fs::remove_file(&path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(io_error("remove", &path)(error)),
            _ => Ok(()),
        }
    }
}

/// Whether a relative path stays inside its folder.
pub fn is_inside(path: &Path) -> bool {
    path.components().all(|part| matches!(part, std::path::Component::Normal(_)))
        && path.file_name().is_some()
}

/// Writes a file under a temporary name beside it and renames it. Missing folders are made.
pub fn write_whole(path: &Path, bytes: &[u8]) -> Result<(), FolderError> {
    if let Some(parent) = path.parent().filter(|parent| !parent.as_os_str().is_empty()) {
        fs::create_dir_all(parent).map_err(io_error("make", parent))?;
    }
    let mut name = std::ffi::OsString::from(".");
    name.push(path.file_name().unwrap_or_default());
    name.push(".tmp");
    let temporary = path.with_file_name(name);
    let written = fs::File::create(&temporary).and_then(|mut file| file.write_all(bytes));
    if let Err(error) = written {
        // What could not be written whole is of no use to anyone.
        let _ = fs::remove_file(&temporary);
        return Err(io_error("write", path)(error));
    }
    fs::rename(&temporary, path).map_err(io_error("write", path))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn folder_with(run: &str) -> (tempfile::TempDir, Folder) {
        let dir = tempfile::tempdir().unwrap();
        let folder = Folder::open(dir.path()).unwrap();
        if !run.is_empty() {
            folder.write(Path::new(RUN_FILE), run.as_bytes()).unwrap();
        }
        (dir, folder)
    }

    #[test]
    fn a_complete_run_moves_to_the_history_and_foreign_files_stay() {
        let (dir, folder) = folder_with(
            r#"{"complete": true, "files": ["REPORT.md", "mock/x.json", "../escape", "gone.txt"], "environment": {"started_at": "2026-01-02T03:04:05Z"}}"#,
        );
        for name in ["REPORT.md", "mock/x.json", "mine.txt"] {
            folder.write(Path::new(name), b"1").unwrap();
        }
        assert_eq!(folder.earlier(), Earlier::Complete);
        folder.make_room(false).unwrap();
        assert_eq!(folder.earlier(), Earlier::Nothing);
        let old = dir.path().join("history/2026-01-02T03-04-05Z");
        for name in ["REPORT.md", "mock/x.json", "run.json"] {
            assert!(old.join(name).is_file(), "{name}");
        }
        assert!(dir.path().join("mine.txt").is_file());
    }

    #[test]
    fn an_incomplete_run_is_not_thrown_away() {
        let (_dir, folder) = folder_with(r#"{"complete": false}"#);
        assert_eq!(folder.earlier(), Earlier::Incomplete);
        assert!(matches!(folder.make_room(false), Err(FolderError::Incomplete(_))));
        folder.make_room(true).unwrap();
        assert_eq!(folder.earlier(), Earlier::Nothing);
    }

    #[test]
    fn a_journal_alone_is_an_incomplete_run() {
        let (dir, folder) = folder_with("");
        assert_eq!(folder.earlier(), Earlier::Nothing);
        fs::write(folder.journal(), b"x").unwrap();
        assert_eq!(folder.earlier(), Earlier::Incomplete);
        folder.make_room(true).unwrap();
        assert!(dir.path().join("history/killed").join(JOURNAL_FILE).is_file());
        fs::write(folder.journal(), b"x").unwrap();
        folder.make_room(true).unwrap();
        assert!(dir.path().join("history/killed-2").join(JOURNAL_FILE).is_file());
    }

    #[test]
    fn a_failed_write_leaves_nothing() {
        let (dir, folder) = folder_with("");
        fs::create_dir(dir.path().join("a")).unwrap();
        fs::write(dir.path().join("a/x"), b"").unwrap();
        assert!(folder.write(Path::new("a"), b"new").is_err());
        assert!(folder.write(Path::new("a/x/y"), b"new").is_err());
        assert!(dir.path().join("a/x").is_file());
    }
}
