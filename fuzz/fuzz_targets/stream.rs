//! Any response body, split anywhere, is read to an end in bounded memory, and the same however it is split.
#![no_main]
#![allow(dead_code, reason = "of the package's modules only what reads responses is used")]

#[path = "../../src/record.rs"]
mod record;
#[path = "../../src/units.rs"]
mod units;

/// What reads responses.
#[path = "../../src/backend/openai"]
mod openai {
    pub mod chunk;
    pub mod reading;
    pub mod sse;
}

/// What counts tokens where nobody else does.
mod tokenizer {
    pub trait Tokenizer {
        fn count(&self, text: &str) -> u32;
    }
}

use libfuzzer_sys::fuzz_target;
use openai::reading::{End, Expected, Outcomes, Reading};

struct Bytes;

impl tokenizer::Tokenizer for Bytes {
    fn count(&self, text: &str) -> u32 {
        text.len() as u32
    }
}

fn read<'a>(pieces: impl Iterator<Item = &'a [u8]>, expected: Expected) -> Outcomes {
    let mut reading = Reading::new(expected);
    for piece in pieces {
        if !reading.feed(piece, 1) {
            return reading.end(End::Enough, 1, Some(&Bytes));
        }
    }
    reading.end(End::Clean, 1, Some(&Bytes))
}

fuzz_target!(|input: &[u8]| {
    let [size, cancel, body @ ..] = input else { return };
    let cancel_after = Some(u32::from(*cancel)).filter(|after| *after > 0);
    let expected = Expected { asked_tokens: 16, cancel_after, keep_text: true };
    let whole = read(std::iter::once(body), expected);
    let split = read(body.chunks(usize::from(*size).max(1)), expected);
    assert_eq!(whole, split);
});
