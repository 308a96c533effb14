//! What servers do to streams, and the one right answer to each.

use sagebench::record::{GapRun, Outcome, Record, TokenSource};
use serde_json::Value;

use crate::play::{one, play, scenario};
use crate::server::*;

/// Answers every completion with these steps.
fn answering(steps: Vec<Step>) -> Server {
    Server::start(move |asked| match asked.path.as_str() {
        "/v1/models" => models(),
        "/v1/chat/completions" => steps.clone(),
        _ => Vec::new(),
    })
}

fn record_of(steps: Vec<Step>) -> (Record, Vec<GapRun>) {
    let server = answering(steps);
    one(&scenario(&server.url(), 1, 64))
}

fn gap_count(gaps: &[GapRun]) -> u32 {
    gaps.iter().map(|run| run.count).sum()
}

fn assert_success(record: &Record, tokens: u32, source: TokenSource) {
    assert_eq!((record.outcome, record.message.as_deref()), (Outcome::Success, None));
    assert_eq!((record.output_tokens, record.token_source), (tokens, source));
}

/// A message that says one of these words.
fn assert_failed(record: &Record, outcome: Outcome, words: &str) {
    let message = record.message.as_deref().unwrap_or_default();
    assert!(record.outcome == outcome && message.contains(words), "{:?}: {message}", record.outcome);
}

#[test]
fn a_role_only_first_chunk_is_no_token() {
    let mut steps =
        vec![head(), piece(format!("data: {}\n\n", delta(r#"{"role":"assistant","content":""}"#)))];
    steps.push(wait(60));
    for word in ["a", "b", "c"] {
        steps.push(piece(format!("data: {}\n\n", content(word))));
        steps.push(wait(5));
    }
    steps.extend([piece(format!("data: {}\n\ndata: {}\n\ndata: [DONE]\n\n", finish(), usage(9, 3))), end()]);
    let (record, gaps) = record_of(steps);
    assert_success(&record, 3, TokenSource::Usage);
    assert!(record.first.unwrap() - record.sent.unwrap() >= 60_000_000, "TTFT is that of the first content");
    assert_eq!((gap_count(&gaps), record.first_event_tokens, record.prompt_tokens), (2, 1, 9));
}

#[test]
fn comments_are_ignored() {
    let text = format!(
        ": keep-alive\n\ndata: {}\n\n: keep-alive\ndata: {}\n\n: x\n\ndata: {}\n\ndata: [DONE]\n\n",
        content("a"),
        content("b"),
        finish()
    );
    let (record, _) = record_of(vec![head(), piece(text), end()]);
    assert_success(&record, 2, TokenSource::Events);
}

#[test]
fn line_ends_and_splits_change_nothing() {
    let events = [content("naïve"), content("日本"), content("x"), finish(), usage(4, 3), "[DONE]".into()];
    for end_of_line in ["\n", "\r\n", "\r"] {
        let event = |event: &String| format!("data: {event}{end_of_line}{end_of_line}");
        let text = events.iter().map(event).collect::<Vec<_>>().concat();
        for size in [1, 7, text.len()] {
            let mut steps = vec![head()];
            steps.extend(text.as_bytes().chunks(size).map(piece));
            steps.push(end());
            let (record, gaps) = record_of(steps);
            assert_success(&record, 3, TokenSource::Usage);
            assert_eq!(gap_count(&gaps), 2, "{end_of_line:?}, pieces of {size}");
        }
    }
}

#[test]
fn several_tokens_in_one_event_are_counted_by_usage() {
    let mut steps = vec![head(), piece(format!("data: {}\n\n", content("one two")))];
    for _ in 0..3 {
        steps.extend([wait(40), piece(format!("data: {}\n\n", content("one two")))]);
    }
    steps.extend([piece(format!("data: {}\n\ndata: {}\n\ndata: [DONE]\n\n", finish(), usage(4, 8))), end()]);
    let (record, gaps) = record_of(steps);
    assert_success(&record, 8, TokenSource::Usage);
    assert_eq!((record.first_event_tokens, gap_count(&gaps)), (2, 6));
    let each: Vec<u64> =
        gaps.iter().flat_map(|run| std::iter::repeat_n(run.gap, run.count as usize)).collect();
    let halves = each.chunks(2).all(|pair| pair[1] - pair[0] <= 1);
    assert!(halves, "each token took half of its event: {gaps:?}");
    let total: u64 = gaps.iter().map(|run| run.gap * u64::from(run.count)).sum();
    let decode = record.end - record.first.unwrap();
    assert!(
        decode - total < 6,
        "the gaps are the time from the first token to the last: {total} of {decode}"
    );
}

#[test]
fn token_ids_tell_which_event_has_how_many() {
    let chunk = |text: &str, ids: &str| {
        format!(r#"{{"choices":[{{"index":0,"text":"{text}","token_ids":{ids},"finish_reason":null}}]}}"#)
    };
    let last = r#"{"choices":[{"text":"","finish_reason":"stop","token_ids":null}]}"#.to_owned();
    let (record, gaps) =
        record_of(stream([chunk("abcdefgh", "[1]"), chunk("i", "[2,3,4]"), last, "[DONE]".into()]));
    assert_success(&record, 4, TokenSource::TokenIds);
    assert_eq!((record.first_event_tokens, gap_count(&gaps)), (1, 3));
}

#[test]
fn usage_that_runs_with_the_events_tells_it_too() {
    let chunk = |text: &str, tokens: u32| {
        format!(
            r#"{{"choices":[{{"delta":{{"content":"{text}"}}}}],"usage":{{"prompt_tokens":5,"completion_tokens":{tokens}}}}}"#
        )
    };
    let (record, _) =
        record_of(stream([chunk("a", 3), chunk("bbbbbbbbbbbb", 4), finish(), usage(5, 4), "[DONE]".into()]));
    assert_success(&record, 4, TokenSource::Usage);
    assert_eq!(record.first_event_tokens, 3);
}

#[test]
fn an_error_in_the_stream_fails_and_keeps_what_came() {
    let error = r#"{"error":{"message":"out of memory","type":"server_error","code":500}}"#;
    let (record, gaps) = record_of(stream([&content("a"), &content("b"), error, "[DONE]"]));
    assert_failed(&record, Outcome::InBandError, "out of memory");
    assert_eq!((record.output_tokens, gap_count(&gaps)), (2, 1));
    let (record, _) = record_of(stream([error]));
    assert_failed(&record, Outcome::InBandError, "out of memory");
    assert_eq!((record.output_tokens, record.first), (0, None));
    let (record, _) = record_of(stream([r#"{"object":"error","message":"too long","code":400}"#]));
    assert_failed(&record, Outcome::InBandError, "too long");
}

#[test]
fn an_end_without_a_finish_is_truncated() {
    let (record, _) = record_of(stream([content("a"), content("b")]));
    assert_failed(&record, Outcome::Truncated, "without a `finish_reason`");
    assert_eq!(record.output_tokens, 2);
    let (record, _) = record_of(vec![head(), end()]);
    assert_failed(&record, Outcome::Truncated, "without an answer");
    let mut half =
        vec![head(), piece(format!("data: {}\n\n", content("a"))), piece(r#"data: {"choices":[{"del"#)];
    half.push(end());
    assert_failed(&record_of(half).0, Outcome::Truncated, "without a `finish_reason`");
    let (record, _) = record_of(stream([finish(), "[DONE]".into()]));
    assert_failed(&record, Outcome::Truncated, "no token");
}

#[test]
fn either_a_finish_reason_or_done_is_an_end() {
    assert_success(&record_of(stream([content("a"), finish()])).0, 1, TokenSource::Events);
    assert_success(&record_of(stream([content("a"), "[DONE]".into()])).0, 1, TokenSource::Events);
}

#[test]
fn a_broken_connection_keeps_the_tokens() {
    for last in [Step::Reset, Step::Close] {
        let words = ["a", "b"].map(|word| piece(format!("data: {}\n\n", content(word))));
        let mut steps = vec![head()];
        steps.extend(words);
        steps.extend([wait(30), last]);
        let (record, gaps) = record_of(steps);
        assert_failed(&record, Outcome::Disconnected, "the connection broke after 2 events");
        assert_eq!((record.output_tokens, gap_count(&gaps)), (2, 1));
    }
    assert_failed(&record_of(vec![Step::Close]).0, Outcome::Disconnected, "before the response");
}

#[test]
fn a_success_with_an_error_in_its_body_is_none() {
    let steps = status(200, "OK", "", r#"{"error":{"message":"no such model","code":404}}"#);
    assert_failed(&record_of(steps).0, Outcome::InBandError, "no such model");
}

#[test]
fn statuses_fail_by_kind_with_what_the_server_says() {
    let steps = status(400, "Bad Request", "", r#"{"error":{"message":"too long for the model"}}"#);
    let (record, _) = record_of(steps);
    assert_failed(&record, Outcome::HttpStatus(400), "too long for the model");
    let steps = status(429, "Too Many Requests", "retry-after: 7\r\n", r#"{"detail":"slow down"}"#);
    assert_failed(&record_of(steps).0, Outcome::HttpStatus(429), "retry after 7");
    let steps = status(503, "Service Unavailable", "", "");
    assert_failed(&record_of(steps).0, Outcome::HttpStatus(503), "503");
}

#[test]
fn reasoning_counts_and_the_answer_is_stamped_apart() {
    for field in ["reasoning_content", "reasoning"] {
        let mut steps = vec![head()];
        for event in [
            delta(&format!(r#"{{"{field}":"hm"}}"#)),
            delta(&format!(r#"{{"{field}":"so","content":null}}"#)),
        ] {
            steps.push(piece(format!("data: {event}\n\n")));
        }
        steps.extend([wait(600), piece(format!("data: {}\n\n", content("four")))]);
        steps.extend([
            piece(format!("data: {}\n\ndata: {}\n\ndata: [DONE]\n\n", finish(), usage(4, 3))),
            end(),
        ]);
        let (record, _) = record_of(steps);
        assert_success(&record, 3, TokenSource::Usage);
        let (first, answer) = (record.first.unwrap(), record.first_answer.unwrap());
        assert!(answer - first >= 300_000_000, "{first} {answer}");
    }
    let both = delta(r#"{"reasoning_content":"hm","reasoning":"hm"}"#);
    let (record, _) = record_of(stream([both, content("a"), finish()]));
    assert_success(&record, 2, TokenSource::Events);
    let (plain, _) = record_of(stream([content("a"), finish()]));
    assert_eq!(plain.first_answer, None, "without reasoning there is one time to first token");
}

#[test]
fn late_usage_is_taken_and_extends_nothing() {
    let mut steps = vec![head()];
    steps.push(piece(format!("data: {}\n\ndata: {}\n\ndata: {}\n\n", content("a"), content("b"), finish())));
    steps.extend([wait(600), piece(format!("data: {}\n\ndata: [DONE]\n\n", usage(4, 5))), end()]);
    let (record, _) = record_of(steps);
    assert_success(&record, 5, TokenSource::Usage);
    assert!(record.end - record.sent.unwrap() < 600_000_000, "E2E ends with the last content");
}

#[test]
fn without_usage_an_early_stop_is_counted_as_it_came() {
    let server = answering(stream([content("a"), content("b"), finish(), "[DONE]".into()]));
    let mut wanted = scenario(&server.url(), 1, 64);
    let (record, _) = one(&wanted);
    assert_success(&record, 2, TokenSource::Events);
    wanted["workloads"]["w"]["output"] = serde_json::json!({ "tokens": 64 });
    let (record, _) = one(&wanted);
    assert_failed(&record, Outcome::Truncated, "2 tokens, 64 were asked for");
}

#[test]
fn malformed_json_fails() {
    let (record, _) = record_of(stream([&content("a"), r#"{"choices":[{"delta":"#, &content("b"), "[DONE]"]));
    assert_failed(&record, Outcome::Malformed, "an event is no chunk");
    assert_eq!(record.output_tokens, 1);
    assert_failed(&record_of(status(200, "OK", "", "{oops")).0, Outcome::Malformed, "{oops");
    let invalid = [b"data: {\"choices\":[{\"text\":\"".as_slice(), b"\xff\xfe\"}]}\n\n"].concat();
    assert_failed(&record_of(vec![head(), piece(invalid), end()]).0, Outcome::Malformed, "no chunk");
}

#[test]
fn named_events_tool_calls_and_null_content_are_handled() {
    let call = r#"{"content":null,"tool_calls":[{"index":0,"function":{"name":"f","arguments":"{"}}]}"#;
    let text = format!(
        "event: message\nid: 1\ndata: {}\n\nevent: message\ndata: {}\n\ndata: {}\n\nevent: done\ndata: [DONE]\n\n",
        delta(r#"{"content":null}"#),
        delta(call),
        finish()
    );
    let (record, _) = record_of(vec![head(), piece(text), end()]);
    assert_success(&record, 1, TokenSource::Events);
}

#[test]
fn silence_times_out_and_a_stall_is_in_the_gaps() {
    let server =
        answering(vec![head(), piece(format!("data: {}\n\n", content("a"))), wait(4000), Step::Close]);
    let mut wanted = scenario(&server.url(), 1, 64);
    wanted["workloads"]["w"]["timeout"] = "1s".into();
    let (record, _) = one(&wanted);
    assert_failed(
        &record,
        Outcome::TimedOut,
        "no complete answer within 1s; 1 events came, then nothing for",
    );
    assert!(record.output_tokens == 1 && record.longest_gap >= 150_000_000, "{record:?}");
    let server = answering(vec![wait(4000), Step::Close]);
    wanted["backends"]["s"]["base_url"] = server.url().into();
    let (record, _) = one(&wanted);
    assert_failed(&record, Outcome::TimedOut, "nothing came");
    let mut steps = vec![head(), piece(format!("data: {}\n\n", content("a"))), wait(600)];
    steps.extend([piece(format!("data: {}\n\ndata: {}\n\n", content("b"), finish())), end()]);
    let (record, gaps) = record_of(steps);
    assert_success(&record, 2, TokenSource::Events);
    assert!(record.longest_gap >= 300_000_000 && gaps[0].gap == record.longest_gap);
}

#[test]
fn endless_things_end() {
    // A header that never ends.
    let mut steps = vec![Step::Send(b"HTTP/1.1 200 OK\r\n".to_vec())];
    steps.extend((0..40).map(|_| Step::Send(format!("x: {}\r\n", "y".repeat(16 << 10)).into_bytes())));
    assert_failed(&record_of(steps).0, Outcome::Disconnected, "broke");
    // An event that never ends.
    let mut steps = vec![head(), piece("data: ")];
    steps.extend((0..20).map(|_| piece("x".repeat(64 << 10))));
    assert_failed(&record_of(steps).0, Outcome::Malformed, "longer than 1 MiB");
    // A bomb.
    let bomb = b"HTTP/1.1 200 OK\r\ncontent-encoding: gzip\r\ncontent-length: 3\r\n\r\n\x1f\x8b\x08".to_vec();
    assert_failed(&record_of(vec![Step::Send(bomb)]).0, Outcome::Malformed, "compressed (gzip)");
    // An answer that never ends.
    let many = piece(format!("data: {}\n\n", content("x")).repeat(4000));
    let mut steps = vec![head()];
    steps.extend(std::iter::repeat_n(many, 20));
    assert_failed(&record_of(steps).0, Outcome::Malformed, "does not end");
    // One that is large and ends.
    let large = "x".repeat(600 << 10);
    let (record, _) = record_of(stream([content(&large), finish()]));
    assert_success(&record, 1, TokenSource::Events);
}

#[test]
fn an_answer_that_is_not_streamed_has_an_end_only() {
    let body = r#"{"id":"c","object":"chat.completion","choices":[{"index":0,"message":{"role":"assistant","content":"a b c"},"finish_reason":"length"}],"usage":{"prompt_tokens":7,"completion_tokens":3}}"#;
    let server = answering(status(200, "OK", "", body));
    let mut wanted = scenario(&server.url(), 1, 3);
    wanted["workloads"]["w"]["output"]["stream"] = false.into();
    let (record, gaps) = one(&wanted);
    assert_success(&record, 3, TokenSource::Usage);
    assert_eq!((record.first_event_tokens, gap_count(&gaps), record.prompt_tokens), (3, 0, 7));
    let body = &server.bodies()[0];
    assert_eq!((&body["stream"], body.get("stream_options")), (&Value::from(false), None));
}

#[test]
fn usage_is_asked_for_and_left_out_where_it_is_refused() {
    let server = Server::start(|asked| {
        if asked.path == "/v1/models" {
            models()
        } else if !asked.path.ends_with("/completions") {
            Vec::new()
        } else if asked.body.get("stream_options").is_some() {
            status(400, "Bad Request", "", r#"{"error":{"message":"unknown field stream_options"}}"#)
        } else {
            stream([content("a"), finish(), "[DONE]".into()])
        }
    });
    let (_, kept) = play(&scenario(&server.url(), 3, 8));
    let messages: Vec<Option<&str>> = kept.0.iter().map(|(record, _)| record.message.as_deref()).collect();
    assert!(kept.0.iter().all(|(record, _)| record.outcome == Outcome::Success));
    assert_eq!(messages, [Some("the server refuses `stream_options`; sent again without it"), None, None]);
    let asked: Vec<bool> = server.bodies().iter().map(|body| body.get("stream_options").is_some()).collect();
    assert_eq!(asked, [true, false, false, false]);
}

#[test]
fn a_connection_that_the_server_closed_is_opened_again() {
    let server = Server::start(|asked| {
        match asked.path.as_str() {
            "/v1/models" => return models(),
            "/v1/chat/completions" => {}
            _ => return Vec::new(),
        }
        let mut steps = stream([content("a"), finish(), "[DONE]".into()]);
        if asked.number == 1 {
            // Closed without a word while the client believes it to be open.
            steps.push(Step::Close);
        }
        steps
    });
    let (_, kept) = play(&scenario(&server.url(), 4, 8));
    assert!(kept.0.iter().all(|(record, _)| record.outcome == Outcome::Success), "{:?}", kept.0);
    let fresh: Vec<bool> = kept.0.iter().map(|(record, _)| record.connect > 0).collect();
    assert_eq!(fresh, [true, false, true, false]);
}

#[test]
fn what_is_cancelled_hangs_up() {
    let server = Server::start(|asked| {
        match asked.path.as_str() {
            "/v1/models" => return models(),
            "/v1/chat/completions" => {}
            _ => return Vec::new(),
        }
        let mut steps = vec![head()];
        for _ in 0..20 {
            steps.extend([piece(format!("data: {}\n\n", content("x"))), wait(5)]);
        }
        steps
    });
    let mut wanted = scenario(&server.url(), 1, 64);
    wanted["workloads"]["w"]["cancel"] = serde_json::json!({ "rate": 1.0, "after_tokens": 4 });
    let (record, _) = one(&wanted);
    assert_eq!((record.outcome, record.output_tokens), (Outcome::Cancelled, 4));
}
