//! HTTP headers that become metadata of the call (spec/wire.md sections 7.1 and 2.5).
//!
//! etcd's gateway also passes on the address of the client and the standard headers, under names that
//! nothing reads; they end here. What their presence says there, that a call comes from the gateway and
//! has no client certificate, is true of every call here: it comes from no connection.

use std::time::Duration;

use http::header::{AUTHORIZATION, CONTENT_TYPE};
use http::{HeaderMap, HeaderName, HeaderValue};
use tonic::{Code, Status};

use crate::grpc::CONTENT_TYPE_GRPC;

/// What makes a header metadata.
const PREFIX: &str = "grpc-metadata-";

const TIMEOUT: HeaderName = HeaderName::from_static("grpc-timeout");

/// The metadata of a call.
///
/// # Errors
/// A timeout that is none, or in the past.
pub(super) fn of(headers: &HeaderMap) -> Result<HeaderMap, Status> {
    let mut metadata = HeaderMap::new();
    for (name, value) in headers {
        let key = match name.as_str().strip_prefix(PREFIX) {
            Some(key) if is_reserved(key) => continue,
            Some(key) => HeaderName::from_bytes(key.as_bytes()).ok(),
            None => (name == AUTHORIZATION).then_some(AUTHORIZATION),
        };
        if let Some(key) = key
            && value
                .as_bytes()
                .iter()
                .all(|byte| (b' '..=b'~').contains(byte))
        {
            metadata.append(key, value.clone());
        }
    }
    if let Some(given) = headers.get(TIMEOUT).filter(|given| !given.is_empty())
        && let Some(timeout) = timeout(given)?
    {
        metadata.insert(TIMEOUT, timeout);
    }
    metadata.insert(CONTENT_TYPE, CONTENT_TYPE_GRPC);
    Ok(metadata)
}

/// Names that gRPC and HTTP keep for themselves.
fn is_reserved(key: &str) -> bool {
    key.starts_with("grpc-")
        || matches!(
            key,
            "content-type" | "te" | "host" | "connection" | "transfer-encoding" | "upgrade"
        )
}

/// The gateway's timeout as gRPC has it; none for 0 and for what is longer than 64 bits of nanoseconds.
///
/// # Errors
/// It cannot be read, or it is negative, so that the time is up.
fn timeout(given: &HeaderValue) -> Result<Option<HeaderValue>, Status> {
    let text = String::from_utf8_lossy(given.as_bytes());
    let invalid = || Status::invalid_argument(format!("invalid grpc-timeout: {text}"));
    let (digits, nanos): (_, i64) = match text.char_indices().next_back() {
        Some((at, unit)) => (
            &text[..at],
            match unit {
                'H' => 3_600_000_000_000,
                'M' => 60_000_000_000,
                'S' => 1_000_000_000,
                'm' => 1_000_000,
                'u' => 1_000,
                'n' => 1,
                _ => return Err(invalid()),
            },
        ),
        None => return Err(invalid()),
    };
    let amount: i64 = digits.parse().map_err(|_| invalid())?;
    if amount < 0 {
        let text = "context deadline exceeded";
        return Err(Status::new(Code::DeadlineExceeded, text));
    }
    let timeout = amount.checked_mul(nanos).filter(|nanos| *nanos != 0);
    let timeout = timeout.map(|nanos| Duration::from_nanos(nanos.unsigned_abs()));
    Ok(timeout.map(in_grpc))
}

/// gRPC has at most eight digits: the finest unit in which they are enough, rounded up.
fn in_grpc(timeout: Duration) -> HeaderValue {
    let nanos = timeout.as_nanos();
    let units = [
        (1, 'n'),
        (1_000, 'u'),
        (1_000_000, 'm'),
        (1_000_000_000, 'S'),
        (60_000_000_000, 'M'),
        (3_600_000_000_000, 'H'),
    ];
    let text = units
        .iter()
        .map(|(unit, name)| (nanos.div_ceil(*unit), name))
        .find(|(amount, _)| *amount <= 99_999_999)
        .map_or_else(
            || "99999999H".to_owned(),
            |(amount, name)| format!("{amount}{name}"),
        );
    HeaderValue::from_str(&text).expect("digits and a letter")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn metadata(headers: &[(&'static str, &'static str)]) -> Result<Vec<String>, Status> {
        let headers = headers.iter().map(|(name, value)| {
            let value = HeaderValue::from_bytes(value.as_bytes()).unwrap();
            (HeaderName::from_static(name), value)
        });
        let metadata = of(&headers.collect())?;
        let mut lines: Vec<_> = metadata
            .iter()
            .map(|(name, value)| format!("{name}: {}", value.to_str().unwrap()))
            .collect();
        lines.sort();
        Ok(lines)
    }

    #[test]
    fn g7_1_headers_that_become_metadata() {
        let grpc = "content-type: application/grpc";
        assert_eq!(metadata(&[]).unwrap(), [grpc]);
        assert_eq!(
            metadata(&[
                ("authorization", "Bearer x"),
                ("grpc-metadata-hasleader", "true"),
                ("grpc-metadata-a_b.c", "1"),
                ("accept", "text/html"),
                ("content-type", "text/plain"),
                ("x-other", "1"),
            ])
            .unwrap(),
            [
                "a_b.c: 1",
                "authorization: Bearer x",
                grpc,
                "hasleader: true"
            ]
        );
        // gRPC's own names are nobody's to set, and values are text.
        assert_eq!(
            metadata(&[
                ("grpc-metadata-grpc-timeout", "1n"),
                ("grpc-metadata-grpc-encoding", "x"),
                ("grpc-metadata-content-type", "x"),
                ("grpc-metadata-te", "x"),
                ("grpc-metadata-connection", "close"),
                ("grpc-metadata-", "x"),
                ("grpc-metadata-client-api-version", "ü"),
            ])
            .unwrap(),
            [grpc]
        );
    }

    #[test]
    fn g7_1_grpc_timeout() {
        let read = |text| timeout(&HeaderValue::from_static(text));
        for (given, grpc) in [
            ("1H", "3600000m"),
            ("2M", "120000m"),
            ("5S", "5000000u"),
            ("15m", "15000000n"),
            ("7u", "7000n"),
            ("8n", "8n"),
            ("100000000n", "100000u"),
            ("100000001n", "100001u"),
            ("123456789S", "2057614M"),
            ("2000000H", "2000000H"),
        ] {
            assert_eq!(read(given).unwrap().unwrap(), grpc, "{given}");
        }
        for none in ["0S", "99999999999999999S"] {
            assert_eq!(read(none).unwrap(), None, "{none}");
        }
        for bad in ["S", "1", "1s", "x", "1.5S", " 1S", "12345678901234567890S"] {
            let status = read(bad).unwrap_err();
            assert_eq!(status.code(), Code::InvalidArgument);
            assert_eq!(status.message(), format!("invalid grpc-timeout: {bad}"));
        }
        assert_eq!(read("-1S").unwrap_err().code(), Code::DeadlineExceeded);
    }
}
