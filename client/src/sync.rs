//! Endpoints that follow the members of the cluster (`spec/client.md` section 3).

use std::sync::Weak;
use std::time::Duration;

use tokio::task::AbortHandle;
use tokio::time::sleep;

use ferrite_api::pb::etcdserverpb as pb;

use crate::call::Scope;
use crate::endpoint::Target;
use crate::{Client, Error, Shared};

/// How long one look at the members may take when nobody waits for it.
const PATIENCE: Duration = Duration::from_secs(5);

impl Client {
    /// The endpoints that calls go to now: those of the configuration, or what the last
    /// [`Client::sync`] or [`Client::set_endpoints`] made of them.
    pub fn endpoints(&self) -> Vec<String> {
        self.shared.balancer.endpoints()
    }

    /// These endpoints instead of all before, for every clone of this client. Calls that are under
    /// way end where they are.
    ///
    /// # Errors
    ///
    /// As those of [`Client::connect`]; nothing has changed then.
    pub fn set_endpoints<E: Into<String>>(
        &self,
        endpoints: impl IntoIterator<Item = E>,
    ) -> Result<(), Error> {
        let endpoints = endpoints.into_iter().map(Into::into);
        let targets = endpoints
            .map(|endpoint: String| Target::parse(&endpoint))
            .collect::<Result<Vec<_>, _>>()?;
        if targets.is_empty() {
            return Err(Error::NoEndpoints);
        }
        self.shared.balancer.replace(targets, Vec::new());
        Ok(())
    }

    /// Asks the cluster for its members and uses the client URLs of the started voters from now
    /// on. See [`Config::auto_sync`](crate::Config::auto_sync) to have it done now and then.
    ///
    /// The endpoints of the configuration stay connected and help out while no member can be
    /// reached under the URLs that it advertises. (With etcd's Go client they are lost.)
    ///
    /// # Errors
    ///
    /// The call's; [`Error::NoEndpoints`] if no started voter has a URL, and the refusal of a URL
    /// if none can be used. The endpoints have not changed then.
    pub async fn sync(&self) -> Result<(), Error> {
        let listed = self.cluster().member_list().await?;
        let mut usable = Vec::new();
        let mut refused = None;
        for url in client_urls(&listed.members) {
            match Target::parse(url) {
                Ok(target) => usable.push(target),
                Err(error) => {
                    tracing::debug!(url, %error, "a member's URL cannot be used");
                    refused = Some(error);
                }
            }
        }
        if usable.is_empty() {
            return Err(refused.unwrap_or(Error::NoEndpoints));
        }
        let configured = self.shared.config.check()?;
        self.shared.balancer.replace(usable, configured);
        Ok(())
    }
}

/// The URLs of the members that serve clients: a member without a name has not started, a learner
/// refuses most calls.
fn client_urls(members: &[pb::Member]) -> impl Iterator<Item = &str> {
    members
        .iter()
        .filter(|member| !member.name.is_empty() && !member.is_learner)
        .flat_map(|member| member.client_ur_ls.iter().map(String::as_str))
}

/// Looks at the members now and then, for as long as the client lives.
#[derive(Debug)]
pub(crate) struct AutoSync(AbortHandle);

impl AutoSync {
    pub(crate) fn start(shared: Weak<Shared>, interval: Duration) -> AutoSync {
        let task = tokio::spawn(async move {
            loop {
                sleep(interval).await;
                let Some(shared) = shared.upgrade() else {
                    return;
                };
                let client = Client {
                    shared,
                    scope: Scope::default(),
                };
                if let Err(error) = client.with_timeout(PATIENCE).sync().await {
                    tracing::debug!(%error, "the members could not be listed");
                }
            }
        });
        AutoSync(task.abort_handle())
    }
}

impl Drop for AutoSync {
    fn drop(&mut self) {
        self.0.abort();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn started_voters_serve_clients() {
        let member = |name: &str, is_learner, urls: &[&str]| pb::Member {
            name: name.to_owned(),
            is_learner,
            client_ur_ls: urls.iter().map(ToString::to_string).collect(),
            ..Default::default()
        };
        let members = [
            member("a", false, &["http://a:1", "http://a:2"]),
            member("", false, &["http://b:1"]),
            member("c", true, &["http://c:1"]),
            member("d", false, &[]),
            member("e", false, &["http://e:1"]),
        ];
        let urls: Vec<_> = client_urls(&members).collect();
        assert_eq!(urls, ["http://a:1", "http://a:2", "http://e:1"]);
    }
}
