//! Which service and method a path names, and the texts for those that are not there.

use std::borrow::Cow;

use tonic::Code;

use crate::error::Error;
use crate::metrics::Method;

/// Finds what a request path names.
///
/// # Errors
/// gRPC's own texts for a path, service or method that etcd does not have either.
pub(super) fn find(path: &str) -> Result<Method, Error> {
    if let Some(method) = Method::from_path(path) {
        return Ok(method);
    }
    let unimplemented = |text: String| Err(Error::status(Code::Unimplemented, Cow::Owned(text)));
    let Some((service, method)) = path
        .strip_prefix('/')
        .and_then(|path| path.rsplit_once('/'))
    else {
        return unimplemented(format!("malformed method name: {path:?}"));
    };
    if !is_service(service) {
        return unimplemented(format!("unknown service {service}"));
    }
    unimplemented(format!("unknown method {method} for service {service}"))
}

/// Whether a path belongs to one of etcd's gRPC services, whatever its method.
pub(super) fn is_service_path(path: &str) -> bool {
    path.strip_prefix('/')
        .and_then(|path| path.rsplit_once('/'))
        .is_some_and(|(service, _)| is_service(service))
}

fn is_service(service: &str) -> bool {
    Method::ALL.iter().any(|method| method.service() == service)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refusal(path: &str) -> String {
        let error = find(path).expect_err("no such method");
        assert_eq!(error.code(), Code::Unimplemented);
        error.message().into_owned()
    }

    #[test]
    fn texts_for_what_etcd_does_not_have_either() {
        assert_eq!(refusal("/a.B/C"), "unknown service a.B");
        assert_eq!(
            refusal("/etcdserverpb.KV/Get"),
            "unknown method Get for service etcdserverpb.KV"
        );
        assert_eq!(
            refusal("/v3lockpb.Lock/Try"),
            "unknown method Try for service v3lockpb.Lock"
        );
        assert_eq!(refusal("/x"), "malformed method name: \"/x\"");
        assert_eq!(refusal("/"), "malformed method name: \"/\"");
        assert_eq!(refusal("/a/b/c"), "unknown service a/b");
        assert_eq!(
            refusal("/etcdserverpb.KV/"),
            "unknown method  for service etcdserverpb.KV"
        );
    }

    #[test]
    fn service_paths() {
        assert!(is_service_path("/etcdserverpb.KV/Range"));
        assert!(is_service_path("/v3electionpb.Election/Nothing"));
        assert!(!is_service_path("/v3/kv/range"));
        assert!(!is_service_path("/health"));
    }
}
