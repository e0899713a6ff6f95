//! The memory of a server, as its `/metrics` says.

use http_body_util::{BodyExt, Empty, Limited};
use hyper::body::Bytes;
use hyper::{Request, Uri, header};
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;
use tokio::time::timeout;

use super::PATIENCE;

const RESIDENT: &str = "process_resident_memory_bytes";
/// More than any server says.
const MAX_BYTES: usize = 64 << 20;

/// The resident memory of the server at this endpoint, in bytes.
///
/// # Errors
///
/// A line that says why it is not known.
pub(super) async fn resident_memory(endpoint: &str) -> Result<f64, String> {
    let fetched = timeout(PATIENCE, fetch(endpoint)).await;
    let text = fetched
        .unwrap_or_else(|_| Err("no answer".into()))
        .map_err(|error| format!("fetch error: {error}"))?;
    find(&text)
}

async fn fetch(endpoint: &str) -> Result<String, Box<dyn std::error::Error + Send + Sync>> {
    let host = endpoint.strip_prefix("http://").unwrap_or(endpoint);
    let url: Uri = format!("http://{host}/metrics").parse()?;
    let authority = url.authority().ok_or("no host")?;
    let port = authority.port_u16().unwrap_or(80);
    let address = format!("{}:{port}", authority.host());
    let stream = TcpStream::connect(address).await?;
    let (mut sender, connection) =
        hyper::client::conn::http1::handshake(TokioIo::new(stream)).await?;
    // Its failures are the request's, too.
    let connection = tokio::spawn(connection);
    let request = Request::get(url.path())
        .header(header::HOST, authority.as_str())
        .body(Empty::<Bytes>::new())?;
    let response = sender.send_request(request).await?;
    let body = Limited::new(response.into_body(), MAX_BYTES)
        .collect()
        .await?;
    connection.abort();
    Ok(String::from_utf8_lossy(&body.to_bytes()).into_owned())
}

fn find(text: &str) -> Result<f64, String> {
    let value = text
        .lines()
        .find_map(|line| line.strip_prefix(RESIDENT))
        .map(str::trim)
        .filter(|value| !value.is_empty())
        .ok_or_else(|| format!("could not find: {RESIDENT}"))?;
    value
        .parse()
        .map_err(|error| format!("parse error: {error}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_value_stands_behind_the_name() {
        let text = "# HELP process_resident_memory_bytes x\nother 1\nprocess_resident_memory_bytes 4.5981696e+07\n";
        assert_eq!(find(text), Ok(45_981_696.0));
        assert_eq!(
            find("other 1\n"),
            Err("could not find: process_resident_memory_bytes".to_owned())
        );
        assert!(find("process_resident_memory_bytes x").is_err());
    }
}
