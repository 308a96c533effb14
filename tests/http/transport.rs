//! Connections, keys, several servers, and servers that are not there.

use std::net::TcpListener;
use std::sync::atomic::Ordering;

use sagebench::record::{Outcome, TokenSource};
use serde_json::json;

use crate::play::{one, open, play, scenario};
use crate::server::*;

fn answer() -> Vec<Step> {
    stream([content("a"), finish(), usage(16, 1), "[DONE]".into()])
}

fn good(asked: &Asked) -> Vec<Step> {
    match asked.path.as_str() {
        "/v1/models" => models(),
        "/v1/chat/completions" => answer(),
        _ => Vec::new(),
    }
}

#[test]
fn connections_are_kept_and_there_are_no_more_than_users() {
    let server = Server::start(good);
    let mut wanted = scenario(&server.url(), 12, 8);
    wanted["workloads"]["w"]["load"]["concurrency"] = json!(3);
    let (played, kept) = play(&wanted);
    assert!(kept.0.iter().all(|(record, _)| record.outcome == Outcome::Success));
    assert_eq!(played.max_in_flight, 3);
    let fresh = kept.0.iter().filter(|(record, _)| record.connect > 0).count();
    assert!((1..=3).contains(&fresh), "{fresh} requests had to open a connection");
    // One more asked what the server is.
    assert_eq!(server.connections.load(Ordering::Relaxed), fresh + 1);
}

#[test]
fn a_socket_in_the_file_system_is_a_server() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("s.sock");
    start_unix(&path, good);
    let (record, _) = one(&scenario(&format!("unix://{}", path.display()), 1, 8));
    assert_eq!((record.outcome, record.message.as_deref()), (Outcome::Success, None));
}

#[test]
fn a_host_without_an_address_is_named() {
    // A label of more than 63 letters: nobody is asked for it.
    let host = format!("{}.invalid", "x".repeat(64));
    let why = open(&scenario(&format!("http://{host}:8000/v1"), 1, 8)).err().unwrap();
    assert!(why.contains(&format!("cannot connect to {host}:8000")) && why.contains("lookup"), "{why}");
}

#[test]
fn several_urls_take_turns() {
    let (left, right) = (Server::start(good), Server::start(good));
    let mut wanted = scenario(&left.url(), 6, 8);
    wanted["backends"]["s"]["base_url"] = json!([left.url(), right.url()]);
    let (_, kept) = play(&wanted);
    assert!(kept.0.iter().all(|(record, _)| record.outcome == Outcome::Success));
    assert_eq!((left.bodies().len(), right.bodies().len()), (3, 3));
}

#[test]
fn the_key_goes_to_the_server_and_nowhere_else() {
    // The variable is one that every process has.
    let key = std::env::var("PATH").unwrap();
    let server = Server::start(|asked| {
        let path = std::env::var("PATH").unwrap();
        let has_key = asked.head.contains(&format!("authorization: Bearer {path}"));
        if !has_key {
            return status(401, "Unauthorized", "", r#"{"error":{"message":"no key"}}"#);
        }
        assert_eq!(asked.method, if asked.path == "/v1/models" { "GET" } else { "POST" });
        good(asked)
    });
    let mut wanted = scenario(&server.url(), 1, 8);
    let refused = open(&wanted).err().unwrap();
    assert!(refused.contains("401") && refused.contains("api_key_env"), "{refused}");
    wanted["backends"]["s"]["api_key_env"] = json!("PATH");
    let (record, _) = one(&wanted);
    assert_eq!(record.outcome, Outcome::Success);
    assert!(!format!("{record:?}").contains(&key));
    wanted["backends"]["s"]["api_key_env"] = json!("SAGEBENCH_TESTS_NO_SUCH_VARIABLE");
    assert!(open(&wanted).err().unwrap().contains("not set"));
}

#[test]
fn a_server_that_is_not_there_is_told_with_its_url_and_the_reason() {
    let free = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let why = |url: &str| open(&scenario(url, 1, 8)).err().unwrap();
    let refused = why(&format!("http://{free}"));
    assert!(refused.contains(&format!("http://{free}/v1")) && refused.contains("refused"), "{refused}");
    assert!(refused.contains("wait_ready"), "{refused}");
    let unknown = why("http://no-such-host.invalid:8000");
    assert!(unknown.contains("no-such-host.invalid:8000") && unknown.contains("lookup"), "{unknown}");
    let missing = why("unix:///no/such.sock");
    assert!(missing.contains("unix:///no/such.sock") && missing.contains("No such file"), "{missing}");
}

#[test]
fn the_model_is_the_only_one_or_one_of_those_that_are_served() {
    let list = |names: &[&str]| {
        let data: Vec<_> = names.iter().map(|name| json!({ "id": name, "max_model_len": 64 })).collect();
        let body = json!({ "data": data }).to_string();
        Server::start(
            move |asked| if asked.path == "/v1/models" { status(200, "OK", "", &body) } else { good(asked) },
        )
    };
    let single = list(&["llama"]);
    let mut wanted = scenario(&single.url(), 1, 8);
    let identity = open(&wanted).unwrap().identity().clone();
    assert_eq!((identity.model.as_str(), identity.max_model_len), ("llama", Some(64)));
    one(&wanted);
    assert_eq!(single.bodies()[0]["model"], "llama");
    wanted["backends"]["s"]["model"] = json!("lama");
    let why = open(&wanted).err().unwrap();
    assert!(why.contains("does not serve `lama`; did you mean `llama`?"), "{why}");
    let several = list(&["a", "b"]);
    let why = open(&scenario(&several.url(), 1, 8)).err().unwrap();
    assert!(why.contains("serves a, b; set `model`"), "{why}");
}

#[test]
fn a_server_that_dies_in_the_middle_fails_what_it_did_not_answer_and_may_come_back() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let (dying, is_dying) = std::sync::mpsc::channel();
    let (dead, is_dead) = std::sync::mpsc::channel();
    let is_dead = std::sync::Mutex::new(is_dead);
    let first = Server::on(listener, move |asked| {
        if asked.number == 2 && asked.path.ends_with("completions") {
            // The answer breaks off once nobody listens any more.
            dying.send(()).unwrap();
            is_dead.lock().unwrap().recv().unwrap();
            return vec![head(), piece(format!("data: {}\n\n", content("a"))), Step::Reset];
        }
        let mut steps = good(asked);
        steps.push(Step::Close);
        steps
    });
    let wanted = scenario(&first.url(), 30, 8);
    let returns = std::thread::spawn(move || {
        is_dying.recv().unwrap();
        drop(first);
        dead.send(()).unwrap();
        std::thread::sleep(std::time::Duration::from_millis(250));
        Server::on(TcpListener::bind(address).unwrap(), good)
    });
    let (_, kept) = play(&wanted);
    drop(returns.join().unwrap());
    let outcomes: Vec<Outcome> = kept.0.iter().map(|(record, _)| record.outcome).collect();
    assert_eq!(outcomes.len(), 30, "nothing is lost");
    assert_eq!(outcomes[..3], [Outcome::Success, Outcome::Success, Outcome::Disconnected]);
    assert_eq!(outcomes[3], Outcome::Unreachable);
    assert_eq!(outcomes[29], Outcome::Success, "{outcomes:?}");
    let (down, _) = kept.0.iter().find(|(record, _)| record.outcome == Outcome::Unreachable).unwrap();
    assert!(down.message.as_deref().unwrap().contains(&format!("cannot connect to {address}")));
}

#[test]
fn a_tokenizer_of_a_file_makes_prompts_and_counts_what_no_usage_tells() {
    use sagebench::checkpoint::Hub;
    use sagebench::tokenizer::{Hf, Tokenizer};
    let dir = tempfile::tempdir().unwrap();
    let model = dir.path().join("model");
    let made = crate::program::sagebench(dir.path())
        .args(["model", "random", "--like", "gpt2", "--tiny", "--out", "model"])
        .output()
        .unwrap();
    assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
    let file = model.join("tokenizer.json");
    let server = Server::start(|asked| match asked.path.as_str() {
        "/v1/models" => models(),
        // Five words in two events, and nobody says how many tokens they are.
        "/v1/chat/completions" => {
            stream([content("one two"), content(" three four five"), finish(), "[DONE]".into()])
        }
        _ => Vec::new(),
    });
    let mut wanted = scenario(&server.url(), 3, 8);
    wanted["backends"]["s"]["tokenizer"] = json!(file);
    assert!(open(&wanted).unwrap().identity().exact_prompts);
    let (_, kept) = play(&wanted);
    let own = Hf::find(file.to_str().unwrap(), None, dir.path(), &Hub::from_env()).unwrap().shared();
    for (record, _) in &kept.0 {
        assert_eq!((record.outcome, record.token_source), (Outcome::Success, TokenSource::Tokenizer));
        assert_eq!(record.output_tokens, own.count("one two three four five"));
    }
    for body in server.bodies() {
        assert_eq!(own.count(body["messages"][0]["content"].as_str().unwrap()), 16, "{body}");
    }
    wanted["backends"]["s"]["tokenizer"] = json!(dir.path().join("nothing.json"));
    let why = open(&wanted).err().unwrap();
    assert!(why.contains("nothing.json"), "{why}");
}

#[test]
fn usages_tell_what_was_in_the_cache_where_no_page_does() {
    let server = Server::start(|asked| {
        let usage = |details: &str| {
            format!(r#"{{"choices":[],"usage":{{"prompt_tokens":40,"completion_tokens":1{details}}}}}"#)
        };
        match asked.path.as_str() {
            "/v1/models" => models(),
            // The first prompt is new; vLLM says nothing then.
            "/v1/chat/completions" if asked.number == 0 => {
                stream([content("a"), finish(), usage(""), "[DONE]".into()])
            }
            "/v1/chat/completions" => {
                let details = r#","prompt_tokens_details":{"cached_tokens":32}"#;
                stream([content("a"), finish(), usage(details), "[DONE]".into()])
            }
            _ => Vec::new(),
        }
    });
    let (played, _) = play(&scenario(&server.url(), 5, 1));
    let stats = played.stats;
    assert_eq!((stats.prefix_hit_tokens, stats.prefix_queried_tokens), (Some(4 * 32), Some(5 * 40)));
    let unknown = |name: &str| stats.unavailable.iter().any(|(own, _)| own == name);
    assert!(!unknown("prefix_hit_rate") && unknown("kv_used_tokens"), "{:?}", stats.unavailable);
    let (played, _) = play(&scenario(&Server::start(good).url(), 5, 1));
    assert_eq!(played.stats.prefix_hit_tokens, None, "nobody told anything");
}

#[test]
fn a_request_is_sent_again_as_the_server_asks() {
    let server = Server::start(|asked| match asked.path.as_str() {
        "/v1/models" => models(),
        "/v1/chat/completions" => match asked.number {
            0 => {
                status(429, "Too Many Requests", "retry-after: 1\r\n", r#"{"error":{"message":"slow down"}}"#)
            }
            1 => vec![Step::Close],
            2 => status(503, "Service Unavailable", "retry-after: Thu, 01 Jan 1970 00:00:00 GMT\r\n", "{}"),
            _ => answer(),
        },
        _ => Vec::new(),
    });
    let mut wanted = scenario(&server.url(), 1, 8);
    wanted["workloads"]["w"]["retries"] = json!(3);
    wanted["workloads"]["w"]["timeout"] = json!("60s");
    let (record, _) = one(&wanted);
    assert_eq!((record.outcome, record.attempts()), (Outcome::Success, 4), "{:?}", record.message);
    let retried = record.retried.as_ref().unwrap();
    let outcomes: Vec<Outcome> = retried.attempts.iter().map(|attempt| attempt.outcome).collect();
    assert_eq!(outcomes, [Outcome::HttpStatus(429), Outcome::Disconnected, Outcome::HttpStatus(503)]);
    assert!(retried.attempts[1].sent - retried.attempts[0].end >= 1_000_000_000, "what the server asks for");
    assert_eq!(record.sent, Some(retried.attempts[0].sent));
    assert!(record.first.unwrap() > retried.sent && retried.sent > retried.attempts[2].end);
    let bodies = server.bodies();
    assert!(bodies.len() == 4 && bodies.iter().all(|body| *body == bodies[0]), "the same request");
}

#[test]
fn a_failure_is_a_failure_where_nothing_else_is_asked_for() {
    let server = Server::start(|asked| match asked.path.as_str() {
        "/v1/models" => models(),
        _ => status(503, "Service Unavailable", "retry-after: 0\r\n", "{}"),
    });
    let (record, _) = one(&scenario(&server.url(), 1, 8));
    assert_eq!((record.outcome, record.attempts()), (Outcome::HttpStatus(503), 1));
}
