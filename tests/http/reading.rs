//! Reading without a server: splits change nothing, and any bytes come to an end.

use proptest::prelude::*;
use sagebench::backend::openai::reading::{End, Expected, Outcomes, Reading};
use sagebench::record::Stream;

use crate::server::{content, delta, finish, usage};

fn read(pieces: &[&[u8]]) -> Outcomes {
    let expected = Expected { asked_tokens: 8, cancel_after: None, keep_text: true };
    let mut reading = Reading::new(expected);
    for piece in pieces {
        if !reading.feed(piece, 5) {
            return reading.end(End::Enough, 5, None);
        }
    }
    reading.end(End::Clean, 5, None)
}

fn pieces<'a>(bytes: &'a [u8], cuts: &[prop::sample::Index]) -> Vec<&'a [u8]> {
    let mut places: Vec<usize> = cuts.iter().map(|cut| cut.index(bytes.len() + 1)).collect();
    places.extend([0, bytes.len()]);
    places.sort_unstable();
    places.windows(2).map(|pair| &bytes[pair[0]..pair[1]]).collect()
}

fn events() -> impl Strategy<Value = Vec<String>> {
    let event = prop_oneof![
        "[a-zé日\"\\\\\n]{0,12}".prop_map(|text| format!("data: {}", content(&text))),
        Just(format!("data: {}", delta(r#"{"role":"assistant","content":""}"#))),
        Just(format!("data: {}", delta(r#"{"reasoning_content":"hm"}"#))),
        Just(format!("data: {}", finish())),
        (0..40_u32).prop_map(|tokens| format!("data: {}", usage(9, tokens))),
        Just("data: [DONE]".to_owned()),
        Just(": keep-alive".to_owned()),
        Just("event: message\nid: 3".to_owned()),
        Just(r#"data: {"error":{"message":"no"}}"#.to_owned()),
        Just("data: {oops".to_owned()),
    ];
    prop::collection::vec(event, 0..12)
}

#[test]
fn the_chunks_of_a_stream_are_kept_beside_its_tokens() {
    let mut reading = Reading::new(Expected { asked_tokens: 8, cancel_after: None, keep_text: false });
    let events = [
        delta(r#"{"role":"assistant","content":""}"#),
        content("a"),
        content("b"),
        finish(),
        usage(9, 2),
        "[DONE]".to_owned(),
    ];
    for (at, event) in (1..).zip(&events) {
        reading.feed(format!("data: {event}\n\n").as_bytes(), at);
    }
    let times = reading.end(End::Clean, 9, None).times;
    assert_eq!((times.first, times.last, times.events, times.tokens), (Some(2), 3, 2, 2));
    assert_eq!(times.stream, Some(Stream { chunks: 4, opened: 1, last: 4, closed: 5 }));
}

proptest! {
    #[test]
    fn splits_give_the_same_record(
        events in events(),
        crlf: bool,
        cuts in prop::collection::vec(any::<prop::sample::Index>(), 0..12),
    ) {
        let end = if crlf { "\r\n" } else { "\n" };
        let text: String = events.iter().map(|event| event.replace('\n', end) + end + end).collect::<Vec<_>>().concat();
        let whole = read(&[text.as_bytes()]);
        prop_assert_eq!(&read(&pieces(text.as_bytes(), &cuts)), &whole);
        prop_assert_eq!(&read(&text.as_bytes().chunks(1).collect::<Vec<_>>()), &whole);
        let gaps: u32 = whole.times.gaps.iter().map(|run| run.count).sum();
        prop_assert_eq!(gaps, whole.times.tokens - whole.times.first_event_tokens.min(whole.times.tokens));
    }

    #[test]
    fn any_bytes_come_to_an_end(bytes: Vec<u8>, cuts in prop::collection::vec(any::<prop::sample::Index>(), 0..6)) {
        read(&pieces(&bytes, &cuts));
        let framed = [b"data: ".as_slice(), &bytes, b"\n\ndata: [DONE]\n\n"].concat();
        read(&pieces(&framed, &cuts));
        let object = [b"{\"choices\":[".as_slice(), &bytes].concat();
        read(&[&object]);
    }

    #[test]
    fn damaged_streams_come_to_an_end(events in events(), at: prop::sample::Index, byte: u8) {
        let mut bytes = (events.join("\n\n") + "\n\n").into_bytes();
        let place = at.index(bytes.len());
        bytes[place] = byte;
        read(&[&bytes]);
    }
}

#[test]
fn deep_json_is_refused_and_not_followed() {
    let (open, close) = ("[".repeat(100_000), "]".repeat(100_000));
    let deep = format!("data: {{\"choices\":[{{\"delta\":{open}1{close}\n\n");
    let outcomes = read(&[deep.as_bytes()]);
    assert_eq!(outcomes.outcome, sagebench::record::Outcome::Malformed);
}
