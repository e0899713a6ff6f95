//! Spans of calls, as a collector gets them (spec/server-flags.md section 5).

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;

use ferrite_api::pb::etcdserverpb as pb;
use ferrite_server::config::{Config, Tracing};
use opentelemetry_proto::tonic::collector::trace::v1::trace_service_server::{
    TraceService, TraceServiceServer,
};
use opentelemetry_proto::tonic::collector::trace::v1::{
    ExportTraceServiceRequest, ExportTraceServiceResponse,
};
use opentelemetry_proto::tonic::common::v1::KeyValue;
use opentelemetry_proto::tonic::common::v1::any_value::Value;
use opentelemetry_proto::tonic::trace::v1::Span;
use parking_lot::Mutex;
use tonic::transport::server::TcpIncoming;
use tonic::{Request, Response, Status};

use crate::support::*;

/// A trace of a client's, sampled.
const PARENT: &str = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";

/// Keeps what it is sent.
#[derive(Clone, Default)]
struct Collector(Arc<Mutex<Vec<ExportTraceServiceRequest>>>);

#[tonic::async_trait]
impl TraceService for Collector {
    async fn export(
        &self,
        request: Request<ExportTraceServiceRequest>,
    ) -> Result<Response<ExportTraceServiceResponse>, Status> {
        self.0.lock().push(request.into_inner());
        Ok(Response::new(ExportTraceServiceResponse::default()))
    }
}

impl Collector {
    async fn start() -> (Self, SocketAddr) {
        let collector = Self::default();
        let incoming = TcpIncoming::bind("127.0.0.1:0".parse().unwrap()).unwrap();
        let address = incoming.local_addr().unwrap();
        let service = TraceServiceServer::new(collector.clone());
        let serving = tonic::transport::Server::builder().add_service(service);
        tokio::spawn(serving.serve_with_incoming(incoming));
        (collector, address)
    }

    /// The attributes of the sender, and all spans.
    fn taken(&self) -> (BTreeMap<String, String>, Vec<Span>) {
        let (mut resource, mut spans) = (BTreeMap::new(), Vec::new());
        for part in self.0.lock().drain(..).flat_map(|it| it.resource_spans) {
            resource.extend(attributes(&part.resource.unwrap().attributes));
            spans.extend(part.scope_spans.into_iter().flat_map(|scope| scope.spans));
        }
        (resource, spans)
    }
}

fn attributes(pairs: &[KeyValue]) -> BTreeMap<String, String> {
    let texts = pairs.iter().filter_map(|pair| {
        let text = match pair.value.clone()?.value? {
            Value::StringValue(text) => text,
            Value::IntValue(number) => number.to_string(),
            _ => return None,
        };
        Some((pair.key.clone(), text))
    });
    texts.collect()
}

fn traced(address: SocketAddr, sampling_rate: u32) -> impl FnOnce(&mut Config) {
    move |config| {
        config.tracing = Some(Tracing {
            address: address.to_string(),
            service_name: "etcd".to_owned(),
            instance_id: "one".to_owned(),
            sampling_rate,
        });
    }
}

#[tokio::test]
async fn f5_calls_have_spans_in_the_trace_of_their_client() {
    let (collector, address) = Collector::start().await;
    let member = Member::start_with(traced(address, 0)).await;
    member.put("untraced", "").await;
    let mut request = Request::new(put("a", "b"));
    let parent = PARENT.parse().unwrap();
    request.metadata_mut().insert("traceparent", parent);
    member.kv().put(request).await.unwrap();
    let mut request = Request::new(pb::CompactionRequest {
        revision: 1 << 40,
        physical: false,
    });
    let parent = PARENT.parse().unwrap();
    request.metadata_mut().insert("traceparent", parent);
    member.kv().compact(request).await.unwrap_err();
    // What is left is sent when the member stops.
    member.stop().await;
    let (resource, spans) = collector.taken();
    assert_eq!(resource["service.name"], "etcd");
    assert_eq!(resource["service.instance.id"], "one");
    let names: Vec<_> = spans.iter().map(|span| span.name.as_str()).collect();
    assert_eq!(names, ["etcdserverpb.KV/Put", "etcdserverpb.KV/Compact"]);
    for (span, code) in spans.iter().zip(["0", "11"]) {
        assert_eq!(
            span.trace_id,
            0x0af7_6519_16cd_43dd_8448_eb21_1c80_319c_u128.to_be_bytes()
        );
        assert_eq!(span.parent_span_id, 0xb7ad_6b71_6920_3331_u64.to_be_bytes());
        let of_span = attributes(&span.attributes);
        assert_eq!(of_span["rpc.service"], "etcdserverpb.KV");
        assert_eq!(of_span["rpc.grpc.status_code"], code);
        assert!(span.end_time_unix_nano >= span.start_time_unix_nano);
    }
}

#[tokio::test]
async fn f5_a_full_sampling_rate_takes_all_calls() {
    let (collector, address) = Collector::start().await;
    let member = Member::start_with(traced(address, 1_000_000)).await;
    member.put("a", "b").await;
    member.pair("a").await.unwrap();
    member.stop().await;
    let (_, spans) = collector.taken();
    let names: Vec<_> = spans.iter().map(|span| span.name.as_str()).collect();
    assert_eq!(names, ["etcdserverpb.KV/Put", "etcdserverpb.KV/Range"]);
    assert_ne!(spans[0].trace_id, spans[1].trace_id);
}

#[tokio::test]
async fn f5_a_collector_that_is_gone_costs_nobody_anything() {
    let gone = "127.0.0.1:1".parse().unwrap();
    let member = Member::start_with(traced(gone, 1_000_000)).await;
    member.put("a", "b").await;
    member.stop().await;
}
