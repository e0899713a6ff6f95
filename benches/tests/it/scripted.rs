//! A server of `KV.Put` and `KV.Range` over a map, which can be told to misbehave.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard};

use bytes::{Buf, BufMut, Bytes, BytesMut};
use ferrite_api::pb::etcdserverpb::{
    PutRequest, PutResponse, RangeRequest, RangeResponse, ResponseHeader,
};
use ferrite_api::pb::mvccpb::KeyValue;
use h2::server::SendResponse;
use http::{HeaderMap, HeaderValue, Request, Response};
use prost::Message;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::oneshot;

/// How the server misbehaves.
#[derive(Clone, Copy, Default)]
pub(crate) struct Faults {
    /// Every so-manieth put is refused.
    pub(crate) refuse_every: Option<u64>,
    /// Added to the count of every range.
    pub(crate) count_off_by: i64,
}

/// What the server saw.
#[derive(Default)]
pub(crate) struct State {
    pub(crate) puts: u64,
    pub(crate) pairs: BTreeMap<Bytes, Bytes>,
    pub(crate) revisions_asked: Vec<i64>,
}

/// The server; ends when dropped.
pub(crate) struct Scripted {
    endpoint: String,
    state: Arc<Mutex<State>>,
    _stop: oneshot::Sender<()>,
}

impl Scripted {
    pub(crate) fn start(faults: Faults) -> Scripted {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        listener.set_nonblocking(true).unwrap();
        let endpoint = listener.local_addr().unwrap().to_string();
        let state = Arc::new(Mutex::new(State::default()));
        let (stop, stopped) = oneshot::channel();
        let shared = Arc::clone(&state);
        std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread()
                .enable_all()
                .build()
                .unwrap();
            runtime.block_on(async move {
                let listener = TcpListener::from_std(listener).unwrap();
                let accept = async {
                    while let Ok((socket, _)) = listener.accept().await {
                        tokio::spawn(serve(socket, Arc::clone(&shared), faults));
                    }
                };
                tokio::select! {
                    () = accept => {}
                    _ = stopped => {}
                }
            });
        });
        Scripted {
            endpoint,
            state,
            _stop: stop,
        }
    }

    pub(crate) fn endpoint(&self) -> String {
        self.endpoint.clone()
    }

    pub(crate) fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap()
    }
}

async fn serve(socket: TcpStream, state: Arc<Mutex<State>>, faults: Faults) {
    let Ok(mut connection) = h2::server::handshake(socket).await else {
        return;
    };
    while let Some(Ok((request, respond))) = connection.accept().await {
        tokio::spawn(answer(request, respond, Arc::clone(&state), faults));
    }
}

async fn answer(
    request: Request<h2::RecvStream>,
    mut respond: SendResponse<Bytes>,
    state: Arc<Mutex<State>>,
    faults: Faults,
) {
    assert_eq!(request.headers()["te"], "trailers");
    assert_eq!(request.headers()["content-type"], "application/grpc");
    let path = request.uri().path().to_owned();
    let mut incoming = request.into_body();
    let mut body = BytesMut::new();
    while let Some(chunk) = incoming.data().await {
        body.extend_from_slice(&chunk.unwrap());
    }
    let mut message = body.freeze().split_off(1);
    assert_eq!(message.get_u32() as usize, message.len());
    let answer = match path.as_str() {
        "/etcdserverpb.KV/Put" => put(&state, faults, message),
        "/etcdserverpb.KV/Range" => Some(range(&state, faults, message)),
        other => panic!("unexpected call of {other}"),
    };
    let mut response = Response::builder().header("content-type", "application/grpc");
    let Some(answer) = answer else {
        response = response.header("grpc-status", "8");
        response = response.header("grpc-message", "etcdserver: too%20many requests");
        respond
            .send_response(response.body(()).unwrap(), true)
            .unwrap();
        return;
    };
    let mut stream = respond
        .send_response(response.body(()).unwrap(), false)
        .unwrap();
    // In two pieces, as a large answer comes.
    let mut answer = answer;
    let rest = answer.split_off(answer.len() / 2);
    stream.send_data(answer, false).unwrap();
    stream.send_data(rest, false).unwrap();
    let mut trailers = HeaderMap::new();
    trailers.insert("grpc-status", HeaderValue::from_static("0"));
    stream.send_trailers(trailers).unwrap();
}

fn put(state: &Mutex<State>, faults: Faults, message: Bytes) -> Option<Bytes> {
    let request = PutRequest::decode(message).unwrap();
    let mut state = state.lock().unwrap();
    state.puts += 1;
    if faults
        .refuse_every
        .is_some_and(|every| state.puts.is_multiple_of(every))
    {
        return None;
    }
    state.pairs.insert(request.key, request.value);
    Some(framed(&PutResponse::default()))
}

fn range(state: &Mutex<State>, faults: Faults, message: Bytes) -> Bytes {
    let request = RangeRequest::decode(message).unwrap();
    let mut state = state.lock().unwrap();
    if request.limit > 0 {
        state.revisions_asked.push(request.revision);
    }
    let end = if request.range_end.is_empty() {
        Bytes::from([&request.key[..], &[0]].concat())
    } else {
        request.range_end.clone()
    };
    let inside: Vec<_> = state.pairs.range(request.key.clone()..end).collect();
    let limit = if request.limit > 0 {
        request.limit as usize
    } else {
        usize::MAX
    };
    let kvs = inside.iter().take(limit).map(|(key, value)| KeyValue {
        key: Bytes::clone(key),
        value: Bytes::clone(value),
        ..KeyValue::default()
    });
    framed(&RangeResponse {
        header: Some(ResponseHeader {
            revision: 77,
            ..ResponseHeader::default()
        }),
        kvs: kvs.collect(),
        more: inside.len() > limit,
        count: inside.len() as i64 + faults.count_off_by,
    })
}

fn framed(message: &impl Message) -> Bytes {
    let mut framed = BytesMut::new();
    framed.put_u8(0);
    framed.put_u32(message.encoded_len() as u32);
    message.encode(&mut framed).unwrap();
    framed.freeze()
}
