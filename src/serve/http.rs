//! Endpoints: from a request to its answer.

use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use bytes::{BufMut as _, Bytes, BytesMut};
use http_body_util::{BodyExt as _, Limited};
use hyper::body::Incoming;
use hyper::header::{ALLOW, CACHE_CONTROL, CONTENT_TYPE, HeaderName, HeaderValue, RETRY_AFTER};
use hyper::{Method, Request, Response, StatusCode, Version};
use serde_json::{Value, json};
use tokio::sync::oneshot;

use super::answer::{Answer, Reason};
use super::asking::Ready;
use super::desk::{Command, Desk, Heard, Place, Ticket};
use super::error::ApiError;
use super::protocol::{self, Asked, Detokenize, Dialect, Tokenize};
use super::reply::{Cut, Events, Reply, Shape, put_escaped, put_list, put_usage};
use super::truth::Truth;
use super::wire::CutBy;
use super::{House, Mind};
use crate::backend::Finish;
use crate::backend::config::{CloseBy, FaultAction};
use crate::record::Outcome;

/// The longest a body may take to arrive.
const BODY_TIMEOUT: Duration = Duration::from_mins(1);
/// Where a whole answer says its modelled times.
const TIMES: HeaderName = HeaderName::from_static("x-sagebench-times");
/// In how many seconds who was turned away may try again.
const RETRY: u64 = 1;

/// What ends a request without the answer that was asked for.
enum Failed {
    Api(ApiError),
    /// The connection is cut.
    Cut(CloseBy),
}

impl From<ApiError> for Failed {
    fn from(error: ApiError) -> Self {
        Self::Api(error)
    }
}

/// One connection's view of the server.
#[derive(Debug, Clone)]
pub(super) struct Door {
    pub(super) house: Arc<House>,
    pub(super) desk: Rc<Desk>,
    pub(super) cut: CutBy,
}

type Answered = Result<Response<Reply>, Failed>;

impl Door {
    /// Answers one request. The error cuts the connection.
    pub(super) async fn answer(self, request: Request<Incoming>) -> Result<Response<Reply>, Cut> {
        match self.route(request).await {
            Ok(response) => Ok(response),
            Err(Failed::Api(error)) => Ok(refusal(&error)),
            Err(Failed::Cut(close)) => {
                self.cut.set(Some(close));
                Err(Cut)
            }
        }
    }

    async fn route(&self, request: Request<Incoming>) -> Answered {
        let path = request.uri().path().to_owned();
        let method = match path.as_str() {
            "/v1/completions"
            | "/v1/chat/completions"
            | "/reset_prefix_cache"
            | "/tokenize"
            | "/detokenize" => Method::POST,
            "/v1/models" | "/health" | "/ping" | "/version" | "/metrics" => Method::GET,
            _ => return Err(ApiError::new(StatusCode::NOT_FOUND, format!("there is no {path} here")).into()),
        };
        if request.method() != method {
            let message = format!("{path} takes {method}, not {}", request.method());
            let mut response = refusal(&ApiError::new(StatusCode::METHOD_NOT_ALLOWED, message));
            let allowed = if method == Method::POST { "POST" } else { "GET" };
            response.headers_mut().insert(ALLOW, HeaderValue::from_static(allowed));
            return Ok(response);
        }
        match path.as_str() {
            "/v1/completions" => self.generate(request, Dialect::Completions).await,
            "/v1/chat/completions" => self.generate(request, Dialect::Chat).await,
            "/v1/models" => Ok(whole(&self.models())),
            "/version" => Ok(whole(&json!({ "version": concat!("sagebench-", env!("CARGO_PKG_VERSION")) }))),
            "/metrics" => self.page().await,
            "/reset_prefix_cache" => self.forget().await,
            "/tokenize" => self.tokenize(request).await,
            "/detokenize" => self.detokenize(request).await,
            _ => self.health().await,
        }
    }

    /// Reads a body, as far as it is allowed to be long.
    async fn body(&self, request: Request<Incoming>) -> Result<Bytes, ApiError> {
        let most = self.house.limits.max_body;
        let read = Limited::new(request.into_body(), most).collect();
        match tokio::time::timeout(BODY_TIMEOUT, read).await {
            Ok(Ok(body)) => Ok(body.to_bytes()),
            Ok(Err(error)) if error.is::<http_body_util::LengthLimitError>() => {
                let message = format!("the body is longer than {most} bytes");
                Err(ApiError::new(StatusCode::PAYLOAD_TOO_LARGE, message))
            }
            Ok(Err(error)) => {
                Err(ApiError::new(StatusCode::BAD_REQUEST, format!("the body did not arrive: {error}")))
            }
            Err(_) => Err(ApiError::new(StatusCode::REQUEST_TIMEOUT, "the body did not arrive in 60 s")),
        }
    }

    /// Asks the engine's thread.
    async fn ask<T>(&self, command: impl FnOnce(oneshot::Sender<T>) -> Command) -> Result<T, ApiError> {
        let (send, answer) = oneshot::channel();
        self.desk.line.send(command(send));
        answer
            .await
            .map_err(|_| ApiError::new(StatusCode::SERVICE_UNAVAILABLE, "the server is shutting down"))
    }

    async fn page(&self) -> Answered {
        let page = self.ask(Command::Page).await?;
        Ok(response("text/plain; version=0.0.4; charset=utf-8", page.into()))
    }

    async fn forget(&self) -> Answered {
        if self.ask(Command::Forget).await? {
            return Ok(response("text/plain; charset=utf-8", Bytes::new()));
        }
        Err(ApiError::new(StatusCode::NOT_IMPLEMENTED, "this backend can not forget its prefix cache").into())
    }

    async fn health(&self) -> Answered {
        match self.ask(Command::Health).await? {
            Ok(()) => Ok(response("text/plain; charset=utf-8", Bytes::new())),
            Err(message) => Err(ApiError::new(StatusCode::SERVICE_UNAVAILABLE, message).into()),
        }
    }

    fn models(&self) -> Value {
        json!({ "object": "list", "data": [{
            "id": self.house.model,
            "object": "model",
            "created": self.house.created,
            "owned_by": "sagebench",
            "root": self.house.model,
            "parent": null,
            "max_model_len": self.house.max_model_len,
        }]})
    }

    async fn tokenize(&self, request: Request<Incoming>) -> Answered {
        let body = self.body(request).await?;
        let asked: Tokenize = protocol::parse(&body)?;
        let wants_pieces = asked.return_token_strs.unwrap_or(false);
        let prompt = asked.prompt(&self.house.model)?;
        let ids = self.house.ids(&prompt, true).await?;
        let pieces = wants_pieces.then(|| self.house.vocabulary.pieces(&ids).unwrap_or_default());
        let longest = self.house.max_model_len;
        Ok(whole(&json!({
            "count": ids.len(), "max_model_len": longest, "tokens": &*ids, "token_strs": pieces,
        })))
    }

    async fn detokenize(&self, request: Request<Incoming>) -> Answered {
        let body = self.body(request).await?;
        let asked: Detokenize = protocol::parse(&body)?;
        let text = self.house.vocabulary.decode(asked.tokens(&self.house.model)?).map_err(|id| {
            let why = match self.house.mind {
                Mind::Simulated { .. } => {
                    "the mock's ids are hashes, and it knows those again that this server has told"
                }
                Mind::Computed { .. } => "the model has no such token",
            };
            ApiError::bad("tokens", format!("token {id} is unknown: {why}"))
        })?;
        Ok(whole(&json!({ "prompt": text })))
    }

    async fn generate(&self, request: Request<Incoming>, dialect: Dialect) -> Answered {
        let version = request.version();
        let body = self.body(request).await?;
        let at = self.house.clock.now();
        let computes = matches!(self.house.mind, Mind::Computed { .. });
        let asked = protocol::read(&body, dialect, &self.house.model, computes)?;
        let place = self.place()?;
        let ids = self.house.ids(&asked.prompt, asked.token_ids).await?;
        let Ready { recipe, drawing, answer, ids } = self.house.ready(&asked, ids)?;
        let action = self.house.fault(&recipe);
        let prompt_tokens = recipe.prompt.tokens();
        let stops = answer.reason == Reason::Stop;
        let ticket = self.desk.submit(recipe.index, (recipe, drawing), (at, stops), place);
        let job = Job { door: self, version, asked, answer, ids, prompt_tokens, action, ticket };
        if job.asked.stream { job.stream().await } else { job.whole().await }
    }

    fn place(&self) -> Result<Place, ApiError> {
        let most = self.house.limits.max_requests;
        Place::take(&self.house.taken, most).ok_or_else(|| ApiError {
            retry_after: Some(RETRY),
            ..ApiError::new(
                StatusCode::TOO_MANY_REQUESTS,
                format!("{most} requests are being answered, which is the most that this server takes"),
            )
        })
    }
}

/// A request that the engine has.
struct Job<'a> {
    door: &'a Door,
    version: Version,
    asked: Asked,
    answer: Answer,
    ids: Arc<[u32]>,
    prompt_tokens: u32,
    action: Option<FaultAction>,
    ticket: Ticket,
}

impl Job<'_> {
    fn name(&self) -> String {
        let kind = if self.asked.dialect == Dialect::Chat { "chatcmpl" } else { "cmpl" };
        format!("{kind}-{:x}-{:x}", self.door.house.boot, self.ticket.id)
    }

    fn head(&self, object: &str) -> String {
        let model = Value::from(&*self.door.house.model);
        let created = unix_time();
        format!("\"id\":\"{}\",\"object\":\"{object}\",\"created\":{created},\"model\":{model}", self.name())
    }

    /// How a fault closes the connection.
    fn close(&self) -> CloseBy {
        match &self.action {
            Some(FaultAction::Disconnect(fault)) => fault.close,
            _ => CloseBy::Fin,
        }
    }

    /// What a request comes to that ended without a token.
    fn failed(&self, end: &Finish) -> Failed {
        let message = end.message.as_deref().unwrap_or("the request failed").to_owned();
        let status = match end.outcome {
            Outcome::Disconnected => return Failed::Cut(self.close()),
            Outcome::HttpStatus(code) => {
                StatusCode::from_u16(code).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR)
            }
            // A queue that is full; else an engine that is down.
            Outcome::Refused if matches!(self.action, Some(FaultAction::Reject(_))) => {
                StatusCode::TOO_MANY_REQUESTS
            }
            Outcome::Refused => StatusCode::SERVICE_UNAVAILABLE,
            _ => StatusCode::INTERNAL_SERVER_ERROR,
        };
        let retry_after = match &self.action {
            Some(FaultAction::HttpStatus(fault)) => {
                fault.retry_after.map(|after| after.0.div_ceil(crate::units::SECOND))
            }
            Some(FaultAction::Reject(_)) => Some(RETRY),
            _ => None,
        };
        Failed::Api(ApiError { retry_after, ..ApiError::new(status, message) })
    }

    /// Streams the answer. The status waits until the engine has accepted the request, the first byte of the body until
    /// its first token.
    async fn stream(mut self) -> Answered {
        self.ticket.has_news().await;
        if let Some((_, end)) = self.ticket.take_end() {
            return Err(self.failed(&end));
        }
        let object =
            if self.asked.dialect == Dialect::Chat { "chat.completion.chunk" } else { "text_completion" };
        let shape = Shape {
            dialect: self.asked.dialect,
            head: self.head(object),
            usage: self.asked.usage,
            running_usage: self.asked.running_usage,
            ids: self.asked.token_ids.then(|| Arc::clone(&self.ids)),
            prompt_tokens: self.prompt_tokens,
            times: self.door.house.limits.times,
            version: self.version,
        };
        let cut = (Rc::clone(&self.door.cut), self.close());
        let events = Events::new(self.ticket, self.answer, shape, cut);
        let mut response = Response::new(Reply::Events(Box::new(events)));
        let headers = response.headers_mut();
        headers.insert(CONTENT_TYPE, HeaderValue::from_static("text/event-stream; charset=utf-8"));
        headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-cache"));
        Ok(response)
    }

    /// Answers in one piece.
    async fn whole(mut self) -> Answered {
        let (mut truth, mut usage) = (Truth::default(), None);
        let (at, end) = loop {
            let heard = self.ticket.heard().await;
            truth.hear(&heard);
            match heard {
                Heard::Usage(tokens) => usage = Some(tokens),
                Heard::Ids(ids) => self.answer.hear(&ids),
                Heard::Finished { at, end } => break (at, end),
                _ => {}
            }
        };
        self.answer.end(&end);
        let tokens = truth.tokens();
        if !matches!(end.outcome, Outcome::Success | Outcome::Truncated | Outcome::Malformed) {
            return Err(self.failed(&end));
        }
        let mut body = self.text(tokens, (end.outcome == Outcome::Success).then(|| usage.unwrap_or(tokens)));
        if end.outcome == Outcome::Malformed {
            body.truncate(body.len() - 2);
        }
        let mut response = response("application/json", body.freeze());
        if self.door.house.limits.times && end.outcome == Outcome::Success {
            let times = truth.json(at, self.prompt_tokens, end.preemptions);
            let times = HeaderValue::from_str(&times).unwrap_or(HeaderValue::from_static("null"));
            response.headers_mut().insert(TIMES, times);
        }
        Ok(response)
    }

    /// The body of a whole answer. Without a usage it was cut off, and says no reason for its end.
    fn text(&mut self, tokens: u32, usage: Option<u32>) -> BytesMut {
        let is_chat = self.asked.dialect == Dialect::Chat;
        let mut body = BytesMut::with_capacity(1024);
        body.put_slice(b"{");
        let object = if is_chat { "chat.completion" } else { "text_completion" };
        body.put_slice(self.head(object).as_bytes());
        if is_chat && self.asked.token_ids {
            body.put_slice(b",\"prompt_token_ids\":");
            put_list(&mut body, &self.ids);
        }
        body.put_slice(if is_chat {
            b",\"choices\":[{\"index\":0,\"message\":{\"role\":\"assistant\",\"content\":\"".as_slice()
        } else {
            b",\"choices\":[{\"index\":0,\"text\":\"".as_slice()
        });
        let mut ids = Vec::new();
        let text = self.answer.next(tokens, self.asked.token_ids.then_some(&mut ids));
        put_escaped(&mut body, text);
        body.put_slice(if is_chat { b"\"}".as_slice() } else { b"\"".as_slice() });
        body.put_slice(b",\"logprobs\":null,\"finish_reason\":");
        let reason = usage.map(|_| self.answer.reason.name());
        body.put_slice(Value::from(reason).to_string().as_bytes());
        if self.asked.token_ids {
            if !is_chat {
                body.put_slice(b",\"prompt_token_ids\":");
                put_list(&mut body, &self.ids);
            }
            body.put_slice(b",\"token_ids\":");
            put_list(&mut body, &ids);
        }
        body.put_slice(b"}]");
        if let Some(usage) = usage {
            body.put_slice(b",\"usage\":");
            put_usage(&mut body, self.prompt_tokens, usage);
        }
        body.put_slice(b"}");
        body
    }
}

fn response(kind: &'static str, body: Bytes) -> Response<Reply> {
    let mut response = Response::new(Reply::Whole(Some(body)));
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(kind));
    response
}

fn whole(value: &Value) -> Response<Reply> {
    response("application/json", value.to_string().into())
}

fn refusal(error: &ApiError) -> Response<Reply> {
    let mut response = response("application/json", error.body());
    *response.status_mut() = error.status;
    if let Some(seconds) = error.retry_after {
        response.headers_mut().insert(RETRY_AFTER, seconds.into());
    }
    response
}

/// Seconds since 1970.
pub(super) fn unix_time() -> u64 {
    std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).map_or(0, |time| time.as_secs())
}
