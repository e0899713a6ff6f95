//! Questions that wait for their answers.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};

use bytes::Bytes;
use parking_lot::Mutex;
use tokio::sync::oneshot;

/// Why a question has no answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum AskError {
    /// There is no connection in one of the directions, or it was lost: the question may have
    /// arrived or not.
    #[error("the member cannot be reached")]
    Unreachable,
    /// The member has too many questions to answer.
    #[error("the member has too many questions to answer")]
    Overloaded,
}

/// The questions to one peer.
#[derive(Debug)]
pub(super) struct Questions {
    next: AtomicU64,
    waiting: Mutex<BTreeMap<u64, oneshot::Sender<Result<Bytes, AskError>>>>,
}

impl Questions {
    /// Questions numbered from `first`, which no earlier process of this member has used: an answer
    /// to one of its questions must not be taken for one to ours.
    pub(super) fn new(first: u64) -> Self {
        Self {
            next: AtomicU64::new(first),
            waiting: Mutex::default(),
        }
    }

    /// A new question. Dropping it forgets it.
    pub(super) fn begin(&self) -> Question<'_> {
        let number = self.next.fetch_add(1, Ordering::Relaxed);
        let (answer, answered) = oneshot::channel();
        self.waiting.lock().insert(number, answer);
        Question {
            questions: self,
            number,
            answered,
        }
    }

    /// The peer's answer; `None` when it did not accept the question.
    pub(super) fn answer(&self, number: u64, answer: Option<Bytes>) {
        if let Some(asker) = self.waiting.lock().remove(&number) {
            // Who does not wait any more needs no answer.
            let _gone = asker.send(answer.ok_or(AskError::Overloaded));
        }
    }

    /// How many wait.
    #[cfg(test)]
    pub(super) fn waiting(&self) -> usize {
        self.waiting.lock().len()
    }

    /// No answer will come to what was asked so far.
    pub(super) fn fail_all(&self) {
        drop(std::mem::take(&mut *self.waiting.lock()));
    }
}

/// A question that was asked.
pub(super) struct Question<'a> {
    questions: &'a Questions,
    pub(super) number: u64,
    answered: oneshot::Receiver<Result<Bytes, AskError>>,
}

impl Question<'_> {
    pub(super) async fn answered(mut self) -> Result<Bytes, AskError> {
        match (&mut self.answered).await {
            Ok(answer) => answer,
            Err(_) => Err(AskError::Unreachable),
        }
    }
}

impl Drop for Question<'_> {
    fn drop(&mut self) {
        self.questions.waiting.lock().remove(&self.number);
    }
}
