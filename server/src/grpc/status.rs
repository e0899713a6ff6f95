//! How an error leaves: a response of headers only, in the form of gRPC's trailers.

use http::header::CONTENT_TYPE;
use http::{HeaderMap, HeaderName, HeaderValue, Response, StatusCode};
use tonic::Code;

use super::body::Body;
use crate::error::Error;

pub(super) const GRPC_STATUS: HeaderName = HeaderName::from_static("grpc-status");
pub(super) const GRPC_MESSAGE: HeaderName = HeaderName::from_static("grpc-message");

/// The content type of every gRPC response.
pub(crate) const CONTENT_TYPE_GRPC: HeaderValue = HeaderValue::from_static("application/grpc");

/// `grpc-status` by number.
const CODES: [&str; 17] = [
    "0", "1", "2", "3", "4", "5", "6", "7", "8", "9", "10", "11", "12", "13", "14", "15", "16",
];

/// The response to a call that failed before anything was sent: HTTP 200, no body.
pub(super) fn refuse(error: &Error) -> Response<Body> {
    refuse_with(StatusCode::OK, error)
}

/// As [`refuse`], with another HTTP status: for requests that are not proper gRPC.
pub(super) fn refuse_with(status: StatusCode, error: &Error) -> Response<Body> {
    let mut response = Response::new(Body::empty());
    *response.status_mut() = status;
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, CONTENT_TYPE_GRPC);
    write_status(headers, error);
    response
}

/// The trailers of a call that succeeded.
pub(super) fn ok_trailers() -> HeaderMap {
    let mut trailers = HeaderMap::with_capacity(1);
    trailers.insert(GRPC_STATUS, code_value(Code::Ok));
    trailers
}

/// The trailers of a call that failed after something was sent.
pub(super) fn error_trailers(error: &Error) -> HeaderMap {
    let mut trailers = HeaderMap::with_capacity(2);
    write_status(&mut trailers, error);
    trailers
}

fn write_status(headers: &mut HeaderMap, error: &Error) {
    headers.insert(GRPC_STATUS, code_value(error.code()));
    let text = percent_encode(&error.message());
    let text = HeaderValue::from_bytes(&text).expect("percent-encoded text is printable ASCII");
    headers.insert(GRPC_MESSAGE, text);
}

fn code_value(code: Code) -> HeaderValue {
    HeaderValue::from_static(CODES[code as usize])
}

/// gRPC's form of a text in a header: everything but printable ASCII, and `%` itself, as `%XX`.
fn percent_encode(text: &str) -> Vec<u8> {
    const HEX: &[u8; 16] = b"0123456789ABCDEF";
    let mut encoded = Vec::with_capacity(text.len());
    for byte in text.bytes() {
        if (b' '..=b'~').contains(&byte) && byte != b'%' {
            encoded.push(byte);
        } else {
            encoded.push(b'%');
            encoded.push(HEX[usize::from(byte >> 4)]);
            encoded.push(HEX[usize::from(byte & 15)]);
        }
    }
    encoded
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_is_percent_encoded_as_grpc_does() {
        for (text, encoded) in [
            ("", ""),
            ("etcdserver: no leader", "etcdserver: no leader"),
            ("100% \n", "100%25 %0A"),
            ("~\u{7f}", "~%7F"),
            ("ü", "%C3%BC"),
        ] {
            assert_eq!(percent_encode(text), encoded.as_bytes(), "{text:?}");
        }
    }

    #[test]
    fn a_refusal_is_headers_only() {
        let response = refuse(&ferrite_api::Error::Compacted.into());
        assert_eq!(response.status(), 200);
        let headers = response.headers();
        assert_eq!(headers[CONTENT_TYPE], "application/grpc");
        assert_eq!(headers[GRPC_STATUS], "11");
        assert_eq!(
            headers[GRPC_MESSAGE],
            "etcdserver: mvcc: required revision has been compacted"
        );
        assert!(http_body::Body::is_end_stream(response.body()));
    }

    #[test]
    fn a_status_is_written_and_read_back() {
        for number in 0..17 {
            let error = Error::status(Code::from_i32(number), "100% ü");
            let status = tonic::Status::from_header_map(&error_trailers(&error)).unwrap();
            assert_eq!(
                Error::status(status.code(), status.message().to_owned()),
                error
            );
        }
        let status = tonic::Status::from_header_map(&ok_trailers()).unwrap();
        assert_eq!((status.code(), status.message()), (Code::Ok, ""));
    }
}
