//! The body of a stream's response: it runs the method and sends what the method has sent.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use http_body::Frame;
use tonic::Code;

use super::outbox::Outbox;
use super::{Ending, Serving};
use crate::error::Error;
use crate::grpc::call::{self, Account};
use crate::grpc::status;

/// The responses of a stream on their way out.
pub(in crate::grpc) struct StreamBody {
    /// What [`StreamBody::poll_first`] has found.
    first: Option<Bytes>,
    outbox: Arc<Outbox>,
    state: State,
    account: Account,
}

enum State {
    /// The method runs.
    Serving(Serving, Ending),
    /// The method has ended; what it has sent goes out before this status.
    Draining(Error),
    Ended,
}

/// What comes out next.
enum Next {
    Data(Bytes),
    /// The status, which may be OK.
    End(Error),
}

impl std::fmt::Debug for StreamBody {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("StreamBody").finish_non_exhaustive()
    }
}

impl StreamBody {
    pub(super) fn new(
        serving: Serving,
        outbox: Arc<Outbox>,
        ending: Ending,
        account: Account,
    ) -> Self {
        Self {
            first: None,
            outbox,
            state: State::Serving(serving, ending),
            account,
        }
    }

    /// Waits for the first message. To be called before the first frame is asked for.
    ///
    /// # Errors
    /// The stream has failed before.
    pub(super) fn poll_first(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Error>> {
        Poll::Ready(match ready!(self.poll_next(cx)) {
            Some(Next::Data(data)) => {
                self.first = Some(data);
                Ok(())
            }
            Some(Next::End(end)) if end.code() == Code::Ok => {
                // A stream without messages: the trailers come when they are asked for.
                self.state = State::Draining(end);
                Ok(())
            }
            Some(Next::End(error)) => Err(self.end(error)),
            None => Ok(()),
        })
    }

    pub(in crate::grpc) fn poll_frame(
        &mut self,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Frame<Bytes>>> {
        if let Some(first) = self.first.take() {
            return Poll::Ready(Some(Frame::data(first)));
        }
        Poll::Ready(ready!(self.poll_next(cx)).map(|next| match next {
            Next::Data(data) => Frame::data(data),
            Next::End(end) => Frame::trailers(match self.end(end) {
                end if end.code() == Code::Ok => status::ok_trailers(),
                error => status::error_trailers(&error),
            }),
        }))
    }

    fn poll_next(&mut self, cx: &mut Context<'_>) -> Poll<Option<Next>> {
        loop {
            if let Some(frame) = self.outbox.take_full() {
                return Poll::Ready(Some(Next::Data(frame)));
            }
            let (serving, ending) = match &mut self.state {
                State::Serving(serving, ending) => (serving, ending),
                State::Draining(end) => {
                    return Poll::Ready(Some(match self.outbox.take() {
                        Some(frame) => Next::Data(frame),
                        None => Next::End(end.clone()),
                    }));
                }
                State::Ended => return Poll::Ready(None),
            };
            if let Poll::Ready(error) = ending.as_mut().poll(cx) {
                return Poll::Ready(Some(Next::End(error)));
            }
            // A method that panicked is dropped and never polled again, so nobody sees what it left
            // half done but the state it shares, whose locks do not poison.
            let end = match catch_unwind(AssertUnwindSafe(|| serving.as_mut().poll(cx))) {
                Ok(Poll::Ready(Ok(()))) => Error::status(Code::Ok, ""),
                Ok(Poll::Ready(Err(error))) => error,
                Ok(Poll::Pending) => {
                    return match self.outbox.take() {
                        Some(frame) => Poll::Ready(Some(Next::Data(frame))),
                        None => Poll::Pending,
                    };
                }
                Err(_) => {
                    tracing::error!("the method of a stream panicked");
                    call::panicked()
                }
            };
            self.state = State::Draining(end);
        }
    }

    /// Ends the stream: the method, if it still runs, is dropped.
    fn end(&mut self, end: Error) -> Error {
        self.state = State::Ended;
        self.account.end(end.code());
        end
    }
}
