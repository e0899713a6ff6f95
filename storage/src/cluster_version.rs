//! What the members have agreed on about versions: that of the cluster, and the one that it is to go
//! back to (spec versioning.md sections 3 and 4).

use bytes::Bytes;
use ferrite_api::Version;
use serde::{Deserialize, Serialize};

use crate::error::Error;
use crate::page::{Table, TableWrite};

/// The row of the `cluster` table that holds the cluster version, as text (`3.7.0`).
pub const CLUSTER_VERSION: &[u8] = b"clusterVersion";
/// The row of the `cluster` table that holds the downgrade, in etcd's JSON.
const DOWNGRADE: &[u8] = b"downgrade";

/// The agreed versions.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ClusterVersion {
    /// The cluster version, once decided.
    pub version: Option<Version>,
    /// The version that a downgrade under way leads to.
    pub downgrade: Option<Version>,
    /// Whether there has been a downgrade: then there is a row that says so.
    downgraded: bool,
}

/// A downgrade, as etcd stores it. The target is empty if there is none.
#[derive(Serialize, Deserialize)]
struct Json {
    #[serde(rename = "target-version")]
    target: String,
    enabled: bool,
}

impl ClusterVersion {
    /// The versions in the rows of the `cluster` table.
    ///
    /// # Errors
    /// [`Error::Corrupt`] naming the row that holds something else.
    pub fn load(rows: &[(Bytes, Bytes)]) -> Result<Self, Error> {
        let mut found = Self::default();
        for (key, value) in rows {
            let corrupt = |why: &str| Error::Corrupt {
                what: format!("cluster row {key:?} holds {value:?}: {why}"),
            };
            let version = |text: &str| Version::parse(text).ok_or_else(|| corrupt("no version"));
            match &key[..] {
                CLUSTER_VERSION => {
                    let text = str::from_utf8(value).unwrap_or_default();
                    found.version = Some(version(text)?);
                }
                DOWNGRADE => {
                    let json: Json = serde_json::from_slice(value)
                        .map_err(|error| corrupt(&error.to_string()))?;
                    found.downgrade = match json.enabled {
                        true => Some(version(&json.target)?),
                        false => None,
                    };
                    found.downgraded = true;
                }
                _ => {}
            }
        }
        Ok(found)
    }

    /// Decides the cluster version. Returns its row.
    pub(crate) fn set_version(&mut self, version: Version) -> TableWrite {
        self.version = Some(version);
        version_row(version)
    }

    /// Begins a downgrade, or ends it. Returns its row.
    pub(crate) fn set_downgrade(&mut self, target: Option<Version>) -> TableWrite {
        self.downgrade = target;
        self.downgraded = true;
        downgrade_row(target)
    }

    /// The rows that hold them.
    pub(crate) fn rows(&self) -> impl Iterator<Item = TableWrite> + use<> {
        let downgrade = self.downgraded.then(|| downgrade_row(self.downgrade));
        self.version.map(version_row).into_iter().chain(downgrade)
    }
}

fn version_row(version: Version) -> TableWrite {
    let key = Bytes::from_static(CLUSTER_VERSION);
    TableWrite::put(Table::Cluster, key, Bytes::from(version.to_string()))
}

fn downgrade_row(target: Option<Version>) -> TableWrite {
    let json = Json {
        target: target.map_or_else(String::new, |target| target.to_string()),
        enabled: target.is_some(),
    };
    let value = serde_json::to_vec(&json).expect("a text and a flag are JSON");
    TableWrite::put(
        Table::Cluster,
        Bytes::from_static(DOWNGRADE),
        Bytes::from(value),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn stored(versions: &ClusterVersion) -> Vec<(Bytes, Bytes)> {
        let rows = versions.rows().map(|row| match row {
            TableWrite::Put { key, value, .. } => (key, value),
            other => panic!("{other:?}"),
        });
        rows.collect()
    }

    #[test]
    fn rows_are_etcds() {
        let mut versions = ClusterVersion::default();
        assert_eq!(stored(&versions), []);
        versions.set_version(Version::new(3, 7, 0));
        versions.set_downgrade(Some(Version::new(3, 6, 0)));
        let row = |key: &'static str, value: &'static str| (Bytes::from(key), Bytes::from(value));
        let version = row("clusterVersion", "3.7.0");
        let enabled = r#"{"target-version":"3.6.0","enabled":true}"#;
        let rows = [version.clone(), row("downgrade", enabled)];
        assert_eq!(stored(&versions), rows);
        assert_eq!(ClusterVersion::load(&rows).unwrap(), versions);
        versions.set_downgrade(None);
        let disabled = r#"{"target-version":"","enabled":false}"#;
        let rows = [version, row("downgrade", disabled)];
        assert_eq!(stored(&versions), rows);
        assert_eq!(ClusterVersion::load(&rows).unwrap(), versions);
    }

    #[test]
    fn damaged_rows_are_named() {
        for (key, value) in [
            ("clusterVersion", "3.x"),
            ("clusterVersion", ""),
            ("downgrade", "{"),
            ("downgrade", r#"{"target-version":"","enabled":true}"#),
        ] {
            let row = (Bytes::from(key), Bytes::from(value));
            let error = ClusterVersion::load(&[row]).unwrap_err().to_string();
            assert!(error.contains(key), "{error}");
        }
        // A later etcd may keep more here.
        let row = (Bytes::from("other"), Bytes::from("x"));
        assert_eq!(
            ClusterVersion::load(&[row]).unwrap(),
            ClusterVersion::default()
        );
    }
}
