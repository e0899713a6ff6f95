use bytes::Bytes;
use ferrite_api::pb::etcdserverpb::{
    DowngradeVersionTestRequest, InternalRaftRequest, LeaseCheckpointRequest, PutRequest,
};
use ferrite_api::pb::membershippb::DowngradeInfoSetRequest;
use prost::Message;

use super::*;

const fn v(minor: u64) -> Version {
    Version::new(3, minor, 0)
}

fn meta(version: &str, term: u64) -> Meta {
    let mut meta = Meta::new(1, 2);
    meta.update(&MetaUpdate {
        storage_version: Some(version.to_owned()),
        term: Some(term),
        ..MetaUpdate::default()
    });
    meta
}

#[test]
fn schemas_are_told() {
    assert_eq!(detect(&meta("3.7.0", 0)), Ok(v(7)));
    assert_eq!(detect(&meta("3.6.4", 3)), Ok(v(6)));
    assert_eq!(detect(&meta("", 3)), Ok(v(5)));
    assert_eq!(detect(&meta("", 0)), Err(Error::MissingTerm));
    assert_eq!(detect(&meta("x", 1)), Err(Error::NoVersion("x".to_owned())));
}

#[test]
fn steps_go_one_version_at_a_time() {
    let targets = |from, to| -> Result<Vec<Version>, Error> {
        let steps = plan(from, to, v(7))?;
        Ok(steps.iter().map(Step::target).collect())
    };
    assert_eq!(targets(v(5), v(7)), Ok(vec![v(6), v(7)]));
    assert_eq!(targets(v(7), v(5)), Ok(vec![v(6), v(5)]));
    assert_eq!(targets(v(7), Version::new(3, 7, 4)), Ok(vec![]));
    assert_eq!(targets(v(6), v(8)), Err(Error::NotSupported(v(8))));
    assert_eq!(targets(v(8), v(7)), Err(Error::NotSupported(v(8))));
    assert_eq!(targets(v(6), v(4)), Err(Error::NotSupported(v(5))));
    let four = Version::new(4, 0, 0);
    assert_eq!(targets(v(7), four), Err(Error::OtherMajor));
    // A member of the version before does not know the last schema.
    assert_eq!(plan(v(7), v(6), v(6)), Err(Error::NotSupported(v(7))));
    assert_eq!(plan(v(6), v(7), v(6)), Err(Error::NotSupported(v(7))));
}

#[test]
fn each_step_says_where_it_leads() {
    let versions = |from, to| -> Vec<String> {
        let steps = plan(from, to, v(7)).unwrap();
        let batches = steps.iter().map(|step| {
            let mut batch = Batch::default();
            step.join(&mut batch);
            batch.meta.storage_version.unwrap()
        });
        batches.collect()
    };
    assert_eq!(versions(v(5), v(7)), ["3.6.0", "3.7.0"]);
    assert_eq!(versions(v(7), v(5)), ["3.6.0", ""]);
}

#[test]
fn a_newer_schema_is_refused() {
    let text = |meta: &Meta, newest| check(meta, newest).map_err(|error| error.to_string());
    assert_eq!(text(&meta("3.5.0", 1), v(7)), Ok(()));
    assert_eq!(text(&meta("", 0), v(7)), Ok(()));
    let refused = Err("version \"3.8.0\" is not supported".to_owned());
    assert_eq!(text(&meta("3.8.0", 1), v(7)), refused);
    let refused = Err("version \"3.7.0\" is not supported".to_owned());
    assert_eq!(text(&meta("3.7.0", 1), v(6)), refused);
    let refused = Err("changing major storage version is not supported".to_owned());
    assert_eq!(text(&meta("4.0.0", 1), v(7)), refused);
}

#[test]
fn errors_of_a_migration_are_etcds() {
    let explained = |meta: &Meta, target| {
        let planned = plan_for(meta, target, v(7), None);
        planned.map_err(|error| error.explained()).unwrap_err()
    };
    assert_eq!(
        explained(&meta("", 0), v(7)),
        "cannot detect storage schema version: missing term information"
    );
    assert_eq!(
        explained(&meta("3.7.0", 1), v(8)),
        "cannot create migration plan: version \"3.8.0\" is not supported"
    );
    assert_eq!(
        explained(&meta("3.7.0", 1), Version::new(4, 0, 0)),
        "cannot create migration plan: changing major storage version is not supported"
    );
}

#[test]
fn the_log_can_forbid_a_downgrade() {
    let planned = |target, log| plan_for(&meta("3.7.0", 1), target, v(7), log);
    let error = planned(v(5), Some(v(6))).unwrap_err().to_string();
    assert_eq!(
        error,
        "cannot downgrade storage, WAL contains newer entries, as the target version (3.5.0) is lower \
         than the version (3.6.0) detected from WAL logs"
    );
    assert_eq!(planned(v(6), Some(v(6))).map(|steps| steps.len()), Ok(1));
    assert_eq!(planned(v(6), None).map(|steps| steps.len()), Ok(1));
    // Upgrades do not ask.
    let up = plan_for(&meta("3.6.0", 1), v(7), v(7), Some(v(9)));
    assert_eq!(up.map(|steps| steps.len()), Ok(1));
}

#[test]
fn requests_need_the_version_in_which_they_came() {
    let entry = |request: &InternalRaftRequest| Some(Bytes::from(request.encode_to_vec()));
    let version = |request: InternalRaftRequest| log::version_of([entry(&request)].into_iter());
    let test = |ver: &str| InternalRaftRequest {
        downgrade_version_test: Some(DowngradeVersionTestRequest {
            ver: ver.to_owned(),
        }),
        ..InternalRaftRequest::default()
    };
    let put = Some(PutRequest::default());
    let put = InternalRaftRequest {
        put,
        ..InternalRaftRequest::default()
    };
    assert_eq!(version(put), Some(v(0)));
    let checkpoint = InternalRaftRequest {
        lease_checkpoint: Some(LeaseCheckpointRequest::default()),
        ..InternalRaftRequest::default()
    };
    assert_eq!(version(checkpoint), Some(v(4)));
    let downgrade = InternalRaftRequest {
        downgrade_info_set: Some(DowngradeInfoSetRequest::default()),
        ..InternalRaftRequest::default()
    };
    assert_eq!(version(downgrade), Some(v(5)));
    assert_eq!(version(test("3.7.0")), Some(v(7)));
    assert_eq!(version(test("3.4.0")), Some(v(6)));
    // The empty entry of a term, and nonsense.
    let known = [Some(Bytes::new()), Some(Bytes::from_static(b"\xff"))];
    assert_eq!(log::version_of(known.into_iter()), None);
    let of_all = [entry(&test("3.9.0")), None, Some(Bytes::new())];
    assert_eq!(log::version_of(of_all.into_iter()), Some(v(9)));
    assert_eq!(log::version_of([None].into_iter()), Some(v(4)));
}
