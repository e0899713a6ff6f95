//! What the writers have seen, and what the performance check makes of it.

use super::writers::Writes;
use crate::context::Context;
use crate::failure::Failure;

/// Part of the wanted rate that is enough.
const ENOUGH: f64 = 0.9;
/// Longest a write may take, in seconds.
const SLOWEST: f64 = 0.5;
/// Largest standard deviation of what writes take, in seconds.
const DEVIATION: f64 = 0.1;

/// Tells about writes that failed; false if there are any.
pub(super) fn errors(context: &mut Context, writes: &Writes) -> Result<bool, Failure> {
    if writes.errors.is_empty() {
        return Ok(true);
    }
    writeln!(context.out(), "FAIL: too many errors")?;
    for (error, count) in &writes.errors {
        writeln!(context.out(), "FAIL: ERROR({error}) -> {count}")?;
    }
    Ok(false)
}

/// Tells how the writes were; false if anything about them is not good enough.
pub(super) fn judge(context: &mut Context, writes: &Writes, rate: u32) -> Result<bool, Failure> {
    let mut good = errors(context, writes)?;
    let per_second = writes.latencies.len() as f64 / writes.took.as_secs_f64();
    let shown = per_second as u64 + 1;
    if per_second / f64::from(rate) <= ENOUGH {
        good = false;
        writeln!(context.out(), "FAIL: Throughput too low: {shown} writes/s")?;
    } else {
        writeln!(context.out(), "PASS: Throughput is {shown} writes/s")?;
    }
    let slowest = writes.latencies.iter().copied().fold(0.0, f64::max);
    if slowest > SLOWEST {
        good = false;
        writeln!(
            context.out(),
            "Slowest request took too long: {slowest:.6}s"
        )?;
    } else {
        writeln!(context.out(), "PASS: Slowest request took {slowest:.6}s")?;
    }
    // Not a number when nothing was written; etcd's tool shows that, too.
    let deviation = standard_deviation(&writes.latencies);
    if deviation > DEVIATION {
        good = false;
        writeln!(context.out(), "Stddev too high: {deviation:.6}s")?;
    } else {
        writeln!(context.out(), "PASS: Stddev is {deviation:.6}s")?;
    }
    writeln!(context.out(), "{}", if good { "PASS" } else { "FAIL" })?;
    Ok(good)
}

fn standard_deviation(values: &[f64]) -> f64 {
    let count = values.len() as f64;
    let mean = values.iter().sum::<f64>() / count;
    let squares = values.iter().map(|value| (value - mean).powi(2));
    (squares.sum::<f64>() / count).sqrt()
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::context::tests::captured;

    fn judged(writes: &Writes) -> (bool, String) {
        let (mut context, out, _) = captured("");
        let good = judge(&mut context, writes, 10).expect("written");
        context.flush().expect("written");
        (good, String::from_utf8(out.bytes()).expect("text"))
    }

    fn writes(latencies: &[f64]) -> Writes {
        Writes {
            latencies: latencies.to_vec(),
            took: Duration::from_secs(1),
            ..Writes::default()
        }
    }

    #[test]
    fn enough_fast_and_even_writes_pass() {
        let (good, text) = judged(&writes(&[0.25; 10]));
        assert!(good);
        assert_eq!(
            text,
            "PASS: Throughput is 11 writes/s\n\
             PASS: Slowest request took 0.250000s\n\
             PASS: Stddev is 0.000000s\n\
             PASS\n"
        );
    }

    #[test]
    fn each_fault_alone_fails() {
        // Nine of ten are not enough.
        let (good, text) = judged(&writes(&[0.25; 9]));
        assert!(!good);
        assert!(text.starts_with("FAIL: Throughput too low: 10 writes/s\n"));
        assert!(text.ends_with("\nFAIL\n"));

        let (good, text) = judged(&writes(&[0.75; 10]));
        assert!(!good);
        assert!(text.contains("\nSlowest request took too long: 0.750000s\n"));

        let mut uneven = [0.0; 10];
        uneven[..5].fill(0.5);
        let (good, text) = judged(&writes(&uneven));
        assert!(!good);
        assert!(text.contains("\nPASS: Slowest request took 0.500000s\n"));
        assert!(text.contains("\nStddev too high: 0.250000s\n"));

        let mut failed = writes(&[0.25; 10]);
        failed.errors.insert("no".to_owned(), 2);
        let (good, text) = judged(&failed);
        assert!(!good);
        assert!(text.starts_with("FAIL: too many errors\nFAIL: ERROR(no) -> 2\nPASS: "));
    }

    #[test]
    fn nothing_written_is_a_failure() {
        let (good, text) = judged(&writes(&[]));
        assert!(!good);
        assert_eq!(
            text,
            "FAIL: Throughput too low: 1 writes/s\n\
             PASS: Slowest request took 0.000000s\n\
             PASS: Stddev is NaNs\n\
             FAIL\n"
        );
    }
}
