//! What a client is told that asked for what can not be, in the shape of `OpenAI`'s API as vLLM fills it.

use bytes::Bytes;
use hyper::StatusCode;
use serde_json::json;

/// An answer that is an error.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct ApiError {
    pub(super) status: StatusCode,
    pub(super) message: String,
    /// The request's field that is wrong.
    pub(super) param: Option<&'static str>,
    /// In how many seconds to try again.
    pub(super) retry_after: Option<u64>,
}

impl ApiError {
    pub(super) fn new(status: StatusCode, message: impl Into<String>) -> Self {
        Self { status, message: message.into(), param: None, retry_after: None }
    }

    /// Something in the request is wrong.
    pub(super) fn bad(param: &'static str, message: impl Into<String>) -> Self {
        Self { param: Some(param), ..Self::new(StatusCode::BAD_REQUEST, message) }
    }

    /// The body: `{"error": {"message", "type", "param", "code"}}`.
    pub(super) fn body(&self) -> Bytes {
        let kind = match self.status.as_u16() {
            404 => "NotFoundError",
            405 => "MethodNotAllowedError",
            413 => "RequestTooLargeError",
            429 => "RateLimitError",
            503 => "ServiceUnavailableError",
            400..500 => "BadRequestError",
            _ => "InternalServerError",
        };
        let error = json!({
            "message": self.message, "type": kind, "param": self.param, "code": self.status.as_u16(),
        });
        Bytes::from(json!({ "error": error }).to_string())
    }
}
