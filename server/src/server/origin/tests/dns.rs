//! SRV records from a name server of our own.

use std::net::SocketAddr;

use hickory_resolver::Resolver;
use hickory_resolver::config::{ConnectionConfig, NameServerConfig, ResolverConfig};
use hickory_resolver::net::runtime::TokioRuntimeProvider;
use hickory_resolver::proto::op::{Message, ResponseCode};
use hickory_resolver::proto::rr::rdata::{A, SRV};
use hickory_resolver::proto::rr::{Name, RData, Record, RecordType};
use tokio::net::UdpSocket;
use tokio_util::task::AbortOnDropHandle;

use super::super::srv::{Dns, Error, cluster};
use crate::config::{Config, DiscoverySrv, Url};

type Records = Vec<(&'static str, RData)>;

fn srv(priority: u16, port: u16, target: &str) -> RData {
    RData::SRV(SRV::new(
        priority,
        0,
        port,
        Name::from_ascii(target).unwrap(),
    ))
}

fn a(last: u8) -> RData {
    RData::A(A::new(10, 0, 0, last))
}

/// A name server that knows `records`, for as long as the handle lives.
async fn name_server(records: Records) -> (Dns, AbortOnDropHandle<()>) {
    let socket = UdpSocket::bind("127.0.0.1:0").await.unwrap();
    let address = socket.local_addr().unwrap();
    let task = tokio::spawn(async move {
        let mut buffer = [0; 1500];
        loop {
            let (length, from) = socket.recv_from(&mut buffer).await.unwrap();
            let query = Message::from_vec(&buffer[..length]).unwrap();
            let answer = answer(&query, &records).to_vec().unwrap();
            socket.send_to(&answer, from).await.unwrap();
        }
    });
    (dns_at(address), AbortOnDropHandle::new(task))
}

fn dns_at(address: SocketAddr) -> Dns {
    let mut udp = ConnectionConfig::udp();
    udp.port = address.port();
    let server = NameServerConfig::new(address.ip(), true, vec![udp]);
    let config = ResolverConfig::from_parts(None, Vec::new(), vec![server]);
    let builder = Resolver::builder_with_config(config, TokioRuntimeProvider::default());
    Dns(builder.build().unwrap())
}

fn answer(query: &Message, records: &Records) -> Message {
    let question = query.queries[0].clone();
    let mut answer = Message::response(query.metadata.id, query.metadata.op_code);
    let known: Vec<&RData> = records
        .iter()
        .filter(|(name, _)| Name::from_ascii(name).unwrap() == *question.name())
        .map(|(_, data)| data)
        .collect();
    if known.is_empty() {
        answer.metadata.response_code = ResponseCode::NXDomain;
    }
    for data in known {
        if data.record_type() == question.query_type() {
            let record = Record::from_rdata(question.name().clone(), 60, data.clone());
            answer.add_answer(record);
        }
    }
    assert!(matches!(
        question.query_type(),
        RecordType::SRV | RecordType::A | RecordType::AAAA
    ));
    answer.add_query(question);
    answer
}

async fn found(records: Records, own: &str, service_name: &str) -> Result<String, Error> {
    let (dns, _server) = name_server(records).await;
    let config = Config {
        name: "me".to_owned(),
        advertise_peer_urls: vec![Url::parse(own).unwrap()],
        ..Config::default()
    };
    let srv = DiscoverySrv {
        domain: "d.example".to_owned(),
        service_name: service_name.to_owned(),
    };
    cluster(&config, &srv, &dns)
        .await
        .map(|members| members.to_string())
}

const PLAIN: &str = "_etcd-server._tcp.d.example.";
const TLS: &str = "_etcd-server-ssl._tcp.d.example.";

fn hosts() -> Records {
    vec![
        ("a.d.example.", a(1)),
        ("b.d.example.", a(2)),
        ("c.d.example.", a(3)),
    ]
}

#[tokio::test]
async fn records_name_the_members() {
    let three = || {
        let mut records = hosts();
        records.extend([
            (PLAIN, srv(2, 2380, "b.d.example.")),
            (PLAIN, srv(1, 2380, "a.d.example.")),
            (PLAIN, srv(3, 2380, "c.d.example.")),
        ]);
        records
    };
    // By name, by address, and with one host that does not resolve.
    for own in ["http://b.d.example:2380", "http://10.0.0.2:2380"] {
        assert_eq!(
            found(three(), own, "").await.unwrap(),
            "0=http://a.d.example:2380,1=http://c.d.example:2380,me=http://b.d.example:2380"
        );
    }
    let mut one_is_gone = three();
    one_is_gone.retain(|(name, _)| *name != "c.d.example.");
    assert_eq!(
        found(one_is_gone, "http://10.0.0.1:2380", "")
            .await
            .unwrap(),
        "0=http://b.d.example:2380,me=http://a.d.example:2380"
    );
    // Both services together, and the suffix of a service.
    let mut both = hosts();
    both.extend([
        (TLS, srv(1, 1, "a.d.example.")),
        (PLAIN, srv(1, 1, "b.d.example.")),
    ]);
    assert_eq!(
        found(both, "http://10.0.0.2:1", "").await.unwrap(),
        "0=https://a.d.example:1,me=http://b.d.example:1"
    );
    let mut suffix = hosts();
    suffix.push(("_etcd-server-x._tcp.d.example.", srv(1, 1, "a.d.example.")));
    assert_eq!(
        found(suffix, "http://10.0.0.1:1", "x").await.unwrap(),
        "me=http://a.d.example:1"
    );
}

#[tokio::test]
async fn domains_without_this_member() {
    let error = found(Vec::new(), "http://10.0.0.1:1", "")
        .await
        .unwrap_err();
    assert_eq!(
        error.to_string(),
        "error querying DNS SRV records for _etcd-server-ssl lookup _etcd-server-ssl._tcp.d.example: no such host\n\
         error querying DNS SRV records for _etcd-server lookup _etcd-server._tcp.d.example: no such host"
    );
    let mut others = hosts();
    others.push((PLAIN, srv(1, 1, "b.d.example.")));
    let error = found(others, "http://10.0.0.1:1", "").await.unwrap_err();
    assert_eq!(
        error.to_string(),
        "cannot find local etcd member \"me\" in SRV records"
    );
    // The own record says that it speaks TLS.
    let mut scheme = hosts();
    scheme.push((TLS, srv(1, 1, "a.d.example.")));
    let error = found(scheme, "http://10.0.0.1:1", "")
        .await
        .unwrap_err()
        .to_string();
    let text = "bootstrap at https://a.d.example:1 from DNS for etcd-server-ssl has scheme mismatch with expected peer http://10.0.0.1:1";
    assert!(error.contains(text), "{error}");
}
