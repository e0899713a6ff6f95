//! The listeners that the configuration asks for, with and without TLS.

use std::io;
use std::path::Path;

use ferrite_tls::{H2, HTTP1, Info, self_signed};

use super::Error;
use crate::config::{Config, Scheme, Security, Url};
use crate::serve::{Endpoint, Listener, Serves, Tls};

/// What is shown to clients, and what members show each other.
#[derive(Clone, Debug)]
pub(super) struct Certificates {
    pub(super) clients: Info,
    pub(super) members: Info,
}

impl Certificates {
    /// Those that the files have, or that are made.
    ///
    /// # Errors
    /// [`Error::Tls`].
    pub(super) fn find(config: &Config) -> Result<Self, Error> {
        let clients = || {
            [
                &config.listen_client_urls[..],
                &config.listen_client_http_urls,
            ]
            .concat()
        };
        Ok(Self {
            members: find(config, &config.peer_tls, "peer", || {
                config.listen_peer_urls.clone()
            })?,
            clients: find(config, &config.client_tls, "client", clients)?,
        })
    }
}

fn find(
    config: &Config,
    security: &Security,
    whose: &str,
    urls: impl FnOnce() -> Vec<Url>,
) -> Result<Info, Error> {
    let given = &security.info;
    let info = match security.auto && given.is_empty() {
        true => {
            let hosts: Vec<String> = urls().iter().map(|url| url.host().to_owned()).collect();
            let dir = config.data_dir.join("fixtures").join(whose);
            let made = self_signed(&dir, &hosts, config.self_signed_cert_validity);
            Info {
                protocol: given.protocol.clone(),
                ..made.map_err(|source| tls(whose, source))?
            }
        }
        false => given.clone(),
    };
    if !info.is_empty() {
        tracing::info!(
            "tls-info" = %info,
            "cipher-suites" = ?info.protocol.suites.names(),
            "starting with {whose} TLS"
        );
    }
    Ok(info)
}

fn tls(what: &str, source: ferrite_tls::Error) -> Error {
    Error::Tls {
        what: what.to_owned(),
        source,
    }
}

/// Binds the listeners of clients: those for everything, and those for HTTP only.
pub(super) async fn clients(config: &Config, info: &Info) -> Result<Vec<Listener>, Error> {
    let serves = match config.listen_client_http_urls.is_empty() {
        true => Serves::Both,
        false => Serves::Grpc,
    };
    let secure = |serves| secure(info, Endpoint::Client, protocols(serves), false);
    let mut listeners = bind(config, &config.listen_client_urls, serves, || {
        secure(serves)
    })
    .await?;
    let http = &config.listen_client_http_urls;
    listeners.extend(bind(config, http, Serves::Http, || secure(Serves::Http)).await?);
    Ok(listeners)
}

/// Binds the listeners of metrics and health checks.
pub(super) async fn scrapers(config: &Config, info: &Info) -> Result<Vec<Listener>, Error> {
    let secure = || secure(info, Endpoint::Client, protocols(Serves::Http), true);
    bind(config, &config.listen_metrics_urls, Serves::Http, secure).await
}

/// Binds the listeners of other members.
pub(super) async fn members(config: &Config, info: &Info) -> Result<Vec<Listener>, Error> {
    let secure = || secure(info, Endpoint::Peer, &[], !info.skip_client_san_verify);
    bind(config, &config.listen_peer_urls, Serves::Http, secure).await
}

fn protocols(serves: Serves) -> &'static [&'static [u8]] {
    match serves {
        Serves::Grpc => &[H2],
        Serves::Both | Serves::Http => &[H2, HTTP1],
    }
}

fn secure(
    info: &Info,
    endpoint: Endpoint,
    protocols: &[&[u8]],
    checks_address: bool,
) -> Result<Tls, ferrite_tls::Error> {
    Ok(Tls {
        server: info.server(protocols)?,
        endpoint,
        plain_too: false,
        checks_address,
        identifies: info.client_cert_auth,
    })
}

/// Binds one listener for each address, with TLS if there is a URL that says so, and without if there is
/// one for that.
async fn bind(
    config: &Config,
    urls: &[Url],
    serves: Serves,
    secure: impl Fn() -> Result<Tls, ferrite_tls::Error>,
) -> Result<Vec<Listener>, Error> {
    let mut listeners = Vec::new();
    for (at, url) in urls.iter().enumerate() {
        let of_address = |other: &&Url| {
            other.address() == url.address() && other.scheme().is_unix() == url.scheme().is_unix()
        };
        if urls[..at].iter().any(|other| of_address(&other)) {
            continue;
        }
        let listener = listen(config, url, serves).await;
        let listener = listener.map_err(|source| Error::Listen {
            address: url.as_str().to_owned(),
            source,
        })?;
        let same: Vec<&Url> = urls.iter().filter(of_address).collect();
        let is_secure = |url: &&Url| url.scheme().is_tls();
        listeners.push(match same.iter().any(is_secure) {
            true => listener.secured(Tls {
                plain_too: !same.iter().all(is_secure),
                ..secure().map_err(|source| tls(url.as_str(), source))?
            }),
            false => listener,
        });
    }
    Ok(listeners)
}

async fn listen(config: &Config, url: &Url, serves: Serves) -> io::Result<Listener> {
    match url.scheme() {
        Scheme::Unix | Scheme::Unixs => Listener::unix(Path::new(url.address()), serves).await,
        Scheme::Http | Scheme::Https => {
            Listener::tcp_with(url.address(), serves, config.socket_reuse_port).await
        }
    }
}

/// Says which traffic is served where, as etcd does.
pub(super) fn announce(listener: &Listener) {
    let address = listener.address();
    let traffic = match listener.serves() {
        Serves::Both => "grpc+http",
        Serves::Grpc => "grpc",
        Serves::Http => "http",
    };
    let tls = listener.tls();
    if tls.is_none_or(|tls| tls.plain_too) {
        tracing::info!(%address, traffic, "serving client traffic insecurely; this is strongly discouraged!");
    }
    if tls.is_some() {
        tracing::info!(%address, traffic, "serving client traffic securely");
    }
}
