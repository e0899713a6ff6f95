//! The space quota: `--quota-backend-bytes` against the allocated size of the page file.
//!
//! It is looked at twice (spec cluster.md section 5): before a request is proposed, and again after
//! it was applied, since the file may have grown meanwhile. Apply itself knows nothing of it: it is
//! the same on every member, the sizes of their files are not.

/// A quota in bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Quota {
    /// As the metric and Status show it; negative means none.
    pub bytes: i64,
}

impl Quota {
    /// Whether a request that costs `cost` may be carried out while `allocated` bytes are taken. One
    /// that costs nothing always may: deletes and compactions are the way out.
    pub fn admits(self, allocated: u64, cost: u64) -> bool {
        match u64::try_from(self.bytes) {
            Ok(quota) => cost == 0 || allocated.saturating_add(cost) < quota,
            Err(_) => true,
        }
    }

    /// The size as people read it.
    pub fn text(self) -> String {
        u64::try_from(self.bytes).map_or_else(|_| self.bytes.to_string(), humanize)
    }

    /// Says in the log what is in effect.
    pub(crate) fn announce(self) {
        let (bytes, size) = (self.bytes, self.text());
        if bytes < 0 {
            tracing::info!("quota-size-bytes" = bytes, "disabled backend quota");
            return;
        }
        tracing::info!(
            "quota-size-bytes" = bytes,
            "quota-size" = size,
            "enabled backend quota"
        );
    }
}

/// `2.1 GB`: decimal units, one decimal below ten.
fn humanize(bytes: u64) -> String {
    const UNITS: [&str; 7] = ["B", "kB", "MB", "GB", "TB", "PB", "EB"];
    if bytes < 10 {
        return format!("{bytes} B");
    }
    let mut unit = 0;
    let mut scale = 1_u64;
    while unit + 1 < UNITS.len() && bytes / scale >= 1000 {
        scale *= 1000;
        unit += 1;
    }
    // In tenths, rounded half up; 128 bits, since ten times the largest size needs 68.
    let tenths = (u128::from(bytes) * 10 + u128::from(scale) / 2) / u128::from(scale);
    let name = UNITS[unit];
    if tenths < 100 {
        format!("{}.{} {name}", tenths / 10, tenths % 10)
    } else {
        format!("{} {name}", (tenths + 5) / 10)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_request_fits_below_the_quota_and_not_at_it() {
        let quota = Quota { bytes: 1000 };
        assert!(quota.admits(900, 99) && !quota.admits(900, 100));
        assert!(quota.admits(5000, 0), "what costs nothing is the way out");
        assert!(!quota.admits(u64::MAX, 1));
        assert!(Quota { bytes: -1 }.admits(u64::MAX, 1));
    }

    #[test]
    fn sizes_are_written_as_etcd_writes_them() {
        for (bytes, text) in [
            (0, "0 B"),
            (9, "9 B"),
            (999, "999 B"),
            (1000, "1.0 kB"),
            (2_147_483_648, "2.1 GB"),
            (8 << 30, "8.6 GB"),
            (16_777_216, "17 MB"),
            (u64::MAX, "18 EB"),
        ] {
            assert_eq!(humanize(bytes), text);
        }
    }
}
