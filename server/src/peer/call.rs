//! HTTP requests to other members.

use std::io;
use std::time::Duration;

use bytes::Bytes;
use http::header::HOST;
use http::{HeaderMap, HeaderValue, Method, Request, Response, StatusCode};
use http_body_util::{BodyExt, Empty, LengthLimitError, Limited};
use hyper::body::{Body, Incoming};
use hyper::client::conn::http1::{SendRequest, handshake};
use hyper_util::rt::TokioIo;
use tokio::time::timeout;
use tokio_util::task::AbortOnDropHandle;

use super::via::Via;
use crate::config::Url;
use crate::error::chain;

/// Longest explanation of a refusal that is read, in bytes.
const MAX_TEXT: usize = 1024;

/// Why a request to another member has failed.
#[derive(Debug, thiserror::Error)]
pub enum CallError {
    /// There is no connection.
    #[error("cannot connect: {0}")]
    Connect(#[source] io::Error),
    /// The connection broke, or what came over it is not HTTP.
    #[error("{}", chain(.0))]
    Http(#[from] hyper::Error),
    /// It took too long.
    #[error("no answer in time")]
    TimedOut,
    /// The member refused.
    #[error("{status}: {text}")]
    Refused {
        /// The status.
        status: StatusCode,
        /// What the member says about it.
        text: String,
        /// The headers.
        headers: Box<HeaderMap>,
    },
    /// The answer is longer than any that makes sense.
    #[error("the answer is longer than {0} bytes")]
    TooLong(usize),
    /// The answer does not mean anything here.
    #[error("the answer makes no sense: {0}")]
    Nonsense(String),
}

/// A connection to a member that takes requests, one after another.
pub(super) struct Caller<B> {
    host: HeaderValue,
    sender: SendRequest<B>,
    _task: AbortOnDropHandle<()>,
}

impl<B> Caller<B>
where
    B: Body<Data = Bytes, Error: Into<Box<dyn std::error::Error + Send + Sync>>>,
    B: Send + Unpin + 'static,
{
    pub(super) async fn connect(url: &Url, via: &Via) -> Result<Self, CallError> {
        let socket = via.connect(url).await;
        let socket = socket.map_err(CallError::Connect)?;
        let host = if url.scheme().is_unix() {
            "localhost"
        } else {
            url.address()
        };
        let host = HeaderValue::from_str(host)
            .map_err(|error| CallError::Connect(io::Error::other(error)))?;
        let (sender, connection) = handshake(TokioIo::new(socket)).await?;
        let task = tokio::spawn(async move {
            if let Err(error) = connection.with_upgrades().await {
                tracing::debug!(%error, "a connection to a peer broke");
            }
        });
        Ok(Self {
            host,
            sender,
            _task: AbortOnDropHandle::new(task),
        })
    }

    /// Sends a request and reads an answer of at most `bound` bytes.
    pub(super) async fn ask(
        &mut self,
        request: Request<B>,
        bound: usize,
    ) -> Result<(HeaderMap, Bytes), CallError> {
        let response = self.send(request).await?;
        if response.status() != StatusCode::OK {
            return Err(refusal(response).await);
        }
        let (head, body) = response.into_parts();
        match Limited::new(body, bound).collect().await {
            Ok(page) => Ok((head.headers, page.to_bytes())),
            Err(error) if error.is::<LengthLimitError>() => Err(CallError::TooLong(bound)),
            Err(error) => match error.downcast::<hyper::Error>() {
                Ok(error) => Err(CallError::Http(*error)),
                Err(error) => Err(CallError::Nonsense(error.to_string())),
            },
        }
    }

    /// Sends a request; the status is not looked at.
    pub(super) async fn send(
        &mut self,
        mut request: Request<B>,
    ) -> Result<Response<Incoming>, CallError> {
        request.headers_mut().insert(HOST, self.host.clone());
        Ok(self.sender.send_request(request).await?)
    }
}

/// Turns an answer into the refusal that it is.
pub(super) async fn refusal(response: Response<Incoming>) -> CallError {
    let (head, body) = response.into_parts();
    let text = match Limited::new(body, MAX_TEXT).collect().await {
        Ok(text) => String::from_utf8_lossy(&text.to_bytes()).trim().to_owned(),
        Err(_) => String::new(),
    };
    CallError::Refused {
        status: head.status,
        text,
        headers: Box::new(head.headers),
    }
}

impl Caller<Empty<Bytes>> {
    /// Asks for a page of at most `bound` bytes.
    pub(super) async fn get(
        &mut self,
        path: &'static str,
        headers: HeaderMap,
        bound: usize,
    ) -> Result<(HeaderMap, Bytes), CallError> {
        let mut request = Request::new(Empty::new());
        *request.method_mut() = Method::GET;
        *request.uri_mut() = http::Uri::from_static(path);
        *request.headers_mut() = headers;
        self.ask(request, bound).await
    }
}

/// Gets one page, all in `patience`.
pub(super) async fn get(
    via: &Via,
    url: &Url,
    path: &'static str,
    bound: usize,
    patience: Duration,
) -> Result<(HeaderMap, Bytes), CallError> {
    let got = timeout(patience, async {
        let mut caller = Caller::connect(url, via).await?;
        caller.get(path, HeaderMap::new(), bound).await
    });
    got.await.unwrap_or(Err(CallError::TimedOut))
}
