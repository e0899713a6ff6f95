//! The task of a peer: keeps the stream to it up, and writes what the member's thread leaves to it.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::header::{CONNECTION, HeaderValue, UPGRADE};
use http::{Method, Request, StatusCode};
use http_body_util::Empty;
use hyper_util::rt::TokioIo;
use tokio::sync::{mpsc, watch};
use tokio::time::{Instant, sleep, timeout};

use super::backoff::Backoff;
use super::call::{self, CallError, Caller};
use super::identity::{self, Refusal, SESSION};
use super::link::{Link, Pumped};
use super::pulse::{Pulse, SILENCE};
use super::shared::Shared;
use super::socket::Socket;
use super::{PROTOCOL, STREAM_PATH};
use crate::config::Url;

/// A connection that lasted so long was a good one: the next attempt comes soon.
const LASTED: Duration = Duration::from_secs(1);

/// Bytes written before others get their turn.
const TURN: usize = 1 << 20;

/// Keeps a peer connected until the link ends. Of `offers` come streams that the peer has opened to be
/// written to: they will do while none can be opened from here.
pub(super) async fn keep_connected(
    shared: Arc<Shared>,
    link: Arc<Link>,
    offers: mpsc::Receiver<Socket>,
) {
    let dialer = Dialer {
        shared: &shared,
        link: &link,
        urls: link.urls.subscribe(),
        offers,
        backoff: Backoff::new(),
        next_url: 0,
        said: None,
        told_removed: false,
    };
    link.end.run_until_cancelled(dialer.run()).await;
    link.unreachable();
    shared.lost(&link);
    link.drained.cancel();
}

struct Dialer<'a> {
    shared: &'a Shared,
    link: &'a Link,
    urls: watch::Receiver<Vec<Url>>,
    offers: mpsc::Receiver<Socket>,
    backoff: Backoff,
    /// Which of the URLs is next.
    next_url: usize,
    /// The last failure, to say each only once.
    said: Option<String>,
    told_removed: bool,
}

/// What comes of an attempt to connect.
enum Attempt {
    /// There is a stream.
    Connected(Arc<Socket>),
    Failed(CallError),
    /// The peer has other URLs.
    Moved,
}

/// Why a stream has ended.
#[derive(Debug)]
enum Ended {
    /// It broke, or the peer ended it.
    Broken(io::Error),
    /// Heartbeats get no echo.
    Silent,
    /// Everything is written, and this member stops.
    Drained,
}

impl Dialer<'_> {
    async fn run(mut self) {
        loop {
            let attempt = tokio::select! {
                () = self.shared.draining.cancelled() => return,
                attempt = self.attempt() => attempt,
            };
            let failed = match attempt {
                Attempt::Connected(socket) => {
                    self.said = None;
                    let begun = Instant::now();
                    let ended = self.stream(socket).await;
                    // First this: what the member sends when it knows is for the next connection.
                    self.link.disconnected();
                    self.shared.lost(self.link);
                    if begun.elapsed() >= LASTED {
                        self.backoff.reset();
                    }
                    match ended {
                        Ended::Drained => return,
                        ended => self.log_end(&ended),
                    }
                    false
                }
                Attempt::Failed(error) => {
                    self.next_url += 1;
                    self.failed(&error);
                    true
                }
                Attempt::Moved => {
                    self.moved();
                    continue;
                }
            };
            let pause = self.backoff.pause();
            tokio::select! {
                // Nothing is sent any more.
                () = self.shared.draining.cancelled() => return,
                () = sleep(pause) => {}
                _ = self.urls.changed() => self.moved(),
                // The peer has just called: it is there. A stream that broke is another matter, and
                // the pause keeps two members from breaking streams at full speed.
                () = self.link.alive.notified(), if failed => self.link.hopeful(),
            }
        }
    }

    /// The peer has other URLs: whatever was tried before says nothing.
    fn moved(&mut self) {
        self.link.hopeful();
        self.backoff.reset();
        self.next_url = 0;
        self.said = None;
    }

    /// Tries the next URL, unless the peer offers a stream.
    async fn attempt(&mut self) -> Attempt {
        let urls = self.urls.borrow_and_update().clone();
        let url = urls.get(self.next_url % urls.len().max(1));
        let (shared, link) = (self.shared, self.link);
        let dialing = async {
            let Some(url) = url else {
                let nowhere = io::Error::other("no usable URL is known");
                return Err(CallError::Connect(nowhere));
            };
            let dialed = timeout(shared.dial_timeout, dial(shared, link, url)).await;
            let socket = dialed.unwrap_or(Err(CallError::TimedOut))?;
            *link.url.lock() = Some(url.clone());
            tracing::info!(peer = %link.peer, %url, "connected to a peer");
            Ok(Arc::new(socket))
        };
        tokio::select! {
            biased;
            _ = self.urls.changed() => Attempt::Moved,
            Some(socket) = self.offers.recv() => {
                let remote = socket.remote();
                tracing::info!(peer = %link.peer, remote, "connected to a peer by a stream that it has opened");
                Attempt::Connected(Arc::new(socket))
            }
            dialed = dialing => dialed.map_or_else(Attempt::Failed, Attempt::Connected),
        }
    }

    fn failed(&mut self, error: &CallError) {
        let peer = self.link.peer;
        if self.link.unreachable() {
            self.shared.sink.reachable(peer, false);
        }
        if let CallError::Refused {
            status,
            text,
            headers,
        } = error
        {
            match *status {
                StatusCode::CONFLICT => {
                    // The clock that numbers sessions has been set back.
                    if let Some(newest) = identity::session(headers) {
                        self.shared.begin_sessions_after(newest);
                    }
                }
                StatusCode::GONE if text == Refusal::Removed.text() => {
                    if !std::mem::replace(&mut self.told_removed, true) {
                        tracing::warn!(%peer, "a peer says that this member was removed from the cluster");
                        self.shared.sink.removed(peer);
                    }
                    return;
                }
                _ => {}
            }
        }
        let said = Some(error.to_string());
        if self.said == said {
            tracing::debug!(%peer, %error, "cannot connect to a peer");
            return;
        }
        self.said = said;
        let other = match error {
            CallError::Refused { headers, .. } => identity::cluster(headers),
            _ => None,
        };
        match other.filter(|other| *other != self.shared.identity.cluster) {
            Some(other) => tracing::warn!(
                %peer,
                cluster_id = %self.shared.identity.cluster,
                peer_cluster_id = %other,
                "cannot connect to a peer: it belongs to another cluster"
            ),
            None => tracing::warn!(%peer, %error, "cannot connect to a peer"),
        }
    }

    fn log_end(&self, ended: &Ended) {
        let peer = self.link.peer;
        match ended {
            Ended::Broken(error) => tracing::warn!(%peer, %error, "lost the connection to a peer"),
            _ => {
                tracing::warn!(%peer, patience = ?SILENCE, "lost the connection to a peer: it is silent")
            }
        }
    }

    /// Drives a stream to its end. URLs that the peer gets meanwhile are for the next one: it may not listen
    /// there before it has restarted, or ever, if they are wrong.
    async fn stream(&mut self, socket: Arc<Socket>) -> Ended {
        self.link.connected(Arc::clone(&socket));
        self.shared.established(self.link);
        let mut pulse = Pulse::new();
        let (mut full, mut overflowing) = (false, false);
        loop {
            if let Err(error) = self.write(&socket, &mut full, &mut pulse).await {
                return Ended::Broken(error);
            }
            self.report_overflow(&mut overflowing);
            tokio::select! {
                biased;
                () = self.shared.draining.cancelled() => return self.drain(&socket).await,
                readable = socket.readable() => {
                    if let Err(error) = readable.and_then(|()| pulse.listen(&socket)) {
                        return Ended::Broken(error);
                    }
                }
                () = self.link.work.notified() => {}
                writable = socket.writable(), if full => {
                    if let Err(error) = writable {
                        return Ended::Broken(error);
                    }
                }
                _ = pulse.timer.tick() => {
                    let now = Instant::now();
                    if pulse.is_silent(now) {
                        return Ended::Silent;
                    }
                    self.link.queue_heartbeat();
                    pulse.sent(now);
                }
            }
        }
    }

    /// Writes until nothing waits or the socket is full.
    async fn write(&self, socket: &Socket, full: &mut bool, pulse: &mut Pulse) -> io::Result<()> {
        let mut turn = 0;
        loop {
            let (bytes, pumped) = self.link.pump();
            if *full && bytes > 0 {
                // There is room again because the peer has taken something.
                pulse.taken(Instant::now());
            }
            match pumped {
                Pumped::Done => *full = false,
                Pumped::Full => *full = true,
                Pumped::Lost(error) => return Err(error),
                Pumped::More => {
                    turn += bytes;
                    if turn >= TURN {
                        turn = 0;
                        tokio::task::yield_now().await;
                        // Echoes wait in the socket meanwhile, and show that the peer is alive.
                        pulse.listen(socket)?;
                    }
                    continue;
                }
            }
            return Ok(());
        }
    }

    /// Tells the member when messages are dropped for want of room, and when there is room again.
    fn report_overflow(&self, overflowing: &mut bool) {
        let now = self.link.is_overflowing();
        if now == std::mem::replace(overflowing, now) {
            return;
        }
        if now {
            tracing::warn!(
                peer = %self.link.peer,
                "messages to a peer are dropped: it takes them too slowly"
            );
        }
        self.shared.sink.reachable(self.link.peer, !now);
    }

    /// Writes what waits, and leaves only when the peer has seen the end: a socket that is closed
    /// with echoes unread may take back what it has sent.
    async fn drain(&self, socket: &Socket) -> Ended {
        let (mut full, mut pulse) = (false, Pulse::new());
        let drained = async {
            loop {
                self.write(socket, &mut full, &mut pulse).await?;
                if !full {
                    break;
                }
                socket.writable().await?;
            }
            socket.finish()?;
            loop {
                socket.readable().await?;
                pulse.listen(socket)?;
            }
        };
        let _ended: io::Result<()> = drained.await;
        Ended::Drained
    }
}

/// Opens a stream to a peer.
async fn dial(shared: &Shared, link: &Link, url: &Url) -> Result<Socket, CallError> {
    let session = shared.next_session();
    let opened = open(shared, link, url, STREAM_PATH, session).await?;
    // The other side says nothing before it is asked: nothing has come early.
    Ok(opened.socket)
}

/// A connection that a peer has made a stream.
pub(super) struct Opened {
    /// The session in the answer, if there is one.
    pub(super) session: Option<u64>,
    pub(super) socket: Socket,
    /// What was read behind the answer.
    pub(super) early: Bytes,
}

/// Has a peer upgrade a request to a stream.
pub(super) async fn open(
    shared: &Shared,
    link: &Link,
    url: &Url,
    path: &'static str,
    session: u64,
) -> Result<Opened, CallError> {
    let mut caller = Caller::connect(url, &shared.via).await?;
    let mut request = Request::new(Empty::<Bytes>::new());
    *request.method_mut() = Method::POST;
    *request.uri_mut() = http::Uri::from_static(path);
    let headers = request.headers_mut();
    *headers = shared.identity.headers_to(link.peer);
    headers.insert(CONNECTION, HeaderValue::from_static("upgrade"));
    headers.insert(UPGRADE, HeaderValue::from_static(PROTOCOL));
    headers.insert(SESSION, HeaderValue::from(session));
    let response = caller.send(request).await?;
    if response.status() != StatusCode::SWITCHING_PROTOCOLS {
        return Err(call::refusal(response).await);
    }
    let session = identity::session(response.headers());
    let upgraded = hyper::upgrade::on(response).await?;
    let parts = upgraded
        .downcast::<TokioIo<Socket>>()
        .map_err(|_| CallError::Nonsense("the stream is no socket".to_owned()))?;
    Ok(Opened {
        session,
        socket: parts.io.into_inner(),
        early: parts.read_buf,
    })
}
