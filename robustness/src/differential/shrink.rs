//! Fewer steps that show the same difference.

use super::step::Step;
use super::{Binaries, Difference, replay};

/// Leaves steps out, first many and then few, as long as the servers still differ. Any difference counts:
/// it is smaller, and it is one.
///
/// # Errors
/// A server does not start or does not answer.
pub async fn shrink(
    binaries: &Binaries,
    found: Difference,
    report: &mut dyn FnMut(usize),
) -> anyhow::Result<Difference> {
    let mut smallest = found;
    let mut size = smallest.steps.len() / 2;
    while size > 0 {
        let mut from = 0;
        while from < smallest.steps.len() - 1 {
            let steps = without(&smallest.steps, from, size);
            match replay(binaries, &steps).await? {
                Some(difference) => {
                    smallest = difference;
                    report(smallest.steps.len());
                }
                None => from += size,
            }
        }
        size /= 2;
    }
    Ok(smallest)
}

/// The steps without `size` of them, `from` on; the last one stays.
fn without(steps: &[Step], from: usize, size: usize) -> Vec<Step> {
    let last = steps.len() - 1;
    let kept = (0..).zip(steps);
    let kept = kept.filter(|(at, _)| *at == last || !(from..from + size).contains(at));
    kept.map(|(_, step)| step.clone()).collect()
}
