//! Paging through a key space the way Kubernetes lists a resource: 500 keys a page, all pages at
//! the revision of the first, and on every page the exact count of what is left.

use std::time::{Duration, Instant};

use anyhow::{Context as _, ensure};
use bytes::{BufMut, Bytes, BytesMut};
use ferrite_api::pb::etcdserverpb::{RangeRequest, RangeResponse};
use serde_json::{Value, json};

use crate::histogram::Histogram;
use crate::keys::KeySpace;
use crate::load::on_this_thread;
use crate::rpc::{Connection, Range};

/// What paging measured.
#[derive(Clone, Debug)]
pub struct Pages {
    /// Pages the whole space takes.
    pub pages: u64,
    /// Pages fetched, at even distances: all of them unless told otherwise.
    pub fetched: u64,
    /// Keys received.
    pub keys: u64,
    /// The revision that all pages were read at.
    pub revision: i64,
    /// Time of all pages fetched.
    pub elapsed: Duration,
    /// Latencies of single pages.
    pub latency: Histogram,
}

impl Pages {
    /// Time that all pages take at the mean of those fetched.
    pub fn whole(&self) -> Duration {
        self.latency.mean().mul_f64(self.pages as f64)
    }

    /// One line for people.
    pub fn line(&self) -> String {
        let ms = |duration: Duration| duration.as_secs_f64() * 1e3;
        format!(
            "page: {} of {} pages, {} keys at revision {} in {:.2} s; a page p50 {:.2} ms, p99 {:.2} ms; all pages {:.2} s",
            self.fetched,
            self.pages,
            self.keys,
            self.revision,
            self.elapsed.as_secs_f64(),
            ms(self.latency.quantile(0.5)),
            ms(self.latency.quantile(0.99)),
            self.whole().as_secs_f64(),
        )
    }

    /// The same for programs.
    pub fn json(&self) -> Value {
        let us = |duration: Duration| duration.as_nanos() as f64 / 1e3;
        json!({
            "pages": self.pages,
            "fetched": self.fetched,
            "keys": self.keys,
            "revision": self.revision,
            "seconds": self.elapsed.as_secs_f64(),
            "mean_us": us(self.latency.mean()),
            "p50_us": us(self.latency.quantile(0.5)),
            "p99_us": us(self.latency.quantile(0.99)),
            "max_us": us(self.latency.max()),
            "whole_seconds": self.whole().as_secs_f64(),
        })
    }
}

/// Fetches every `every`-th page of `page_size` keys, from the first to the last. The space must
/// have been filled and hold nothing else.
///
/// # Errors
/// The server cannot be reached, fails, or answers one page wrongly: other keys than the ones
/// that belong there, another count than what is left, a wrong `more`.
pub fn page(endpoint: &str, keys: &KeySpace, page_size: u64, every: u64) -> anyhow::Result<Pages> {
    ensure!(page_size > 0 && every > 0, "pages hold at least one key");
    on_this_thread(async {
        let mut connection = Connection::open(endpoint).await?;
        let pages = keys.count().div_ceil(page_size);
        let mut result = Pages {
            pages,
            fetched: 0,
            keys: 0,
            revision: 0,
            elapsed: Duration::ZERO,
            latency: Histogram::default(),
        };
        let begin = Instant::now();
        for page in (0..pages).step_by(usize::try_from(every)?) {
            let first = page * page_size;
            let request = RangeRequest {
                key: start_of(keys, first),
                range_end: keys.end(),
                limit: i64::try_from(page_size)?,
                revision: result.revision,
                ..RangeRequest::default()
            };
            let sent = Instant::now();
            let answer = connection
                .call(Range, &request)
                .await
                .with_context(|| format!("page {page}"))?;
            result.latency.record(sent.elapsed());
            check(&answer, keys, first, page_size)
                .with_context(|| format!("page {page} is wrong"))?;
            if result.revision == 0 {
                result.revision = answer.header.map_or(0, |header| header.revision);
                ensure!(
                    result.revision > 0,
                    "the first page came without a revision"
                );
            }
            result.fetched += 1;
            result.keys += answer.kvs.len() as u64;
        }
        result.elapsed = begin.elapsed();
        Ok(result)
    })
}

/// Where a page starts: just behind the last key of the page before it, as clients continue.
fn start_of(keys: &KeySpace, first: u64) -> Bytes {
    let Some(previous) = first.checked_sub(1) else {
        return keys.key(0);
    };
    let mut start = BytesMut::from(&keys.key(previous)[..]);
    start.put_u8(0);
    start.freeze()
}

fn check(
    answer: &RangeResponse,
    keys: &KeySpace,
    first: u64,
    page_size: u64,
) -> anyhow::Result<()> {
    let left = keys.count() - first;
    let expected = left.min(page_size);
    ensure!(
        answer.kvs.len() as u64 == expected,
        "{} keys, not {expected}",
        answer.kvs.len()
    );
    ensure!(
        answer.count == i64::try_from(left)?,
        "count {}, not {left}",
        answer.count
    );
    ensure!(
        answer.more == (left > page_size),
        "more is {} with {left} keys left",
        answer.more
    );
    for (pair, number) in answer.kvs.iter().zip(first..) {
        ensure!(
            pair.key == keys.key(number),
            "key {:?} in the place of number {number}",
            pair.key
        );
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use ferrite_api::pb::mvccpb::KeyValue;

    fn answer(
        keys: &KeySpace,
        numbers: std::ops::Range<u64>,
        more: bool,
        count: i64,
    ) -> RangeResponse {
        let kvs = numbers
            .map(|n| KeyValue {
                key: keys.key(n),
                ..KeyValue::default()
            })
            .collect();
        RangeResponse {
            kvs,
            more,
            count,
            ..RangeResponse::default()
        }
    }

    #[test]
    fn right_pages_pass_and_wrong_ones_do_not() {
        let keys = KeySpace::new(25, 24).unwrap();
        check(&answer(&keys, 0..10, true, 25), &keys, 0, 10).unwrap();
        check(&answer(&keys, 20..25, false, 5), &keys, 20, 10).unwrap();
        for (wrong, what) in [
            (answer(&keys, 0..9, true, 25), "9 keys"),
            (answer(&keys, 0..10, true, 24), "count 24"),
            (answer(&keys, 0..10, false, 25), "more is false"),
            (answer(&keys, 1..11, true, 25), "in the place of number 0"),
        ] {
            let error = check(&wrong, &keys, 0, 10).unwrap_err().to_string();
            assert!(error.contains(what), "{error}");
        }
    }

    #[test]
    fn a_page_starts_just_behind_the_one_before() {
        let keys = KeySpace::new(25, 24).unwrap();
        assert_eq!(start_of(&keys, 0), keys.key(0));
        assert!(start_of(&keys, 10) > keys.key(9));
        assert!(start_of(&keys, 10) < keys.key(10));
    }
}
