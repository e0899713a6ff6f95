//! Server reflection, asked by stock clients.

use std::collections::BTreeSet;
use std::time::Duration;

use prost::Message;
use tokio_stream::StreamExt;
use tonic_reflection::pb::{v1, v1alpha};

use crate::wire_kv::channel;
use crate::wire_support::{Port, soon};

#[tokio::test]
async fn services_describe_themselves() {
    use v1::server_reflection_request::MessageRequest;
    use v1::server_reflection_response::MessageResponse;

    let port = Port::start().await;
    let mut client =
        v1::server_reflection_client::ServerReflectionClient::new(channel(&port).await);
    let ask = |request| v1::ServerReflectionRequest {
        host: String::new(),
        message_request: Some(request),
    };
    let requests = [
        ask(MessageRequest::ListServices(String::new())),
        ask(MessageRequest::FileContainingSymbol(
            "etcdserverpb.KV".to_owned(),
        )),
    ];
    let answers = client
        .server_reflection_info(tokio_stream::iter(requests))
        .await
        .unwrap();
    let answers: Vec<_> = answers.into_inner().collect().await;
    let [Ok(list), Ok(file)] = &answers[..] else {
        panic!("{answers:?}");
    };
    let Some(MessageResponse::ListServicesResponse(list)) = &list.message_response else {
        panic!("{list:?}");
    };
    let listed: BTreeSet<_> = list.service.iter().map(|s| s.name.as_str()).collect();
    for service in ["etcdserverpb.KV", "v3lockpb.Lock", "grpc.health.v1.Health"] {
        assert!(listed.contains(service), "{listed:?}");
    }
    let Some(MessageResponse::FileDescriptorResponse(file)) = &file.message_response else {
        panic!("{file:?}");
    };
    let [file] = &file.file_descriptor_proto[..] else {
        panic!("{file:?}");
    };
    let file = prost_types::FileDescriptorProto::decode(&file[..]).unwrap();
    assert_eq!(file.package(), "etcdserverpb");
    assert!(file.service.iter().any(|service| service.name() == "KV"));
}

#[tokio::test]
async fn an_older_client_is_answered_and_does_not_keep_the_server() {
    use v1alpha::server_reflection_request::MessageRequest;

    let port = Port::start().await;
    let channel = channel(&port).await;
    let mut client = v1alpha::server_reflection_client::ServerReflectionClient::new(channel);
    let request = v1alpha::ServerReflectionRequest {
        host: String::new(),
        message_request: Some(MessageRequest::ListServices(String::new())),
    };
    // It never closes its side.
    let requests = tokio_stream::once(request).chain(tokio_stream::pending());
    let mut answers = client
        .server_reflection_info(requests)
        .await
        .unwrap()
        .into_inner();
    assert!(answers.message().await.unwrap().is_some());
    let shutdown = tokio::spawn(port.serving.shutdown(Duration::from_secs(30)));
    assert!(soon(answers.message()).await.unwrap().is_none());
    assert!(soon(shutdown).await.unwrap(), "nothing is left");
}
