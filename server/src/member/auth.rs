//! What the member does for authentication: it keeps the simple tokens that the log makes, and answers
//! what only the applied state knows.

use std::sync::Arc;

use ferrite_api::types::LeaseId;
use ferrite_storage::apply::outcome::{AuthOutcome, Response};
use ferrite_storage::auth::{Access, Identity};
use parking_lot::Mutex;

use super::{Member, Reply};
use crate::auth::SimpleTokens;

/// A question: may somebody do this with the keys of a lease?
#[derive(Clone, Debug)]
pub struct LeaseCheck {
    /// Who.
    pub identity: Identity,
    /// What.
    pub access: Access,
    /// The lease; `None` for all of them.
    pub lease: Option<LeaseId>,
}

impl<T> Member<T> {
    /// The simple tokens, for the threads that serve requests.
    pub fn tokens(&self) -> Arc<Mutex<SimpleTokens>> {
        Arc::clone(&self.tokens)
    }

    /// Notes what an applied entry means to tokens. To be called before anybody can know that it is
    /// applied: who asks for a token of it then finds it.
    pub(super) fn note_tokens(&self, result: &Result<Response, ferrite_api::Error>) {
        let Ok(Response::Auth(outcome)) = result else {
            return;
        };
        match outcome {
            AuthOutcome::Authenticated { user, token, .. } if !token.starts_with('.') => {
                let mut tokens = self.tokens.lock();
                tokens.assign(self.time, token.clone(), user.clone());
            }
            AuthOutcome::TokensEnd(user) => self.tokens.lock().end_of(user),
            AuthOutcome::Disabled => self.tokens.lock().end_all(),
            _ => {}
        }
    }

    /// Publishes users and roles if they are others now. Before the view: what somebody may see there is
    /// judged by what was published before, and so never by less.
    pub(super) fn publish_auth(&self) {
        let auth = self.state.auth();
        if !Arc::ptr_eq(auth, &self.published.auth()) {
            self.published.set_auth(Arc::clone(auth));
        }
    }

    pub(super) fn check_lease(&mut self, check: &LeaseCheck, waiter: T) {
        let LeaseCheck {
            identity,
            access,
            lease,
        } = check;
        let checked = match lease {
            Some(lease) => self.state.check_lease(identity, *access, *lease),
            None => self.state.check_leases(identity, *access),
        };
        match checked {
            Ok(()) => self.replies.push((waiter, Reply::Done)),
            Err(error) => self.fail(waiter, error),
        }
    }
}
