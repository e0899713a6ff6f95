//! The members of a new cluster, from the SRV records of a DNS domain (spec/server-flags.md section 7).

use std::net::{IpAddr, SocketAddr};

use hickory_resolver::TokioResolver;
use hickory_resolver::net::NetError;
use hickory_resolver::proto::rr::RData;
use hickory_resolver::proto::rr::rdata::SRV;

use crate::config::{Config, DiscoverySrv, Url, UrlsMap};

/// Why DNS does not name a cluster of which this member is.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// The system's resolver cannot be used.
    #[error("cannot read the configuration of the resolver: {0}")]
    Resolver(String),
    /// A name does not resolve.
    #[error("lookup {name}: {reason}")]
    Lookup {
        /// The name.
        name: String,
        /// Why not.
        reason: String,
    },
    /// A service has no usable records.
    #[error("error querying DNS SRV records for _{service} {reason}")]
    Query {
        /// The service.
        service: String,
        /// Why not.
        reason: Box<Error>,
    },
    /// A record is about this member, and says that it speaks otherwise than it does.
    #[error(
        "bootstrap at {url} from DNS for {service} has scheme mismatch with expected peer {own}"
    )]
    Scheme {
        /// What DNS says.
        url: String,
        /// The service.
        service: String,
        /// What this member advertises.
        own: String,
    },
    /// Neither service has usable records.
    #[error("{0}\n{1}")]
    Neither(Box<Error>, Box<Error>),
    /// What DNS says makes no sense.
    #[error("{0}")]
    Url(String),
    /// There are records, and none is about this member.
    #[error("cannot find local etcd member {0:?} in SRV records")]
    NotThere(String),
}

/// Asks name servers.
#[derive(Debug)]
pub(super) struct Dns(pub(super) TokioResolver);

impl Dns {
    /// Those of the system, with its `hosts` file.
    pub(super) fn of_the_system() -> Result<Self, Error> {
        let failed = |error: NetError| Error::Resolver(error.to_string());
        let builder = TokioResolver::builder_tokio().map_err(failed)?;
        Ok(Self(builder.build().map_err(failed)?))
    }

    /// The records of a service, by priority.
    async fn services(&self, name: &str) -> Result<Vec<SRV>, Error> {
        let found = self.0.srv_lookup(format!("{name}.")).await;
        let found = found.map_err(|error| failed(name, &error))?;
        let records = found
            .answers()
            .iter()
            .filter_map(|record| match &record.data {
                RData::SRV(service) => Some(service.clone()),
                _ => None,
            });
        let mut services: Vec<SRV> = records.collect();
        services.sort_by_key(|service| service.priority);
        Ok(services)
    }

    /// The first address of a host, of the old kind if there is one.
    async fn address(&self, host: &str) -> Result<IpAddr, Error> {
        if let Ok(ip) = host.parse() {
            return Ok(ip);
        }
        let found = self.0.lookup_ip(host).await;
        let found = found.map_err(|error| failed(host, &error))?;
        let old = found.iter().find(IpAddr::is_ipv4);
        old.or_else(|| found.iter().next())
            .ok_or_else(|| no_such_host(host))
    }
}

fn failed(name: &str, error: &NetError) -> Error {
    match error.is_nx_domain() || error.is_no_records_found() {
        true => no_such_host(name),
        false => Error::Lookup {
            name: name.to_owned(),
            reason: error.to_string(),
        },
    }
}

fn no_such_host(name: &str) -> Error {
    Error::Lookup {
        name: name.to_owned(),
        reason: "no such host".to_owned(),
    }
}

/// The members that the domain names, this one among them.
///
/// # Errors
/// See [`Error`].
pub(super) async fn cluster(
    config: &Config,
    srv: &DiscoverySrv,
    dns: &Dns,
) -> Result<UrlsMap, Error> {
    let suffix = match &*srv.service_name {
        "" => String::new(),
        name => format!("-{name}"),
    };
    let mut members = Vec::new();
    let mut failures = Vec::new();
    for (scheme, service) in [("https", "etcd-server-ssl"), ("http", "etcd-server")] {
        let service = format!("{service}{suffix}");
        let found = of_service(config, &srv.domain, dns, scheme, &service).await;
        tracing::info!(
            "service-scheme" = scheme,
            "service-name" = service,
            "discovery-srv" = srv.domain,
            found = ?found,
            "get cluster for SRV"
        );
        match found {
            Ok(found) => members.extend(found),
            Err(reason) => failures.push(Error::Query {
                service,
                reason: Box::new(reason),
            }),
        }
    }
    if members.is_empty() {
        let mut failures = failures.into_iter();
        return Err(match (failures.next(), failures.next()) {
            (Some(https), Some(http)) => Error::Neither(Box::new(https), Box::new(http)),
            (Some(one), None) => one,
            // There are records of which nothing could be used.
            (None, _) => Error::NotThere(config.name.clone()),
        });
    }
    let cluster = UrlsMap::parse(&members.join(",")).map_err(Error::Url)?;
    match cluster.get(&config.name) {
        Some(_) => Ok(cluster),
        None => Err(Error::NotThere(config.name.clone())),
    }
}

/// The members that one service names, as they stand in `--initial-cluster`. Others than this one
/// have numbers for names. A record that cannot be used is left out if there is another.
async fn of_service(
    config: &Config,
    domain: &str,
    dns: &Dns,
    scheme: &str,
    service: &str,
) -> Result<Vec<String>, Error> {
    let mut own = Vec::new();
    for url in &config.advertise_peer_urls {
        if !url.scheme().is_unix() {
            let address = dns.address(url.host()).await?;
            own.push((SocketAddr::new(address, url.port().unwrap_or(0)), url));
        }
    }
    let services = dns.services(&format!("_{service}._tcp.{domain}")).await?;
    let (mut members, mut failure) = (Vec::new(), None);
    let mut number = 0;
    for record in services {
        let target = record.target.to_utf8();
        let host = target.trim_end_matches('.');
        let address = match dns.address(&target).await {
            Ok(address) => SocketAddr::new(address, record.port),
            Err(error) => {
                failure = Some(error);
                continue;
            }
        };
        let here: Option<&Url> = own
            .iter()
            .find(|(own, _)| *own == address)
            .map(|(_, url)| *url);
        let name = match here {
            Some(_) => config.name.clone(),
            None => {
                number += 1;
                (number - 1).to_string()
            }
        };
        let url = format!("{scheme}://{host}:{}", record.port);
        match here {
            Some(own) if own.scheme().is_tls() != (scheme == "https") => {
                failure = Some(Error::Scheme {
                    url,
                    service: service.to_owned(),
                    own: own.to_string(),
                });
            }
            _ => members.push(format!("{name}={url}")),
        }
    }
    match (members.is_empty(), failure) {
        (true, Some(failure)) => Err(failure),
        _ => Ok(members),
    }
}
