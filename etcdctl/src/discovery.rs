//! `--discovery-srv`: endpoints from the SRV records of a DNS domain (`spec/etcdctl.md` section 2).

use hickory_resolver::TokioResolver;
use hickory_resolver::net::NetError;
use hickory_resolver::proto::rr::RData;
use hickory_resolver::proto::rr::rdata::SRV;

/// The endpoints that the system's name servers know for a domain; those with TLS first, none if the
/// domain has records of other kinds only. `suffix` is that of the services' names.
///
/// # Errors
///
/// The text of etcd's tool, but for the address of the name server.
pub(crate) async fn endpoints(domain: &str, suffix: &str) -> Result<Vec<String>, String> {
    let failed =
        |error: NetError| format!("cannot read the configuration of the resolver: {error}");
    let builder = TokioResolver::builder_tokio().map_err(failed)?;
    endpoints_from(&builder.build().map_err(failed)?, domain, suffix).await
}

async fn endpoints_from(
    dns: &TokioResolver,
    domain: &str,
    suffix: &str,
) -> Result<Vec<String>, String> {
    let suffix = match suffix {
        "" => String::new(),
        suffix => format!("-{suffix}"),
    };
    let tls = services(dns, &format!("_etcd-client-ssl{suffix}._tcp.{domain}")).await;
    let plain = services(dns, &format!("_etcd-client{suffix}._tcp.{domain}")).await;
    if let (Err(tls), Err(plain)) = (&tls, &plain) {
        return Err(format!("dns lookup errors: {tls} and {plain}"));
    }
    let urls = |scheme: &'static str, services: Result<Vec<SRV>, String>| {
        let services = services.unwrap_or_default().into_iter();
        services.map(move |service| format!("{scheme}://{}:{}", service.target, service.port))
    };
    Ok(urls("https", tls).chain(urls("http", plain)).collect())
}

/// The records of a service, by priority.
async fn services(dns: &TokioResolver, name: &str) -> Result<Vec<SRV>, String> {
    let found = dns.srv_lookup(format!("{name}.")).await.map_err(|error| {
        match error.is_nx_domain() || error.is_no_records_found() {
            true => format!("lookup {name}: no such host"),
            false => format!("lookup {name}: {error}"),
        }
    })?;
    let records = found.answers().iter();
    let mut services: Vec<SRV> = records
        .filter_map(|record| match &record.data {
            RData::SRV(service) => Some(service.clone()),
            _ => None,
        })
        .collect();
    services.sort_by_key(|service| service.priority);
    Ok(services)
}

#[cfg(test)]
mod tests {
    use hickory_resolver::Resolver;
    use hickory_resolver::config::{ConnectionConfig, NameServerConfig, ResolverConfig};
    use hickory_resolver::net::runtime::TokioRuntimeProvider;
    use hickory_resolver::proto::op::{Message, ResponseCode};
    use hickory_resolver::proto::rr::{Name, Record};
    use tokio::net::UdpSocket;

    use super::*;

    /// A record: of a service, with its priority, its port and its host.
    type Service = (&'static str, u16, u16, &'static str);

    const TLS: &str = "_etcd-client-ssl._tcp.d.example.";
    const PLAIN: &str = "_etcd-client._tcp.d.example.";

    fn answer(query: &Message, records: &[Service]) -> Message {
        let question = query.queries[0].clone();
        let mut answer = Message::response(query.metadata.id, query.metadata.op_code);
        let name = |text: &str| Name::from_ascii(text).expect("a name");
        for (service, priority, port, host) in records {
            if name(service) == *question.name() {
                let data = RData::SRV(SRV::new(*priority, 0, *port, name(host)));
                let record = Record::from_rdata(question.name().clone(), 60, data);
                answer.add_answer(record);
            }
        }
        if answer.answers.is_empty() {
            answer.metadata.response_code = ResponseCode::NXDomain;
        }
        answer.add_query(question);
        answer
    }

    /// What is found at a name server that knows these.
    async fn found(records: &[Service], suffix: &str) -> Result<Vec<String>, String> {
        let socket = UdpSocket::bind("127.0.0.1:0").await.expect("a port");
        let address = socket.local_addr().expect("bound");
        let mut udp = ConnectionConfig::udp();
        udp.port = address.port();
        let server = NameServerConfig::new(address.ip(), true, vec![udp]);
        let config = ResolverConfig::from_parts(None, Vec::new(), vec![server]);
        let builder = Resolver::builder_with_config(config, TokioRuntimeProvider::default());
        let dns = builder.build().expect("a resolver");
        let serving = async {
            let mut buffer = [0; 1500];
            loop {
                let (length, from) = socket.recv_from(&mut buffer).await.expect("a query");
                let query = Message::from_vec(&buffer[..length]).expect("a message");
                let answer = answer(&query, records).to_vec().expect("encodes");
                socket.send_to(&answer, from).await.expect("sent");
            }
        };
        tokio::select! {
            found = endpoints_from(&dns, "d.example", suffix) => found,
            () = serving => unreachable!("it serves for ever"),
        }
    }

    #[tokio::test]
    async fn records_are_endpoints() {
        let records = [
            (PLAIN, 2, 2379, "b.example."),
            (PLAIN, 1, 2379, "a.example."),
            (TLS, 1, 4001, "c.example."),
        ];
        let endpoints = [
            "https://c.example.:4001",
            "http://a.example.:2379",
            "http://b.example.:2379",
        ];
        assert_eq!(found(&records, "").await.expect("records"), endpoints);
        // One of the services is enough.
        let endpoints = &endpoints[1..];
        assert_eq!(found(&records[..2], "").await.expect("records"), endpoints);
        let suffixed = [("_etcd-client-x._tcp.d.example.", 1, 1, "a.example.")];
        assert_eq!(
            found(&suffixed, "x").await.expect("records"),
            ["http://a.example.:1"]
        );
    }

    #[tokio::test]
    async fn a_domain_without_services() {
        assert_eq!(
            found(&[], "").await.expect_err("nothing"),
            "dns lookup errors: lookup _etcd-client-ssl._tcp.d.example: no such host \
             and lookup _etcd-client._tcp.d.example: no such host"
        );
    }
}
