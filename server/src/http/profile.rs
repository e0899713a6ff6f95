//! `/debug/pprof/`, with `--enable-pprof` or `--log-level debug`: what Go's tools fetch from a server,
//! as far as there is such a thing here. A CPU profile is; Go's runtime, whose heap, goroutines and
//! traces the others show, is not.

use std::io::Write as _;
use std::time::Duration;

use axum::response::Response;
use flate2::Compression;
use flate2::write::GzEncoder;
use http::{HeaderValue, StatusCode};
use pprof::protos::Message as _;
use pprof::{ProfilerGuard, ProfilerGuardBuilder};

use super::reply;

/// Where the profiles are.
pub(super) const PREFIX: &str = "/debug/pprof/";

/// Samples a second of CPU time: Go's.
const FREQUENCY: i32 = 100;

/// Libraries in which a thread is not looked at: their frames cannot be walked safely while they run.
const NOT_IN: [&str; 4] = ["libc", "libgcc", "pthread", "vdso"];

/// Length of a profile when none is given, and the longest, seconds.
const SECONDS: (u64, u64) = (30, 600);

const INDEX: &str = "\
<html>
<head><title>/debug/pprof/</title></head>
<body>
<p><a href=\"profile\">profile</a>: CPU profile, of 30 seconds or of ?seconds=N.</p>
<p><a href=\"cmdline\">cmdline</a>: the command line of the process.</p>
</body>
</html>
";

/// Answers a path below [`PREFIX`].
pub(super) async fn serve(page: &str, query: Option<&str>) -> Response {
    match page {
        "" => reply::with_type(StatusCode::OK, "text/html; charset=utf-8", INDEX),
        "cmdline" => {
            let args = std::env::args_os().map(|arg| arg.to_string_lossy().into_owned());
            let args: Vec<_> = args.collect();
            reply::with_type(StatusCode::OK, reply::PLAIN, args.join("\0"))
        }
        "profile" => match cpu(seconds(query)).await {
            Ok(profile) => {
                let kind = "application/octet-stream";
                let mut answer = reply::with_type(StatusCode::OK, kind, profile);
                let name = HeaderValue::from_static("attachment; filename=\"profile\"");
                let headers = answer.headers_mut();
                headers.insert(http::header::CONTENT_DISPOSITION, name);
                answer
            }
            Err(error) => {
                let text = format!("Could not enable CPU profiling: {error}");
                reply::error(StatusCode::INTERNAL_SERVER_ERROR, &text)
            }
        },
        _ => reply::error(StatusCode::NOT_FOUND, "Unknown profile"),
    }
}

/// The length that is asked for; Go takes what makes no sense for none.
fn seconds(query: Option<&str>) -> Duration {
    let pairs = url::form_urlencoded::parse(query.unwrap_or_default().as_bytes());
    let mut given = pairs.filter(|(name, _)| name == "seconds");
    let given = given.next().and_then(|(_, value)| value.parse().ok());
    let seconds = given.filter(|seconds| *seconds > 0).unwrap_or(SECONDS.0);
    Duration::from_secs(seconds.min(SECONDS.1))
}

/// The CPU profile of the process for some time: pprof's format, compressed. Dropped with its future.
async fn cpu(length: Duration) -> Result<Vec<u8>, String> {
    let text = |error: pprof::Error| error.to_string();
    let builder = ProfilerGuardBuilder::default().frequency(FREQUENCY);
    let guard: ProfilerGuard<'static> = builder.blocklist(&NOT_IN).build().map_err(text)?;
    tokio::time::sleep(length).await;
    // To find the names takes a while.
    let report = tokio::task::spawn_blocking(move || {
        let profile = guard.report().build().and_then(|report| report.pprof());
        let profile = profile.map_err(text)?.encode_to_vec();
        let mut encoder = GzEncoder::new(Vec::new(), Compression::default());
        let packed = encoder.write_all(&profile).and_then(|()| encoder.finish());
        packed.map_err(|error| error.to_string())
    });
    report.await.map_err(|error| error.to_string())?
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lengths() {
        for (query, expected) in [
            (None, 30),
            (Some("seconds=5"), 5),
            (Some("debug=1&seconds=7&seconds=8"), 7),
            (Some("seconds=0"), 30),
            (Some("seconds=-1"), 30),
            (Some("seconds=x"), 30),
            (Some("seconds=100000"), 600),
        ] {
            assert_eq!(seconds(query), Duration::from_secs(expected), "{query:?}");
        }
    }
}
