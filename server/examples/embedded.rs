//! A member inside this program: no sockets needed to use it.
//!
//! ```sh
//! cargo run -p ferrite-server --example embedded
//! ```

use bytes::Bytes;
use ferrite_api::pb::etcdserverpb::{PutRequest, RangeRequest, WatchCreateRequest};
use ferrite_api::pb::mvccpb::KeyValue;
use ferrite_server::Server;
use ferrite_server::config::{Config, Url};
use prost::Message;

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let dir = tempfile::tempdir()?;
    // Port 0: any free port. Clients in this process do not need it.
    let any = vec![Url::parse("http://127.0.0.1:0")?];
    let config = Config {
        data_dir: dir.path().join("default.etcd"),
        listen_client_urls: any.clone(),
        listen_peer_urls: any,
        ..Config::default()
    };
    let server = Server::start(config).await?;
    println!("serving on {}", server.client_addresses()[0]);

    let handle = server.handle();
    let mut watch = handle.watch();
    let create = WatchCreateRequest {
        key: Bytes::from_static(b"greeting"),
        ..WatchCreateRequest::default()
    };
    watch.create(create).await;

    let put = PutRequest {
        key: Bytes::from_static(b"greeting"),
        value: Bytes::from_static(b"hello"),
        ..PutRequest::default()
    };
    let revision = handle
        .put(put)
        .await?
        .header
        .map_or(0, |header| header.revision);

    let get = RangeRequest {
        key: Bytes::from_static(b"greeting"),
        ..RangeRequest::default()
    };
    let reply = handle.range(get).await?;
    let pair = KeyValue::decode(reply.kvs[0].clone())?;
    println!("revision {revision}: {:?} = {:?}", pair.key, pair.value);

    // "Created" first, then the put.
    let _created = watch.next().await?;
    let response = watch.next().await?;
    println!("watched: {:?}", response.to_message().events);

    server.stop().await?;
    Ok(())
}
