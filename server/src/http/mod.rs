//! The plain HTTP endpoints of the client and metrics listeners: health checks, version, metrics
//! and debug variables (spec/http.md sections 2 to 4). Bodies, headers and status codes are those
//! of etcd's Go server, down to the trailing newlines.
//!
//! [`client_router`] is for the client listeners and applies the access rules; [`metrics_router`]
//! is for `--listen-metrics-urls` and has neither access rules nor `/version`. Both ask the member
//! through [`Source`].
//!
//! Not here: the JSON gateway under `/v3/` and profiles; their paths answer 404, as etcd's do when
//! they are switched off.

mod access;
mod debug;
mod health;
pub(crate) mod reply;
mod source;

#[cfg(test)]
mod tests;

use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::extract::Request;
use axum::response::Response;
use http::request::Parts;
use http::{Method, StatusCode};

pub use access::Access;
pub use source::{RaftProgress, RaftStatus, Source};

use crate::config::Config;
use crate::handle::Versions;
use crate::metrics::{Metrics, TEXT_FORMAT};
use health::Kind;

/// What the endpoints need to know besides the member.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Options {
    /// How long the read of `/health` may take. etcd: 5 s and two election timeouts.
    pub request_timeout: Duration,
    /// Who may send requests to the client listeners.
    pub access: Access,
}

impl From<&Config> for Options {
    fn from(config: &Config) -> Self {
        Self {
            request_timeout: config.request_timeout(),
            access: Access::new(&config.cors, &config.host_whitelist),
        }
    }
}

/// What is served where.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Listener {
    Client,
    Metrics,
}

struct Endpoints<S> {
    source: S,
    metrics: Arc<Metrics>,
    options: Options,
    listener: Listener,
}

/// The answer of `/version`, which the peer listeners give too.
pub fn version_reply(versions: &Versions) -> Response {
    debug::version(versions)
}

/// The endpoints of the client listeners.
pub fn client_router<S: Source>(source: S, metrics: Arc<Metrics>, options: Options) -> Router {
    router(source, metrics, options, Listener::Client)
}

/// The endpoints of the metrics listeners: `/metrics` and the health checks, for everybody.
pub fn metrics_router<S: Source>(source: S, metrics: Arc<Metrics>, options: Options) -> Router {
    router(source, metrics, options, Listener::Metrics)
}

/// Everything is one fallback: Go's exact matching is a `match`, and differs from axum's routing in
/// what it does with unknown methods, HEAD and unclean paths.
fn router<S: Source>(
    source: S,
    metrics: Arc<Metrics>,
    options: Options,
    listener: Listener,
) -> Router {
    let endpoints = Arc::new(Endpoints {
        source,
        metrics,
        options,
        listener,
    });
    Router::new().fallback(move |request: Request| async move {
        endpoints.serve(request.into_parts().0).await
    })
}

impl<S: Source> Endpoints<S> {
    /// Bodies are ignored, as Go's handlers ignore them.
    async fn serve(&self, request: Parts) -> Response {
        if self.listener == Listener::Metrics {
            return self.dispatch(&request).await;
        }
        let access = &self.options.access;
        if let Some(refusal) = access.refuse_host(&request) {
            return refusal;
        }
        let mut response = if request.method == Method::OPTIONS {
            reply::empty(StatusCode::OK)
        } else {
            self.dispatch(&request).await
        };
        access.add_cors(&request.headers, response.headers_mut());
        response
    }

    async fn dispatch(&self, request: &Parts) -> Response {
        let (path, query) = (request.uri.path(), request.uri.query());
        if request.method != Method::CONNECT
            && let Some(clean) = reply::clean_path(path)
        {
            return reply::redirect(&request.method, &clean, query);
        }
        let get = request.method == Method::GET;
        let client = self.listener == Listener::Client;
        match path {
            "/metrics" => self.scrape().await,
            "/health" if !get => health::refuse_method("/health error", path),
            "/health" => self.health(query).await,
            "/version" if client && !get => reply::method_not_allowed(),
            "/version" if client => debug::version(&self.source.versions()),
            "/debug/vars" if client && !get => reply::method_not_allowed(),
            "/debug/vars" if client => debug::vars(&self.source.raft_status()),
            _ => match Kind::of_path(path) {
                Some(_) if !get => health::refuse_method("Health request error", path),
                Some((kind, check)) => self.checks(kind, check, path, query).await,
                None => reply::not_found(),
            },
        }
    }

    /// Reading `/proc` and encoding a few thousand series is for a thread that may block.
    async fn scrape(&self) -> Response {
        let metrics = self.metrics.clone();
        let scraped = tokio::task::spawn_blocking(move || metrics.scrape()).await;
        let text = match scraped {
            Ok(Ok(text)) => text,
            Ok(Err(error)) => return scrape_failed(&error),
            Err(error) => return scrape_failed(&error.to_string()),
        };
        reply::with_type(StatusCode::OK, TEXT_FORMAT, text)
    }
}

fn scrape_failed(error: &str) -> Response {
    tracing::error!(error, "failed to gather metrics");
    let text = format!("An error has occurred while serving metrics:\n\n{error}");
    reply::error(StatusCode::INTERNAL_SERVER_ERROR, &text)
}
