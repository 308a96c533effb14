//! Any response body, split anywhere, is read to an end in bounded memory, and the same however it is split.
#![no_main]

use libfuzzer_sys::fuzz_target;
use sagebench::backend::openai::reading::{End, Expected, Outcomes, Reading};

fn read<'a>(pieces: impl Iterator<Item = &'a [u8]>) -> Outcomes {
    let expected = Expected { asked_tokens: 16, cancel_after: None, keep_text: true };
    let mut reading = Reading::new(expected);
    for piece in pieces {
        if !reading.feed(piece, 1) {
            return reading.end(End::Enough, 1, None);
        }
    }
    reading.end(End::Clean, 1, None)
}

fuzz_target!(|input: &[u8]| {
    let Some((size, body)) = input.split_first() else { return };
    let whole = read(std::iter::once(body));
    let split = read(body.chunks(usize::from(*size).max(1)));
    assert_eq!(whole, split);
});
