//! Requests that a server certainly did not execute, against a bare HTTP/2 server: the only
//! failures after which a write is sent again.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use ferrite_client::{Client, Config, PutOptions};
use ferrite_fake::Fake;
use tokio::net::TcpListener;

/// What the bare server does with each request.
#[derive(Clone, Copy)]
enum Behaviour {
    RefuseStream,
    CloseConnection,
}

/// Starts a server that never answers properly; counts the requests it saw.
async fn bare_server(behaviour: Behaviour) -> (SocketAddr, Arc<AtomicUsize>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
    let address = listener.local_addr().expect("a bound socket");
    let requests = Arc::new(AtomicUsize::new(0));
    let counter = requests.clone();
    tokio::spawn(async move {
        loop {
            let (socket, _) = listener.accept().await.expect("a working listener");
            let counter = counter.clone();
            tokio::spawn(async move {
                let Ok(mut connection) = h2::server::handshake(socket).await else {
                    return;
                };
                while let Some(Ok((_, mut respond))) = connection.accept().await {
                    counter.fetch_add(1, Ordering::SeqCst);
                    match behaviour {
                        Behaviour::RefuseStream => respond.send_reset(h2::Reason::REFUSED_STREAM),
                        // Dropping everything closes the socket without another frame.
                        Behaviour::CloseConnection => return,
                    }
                }
            });
        }
    });
    (address, requests)
}

#[tokio::test]
async fn a_refused_write_goes_to_another_member() {
    let (refusing, requests) = bare_server(Behaviour::RefuseStream).await;
    let fake = Fake::start(1);
    let config = Config::new([refusing.to_string(), fake.endpoint()]);
    let client = Client::connect(config).await.expect("valid");
    // Until the refusing one was in the rotation at least once.
    let mut puts = 0;
    while requests.load(Ordering::SeqCst) == 0 {
        client.put("k", "v", PutOptions::new()).await.expect("put");
        puts += 1;
    }
    assert_eq!(fake.take_seen().len(), puts);
}

#[tokio::test]
async fn a_write_lost_with_its_connection_is_reported_and_not_repeated() {
    let (closing, requests) = bare_server(Behaviour::CloseConnection).await;
    let client = Client::connect(Config::new([closing.to_string()]))
        .await
        .expect("valid");
    let error = client
        .put("k", "v", PutOptions::new())
        .await
        .expect_err("the connection went away");
    assert_eq!(error.code(), Some(tonic::Code::Unavailable), "{error}");
    assert!(error.may_have_been_applied());
    assert_eq!(requests.load(Ordering::SeqCst), 1);
}
