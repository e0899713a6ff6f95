//! Endpoint strings: the forms that etcd accepts, and what is dialled for each.

use std::path::PathBuf;

use http::Uri;

use crate::Error;

/// One endpoint, checked.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Target {
    /// As configured; what errors and logs show.
    pub(crate) endpoint: String,
    pub(crate) address: Address,
    /// Scheme and authority of the requests sent there.
    pub(crate) origin: Uri,
}

/// Where to connect.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) enum Address {
    /// Resolved again at every attempt, so a moved name is followed.
    Tcp {
        host: String,
        port: u16,
    },
    Unix(PathBuf),
}

impl Target {
    /// Reads `host:port`, `http://host:port`, `unix:path`, `unix://path` (relative) or
    /// `unix:///path` (absolute).
    pub(crate) fn parse(endpoint: &str) -> Result<Target, Error> {
        if endpoint.starts_with("https://") || endpoint.starts_with("unixs:") {
            return Err(Error::TlsNotSupported {
                endpoint: endpoint.to_owned(),
            });
        }
        let invalid = |reason: &str| Error::InvalidEndpoint {
            endpoint: endpoint.to_owned(),
            reason: reason.to_owned(),
        };
        let (address, authority) = if let Some(path) = endpoint.strip_prefix("unix:") {
            let path = path.strip_prefix("//").unwrap_or(path);
            if path.is_empty() {
                return Err(invalid("no path"));
            }
            (Address::Unix(PathBuf::from(path)), "localhost".to_owned())
        } else {
            let rest = match endpoint.split_once("://") {
                Some(("http", rest)) => rest.split(['/', '?', '#']).next().unwrap_or_default(),
                Some((scheme, _)) => return Err(invalid(&format!("unknown scheme {scheme:?}"))),
                None => endpoint,
            };
            let (host, port) = split_host_port(rest).ok_or_else(|| invalid("missing port"))?;
            let port = port.parse().map_err(|_| invalid("bad port"))?;
            // An empty host is the local machine, as everywhere in Go.
            let host = if host.is_empty() { "localhost" } else { host };
            let authority = if host.contains(':') {
                format!("[{host}]:{port}")
            } else {
                format!("{host}:{port}")
            };
            (
                Address::Tcp {
                    host: host.to_owned(),
                    port,
                },
                authority,
            )
        };
        let origin = Uri::builder()
            .scheme("http")
            .authority(authority)
            .path_and_query("/")
            .build()
            .map_err(|error| invalid(&error.to_string()))?;
        Ok(Target {
            endpoint: endpoint.to_owned(),
            address,
            origin,
        })
    }
}

/// Host and port; IPv6 hosts come in brackets.
fn split_host_port(text: &str) -> Option<(&str, &str)> {
    if let Some(rest) = text.strip_prefix('[') {
        let (host, port) = rest.split_once("]:")?;
        return Some((host, port));
    }
    let (host, port) = text.rsplit_once(':')?;
    (!host.contains(':')).then_some((host, port))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tcp(host: &str, port: u16) -> Address {
        Address::Tcp {
            host: host.into(),
            port,
        }
    }

    #[test]
    fn accepted_forms() {
        let check = |endpoint: &str, address: Address, origin: &str| {
            let target = Target::parse(endpoint).expect(endpoint);
            assert_eq!(target.address, address, "{endpoint}");
            assert_eq!(target.origin.to_string(), origin, "{endpoint}");
        };
        check(
            "127.0.0.1:2379",
            tcp("127.0.0.1", 2379),
            "http://127.0.0.1:2379/",
        );
        check(
            "http://etcd-0:2379",
            tcp("etcd-0", 2379),
            "http://etcd-0:2379/",
        );
        check(
            "http://etcd-0:2379/",
            tcp("etcd-0", 2379),
            "http://etcd-0:2379/",
        );
        check("[::1]:2379", tcp("::1", 2379), "http://[::1]:2379/");
        check("http://[::1]:2379", tcp("::1", 2379), "http://[::1]:2379/");
        check(":2379", tcp("localhost", 2379), "http://localhost:2379/");
        check(
            "unix:/run/etcd.sock",
            Address::Unix("/run/etcd.sock".into()),
            "http://localhost/",
        );
        check(
            "unix:///run/etcd.sock",
            Address::Unix("/run/etcd.sock".into()),
            "http://localhost/",
        );
        check(
            "unix://etcd.sock:1",
            Address::Unix("etcd.sock:1".into()),
            "http://localhost/",
        );
    }

    #[test]
    fn tls_endpoints_are_refused_by_name() {
        for endpoint in ["https://a:1", "unixs:/a", "unixs:///a"] {
            let error = Target::parse(endpoint).expect_err(endpoint);
            assert!(matches!(error, Error::TlsNotSupported { .. }), "{error}");
            assert!(error.to_string().contains(endpoint), "{error}");
        }
    }

    #[test]
    fn everything_else_is_invalid() {
        for endpoint in [
            "",
            "a",
            "http://a",
            "ftp://a:1",
            "a:b",
            "a:99999",
            "::1:2379",
            "unix:",
            "http://a b:1",
            "[::1]",
            "ho st:1",
        ] {
            let error = Target::parse(endpoint).expect_err(endpoint);
            assert!(
                matches!(error, Error::InvalidEndpoint { .. }),
                "{endpoint}: {error}"
            );
        }
    }
}
