//! Distributed tracing, `--enable-distributed-tracing`: a span for every call, sent to an OpenTelemetry
//! collector over OTLP/gRPC without TLS, as etcd's.
//!
//! A span belongs to the trace that the client names (W3C `traceparent`); whether it is recorded, the
//! client decides then, else `--distributed-tracing-sampling-rate`. Spans are sent in batches by a
//! thread of the library; what a collector does not take is dropped.

use std::collections::HashMap;
use std::time::Duration;

use http::HeaderValue;
use opentelemetry::propagation::TextMapPropagator as _;
use opentelemetry::trace::{Span as _, SpanKind, Status, Tracer as _, TracerProvider as _};
use opentelemetry::{Context, KeyValue};
use opentelemetry_otlp::{ExporterBuildError, SpanExporter, WithExportConfig as _};
use opentelemetry_sdk::Resource;
use opentelemetry_sdk::propagation::TraceContextPropagator;
use opentelemetry_sdk::trace::{Sampler, SdkTracer, SdkTracerProvider, Span};
use tonic::Code;

use crate::config;
use crate::metrics::Method;

/// Who says what the spans are about, to the collector.
const SCOPE: &str = "ferrite-server";

/// Spans a million calls that a sampling rate may ask for.
const MILLION: f64 = 1e6;

/// Makes spans. Clones are the same.
#[derive(Clone, Debug)]
pub(crate) struct Spans {
    provider: SdkTracerProvider,
    tracer: SdkTracer,
}

impl Spans {
    /// Begins to send to the collector. Connects when there is something to send, in the current
    /// runtime.
    ///
    /// # Errors
    /// The address is none.
    pub(crate) fn start(options: &config::Tracing) -> Result<Self, ExporterBuildError> {
        let exporter = SpanExporter::builder()
            .with_tonic()
            .with_endpoint(format!("http://{}", options.address))
            .build()?;
        let mut resource = Resource::builder().with_service_name(options.service_name.clone());
        if !options.instance_id.is_empty() {
            let id = KeyValue::new("service.instance.id", options.instance_id.clone());
            resource = resource.with_attribute(id);
        }
        let sampler = match options.sampling_rate {
            0 => Sampler::AlwaysOff,
            rate => Sampler::TraceIdRatioBased(f64::from(rate) / MILLION),
        };
        let provider = SdkTracerProvider::builder()
            .with_batch_exporter(exporter)
            .with_resource(resource.build())
            .with_sampler(Sampler::ParentBased(Box::new(sampler)))
            .build();
        let tracer = provider.tracer(SCOPE);
        Ok(Self { provider, tracer })
    }

    /// The span of a call, which ends with it.
    pub(crate) fn begin(&self, method: Method, parent: Option<&HeaderValue>) -> CallSpan {
        let (service, name) = (method.service(), method.name());
        let builder = self
            .tracer
            .span_builder(format!("{service}/{name}"))
            .with_kind(SpanKind::Server)
            .with_attributes([
                KeyValue::new("rpc.system", "grpc"),
                KeyValue::new("rpc.service", service),
                KeyValue::new("rpc.method", name),
            ]);
        CallSpan(self.tracer.build_with_context(builder, &remote(parent)))
    }

    /// Sends what is left, for a while.
    pub(crate) async fn stop(self, patience: Duration) {
        let stopping = tokio::task::spawn_blocking(move || {
            if let Err(error) = self.provider.shutdown_with_timeout(patience) {
                tracing::warn!(%error, "the last spans were not sent");
            }
        });
        let _panicked = stopping.await;
    }
}

/// What a `traceparent` says; nothing, if it says nothing.
fn remote(parent: Option<&HeaderValue>) -> Context {
    let Some(Ok(parent)) = parent.map(HeaderValue::to_str) else {
        return Context::new();
    };
    let carrier = HashMap::from([("traceparent".to_owned(), parent.to_owned())]);
    TraceContextPropagator::new().extract_with_context(&Context::new(), &carrier)
}

/// The span of one call.
#[derive(Debug)]
pub(crate) struct CallSpan(Span);

impl CallSpan {
    /// The call has ended with this code.
    pub(crate) fn end(mut self, code: Code) {
        let Self(span) = &mut self;
        let number = i64::from(i32::from(code));
        span.set_attribute(KeyValue::new("rpc.grpc.status_code", number));
        // Others are answers, of which the client is to make what it wants.
        let failed = matches!(
            code,
            Code::Unknown
                | Code::DeadlineExceeded
                | Code::Unimplemented
                | Code::Internal
                | Code::Unavailable
                | Code::DataLoss
        );
        if failed {
            span.set_status(Status::error(code.description()));
        }
        span.end();
    }
}
