//! The buckets of etcd's file (spec mvcc.md section 12), and how their rows differ from ours: rows of
//! the tables that are not named here are the same in both.

use bytes::Bytes;
use ferrite_api::pb::membershippb::{Attributes, Member, RaftAttributes};
use serde::{Deserialize, Serialize};

use crate::page::{ConfState, Table};

/// Key: `mvcc::bucket_key`. Value: the record.
pub(super) const KEY: &str = "key";
pub(super) const LEASE: &str = "lease";
pub(super) const MEMBERS: &str = "members";
pub(super) const META: &str = "meta";

/// Every bucket that a file has, in order.
pub(super) const BUCKETS: [&str; 10] = [
    "alarm",
    "auth",
    "authRoles",
    "authUsers",
    "cluster",
    KEY,
    LEASE,
    MEMBERS,
    "members_removed",
    META,
];

/// Rows of the bucket `meta`. The first two are 8 bytes, big-endian; the next two keys of the bucket
/// `key`; then JSON; then text.
pub(super) const CONSISTENT_INDEX: &str = "consistent_index";
pub(super) const TERM: &str = "term";
pub(super) const SCHEDULED_COMPACT: &str = "scheduledCompactRev";
pub(super) const FINISHED_COMPACT: &str = "finishedCompactRev";
pub(super) const CONF_STATE: &str = "confState";
pub(super) const STORAGE_VERSION: &str = "storageVersion";

/// The value of a removed member's row.
const REMOVED: &[u8] = b"removed";

/// The bucket that has the rows of a table.
pub(super) fn bucket(table: Table) -> &'static str {
    match table {
        Table::Members => MEMBERS,
        Table::MembersRemoved => "members_removed",
        Table::Leases => LEASE,
        Table::Auth => "auth",
        Table::AuthUsers => "authUsers",
        Table::AuthRoles => "authRoles",
        Table::Alarms => "alarm",
        Table::Cluster => "cluster",
    }
}

/// A row of a table as etcd has it, or what is wrong with it.
pub(super) fn to_etcd(table: Table, key: Bytes, value: Bytes) -> Result<(Bytes, Bytes), String> {
    Ok(match table {
        Table::Members => {
            let member = prost::Message::decode(value);
            let member = member.map_err(|error: prost::DecodeError| error.to_string())?;
            (hex(&key)?, to_json(&JsonMember::new(member)))
        }
        Table::MembersRemoved => (hex(&key)?, Bytes::from_static(REMOVED)),
        _ => (key, value),
    })
}

/// The name of a member in its row: its id, in hexadecimal digits.
fn hex(id: &[u8]) -> Result<Bytes, String> {
    let id = <[u8; 8]>::try_from(id).map_err(|_| format!("{id:02x?} is no member id"))?;
    Ok(format!("{:x}", u64::from_be_bytes(id)).into())
}

/// A member in JSON.
#[derive(Serialize, Deserialize)]
struct JsonMember {
    id: u64,
    #[serde(rename = "peerURLs")]
    peer_urls: Option<Vec<String>>,
    #[serde(rename = "isLearner", default, skip_serializing_if = "is_false")]
    is_learner: bool,
    #[serde(default, skip_serializing_if = "String::is_empty")]
    name: String,
    #[serde(
        rename = "clientURLs",
        default,
        skip_serializing_if = "Option::is_none"
    )]
    client_urls: Option<Vec<String>>,
}

impl JsonMember {
    fn new(member: Member) -> Self {
        let RaftAttributes {
            peer_urls,
            is_learner,
        } = member.raft_attributes.unwrap_or_default();
        let Attributes { name, client_urls } = member.member_attributes.unwrap_or_default();
        Self {
            id: member.id,
            peer_urls: Some(peer_urls),
            is_learner,
            name,
            client_urls: Some(client_urls).filter(|urls| !urls.is_empty()),
        }
    }
}

/// Raft's configuration in JSON.
#[derive(Serialize)]
struct JsonConfState<'c> {
    voters: &'c [u64],
    #[serde(skip_serializing_if = "<[u64]>::is_empty")]
    learners: &'c [u64],
    #[serde(skip_serializing_if = "<[u64]>::is_empty")]
    voters_outgoing: &'c [u64],
    #[serde(skip_serializing_if = "<[u64]>::is_empty")]
    learners_next: &'c [u64],
    auto_leave: bool,
}

pub(super) fn conf_state(conf: &ConfState) -> Bytes {
    to_json(&JsonConfState {
        voters: &conf.voters,
        learners: &conf.learners,
        voters_outgoing: &conf.voters_outgoing,
        learners_next: &conf.learners_next,
        auto_leave: conf.auto_leave,
    })
}

fn to_json(value: &impl Serialize) -> Bytes {
    let json = serde_json::to_vec(value);
    json.expect("numbers, texts and lists of them have a JSON form")
        .into()
}

#[expect(
    clippy::trivially_copy_pass_by_ref,
    reason = "the signature that serde calls"
)]
fn is_false(value: &bool) -> bool {
    !value
}

#[cfg(test)]
mod tests {
    use ferrite_api::types::MemberId;

    use super::*;
    use crate::members;
    use crate::page::TableWrite;

    #[test]
    fn members_are_etcds_json() {
        let mut member = members::founder(
            MemberId::new(0x0e9e_05c5_2164_694d),
            "a".to_owned(),
            vec!["http://a:2380".to_owned()],
        );
        for (client_urls, json) in [
            (vec![], ""),
            (
                vec!["http://a:2379".to_owned()],
                r#","clientURLs":["http://a:2379"]"#,
            ),
        ] {
            if let Some(own) = &mut member.member_attributes {
                own.client_urls = client_urls;
            }
            let TableWrite::Put { table, key, value } = members::row(&member) else {
                panic!("a row is put")
            };
            let (key, value) = to_etcd(table, key, value).unwrap();
            assert_eq!(&key[..], b"e9e05c52164694d");
            let id = member.id;
            let expected =
                format!(r#"{{"id":{id},"peerURLs":["http://a:2380"],"name":"a"{json}}}"#);
            assert_eq!(value, expected);
        }
        let mut learner = members::unstarted(MemberId::new(1), vec![]);
        learner.raft_attributes.as_mut().unwrap().is_learner = true;
        let value = to_json(&JsonMember::new(learner));
        assert_eq!(&value[..], br#"{"id":1,"peerURLs":[],"isLearner":true}"#);
    }

    #[test]
    fn the_configuration_is_etcds_json() {
        let mut conf = ConfState {
            voters: vec![1, u64::MAX],
            ..ConfState::default()
        };
        let json = r#"{"voters":[1,18446744073709551615],"auto_leave":false}"#;
        assert_eq!(conf_state(&conf), json);
        conf.learners = vec![3];
        let json = r#"{"voters":[1,18446744073709551615],"learners":[3],"auto_leave":false}"#;
        assert_eq!(conf_state(&conf), json);
    }

    #[test]
    fn buckets_are_in_order_and_there_is_one_for_each_table() {
        assert!(BUCKETS.is_sorted());
        for table in Table::ALL {
            assert!(BUCKETS.contains(&bucket(table)));
        }
    }
}
