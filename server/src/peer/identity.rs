//! Who calls whom: the headers of every request between members, and what is refused by them.

use ferrite_api::Version;
use ferrite_api::types::{ClusterId, MemberId};
use http::{HeaderMap, HeaderName, HeaderValue, StatusCode};

pub(super) const FROM: HeaderName = HeaderName::from_static("x-server-from");
pub(super) const TO: HeaderName = HeaderName::from_static("x-raft-to");
pub(super) const CLUSTER_ID: HeaderName = HeaderName::from_static("x-etcd-cluster-id");
pub(super) const SERVER_VERSION: HeaderName = HeaderName::from_static("x-server-version");
pub(super) const MIN_CLUSTER_VERSION: HeaderName = HeaderName::from_static("x-min-cluster-version");
pub(super) const PEER_URLS: HeaderName = HeaderName::from_static("x-peerurls");
/// The number of a stream; in a refusal and in an offer, the newest that was seen.
pub(super) const SESSION: HeaderName = HeaderName::from_static("x-ferrite-session");

/// What a server without the header counts as.
const SILENT: Version = Version::new(2, 0, 0);

/// This member, as it shows itself to others.
#[derive(Clone, Debug)]
pub(super) struct Identity {
    pub(super) cluster: ClusterId,
    pub(super) member: MemberId,
    pub(super) peer_urls: Vec<String>,
    pub(super) release: Version,
}

/// Why a request of a member is refused, with etcd's statuses and texts where etcd has them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Refusal {
    IncompatibleVersion,
    /// The cluster of the caller, if it names one.
    OtherCluster(Option<ClusterId>),
    /// The caller does not say who it is.
    NoSender,
    /// The caller was removed from the cluster for good.
    Removed,
    /// The caller is no member, or none that is known here yet.
    UnknownSender,
    /// The caller looks for another member.
    NotMe,
    /// The newest session that was seen.
    OldSession(u64),
    /// Not a stream of this kind.
    NoStream,
    /// The caller is written to already.
    Connected,
}

impl Refusal {
    pub(super) fn status(self) -> StatusCode {
        match self {
            Refusal::IncompatibleVersion | Refusal::OtherCluster(_) | Refusal::NotMe => {
                StatusCode::PRECONDITION_FAILED
            }
            Refusal::NoSender | Refusal::UnknownSender => StatusCode::NOT_FOUND,
            Refusal::Removed => StatusCode::GONE,
            Refusal::OldSession(_) | Refusal::Connected => StatusCode::CONFLICT,
            Refusal::NoStream => StatusCode::BAD_REQUEST,
        }
    }

    pub(super) fn text(self) -> &'static str {
        match self {
            Refusal::IncompatibleVersion => "incompatible version",
            Refusal::OtherCluster(_) => "cluster ID mismatch",
            Refusal::NoSender => "invalid from",
            Refusal::Removed => "removed member",
            Refusal::UnknownSender => "error sender not found",
            Refusal::NotMe => "to field mismatch",
            Refusal::OldSession(_) => "a newer session has been seen",
            Refusal::NoStream => "not a stream of this version",
            Refusal::Connected => "there is a stream to the caller",
        }
    }
}

impl Identity {
    /// The headers of a request to a member.
    pub(super) fn headers_to(&self, to: MemberId) -> HeaderMap {
        let mut headers = self.headers();
        headers.insert(FROM, hex(self.member.get()));
        headers.insert(TO, hex(to.get()));
        headers.insert(MIN_CLUSTER_VERSION, version(Version::OLDEST_CLUSTER));
        // A URL that is no header value was not parsed by this program.
        if let Ok(urls) = HeaderValue::from_str(&self.peer_urls.join(",")) {
            headers.insert(PEER_URLS, urls);
        }
        headers
    }

    /// The headers of an answer to a member.
    pub(super) fn headers(&self) -> HeaderMap {
        HeaderMap::from_iter([
            (CLUSTER_ID, hex(self.cluster.get())),
            (SERVER_VERSION, version(self.release)),
        ])
    }

    /// Checks the versions and the cluster of a caller, and says who it is.
    ///
    /// # Errors
    /// The refusal. Whether the caller is a member, and looks for this one, is for the caller of
    /// this to see, in this order: a removed member learns that first.
    pub(super) fn sender(&self, headers: &HeaderMap) -> Result<MemberId, Refusal> {
        let level = |name| text(headers, name).map_or(Some(SILENT), Version::parse);
        let (server, oldest) = (level(SERVER_VERSION), level(MIN_CLUSTER_VERSION));
        let compatible = server.is_some_and(|server| server >= Version::OLDEST_CLUSTER)
            && oldest.is_some_and(|oldest| oldest.level() <= self.release.level());
        if !compatible {
            return Err(Refusal::IncompatibleVersion);
        }
        let cluster = cluster(headers);
        if cluster != Some(self.cluster) {
            return Err(Refusal::OtherCluster(cluster));
        }
        member(headers, FROM).ok_or(Refusal::NoSender)
    }

    /// Whether a caller looks for this member.
    pub(super) fn is_meant(&self, headers: &HeaderMap) -> bool {
        member(headers, TO) == Some(self.member)
    }
}

/// The cluster of the other side.
pub(super) fn cluster(headers: &HeaderMap) -> Option<ClusterId> {
    number(headers, CLUSTER_ID, 16).map(ClusterId::new)
}

/// The session in a request or a refusal.
pub(super) fn session(headers: &HeaderMap) -> Option<u64> {
    number(headers, SESSION, 10)
}

fn member(headers: &HeaderMap, name: HeaderName) -> Option<MemberId> {
    number(headers, name, 16).map(MemberId::new)
}

fn number(headers: &HeaderMap, name: HeaderName, radix: u32) -> Option<u64> {
    u64::from_str_radix(text(headers, name)?, radix).ok()
}

/// A header as text.
pub(super) fn text(headers: &HeaderMap, name: HeaderName) -> Option<&str> {
    headers.get(name)?.to_str().ok()
}

pub(super) fn hex(id: u64) -> HeaderValue {
    HeaderValue::from_str(&format!("{id:x}")).expect("hex digits are a header value")
}

fn version(version: Version) -> HeaderValue {
    HeaderValue::from_str(&version.to_string()).expect("digits and dots are a header value")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn me() -> Identity {
        Identity {
            cluster: ClusterId::new(0xc1),
            member: MemberId::new(0xa),
            peer_urls: vec!["http://a:1".into(), "http://b:2".into()],
            release: Version::RELEASE,
        }
    }

    fn caller() -> Identity {
        Identity {
            member: MemberId::new(0xb),
            ..me()
        }
    }

    fn with(name: HeaderName, value: &'static str) -> HeaderMap {
        let mut headers = caller().headers_to(MemberId::new(0xa));
        headers.insert(name, HeaderValue::from_static(value));
        headers
    }

    #[test]
    fn a_member_shows_itself() {
        let headers = caller().headers_to(MemberId::new(0xa));
        let expected = [
            (FROM, "b"),
            (TO, "a"),
            (CLUSTER_ID, "c1"),
            (SERVER_VERSION, "3.7.1"),
            (MIN_CLUSTER_VERSION, "3.0.0"),
            (PEER_URLS, "http://a:1,http://b:2"),
        ];
        assert_eq!(headers.len(), expected.len());
        for (name, value) in expected {
            assert_eq!(text(&headers, name), Some(value));
        }
        assert_eq!(me().sender(&headers), Ok(MemberId::new(0xb)));
        assert!(me().is_meant(&headers));
        assert!(!caller().is_meant(&headers));
    }

    #[test]
    fn versions_that_cannot_be_together() {
        for (name, value, compatible) in [
            (SERVER_VERSION, "3.0.0", true),
            (SERVER_VERSION, "3.8.0", true),
            (SERVER_VERSION, "2.3.0", false),
            (SERVER_VERSION, "x", false),
            (MIN_CLUSTER_VERSION, "3.7.9", true),
            (MIN_CLUSTER_VERSION, "3.8.0", false),
            (MIN_CLUSTER_VERSION, "", false),
        ] {
            let sender = me().sender(&with(name.clone(), value));
            let refusal = Err(Refusal::IncompatibleVersion);
            assert_eq!(sender.is_ok(), compatible, "{name} {value}");
            assert!(compatible || sender == refusal);
        }
        let mut headers = caller().headers_to(MemberId::new(0xa));
        headers.remove(MIN_CLUSTER_VERSION);
        assert!(me().sender(&headers).is_ok());
        headers.remove(SERVER_VERSION);
        assert_eq!(me().sender(&headers), Err(Refusal::IncompatibleVersion));
    }

    #[test]
    fn another_cluster_is_named() {
        let other = Some(ClusterId::new(0xc2));
        let sender = me().sender(&with(CLUSTER_ID, "c2"));
        assert_eq!(sender, Err(Refusal::OtherCluster(other)));
        let sender = me().sender(&with(CLUSTER_ID, "nonsense"));
        assert_eq!(sender, Err(Refusal::OtherCluster(None)));
        let sender = me().sender(&with(FROM, ""));
        assert_eq!(sender, Err(Refusal::NoSender));
    }
}
