//! The plain HTTP endpoints of the client and metrics listeners: health checks, version, metrics
//! and debug variables (spec/http.md sections 2 to 4). Bodies, headers and status codes are those
//! of etcd's Go server, down to the trailing newlines.
//!
//! [`client_router`] is for the client listeners and applies the access rules; [`metrics_router`]
//! is for `--listen-metrics-urls` and has neither access rules nor `/version`. Both ask the member
//! through [`Source`].
//!
//! [`Gateway`] is the API as JSON, under `/v3/` of the client listeners.
//!
//! Profiles are below `/debug/pprof/`, where they are switched on.

mod access;
mod debug;
mod gateway;
mod health;
mod profile;
pub(crate) mod reply;
mod source;

#[cfg(test)]
mod tests;

use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::extract::Request;
use axum::response::Response;
use http::header::CONTENT_ENCODING;
use http::request::Parts;
use http::{HeaderValue, Method, StatusCode, Uri};

pub use access::Access;
pub use gateway::Gateway;
pub use source::{RaftProgress, RaftStatus, Source};

use crate::config::Config;
use crate::grpc::gzip;
use crate::handle::Versions;
use crate::logging;
use crate::metrics::{Metrics, TEXT_FORMAT};
use crate::serve::OverTls;
use health::Kind;

/// What the endpoints need to know besides the member.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Options {
    /// How long the read of `/health` may take. etcd: 5 s and two election timeouts.
    pub request_timeout: Duration,
    /// Who may send requests to the client listeners.
    pub access: Access,
    /// Whether profiles are served, to clients.
    pub profiles: bool,
}

impl From<&Config> for Options {
    fn from(config: &Config) -> Self {
        Self {
            request_timeout: config.request_timeout(),
            access: Access::new(&config.cors, &config.host_whitelist),
            profiles: config.enable_pprof || config.log.level == logging::Level::Debug,
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
    gateway: Option<Gateway>,
}

/// The answer of `/version`, which the peer listeners give too.
pub fn version_reply(versions: &Versions) -> Response {
    debug::version(versions)
}

/// The endpoints of the client listeners; without a gateway (`--enable-grpc-gateway=false`) `/v3/` is
/// not there.
pub fn client_router<S: Source>(
    source: S,
    metrics: Arc<Metrics>,
    options: Options,
    gateway: Option<Gateway>,
) -> Router {
    router(source, metrics, options, Listener::Client, gateway)
}

/// The endpoints of the metrics listeners: `/metrics` and the health checks, for everybody.
pub fn metrics_router<S: Source>(source: S, metrics: Arc<Metrics>, options: Options) -> Router {
    router(source, metrics, options, Listener::Metrics, None)
}

/// Everything is one fallback: Go's exact matching is a `match`, and differs from axum's routing in
/// what it does with unknown methods, HEAD and unclean paths.
fn router<S: Source>(
    source: S,
    metrics: Arc<Metrics>,
    options: Options,
    listener: Listener,
    gateway: Option<Gateway>,
) -> Router {
    let endpoints = Arc::new(Endpoints {
        source,
        metrics,
        options,
        listener,
        gateway,
    });
    Router::new().fallback(move |request: Request| async move { endpoints.serve(request).await })
}

impl<S: Source> Endpoints<S> {
    async fn serve(&self, request: Request) -> Response {
        let (mut request, body) = request.into_parts();
        if self.listener == Listener::Metrics {
            return self.dispatch(&request).await;
        }
        let access = &self.options.access;
        let refusal = match request.extensions.get::<OverTls>() {
            None => access.refuse_host(&request),
            Some(tls) => self.refuse_name(tls, request.uri.path()),
        };
        if let Some(refusal) = refusal {
            return refusal;
        }
        let cors = access.cors(&request.headers);
        let mut response = if request.method == Method::OPTIONS {
            reply::empty(StatusCode::OK)
        } else {
            from_beta(&mut request.uri);
            match self.gateway_for(request.uri.path()) {
                Some(gateway) => gateway.serve(Request::from_parts(request, body)).await,
                None => self.dispatch(&request).await,
            }
        };
        response.headers_mut().extend(cors);
        response
    }

    /// The refusal of a call over the gateway by a client whose certificate names a user: calls over
    /// the gateway are made by whoever their token names.
    fn refuse_name(&self, tls: &OverTls, path: &str) -> Option<Response> {
        let is_call = path.starts_with(gateway::PREFIX) || path.starts_with("/v3beta/");
        let refused =
            tls.is_named && is_call && self.gateway.is_some() && self.source.auth_enabled();
        refused.then(|| {
            let text = "CommonName of client sending a request against gateway will be ignored and not used as expected";
            reply::error(StatusCode::BAD_REQUEST, text)
        })
    }

    /// The gateway if a path is its own; one that is not clean is redirected first.
    fn gateway_for(&self, path: &str) -> Option<&Gateway> {
        let ours = path.starts_with(gateway::PREFIX) && reply::clean_path(path).is_none();
        self.gateway.as_ref().filter(|_| ours)
    }

    /// Bodies are ignored, as Go's handlers ignore them.
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
            "/metrics" => self.scrape(reply::takes_gzip(&request.headers)).await,
            "/health" if !get => health::refuse_method("/health error", path),
            "/health" => self.health(query).await,
            "/version" if client && !get => reply::method_not_allowed(),
            "/version" if client => debug::version(&self.source.versions()),
            "/v3" if self.gateway.is_some() => {
                reply::redirect(&request.method, gateway::PREFIX, query)
            }
            "/debug/vars" if client && !get => reply::method_not_allowed(),
            "/debug/vars" if client => debug::vars(&self.source.raft_status()),
            "/debug/log-level" if client && self.options.profiles => {
                debug::log_level(&request.method, query, logging::of_process())
            }
            "/debug/pprof" if client && self.options.profiles => {
                reply::redirect(&request.method, profile::PREFIX, query)
            }
            _ if client && self.options.profiles && path.starts_with(profile::PREFIX) => {
                profile::serve(&path[profile::PREFIX.len()..], query).await
            }
            _ => match Kind::of_path(path) {
                Some(_) if !get => health::refuse_method("Health request error", path),
                Some((kind, check)) => self.checks(kind, check, path, query).await,
                None => reply::not_found(),
            },
        }
    }

    /// Reading `/proc` and encoding a few thousand series is for a thread that may block.
    async fn scrape(&self, compress: bool) -> Response {
        let metrics = self.metrics.clone();
        let scraped = tokio::task::spawn_blocking(move || {
            let text = metrics.scrape()?;
            Ok(match compress {
                true => gzip(&text),
                false => text,
            })
        });
        let body = match scraped.await {
            Ok(Ok(body)) => body,
            Ok(Err(error)) => return scrape_failed(error),
            Err(error) => return scrape_failed(error.to_string()),
        };
        let mut response = reply::with_type(StatusCode::OK, TEXT_FORMAT, body);
        if compress {
            let gzip = HeaderValue::from_static("gzip");
            response.headers_mut().insert(CONTENT_ENCODING, gzip);
        }
        response
    }
}

/// The prefix that the gateway had in etcd 3.3 still works.
fn from_beta(uri: &mut Uri) {
    let Some(rest) = uri
        .path_and_query()
        .and_then(|p| p.as_str().strip_prefix("/v3beta/"))
    else {
        return;
    };
    if let Ok(path) = format!("{}{rest}", gateway::PREFIX).parse() {
        let mut parts = uri.clone().into_parts();
        parts.path_and_query = Some(path);
        if let Ok(rewritten) = Uri::from_parts(parts) {
            *uri = rewritten;
        }
    }
}

fn scrape_failed(error: String) -> Response {
    tracing::error!(error, "failed to gather metrics");
    let text = format!("An error has occurred while serving metrics:\n\n{error}");
    reply::error(StatusCode::INTERNAL_SERVER_ERROR, &text)
}
