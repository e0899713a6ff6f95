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
    pub(crate) security: Security,
    /// Scheme and authority of the requests sent there.
    pub(crate) origin: Uri,
}

/// Whether the form of an endpoint asks for TLS.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Security {
    /// `https`, `unixs`.
    Required,
    /// `unix`, and no scheme: with TLS if the client is set up for it.
    Open,
    /// `http`.
    None,
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
    /// Reads `host:port`, `http://host:port`, `https://host:port`, and `unix:path`, `unix://path`
    /// (relative), `unix:///path` (absolute), or `unixs` for `unix`.
    pub(crate) fn parse(endpoint: &str) -> Result<Target, Error> {
        let invalid = |reason: &str| Error::InvalidEndpoint {
            endpoint: endpoint.to_owned(),
            reason: reason.to_owned(),
        };
        let unix = |(scheme, security)| {
            let path = endpoint.strip_prefix(scheme)?;
            Some((path, security))
        };
        let unix = [("unix:", Security::Open), ("unixs:", Security::Required)]
            .into_iter()
            .find_map(unix);
        let (address, security, authority) = if let Some((path, security)) = unix {
            let path = path.strip_prefix("//").unwrap_or(path);
            if path.is_empty() {
                return Err(invalid("no path"));
            }
            let address = Address::Unix(PathBuf::from(path));
            (address, security, "localhost".to_owned())
        } else {
            let url = endpoint.split_once("://");
            let url = url.map(|(scheme, rest)| (scheme.to_ascii_lowercase(), rest));
            let (security, rest) = match &url {
                Some((scheme, rest)) if scheme == "http" => (Security::None, *rest),
                Some((scheme, rest)) if scheme == "https" => (Security::Required, *rest),
                Some((scheme, _)) => return Err(invalid(&format!("unknown scheme {scheme:?}"))),
                None => (Security::Open, endpoint),
            };
            let rest = match security {
                Security::Open => rest,
                _ => {
                    let rest = rest.split(['/', '?', '#']).next().unwrap_or_default();
                    // A name and a password in a URL are not used, as in etcd's client.
                    rest.rsplit_once('@').map_or(rest, |(_, rest)| rest)
                }
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
                security,
                authority,
            )
        };
        let scheme = match security {
            Security::Required => "https",
            Security::Open | Security::None => "http",
        };
        let origin = Uri::builder()
            .scheme(scheme)
            .authority(authority)
            .path_and_query("/")
            .build()
            .map_err(|error| invalid(&error.to_string()))?;
        Ok(Target {
            endpoint: endpoint.to_owned(),
            address,
            security,
            origin,
        })
    }

    /// The host that a server's certificate must be for.
    pub(crate) fn host(&self) -> &str {
        match &self.address {
            Address::Tcp { host, .. } => host,
            Address::Unix(_) => "localhost",
        }
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
        check(
            "HTTP://name:p@ss@etcd-0:2379",
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
    fn forms_that_ask_for_tls() {
        for (endpoint, security, origin) in [
            ("a:1", Security::Open, "http://a:1/"),
            ("http://a:1", Security::None, "http://a:1/"),
            ("https://a:1", Security::Required, "https://a:1/"),
            ("https://[::1]:1/x", Security::Required, "https://[::1]:1/"),
            ("unix:a", Security::Open, "http://localhost/"),
            ("unixs:/a", Security::Required, "https://localhost/"),
            ("unixs:///a", Security::Required, "https://localhost/"),
        ] {
            let target = Target::parse(endpoint).expect(endpoint);
            assert_eq!(target.security, security, "{endpoint}");
            assert_eq!(target.origin.to_string(), origin, "{endpoint}");
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
