//! What a server does when it is asked in different ways: the questions of `doctor`.

use std::time::{Duration, Instant};

use serde::Serialize;
use serde_json::{Value, json};

use super::ask::{Asker, Reply};
use super::connect::dialer;
use super::metrics::known_names;
use super::server::tokenize;
use super::worker::said;
use super::{OpenAi, headers};
use crate::backend::config::{Endpoint, HttpVersion, OpenAiBackend, Url};

/// Tokens that are asked for where an answer must come.
const SHORT: u32 = 16;
/// Tokens that are asked for where a length is forced.
const FORCED: u32 = 48;
/// A prompt whose answer has no reason to be long.
const PROMPT: &str = "The answer to two plus two is";
/// How often the list of models is asked for, to see how soon the server answers at all.
const ROUNDS: usize = 5;

/// What a server was found to do.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Examination {
    /// How long the answer to a question for its models takes, in milliseconds: the median of five.
    pub round_trip_ms: f64,
    /// Whether it speaks HTTP/2.
    pub http2: bool,
    /// How `/completions` streams; or why it does not.
    pub completions: Result<Stream, String>,
    /// How `/chat/completions` streams; or why it does not.
    pub chat: Result<Stream, String>,
    /// What comes when `ignore_eos` asks for a length.
    pub ignore_eos: Result<Length, String>,
    /// What comes when `min_tokens` asks for one.
    pub min_tokens: Result<Length, String>,
    /// Whether a prompt may be a list of token ids: its length as asked and as the server counts it.
    pub ids_in: Result<[u32; 2], String>,
    /// Whether it sends the ids of the tokens of its answer when asked (`return_token_ids`).
    pub ids_out: Result<bool, String>,
    /// Tokens of one text by its own tokenizer, and by the usage of a completion.
    pub tokenizer: Result<[u32; 2], String>,
    /// The counters on its metrics page that are read; or why there are none.
    pub counters: Result<Vec<String>, String>,
}

/// How an endpoint streams.
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
pub struct Stream {
    /// Events that carry content.
    pub events: u32,
    /// Output tokens by its usage, where it told.
    pub tokens: Option<u32>,
    /// Whether an event without content, such as the role alone, came first.
    pub empty_first: bool,
    /// Whether a `finish_reason` came.
    pub finish_reason: bool,
    /// Whether `[DONE]` came.
    pub done: bool,
    /// How long the whole answer took, in milliseconds.
    pub time_ms: f64,
}

/// What a forced length came to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct Length {
    /// Tokens that were asked for.
    pub asked: u32,
    /// Tokens that came.
    pub came: u32,
    /// Tokens that came of the same request without forcing.
    pub free: u32,
}

impl OpenAi {
    /// Asks the server, the first one where there are several, in different ways: some twenty short requests.
    pub fn examine(&self) -> Examination {
        let chat = json!([{ "role": "user", "content": PROMPT }]);
        let free = self.length(json!({}));
        let forced = |more: Value| -> Result<Length, String> {
            let came = self.length(more)?;
            Ok(Length { asked: FORCED, came, free: free.clone()? })
        };
        Examination {
            round_trip_ms: self.round_trip(),
            http2: self.speaks_http2(),
            completions: self.stream("/completions", &json!({ "prompt": PROMPT })),
            chat: self.stream("/chat/completions", &json!({ "messages": chat })),
            ignore_eos: forced(json!({ "ignore_eos": true })),
            min_tokens: forced(json!({ "min_tokens": FORCED })),
            ids_in: self.ids_in(),
            ids_out: self.ids_out(),
            tokenizer: self.tokenizer_agrees(),
            counters: self.counters(),
        }
    }

    /// The settings that fit the server, as a map of `backends` in YAML.
    pub fn backend_block(&self, found: &Examination) -> String {
        let quoted = |text: &str| Value::from(text).to_string();
        let identity = &self.identity;
        let mut lines = vec![format!("kind: {}", identity.flavor.kind())];
        match self.config.base_url.0.as_slice() {
            [one] => lines.push(format!("base_url: {}", quoted(one))),
            several => {
                let list: Vec<String> = several.iter().map(|url| quoted(url)).collect();
                lines.push(format!("base_url: [{}]", list.join(", ")));
            }
        }
        lines.push(format!("model: {}", quoted(&identity.model)));
        lines.push(format!("endpoint: {}", identity.endpoint.name()));
        if let Some(name) = &self.config.api_key_env {
            lines.push(format!("api_key_env: {}", quoted(name)));
        }
        let can_stream = match identity.endpoint {
            Endpoint::Completions => found.completions.is_ok(),
            Endpoint::Chat => found.chat.is_ok(),
        };
        if !can_stream {
            lines.push("# this endpoint does not stream as it should; see above".into());
        }
        if found.counters.is_err() {
            lines.push("metrics: \"off\"".into());
        }
        format!("backends:\n  server:\n    {}\n", lines.join("\n    "))
    }

    fn round_trip(&self) -> f64 {
        let mut times: Vec<f64> = (0..ROUNDS)
            .map(|_| {
                let begun = Instant::now();
                let _ = self.asker.get(0, &self.path("/models"));
                milliseconds(begun.elapsed())
            })
            .collect();
        times.sort_unstable_by(f64::total_cmp);
        times[ROUNDS / 2]
    }

    /// A path of the API below the server's root.
    fn path(&self, path: &str) -> String {
        let url = &self.shared.urls[0];
        format!("{}{path}", url.path.strip_prefix(&url.root().path).unwrap_or(&url.path))
    }

    fn speaks_http2(&self) -> bool {
        let ask = || {
            let config = OpenAiBackend { http: HttpVersion::Http2, ..self.config.clone() };
            let urls = &self.shared.urls[..1];
            let dialer = dialer(&config, urls.iter(), &self.dir).ok()?;
            let asker =
                Asker::new(&dialer, urls.iter().map(Url::root).collect(), &headers(&config).ok()?).ok()?;
            asker.get(0, &self.path("/models")).ok()
        };
        ask().is_some_and(|reply| reply.status < 500)
    }

    /// What the server answers to a body, with the model's name in it.
    fn answer(&self, path: &str, body: &Value, more: &Value) -> Result<Reply, String> {
        let mut whole = json!({ "model": self.identity.model, "temperature": 0 });
        for part in [body, more] {
            for (name, value) in part.as_object().into_iter().flatten() {
                whole[name] = value.clone();
            }
        }
        let reply = self.asker.post(0, &self.path(path), &whole)?;
        if reply.is_success() {
            return Ok(reply);
        }
        Err(format!("it answers {}: {}", reply.status, said(&reply.body)))
    }

    fn stream(&self, path: &str, body: &Value) -> Result<Stream, String> {
        let more =
            json!({ "max_tokens": SHORT, "stream": true, "stream_options": { "include_usage": true } });
        let begun = Instant::now();
        let reply = self.answer(path, body, &more)?;
        let mut stream = read(&String::from_utf8_lossy(&reply.body))?;
        stream.time_ms = milliseconds(begun.elapsed());
        Ok(stream)
    }

    /// How many tokens come of a request for [`FORCED`].
    fn length(&self, mut more: Value) -> Result<u32, String> {
        more["max_tokens"] = FORCED.into();
        let (path, body) = match self.identity.endpoint {
            Endpoint::Completions => ("/completions", json!({ "prompt": PROMPT })),
            Endpoint::Chat => {
                ("/chat/completions", json!({ "messages": [{ "role": "user", "content": PROMPT }] }))
            }
        };
        let reply = self.answer(path, &body, &more)?;
        number(&reply, "completion_tokens").ok_or_else(|| "its answer has no usage".into())
    }

    fn ids_in(&self) -> Result<[u32; 2], String> {
        let ids = tokenize(&self.asker, &self.identity, PROMPT)
            .map_err(|why| format!("its tokenizer lends no ids to try with: {why}"))?;
        let reply = self.answer("/completions", &json!({ "prompt": ids }), &json!({ "max_tokens": 1 }))?;
        let counted = number(&reply, "prompt_tokens").ok_or("its answer has no usage")?;
        Ok([ids.len() as u32, counted])
    }

    fn ids_out(&self) -> Result<bool, String> {
        let more = json!({ "max_tokens": 4, "return_token_ids": true });
        let reply = self.answer("/completions", &json!({ "prompt": PROMPT }), &more)?;
        let value = reply.json().ok_or("its answer is no JSON")?;
        Ok(value["choices"][0]["token_ids"].is_array())
    }

    fn tokenizer_agrees(&self) -> Result<[u32; 2], String> {
        let own = tokenize(&self.asker, &self.identity, PROMPT)?.len() as u32;
        let reply = self.answer("/completions", &json!({ "prompt": PROMPT }), &json!({ "max_tokens": 1 }))?;
        Ok([own, number(&reply, "prompt_tokens").ok_or("its answer has no usage")?])
    }

    fn counters(&self) -> Result<Vec<String>, String> {
        let reply = self.asker.get(0, "/metrics")?;
        if !reply.is_success() {
            return Err(format!("/metrics answers {}", reply.status));
        }
        let names = known_names(&String::from_utf8_lossy(&reply.body));
        if names.is_empty() { Err("/metrics has none of the names that are known".into()) } else { Ok(names) }
    }
}

fn milliseconds(time: Duration) -> f64 {
    time.as_secs_f64() * 1e3
}

/// A number of the usage.
fn number(reply: &Reply, name: &str) -> Option<u32> {
    reply.json()?["usage"][name].as_u64().and_then(|number| u32::try_from(number).ok())
}

/// Reads a stream that has arrived whole.
fn read(text: &str) -> Result<Stream, String> {
    let mut stream = Stream::default();
    let mut is_first = true;
    for data in text.lines().filter_map(|line| line.strip_prefix("data:")).map(str::trim) {
        if data == "[DONE]" {
            stream.done = true;
            continue;
        }
        let chunk: Value =
            serde_json::from_str(data).map_err(|error| format!("an event is no JSON: {error}"))?;
        if let Some(tokens) = chunk["usage"]["completion_tokens"].as_u64() {
            stream.tokens = u32::try_from(tokens).ok();
        }
        let choice = &chunk["choices"][0];
        let texts = ["/text", "/delta/content", "/delta/reasoning_content", "/delta/reasoning"];
        let has_text =
            |path: &&str| choice.pointer(path).and_then(Value::as_str).is_some_and(|text| !text.is_empty());
        let has_content = texts.iter().any(has_text);
        stream.finish_reason |= choice["finish_reason"].is_string();
        stream.events += u32::from(has_content);
        stream.empty_first |= is_first && !has_content && choice.is_object();
        is_first = false;
    }
    if is_first { Err("it does not stream: no event came".into()) } else { Ok(stream) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stream_is_read() {
        let text = ": hello\n\ndata: {\"choices\":[{\"delta\":{\"role\":\"assistant\",\"content\":\"\"}}]}\n\n\
            data: {\"choices\":[{\"delta\":{\"content\":\"a\"}}]}\r\n\r\n\
            data: {\"choices\":[{\"delta\":{\"reasoning\":\"b\"},\"finish_reason\":\"stop\"}]}\n\n\
            data: {\"choices\":[],\"usage\":{\"completion_tokens\":2}}\n\ndata: [DONE]\n\n";
        let expected = Stream {
            events: 2,
            tokens: Some(2),
            empty_first: true,
            finish_reason: true,
            done: true,
            time_ms: 0.0,
        };
        assert_eq!(read(text), Ok(expected));
        let plain = read("data: {\"choices\":[{\"text\":\"a\"}]}\n").unwrap();
        assert_eq!((plain.events, plain.empty_first, plain.done, plain.tokens), (1, false, false, None));
        assert!(read("{\"choices\":[]}").unwrap_err().contains("no event"));
        assert!(read("data: {oops\n").unwrap_err().contains("no JSON"));
    }
}
