//! A fixed-size latency histogram: 128 steps per power of two, so a quantile is at most 0.8 % off.

use std::time::Duration;

const STEP_BITS: u32 = 7;
const STEPS: usize = 1 << STEP_BITS;
/// Powers of two above the first linear stretch; the last one ends beyond 78 hours.
const POWERS: usize = 41;

/// Counts of durations. Recording neither allocates nor loops.
#[derive(Clone, Debug)]
pub struct Histogram {
    counts: Box<[u64]>,
    total: u64,
    sum_nanos: u128,
    max_nanos: u64,
}

impl Default for Histogram {
    fn default() -> Self {
        Histogram {
            counts: vec![0; STEPS * (POWERS + 1)].into(),
            total: 0,
            sum_nanos: 0,
            max_nanos: 0,
        }
    }
}

/// The slot of a value: exact below 128 ns, then its top 8 significant bits.
fn slot(nanos: u64) -> usize {
    let steps = STEPS as u64;
    if nanos < steps {
        return nanos as usize;
    }
    let power = nanos.ilog2() - STEP_BITS;
    let slot = (power as usize + 1) * STEPS + ((nanos >> power) - steps) as usize;
    slot.min(STEPS * (POWERS + 1) - 1)
}

/// The greatest value of a slot.
fn upper_bound(slot: usize) -> u64 {
    if slot < STEPS {
        return slot as u64;
    }
    let power = slot / STEPS - 1;
    let mantissa = (STEPS + slot % STEPS) as u64;
    ((mantissa + 1) << power) - 1
}

impl Histogram {
    /// Counts one duration.
    pub fn record(&mut self, duration: Duration) {
        let nanos = u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX);
        self.counts[slot(nanos)] += 1;
        self.total += 1;
        self.sum_nanos += u128::from(nanos);
        self.max_nanos = self.max_nanos.max(nanos);
    }

    /// Adds the counts of another histogram.
    pub fn merge(&mut self, other: &Histogram) {
        for (mine, theirs) in self.counts.iter_mut().zip(&other.counts) {
            *mine += theirs;
        }
        self.total += other.total;
        self.sum_nanos += other.sum_nanos;
        self.max_nanos = self.max_nanos.max(other.max_nanos);
    }

    /// How many durations were counted.
    pub fn count(&self) -> u64 {
        self.total
    }

    /// The duration that the share `q` (0 to 1) of all counted ones does not exceed; zero if
    /// nothing was counted. Rounded up to the slot's end, never above the maximum.
    pub fn quantile(&self, q: f64) -> Duration {
        let rank = ((self.total as f64 * q).ceil() as u64).clamp(1, self.total.max(1));
        let mut seen = 0;
        for (slot, count) in self.counts.iter().enumerate() {
            seen += count;
            if seen >= rank {
                return Duration::from_nanos(upper_bound(slot).min(self.max_nanos));
            }
        }
        Duration::from_nanos(self.max_nanos)
    }

    /// The arithmetic mean; zero if nothing was counted.
    pub fn mean(&self) -> Duration {
        let mean = self
            .sum_nanos
            .checked_div(u128::from(self.total))
            .unwrap_or(0);
        Duration::from_nanos(u64::try_from(mean).unwrap_or(u64::MAX))
    }

    /// The longest duration, exactly.
    pub fn max(&self) -> Duration {
        Duration::from_nanos(self.max_nanos)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn slots_are_contiguous_and_their_bounds_are_tight() {
        let mut last = 0;
        for nanos in 0..100_000 {
            let slot = slot(nanos);
            assert!(slot == last || slot == last + 1, "{nanos}");
            last = slot;
        }
        for nanos in (0..100_000).chain((0..40).map(|power| 3 << power)) {
            let slot = slot(nanos);
            assert!(upper_bound(slot) >= nanos, "{nanos}");
            assert!(slot == 0 || upper_bound(slot - 1) < nanos, "{nanos}");
        }
    }

    #[test]
    fn quantiles_are_within_one_percent_of_the_sorted_list() {
        let mut histogram = Histogram::default();
        let mut values: Vec<u64> = (0..10_000u64)
            .map(|i| (i * 7_919) % 10_007 * 1_000)
            .collect();
        for value in &values {
            histogram.record(Duration::from_nanos(*value));
        }
        values.sort_unstable();
        for q in [0.01, 0.5, 0.9, 0.99, 0.999] {
            let exact = values[(values.len() as f64 * q).ceil() as usize - 1] as f64;
            let got = histogram.quantile(q).as_nanos() as f64;
            assert!(
                got >= exact && got <= exact * 1.01,
                "q {q}: {got} for {exact}"
            );
        }
        assert_eq!(histogram.quantile(1.0), histogram.max());
        assert_eq!(
            histogram.max(),
            Duration::from_nanos(*values.last().unwrap())
        );
    }

    #[test]
    fn values_beyond_the_range_share_the_last_slot() {
        let mut histogram = Histogram::default();
        histogram.record(Duration::MAX);
        histogram.record(Duration::from_nanos(5));
        assert_eq!(histogram.count(), 2);
        assert_eq!(histogram.quantile(0.5), Duration::from_nanos(5));
        assert!(histogram.quantile(1.0) > Duration::from_secs(78 * 3600));
    }

    #[test]
    fn an_empty_histogram_answers_zero() {
        let histogram = Histogram::default();
        assert_eq!(histogram.quantile(0.99), Duration::ZERO);
        assert_eq!(histogram.mean(), Duration::ZERO);
    }

    #[test]
    fn merging_equals_recording_both() {
        let (mut left, mut right, mut both) = <(Histogram, Histogram, Histogram)>::default();
        for i in 0..1_000u64 {
            let duration = Duration::from_nanos(i * i);
            if i % 3 == 0 { &mut left } else { &mut right }.record(duration);
            both.record(duration);
        }
        left.merge(&right);
        assert_eq!(left.counts, both.counts);
        assert_eq!((left.mean(), left.max()), (both.mean(), both.max()));
    }
}
