//! Server-sent events, taken apart where they lie.
//!
//! The grammar is that of the HTML standard, section 9.2: lines end in LF, CRLF or CR; an empty line ends an event; lines
//! that start with a colon are comments. Only `data` matters here. Bytes may be split anywhere.

use memchr::{memchr, memchr2};

/// The longest event that is kept while it is incomplete.
const LONGEST_EVENT: usize = 1 << 20;

/// An event is longer than a megabyte.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct TooLong;

/// Bytes that do not make a whole line yet, and the data of the event they belong to.
#[derive(Debug, Default)]
pub(super) struct Lines {
    /// The start of a line whose end has not come.
    line: Vec<u8>,
    /// Data lines of the event so far, joined by LF; used only when an event does not lie whole in one piece.
    data: Vec<u8>,
    has_data: bool,
    /// The last byte was a CR: an LF right behind it ends nothing.
    after_cr: bool,
}

impl Lines {
    /// Takes `bytes` and calls `event` with the data of each event that they complete, until it returns false.
    pub(super) fn feed(
        &mut self,
        mut bytes: &[u8],
        event: &mut impl FnMut(&[u8]) -> bool,
    ) -> Result<(), TooLong> {
        while !bytes.is_empty() {
            if std::mem::take(&mut self.after_cr) && bytes[0] == b'\n' {
                bytes = &bytes[1..];
                continue;
            }
            if self.line.is_empty() && !self.has_data {
                // The common case: one data line and an empty one, whole in this piece.
                if let Some((data, rest)) = whole_event(bytes) {
                    bytes = rest;
                    if !event(data) {
                        return Ok(());
                    }
                    continue;
                }
            }
            let Some(end) = memchr2(b'\n', b'\r', bytes) else {
                self.line.extend_from_slice(bytes);
                return self.within_limits();
            };
            self.after_cr = bytes[end] == b'\r';
            let (line, rest) = (&bytes[..end], &bytes[end + 1..]);
            bytes = rest;
            let go_on = if self.line.is_empty() {
                self.take_line(line, event)
            } else {
                let mut whole = std::mem::take(&mut self.line);
                whole.extend_from_slice(line);
                let go_on = self.take_line(&whole, event);
                whole.clear();
                self.line = whole;
                go_on
            };
            if !go_on {
                return Ok(());
            }
            self.within_limits()?;
        }
        Ok(())
    }

    /// The stream is over: an event that no empty line ended counts as well.
    pub(super) fn end(&mut self, event: &mut impl FnMut(&[u8]) -> bool) {
        let line = std::mem::take(&mut self.line);
        if !line.is_empty() && !self.take_line(&line, event) {
            return;
        }
        self.take_line(&[], event);
    }

    fn within_limits(&self) -> Result<(), TooLong> {
        if self.line.len() + self.data.len() > LONGEST_EVENT { Err(TooLong) } else { Ok(()) }
    }

    fn take_line(&mut self, line: &[u8], event: &mut impl FnMut(&[u8]) -> bool) -> bool {
        if line.is_empty() {
            if !std::mem::take(&mut self.has_data) {
                return true;
            }
            let go_on = event(&self.data);
            self.data.clear();
            return go_on;
        }
        if let Some(value) = data_of(line) {
            if self.has_data {
                self.data.push(b'\n');
            }
            self.data.extend_from_slice(value);
            self.has_data = true;
        }
        true
    }
}

/// The value of a `data` line.
fn data_of(line: &[u8]) -> Option<&[u8]> {
    let rest = line.strip_prefix(b"data")?;
    match rest {
        [] => Some(rest),
        [b':', b' ', value @ ..] | [b':', value @ ..] => Some(value),
        _ => None,
    }
}

/// The data of an event that lies whole at the start of `bytes`, on one line, and what follows it.
fn whole_event(bytes: &[u8]) -> Option<(&[u8], &[u8])> {
    let value = bytes.strip_prefix(b"data:")?;
    let end = memchr(b'\n', value)?;
    let (line, rest) = (&value[..end], &value[end + 1..]);
    let (line, rest) = match line.strip_suffix(b"\r") {
        Some(line) => (line, rest.strip_prefix(b"\r\n")?),
        None => (line, rest.strip_prefix(b"\n")?),
    };
    if memchr(b'\r', line).is_some() {
        return None;
    }
    Some((line.strip_prefix(b" ").unwrap_or(line), rest))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn events(pieces: &[&[u8]]) -> Vec<String> {
        let mut lines = Lines::default();
        let mut found = Vec::new();
        let mut keep = |data: &[u8]| {
            found.push(String::from_utf8_lossy(data).into_owned());
            true
        };
        for piece in pieces {
            lines.feed(piece, &mut keep).unwrap();
        }
        lines.end(&mut keep);
        found
    }

    #[test]
    fn lines_end_in_any_of_three_ways() {
        for end in ["\n", "\r\n", "\r"] {
            let text = format!(": hello{end}{end}event: x{end}data: a{end}{end}data:b{end}data: c{end}{end}");
            assert_eq!(events(&[text.as_bytes()]), ["a", "b\nc"], "{end:?}");
        }
    }

    #[test]
    fn other_fields_and_names_that_only_start_alike_are_passed_over() {
        assert_eq!(events(&[b"id: 1\nretry: 5\ndatabase: x\ndata\n\ndata:  two\n\n"]), ["", " two"]);
    }

    #[test]
    fn the_last_event_needs_no_empty_line() {
        assert_eq!(events(&[b"data: [DONE]"]), ["[DONE]"]);
        assert_eq!(events(&[b"data: [DONE]\n"]), ["[DONE]"]);
        assert_eq!(events(&[b"data: a\n\n", b"da"]), ["a"]);
    }

    #[test]
    fn an_event_without_an_end_is_cut_off() {
        let mut lines = Lines::default();
        let piece = vec![b'x'; 64 << 10];
        let taken = (0..100).find(|_| lines.feed(&piece, &mut |_| true).is_err()).unwrap();
        assert!(taken <= 17);
        let mut lines = Lines::default();
        let piece = b"data: xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx\n".repeat(2000);
        assert!((0..20).any(|_| lines.feed(&piece, &mut |_| true).is_err()));
    }

    proptest! {
        #[test]
        fn splits_change_nothing(
            parts in prop::collection::vec(prop::sample::select(vec![
                "data: x", "data:", "\n", "\n\n", "\r\n", "\r\n\r\n", "\r", ": c", "id: 7", "data: ü€", "event: e",
            ]), 0..24),
            cuts in prop::collection::vec(any::<prop::sample::Index>(), 0..8),
        ) {
            let whole: Vec<u8> = parts.concat().into_bytes();
            let mut places: Vec<usize> = cuts.iter().map(|cut| cut.index(whole.len() + 1)).collect();
            places.extend([0, whole.len()]);
            places.sort_unstable();
            let pieces: Vec<&[u8]> = places.windows(2).map(|pair| &whole[pair[0]..pair[1]]).collect();
            prop_assert_eq!(events(&pieces), events(&[&whole]));
            let single: Vec<&[u8]> = whole.chunks(1).collect();
            prop_assert_eq!(events(&single), events(&[&whole]));
        }
    }
}
