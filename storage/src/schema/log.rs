//! What a member must be to read a log: the highest version at which what is in its entries came
//! (spec versioning.md section 5, wire.md section 5.1).

use bytes::Bytes;
use ferrite_api::Version;
use ferrite_api::pb::etcdserverpb::InternalRaftRequest;
use prost::Message;

/// Members from this version on know changes of the membership as the log has them.
const MEMBERSHIP: Version = Version::new(3, 4, 0);

/// The first version that has entries to test this with.
const TEST: Version = Version::new(3, 6, 0);

/// The version that is needed to know all of these entries: requests, or `None` for a change of the
/// membership. `None` if there are none.
pub fn version_of(entries: impl Iterator<Item = Option<Bytes>>) -> Option<Version> {
    let versions = entries.filter_map(|entry| match entry {
        Some(request) => of_request(request),
        None => Some(MEMBERSHIP),
    });
    versions.max()
}

/// The kind of a request decides: no field inside of one came after [`OLDEST`](super::OLDEST). `None` for
/// the empty entry of a new term, and for one that does not decode, which no version knows.
fn of_request(request: Bytes) -> Option<Version> {
    if request.is_empty() {
        return None;
    }
    let request = InternalRaftRequest::decode(request).ok()?;
    if let Some(test) = request.downgrade_version_test {
        let named = Version::parse(&test.ver);
        return Some(named.map_or(TEST, |named| named.max(TEST)));
    }
    let of_3_5 = request.cluster_version_set.is_some()
        || request.cluster_member_attr_set.is_some()
        || request.downgrade_info_set.is_some()
        || request.auth_status.is_some();
    let minor = match of_3_5 {
        true => 5,
        false if request.lease_checkpoint.is_some() => 4,
        false => 0,
    };
    Some(Version::new(3, minor, 0))
}
