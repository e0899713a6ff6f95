//! The columns that the simple format and tables share.

use ferrite_client::pb::etcdserverpb as pb;

use super::{Answer, Health};

pub(crate) const MEMBERS: [&str; 6] = [
    "ID",
    "STATUS",
    "NAME",
    "PEER ADDRS",
    "CLIENT ADDRS",
    "IS LEARNER",
];
pub(crate) const HEALTH: [&str; 4] = ["ENDPOINT", "HEALTH", "TOOK", "ERROR"];
pub(crate) const STATUS: [&str; 16] = [
    "ENDPOINT",
    "ID",
    "VERSION",
    "STORAGE VERSION",
    "DB SIZE",
    "IN USE",
    "PERCENTAGE NOT IN USE",
    "QUOTA",
    "IS LEADER",
    "IS LEARNER",
    "RAFT TERM",
    "RAFT INDEX",
    "RAFT APPLIED INDEX",
    "ERRORS",
    "DOWNGRADE TARGET VERSION",
    "DOWNGRADE ENABLED",
];
pub(crate) const HASH_KV: [&str; 3] = ["ENDPOINT", "HASH", "HASH REVISION"];

pub(crate) fn members(response: &pb::MemberListResponse) -> Vec<Vec<String>> {
    let row = |member: &pb::Member| {
        let status = if member.name.is_empty() {
            "unstarted"
        } else {
            "started"
        };
        vec![
            format!("{:x}", member.id),
            status.to_owned(),
            member.name.clone(),
            member.peer_ur_ls.join(","),
            member.client_ur_ls.join(","),
            member.is_learner.to_string(),
        ]
    };
    response.members.iter().map(row).collect()
}

pub(crate) fn health(list: &[Health]) -> Vec<Vec<String>> {
    let row = |health: &Health| {
        vec![
            health.endpoint.clone(),
            health.healthy.to_string(),
            health.took.clone(),
            health.error.clone(),
        ]
    };
    list.iter().map(row).collect()
}

pub(crate) fn status(list: &[Answer<pb::StatusResponse>]) -> Vec<Vec<String>> {
    let row = |answer: &Answer<pb::StatusResponse>| {
        let status = &answer.response;
        let member_id = status.header.unwrap_or_default().member_id;
        let downgrade = status.downgrade_info.clone().unwrap_or_default();
        vec![
            answer.endpoint.clone(),
            format!("{member_id:x}"),
            status.version.clone(),
            status.storage_version.clone(),
            size(status.db_size),
            size(status.db_size_in_use),
            format!("{}%", unused_percentage(status)),
            size(status.db_size_quota),
            (status.leader == member_id).to_string(),
            status.is_learner.to_string(),
            status.raft_term.to_string(),
            status.raft_index.to_string(),
            status.raft_applied_index.to_string(),
            status.errors.join(", "),
            downgrade.target_version,
            downgrade.enabled.to_string(),
        ]
    };
    list.iter().map(row).collect()
}

pub(crate) fn hash_kv(list: &[Answer<pb::HashKvResponse>]) -> Vec<Vec<String>> {
    let row = |answer: &Answer<pb::HashKvResponse>| {
        vec![
            answer.endpoint.clone(),
            answer.response.hash.to_string(),
            answer.response.hash_revision.to_string(),
        ]
    };
    list.iter().map(row).collect()
}

/// Deviation: etcd's tool divides by a database size of 0 and dies; nothing is unused then.
fn unused_percentage(status: &pb::StatusResponse) -> i128 {
    let in_use = i128::from(status.db_size_in_use) * 100;
    let used = in_use.checked_div(i128::from(status.db_size));
    used.map_or(0, |used| 100 - used)
}

/// Bytes in powers of 1000, one decimal below ten: `98 kB`, `2.1 GB`.
pub(crate) fn size(bytes: i64) -> String {
    const UNITS: [&str; 7] = ["B", "kB", "MB", "GB", "TB", "PB", "EB"];
    // A negative size is not one; etcd's tool reads it as unsigned, too.
    let bytes = bytes as u64;
    if bytes < 10 {
        return format!("{bytes} B");
    }
    // In floating point, as the original does: the roundings are part of the output.
    let bytes = bytes as f64;
    let exponent = (bytes.ln() / 1000f64.ln()).floor();
    let value = (bytes / 1000f64.powf(exponent) * 10.0 + 0.5).floor() / 10.0;
    let unit = UNITS[(exponent as usize).min(UNITS.len() - 1)];
    if value < 10.0 {
        format!("{value:.1} {unit}")
    } else {
        format!("{value:.0} {unit}")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_si() {
        for (bytes, text) in [
            (0, "0 B"),
            (9, "9 B"),
            (10, "10 B"),
            (999, "999 B"),
            (1000, "1.0 kB"),
            (20_480, "20 kB"),
            (98_304, "98 kB"),
            (999_999, "1000 kB"),
            (2_147_483_648, "2.1 GB"),
            (i64::MAX, "9.2 EB"),
            (-1, "18 EB"),
        ] {
            assert_eq!(size(bytes), text);
        }
    }

    #[test]
    fn percentage_never_divides_by_zero() {
        let of = |db_size, db_size_in_use| {
            unused_percentage(&pb::StatusResponse {
                db_size,
                db_size_in_use,
                ..Default::default()
            })
        };
        assert_eq!(of(20_480, 16_384), 20);
        assert_eq!(of(98_304, 98_304), 0);
        assert_eq!(of(3, 1), 67);
        assert_eq!(of(0, 0), 0);
    }
}
