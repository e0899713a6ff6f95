//! Responses as Go's `net/http` writes them.

use axum::body::Body;
use axum::response::Response;
use http::header::{ACCEPT_ENCODING, ALLOW, CONTENT_TYPE, LOCATION, X_CONTENT_TYPE_OPTIONS};
use http::{HeaderMap, HeaderValue, Method, StatusCode};

pub(crate) const PLAIN: &str = "text/plain; charset=utf-8";

/// Whether a client takes what is compressed with gzip.
pub(super) fn takes_gzip(headers: &HeaderMap) -> bool {
    let lists = headers.get_all(ACCEPT_ENCODING).into_iter();
    let lists = lists.filter_map(|list| list.to_str().ok());
    lists.flat_map(|list| list.split(',')).any(|coding| {
        let (name, quality) = coding.split_once(';').unwrap_or((coding, ""));
        let quality = quality.trim().strip_prefix("q=");
        let refused = quality.is_some_and(|q| q.trim().parse() == Ok(0.0));
        name.trim().eq_ignore_ascii_case("gzip") && !refused
    })
}

/// No body, no type.
pub(crate) fn empty(status: StatusCode) -> Response {
    let mut response = Response::new(Body::empty());
    *response.status_mut() = status;
    response
}

/// A body of a type.
pub(crate) fn with_type(
    status: StatusCode,
    content_type: &'static str,
    body: impl Into<Body>,
) -> Response {
    let mut response = Response::new(body.into());
    *response.status_mut() = status;
    let content_type = HeaderValue::from_static(content_type);
    response.headers_mut().insert(CONTENT_TYPE, content_type);
    response
}

/// Plain text that browsers must not guess a type for.
pub(super) fn nosniff(status: StatusCode, text: String) -> Response {
    let mut response = with_type(status, PLAIN, text);
    response
        .headers_mut()
        .insert(X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    response
}

/// Go's `http.Error`: the text and a newline.
pub(crate) fn error(status: StatusCode, text: &str) -> Response {
    nosniff(status, format!("{text}\n"))
}

/// Go's `http.NotFound`.
pub(crate) fn not_found() -> Response {
    error(StatusCode::NOT_FOUND, "404 page not found")
}

/// The answer to anything but GET where only GET is.
pub(crate) fn method_not_allowed() -> Response {
    let mut response = error(StatusCode::METHOD_NOT_ALLOWED, "Method Not Allowed");
    let allow = HeaderValue::from_static("GET");
    response.headers_mut().insert(ALLOW, allow);
    response
}

/// The clean form of a path that has empty, `.` or `..` elements; `None` when it is clean.
pub(super) fn clean_path(path: &str) -> Option<String> {
    let mut elements = Vec::new();
    for element in path.split('/') {
        match element {
            "" | "." => {}
            ".." => {
                elements.pop();
            }
            other => elements.push(other),
        }
    }
    let mut clean = format!("/{}", elements.join("/"));
    if path.ends_with('/') && !elements.is_empty() {
        clean.push('/');
    }
    (clean != path).then_some(clean)
}

/// A redirect that keeps method and body, with Go's little page for GET.
pub(super) fn redirect(method: &Method, path: &str, query: Option<&str>) -> Response {
    let target = match query {
        Some(query) => format!("{path}?{query}"),
        None => path.to_owned(),
    };
    let Ok(location) = HeaderValue::from_str(&target) else {
        return not_found();
    };
    let page = match *method {
        Method::GET => format!(
            "<a href=\"{}\">Temporary Redirect</a>.\n\n",
            escape(&target)
        ),
        _ => String::new(),
    };
    let status = StatusCode::TEMPORARY_REDIRECT;
    let mut response = match *method {
        Method::GET | Method::HEAD => with_type(status, "text/html; charset=utf-8", page),
        _ => empty(status),
    };
    response.headers_mut().insert(LOCATION, location);
    response
}

/// Text inside HTML.
fn escape(text: &str) -> String {
    text.replace('&', "&amp;")
        .replace('<', "&lt;")
        .replace('>', "&gt;")
        .replace('"', "&#34;")
        .replace('\'', "&#39;")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths() {
        for clean in ["/", "/health", "/debug/pprof/", "/a/b"] {
            assert_eq!(clean_path(clean), None);
        }
        for (path, clean) in [
            ("//health", "/health"),
            ("/a//b/", "/a/b/"),
            ("/a/../health", "/health"),
            ("/..", "/"),
            ("/./", "/"),
            ("", "/"),
        ] {
            assert_eq!(clean_path(path).as_deref(), Some(clean), "{path}");
        }
    }
}
