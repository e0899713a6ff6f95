//! Who the client is: a token with every call, got with a name and a password, and got again when the
//! cluster does not know it any more (`spec/client.md` section 5).

use ferrite_api::Error as EtcdError;
use ferrite_api::pb::etcdserverpb as pb;
use parking_lot::Mutex;
use tonic::metadata::{Ascii, MetadataValue};

use crate::{Client, Config, Error, rpc};

/// A token, as it goes into the metadata of a call.
pub(crate) type Token = MetadataValue<Ascii>;

/// The token of a client, and how to get one.
#[derive(Debug)]
pub(crate) struct Login {
    // Held for a look or an exchange.
    token: Mutex<Option<Token>>,
    /// One asks, the others wait for its token. Never held together with the other lock.
    asking: tokio::sync::Mutex<()>,
}

impl Login {
    /// Of a client that has not asked anybody yet.
    pub(crate) fn new(config: &Config) -> Result<Self, Error> {
        if config.user.is_some() && config.token.is_some() {
            return Err(Error::InvalidConfig(
                "Username/Password and Token configurations are mutually exclusive".to_owned(),
            ));
        }
        let given = config.token.as_ref();
        let token = given.map(|given| token(given.expose())).transpose()?;
        Ok(Self {
            token: Mutex::new(token),
            asking: tokio::sync::Mutex::new(()),
        })
    }

    /// The token to send, if there is one.
    pub(crate) fn token(&self) -> Option<Token> {
        self.token.lock().clone()
    }
}

/// # Errors
/// It cannot be sent.
fn token(text: &str) -> Result<Token, Error> {
    MetadataValue::try_from(text)
        .map_err(|_| Error::InvalidConfig("the token has characters that no token has".to_owned()))
}

/// Whether a call was refused for who the client is, before anything was done, and may not be the next
/// time: with another token, or because users and roles do not change right then, which is all that can
/// help a client that is known by its certificate.
pub(crate) fn may_pass(config: &Config, error: &Error) -> bool {
    match error.etcd() {
        // There is no other token.
        _ if config.token.is_some() => false,
        Some(EtcdError::InvalidAuthToken | EtcdError::AuthOldRevision) => true,
        Some(EtcdError::UserEmpty) => config.user.is_some(),
        _ => false,
    }
}

impl Client {
    /// Gets a token, if this client has a user to get one for, in the place of `used`, which was of no
    /// use. Whoever finds that another call has got one meanwhile takes that. Without authentication in
    /// the cluster there are no tokens, which is no failure.
    ///
    /// # Errors
    /// Those of the call; the cluster does not know the user or the password.
    pub(crate) async fn renew_token(&self, used: Option<Token>) -> Result<(), Error> {
        let Some(user) = self.shared.config.user.as_ref() else {
            return Ok(());
        };
        let login = &self.shared.login;
        let _asking = login.asking.lock().await;
        if login.token() != used {
            return Ok(());
        }
        let request = pb::AuthenticateRequest {
            name: user.name.clone(),
            password: user.password.expose().to_owned(),
        };
        let answered = Box::pin(self.unary(rpc::AUTHENTICATE, request)).await;
        let fresh = match answered {
            Ok(response) => Some(token(&response.token)?),
            Err(Error::Etcd(EtcdError::AuthNotEnabled)) => None,
            Err(error) => return Err(error),
        };
        *login.token.lock() = fresh;
        Ok(())
    }

    /// Before a stream is opened: a token that is as new as it can be, because a stream that is refused
    /// in the middle of things is harder to get going again.
    pub(crate) async fn token_for_stream(&self) -> Result<(), Error> {
        let used = self.shared.login.token();
        self.renew_token(used).await
    }
}
