//! Section 8: Downgrade, and its errors.

use ferrite_api::pb::etcdserverpb as pb;
use ferrite_api::pb::etcdserverpb::downgrade_request::DowngradeAction;
use tonic::Code;

use crate::support::*;

const VALIDATE: i32 = DowngradeAction::Validate as i32;
const ENABLE: i32 = DowngradeAction::Enable as i32;
const CANCEL: i32 = DowngradeAction::Cancel as i32;

impl Member {
    async fn downgrade(&self, action: i32, version: &str) -> Answer<pb::DowngradeResponse> {
        let request = pb::DowngradeRequest {
            action,
            version: version.to_owned(),
        };
        self.maintenance().downgrade(request).await
    }

    /// Waits until its storage is of a version.
    async fn has_storage(&self, version: &str) -> pb::StatusResponse {
        loop {
            let status = self.status().await;
            if status.storage_version == version {
                return status;
            }
            tokio::task::yield_now().await;
        }
    }
}

#[tokio::test]
async fn s8_downgrade_refuses_what_is_not_one_level_down() {
    let member = Member::start().await;
    let format = "etcdserver: wrong downgrade target version format";
    let target = "etcdserver: invalid downgrade target version";
    for action in [VALIDATE, ENABLE] {
        for version in ["", "3", "v3.6", "3.6.0.1", "3.x"] {
            let answer = member.downgrade(action, version).await;
            refused(answer, Code::InvalidArgument, format);
        }
        for version in ["3.5", "3.7", "3.8.0", "2.6"] {
            let answer = member.downgrade(action, version).await;
            refused(answer, Code::InvalidArgument, target);
        }
    }
    let answer = member.downgrade(3, "3.6").await;
    refused(answer, Code::Unknown, "etcdserver: unknown method");
}

#[tokio::test]
async fn s8_downgrade_is_validated_begun_and_taken_back() {
    let member = Member::start().await;
    member.has_storage("3.7.0").await;
    member.put("a", "1").await;
    // With nothing to cancel, too.
    for (action, version) in [(VALIDATE, "3.6"), (VALIDATE, "3.6.9"), (CANCEL, "")] {
        let answer = member
            .downgrade(action, version)
            .await
            .unwrap()
            .into_inner();
        assert_eq!(
            (answer.header.unwrap().revision, &answer.version[..]),
            (2, "3.7")
        );
        let status = member.status().await;
        assert_eq!(status.downgrade_info, Some(pb::DowngradeInfo::default()));
    }
    let answer = member.downgrade(ENABLE, "3.6").await.unwrap().into_inner();
    assert_eq!(answer.version, "3.7");
    let begun = Some(pb::DowngradeInfo {
        enabled: true,
        target_version: "3.6.0".to_owned(),
    });
    assert_eq!(member.status().await.downgrade_info, begun);

    let status = member.has_storage("3.6.0").await;
    assert_eq!(
        (&status.version[..], status.downgrade_info),
        ("3.7.1", begun.clone())
    );
    for action in [VALIDATE, ENABLE] {
        let answer = member.downgrade(action, "3.5").await;
        let text = "etcdserver: cluster has a downgrade job in progress";
        refused(answer, Code::FailedPrecondition, text);
        let answer = member.downgrade(action, "3.6").await;
        let text = "etcdserver: invalid downgrade target version";
        refused(answer, Code::InvalidArgument, text);
    }
    // All of it is there after a restart.
    let member = member.restart(|_| {}).await;
    let status = member.status().await;
    assert_eq!(status.storage_version, "3.6.0");
    assert_eq!(status.downgrade_info, begun);

    let answer = member.downgrade(CANCEL, "").await.unwrap().into_inner();
    assert_eq!(answer.version, "3.6");
    let status = member.has_storage("3.7.0").await;
    assert_eq!(status.downgrade_info, Some(pb::DowngradeInfo::default()));
    assert_eq!(member.pair("a").await.unwrap().mod_revision, 2);
}
