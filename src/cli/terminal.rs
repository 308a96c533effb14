//! Writing to people: a reader that has gone away is no error, and colour follows the terminal and `NO_COLOR`.

use std::io::{self, IsTerminal, Write};

/// Writes to standard output. A closed pipe counts as success: whoever reads has enough.
pub fn print(text: &str) -> io::Result<()> {
    forgive(io::stdout().lock().write_all(text.as_bytes()).and_then(|()| io::stdout().flush()))
}

/// Writes a line to standard error. That it can not be written is nobody's loss.
pub fn say(text: &str) {
    let _ = writeln!(io::stderr().lock(), "{text}");
}

fn forgive(result: io::Result<()>) -> io::Result<()> {
    match result {
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(()),
        other => other,
    }
}

/// Whether standard error is a terminal that wants colour.
pub fn error_colour() -> bool {
    wants_colour(io::stderr().is_terminal())
}

/// Whether standard output is a terminal that wants colour.
pub fn output_colour() -> bool {
    wants_colour(io::stdout().is_terminal())
}

fn wants_colour(terminal: bool) -> bool {
    let set = |name: &str| std::env::var_os(name).is_some_and(|value| !value.is_empty());
    if set("NO_COLOR") {
        return false;
    }
    set("CLICOLOR_FORCE") || (terminal && std::env::var_os("TERM").is_none_or(|term| term != "dumb"))
}
