//! The shape of answers.

use std::{
    convert::Infallible,
    pin::Pin,
    task::{Context, Poll},
};

use hyper::{
    Response, StatusCode,
    body::{Body, Bytes, Frame, SizeHint},
    header::{self, HeaderName, HeaderValue},
};
use serde_json::{Value, json};
use tokio::sync::mpsc;

/// What an answer says.
pub(super) enum Content {
    Whole(Option<Bytes>),
    /// What comes, as it comes.
    Stream(mpsc::Receiver<Bytes>),
}

impl Body for Content {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        match &mut *self {
            Self::Whole(content) => Poll::Ready(content.take().map(|bytes| Ok(Frame::data(bytes)))),
            Self::Stream(pieces) => pieces.poll_recv(context).map(|piece| piece.map(|bytes| Ok(Frame::data(bytes)))),
        }
    }

    fn is_end_stream(&self) -> bool {
        matches!(self, Self::Whole(None))
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            Self::Whole(content) => SizeHint::with_exact(content.as_ref().map_or(0, Bytes::len) as u64),
            Self::Stream(_) => SizeHint::default(),
        }
    }
}

/// An answer.
pub(super) type Reply = Response<Content>;

fn reply(status: StatusCode, kind: &'static str, content: Content) -> Reply {
    let mut reply = Response::new(content);
    *reply.status_mut() = status;
    let headers = reply.headers_mut();
    let fixed: [(HeaderName, &'static str); 3] = [
        (header::CONTENT_TYPE, kind),
        (header::CACHE_CONTROL, "no-store"),
        (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
    ];
    headers.extend(fixed.map(|(name, value)| (name, HeaderValue::from_static(value))));
    reply
}

/// Text of some kind.
pub(super) fn text(kind: &'static str, text: String) -> Reply {
    reply(StatusCode::OK, kind, Content::Whole(Some(text.into())))
}

/// JSON, on one line.
pub(super) fn json(status: StatusCode, value: &Value) -> Reply {
    reply(status, "application/json", Content::Whole(Some(format!("{value}\n").into())))
}

/// What was asked for.
pub(super) fn found(value: &Value) -> Reply {
    json(StatusCode::OK, value)
}

/// Why something that was asked for is not done.
#[derive(Debug)]
pub(super) struct Refusal {
    status: StatusCode,
    why: String,
    header: Option<(HeaderName, HeaderValue)>,
}

/// Refuses something.
pub(super) fn refused(status: StatusCode, why: impl Into<String>) -> Refusal {
    Refusal { status, why: why.into(), header: None }
}

/// Refuses what makes no sense.
pub(super) fn bad(why: impl Into<String>) -> Refusal {
    refused(StatusCode::BAD_REQUEST, why)
}

impl Refusal {
    /// With a header, if its value can be one.
    pub(super) fn with(mut self, name: HeaderName, value: &str) -> Self {
        self.header = HeaderValue::from_str(value).ok().map(|value| (name, value));
        self
    }

    pub(super) fn into_reply(self) -> Reply {
        let mut reply = json(self.status, &json!({ "error": self.why }));
        reply.headers_mut().extend(self.header);
        reply
    }
}

/// Events as they come.
pub(super) fn stream(pieces: mpsc::Receiver<Bytes>) -> Reply {
    reply(StatusCode::OK, "text/event-stream", Content::Stream(pieces))
}
