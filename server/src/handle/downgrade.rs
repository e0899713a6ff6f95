//! Maintenance.Downgrade: the cluster is to go back by one level (spec versioning.md section 4). What
//! follows, the members do by themselves.

use ferrite_api::pb::etcdserverpb as pb;
use ferrite_api::pb::etcdserverpb::downgrade_request::DowngradeAction;
use ferrite_api::pb::membershippb::DowngradeInfoSetRequest;
use ferrite_api::{Error as ApiError, Version};
use tonic::Code;

use super::Handle;
use crate::error::Error;
use crate::metrics::RequestKind;

impl Handle {
    /// Maintenance.Downgrade.
    ///
    /// # Errors
    /// As etcd's: a cancellation always succeeds.
    pub async fn downgrade_cluster(
        &self,
        request: pb::DowngradeRequest,
    ) -> Result<pb::DowngradeResponse, Error> {
        self.check_admin().await?;
        match DowngradeAction::try_from(request.action) {
            Ok(DowngradeAction::Validate) => {
                let target = target(&request.version)?;
                self.inner
                    .published
                    .cluster()
                    .version
                    .ok_or(ApiError::ClusterVersionUnavailable)?;
                self.validate_downgrade(target).await?;
            }
            Ok(DowngradeAction::Enable) => {
                let enabled = self.enable_downgrade(&request.version).await;
                enabled.inspect_err(|error| {
                    tracing::warn!(error = %error.message(), "reject downgrade request");
                })?;
            }
            Ok(DowngradeAction::Cancel) => {
                if let Err(error) = self.cancel_downgrade().await {
                    tracing::warn!(error = %error.message(), "failed to cancel downgrade");
                }
            }
            Err(_) => return Err(Error::status(Code::Unknown, "etcdserver: unknown method")),
        }
        let published = &self.inner.published;
        let version = published.cluster().version;
        Ok(pb::DowngradeResponse {
            header: Some(self.header(published.view().revision)),
            version: version.map_or_else(String::new, Version::short),
        })
    }

    /// Whether a downgrade is under way, as far as the cluster knows now.
    ///
    /// # Errors
    /// The read could not be confirmed.
    pub async fn downgrade_enabled(&self) -> Result<bool, Error> {
        self.view(false).await?;
        Ok(self.inner.published.cluster().downgrade.is_some())
    }

    async fn validate_downgrade(&self, target: Version) -> Result<(), Error> {
        self.view(false).await?;
        let cluster = self.inner.published.cluster();
        let allowed = cluster.version.and_then(Version::level_before);
        if allowed != Some(target) {
            return Err(ApiError::InvalidDowngradeTargetVersion.into());
        }
        match cluster.downgrade {
            Some(_) => Err(ApiError::DowngradeInProcess.into()),
            None => Ok(()),
        }
    }

    async fn enable_downgrade(&self, version: &str) -> Result<(), Error> {
        let target = target(version)?;
        self.validate_downgrade(target).await?;
        self.set_downgrade(DowngradeInfoSetRequest {
            enabled: true,
            ver: target.to_string(),
        })
        .await
    }

    async fn cancel_downgrade(&self) -> Result<(), Error> {
        match self.downgrade_enabled().await? {
            true => self.set_downgrade(DowngradeInfoSetRequest::default()).await,
            false => Err(ApiError::NoInflightDowngrade.into()),
        }
    }

    async fn set_downgrade(&self, set: DowngradeInfoSetRequest) -> Result<(), Error> {
        let request = pb::InternalRaftRequest {
            downgrade_info_set: Some(set),
            ..Default::default()
        };
        let applied = self.propose(RequestKind::DowngradeInfoSet, request).await?;
        applied.result?;
        Ok(())
    }
}

/// The level that a text names: `3.6`, or any version of it.
fn target(text: &str) -> Result<Version, ApiError> {
    let version = Version::parse(text).or_else(|| Version::parse(&format!("{text}.0")));
    let version = version.ok_or(ApiError::WrongDowngradeVersionFormat)?;
    Ok(version.level())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_target_is_a_level() {
        for text in ["3.6", "3.6.0", "3.6.4", "3.6.0-rc.1"] {
            assert_eq!(target(text), Ok(Version::new(3, 6, 0)), "{text}");
        }
        for text in ["", "3", "3.x", "v3.6", "3.6.0.1", " 3.6"] {
            let error = Err(ApiError::WrongDowngradeVersionFormat);
            assert_eq!(target(text), error, "{text}");
        }
    }
}
