//! Who may send plain requests to the client listeners: host names against DNS rebinding, and
//! origins of browsers (spec/http.md section 4).

use axum::response::Response;
use http::header::{
    ACCESS_CONTROL_ALLOW_HEADERS, ACCESS_CONTROL_ALLOW_METHODS, ACCESS_CONTROL_ALLOW_ORIGIN, HOST,
    ORIGIN,
};
use http::request::Parts;
use http::{HeaderMap, HeaderValue, StatusCode};
use tracing::warn;

use super::reply;
use crate::config::urls::split_host_port;

/// A set of names, or everything.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Allowed {
    All,
    Only(Vec<String>),
}

impl Allowed {
    fn new(values: &[String]) -> Self {
        if values.is_empty() || values.iter().any(|value| value == "*") {
            Allowed::All
        } else {
            Allowed::Only(values.to_vec())
        }
    }
}

/// `--host-whitelist` and `--cors`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Access {
    hosts: Allowed,
    origins: Allowed,
}

impl Access {
    /// From the values of the flags. An empty list, or `*` in it, allows all.
    pub fn new(cors: &[String], host_whitelist: &[String]) -> Self {
        Self {
            hosts: Allowed::new(host_whitelist),
            origins: Allowed::new(cors),
        }
    }

    /// The refusal of a request whose `Host` (the authority in HTTP/2) is not listed. For connections
    /// without TLS only: with TLS a foreign page cannot have a name's certificate.
    pub(super) fn refuse_host(&self, request: &Parts) -> Option<Response> {
        let Allowed::Only(hosts) = &self.hosts else {
            return None;
        };
        let header = request
            .headers
            .get(HOST)
            .and_then(|value| value.to_str().ok());
        let authority = header
            .or_else(|| request.uri.authority().map(|authority| authority.as_str()))
            .unwrap_or_default();
        let host = split_host_port(authority).map_or(authority, |(host, _)| host);
        if hosts.iter().any(|allowed| allowed == host) {
            return None;
        }
        warn!(
            host,
            "rejecting HTTP request to prevent DNS rebinding attacks"
        );
        let text = format!(
            "\nThe request reached etcd, but its Host header was unrecognized.\n\n\
             To have it served, either:\n\
             - use TLS: then every host name is served; or\n\
             - allow the host name: etcd --host-whitelist {host:?}\n\n\
             The check protects against DNS rebinding (CVE-2018-5702).\n"
        );
        Some(reply::error(StatusCode::MISDIRECTED_REQUEST, &text))
    }

    /// The headers that let a browser's page see the response; none if its origin is not allowed.
    pub(super) fn cors(&self, request: &HeaderMap) -> HeaderMap {
        let mut cors = HeaderMap::new();
        let origin = match &self.origins {
            Allowed::All => HeaderValue::from_static("*"),
            Allowed::Only(origins) => {
                let origin = request.get(ORIGIN);
                let allowed =
                    |origin: &&HeaderValue| origins.iter().any(|o| **origin == o.as_str());
                let Some(origin) = origin.filter(allowed) else {
                    return cors;
                };
                origin.clone()
            }
        };
        cors.insert(
            ACCESS_CONTROL_ALLOW_METHODS,
            HeaderValue::from_static("POST, GET, OPTIONS, PUT, DELETE"),
        );
        cors.insert(ACCESS_CONTROL_ALLOW_ORIGIN, origin);
        cors.insert(
            ACCESS_CONTROL_ALLOW_HEADERS,
            HeaderValue::from_static("accept, content-type, authorization"),
        );
        cors
    }
}
