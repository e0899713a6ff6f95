//! URLs as etcd writes them: `http://host:port`, `https://...`, `unix://...`, `unixs://...`.
//!
//! The text is kept exactly as given (Go prints a URL as it was parsed), because member ids and the
//! advertised URLs derive from it. That is why the `url` crate is not used here: it follows the
//! browsers' rules, which add a path, lower-case hosts and drop default ports.

use std::collections::BTreeMap;
use std::fmt;
use std::net::IpAddr;

/// The scheme of a [`Url`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Scheme {
    /// Plain TCP.
    Http,
    /// TLS over TCP.
    Https,
    /// Plain unix socket.
    Unix,
    /// TLS over a unix socket.
    Unixs,
}

impl Scheme {
    /// Whether the traffic is encrypted.
    pub const fn is_tls(self) -> bool {
        matches!(self, Scheme::Https | Scheme::Unixs)
    }

    /// Whether the address is a socket path instead of host and port.
    pub const fn is_unix(self) -> bool {
        matches!(self, Scheme::Unix | Scheme::Unixs)
    }
}

/// One listen or advertise URL. Ordered and compared by its text.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Url {
    text: String,
    scheme: Scheme,
    /// `host:port` for TCP; host and path run together, the socket's path, otherwise.
    address: String,
}

impl Url {
    /// Parses one URL by etcd's rules; surrounding white space is dropped.
    ///
    /// # Errors
    /// etcd's texts, e.g. `URL must not contain a path: http://a:1/x`.
    pub fn parse(text: &str) -> Result<Url, String> {
        let text = text.trim();
        let go_error = |reason: &str| format!("parse {text:?}: {reason}");
        if text.chars().any(|c| c.is_ascii_control()) {
            return Err(go_error("net/url: invalid control character in URL"));
        }
        let (scheme_text, rest) = split_scheme(text).map_err(go_error)?;
        let scheme = match scheme_text.to_ascii_lowercase().as_str() {
            "http" => Scheme::Http,
            "https" => Scheme::Https,
            "unix" => Scheme::Unix,
            "unixs" => Scheme::Unixs,
            _ => {
                return Err(format!(
                    "URL scheme must be http, https, unix, or unixs: {text}"
                ));
            }
        };
        let end = rest.find(['?', '#']).unwrap_or(rest.len());
        let (authority, path) = match rest[..end].strip_prefix("//") {
            Some(behind) => behind.split_at(behind.find('/').unwrap_or(behind.len())),
            None => ("", &rest[..end]),
        };
        let host = authority.rsplit('@').next().unwrap_or(authority);
        let address = if scheme.is_unix() {
            format!("{host}{path}")
        } else {
            check_host(host).map_err(|reason| go_error(&reason))?;
            if split_host_port(host).is_none() {
                return Err(format!(
                    "URL address does not have the form \"host:port\": {text}"
                ));
            }
            if !path.is_empty() {
                return Err(format!("URL must not contain a path: {text}"));
            }
            host.to_owned()
        };
        let text = format!(
            "{}{}",
            scheme_text.to_ascii_lowercase(),
            &text[scheme_text.len()..]
        );
        Ok(Url {
            text,
            scheme,
            address,
        })
    }

    /// The URL as it was given (scheme in lower case).
    pub fn as_str(&self) -> &str {
        &self.text
    }

    /// The scheme.
    pub fn scheme(&self) -> Scheme {
        self.scheme
    }

    /// What to bind or dial: `host:port`, or the path of the socket.
    pub fn address(&self) -> &str {
        &self.address
    }

    /// The host of a TCP URL, without brackets; empty for unix sockets.
    pub fn host(&self) -> &str {
        if self.scheme.is_unix() {
            return "";
        }
        split_host_port(&self.address).map_or("", |(host, _)| host)
    }

    /// The port of a TCP URL; `None` when it is left empty or the URL is a socket's. Parsing
    /// admits only ports that fit.
    pub fn port(&self) -> Option<u16> {
        if self.scheme.is_unix() {
            return None;
        }
        split_host_port(&self.address).and_then(|(_, port)| port.parse().ok())
    }

    /// The same URL with another host; unix URLs stay as they are.
    #[must_use]
    pub fn with_host(&self, host: IpAddr) -> Url {
        if self.scheme.is_unix() {
            return self.clone();
        }
        let port = self.port().map(|port| port.to_string()).unwrap_or_default();
        let scheme = if self.scheme.is_tls() {
            "https"
        } else {
            "http"
        };
        let address = match host {
            IpAddr::V4(v4) => format!("{v4}:{port}"),
            IpAddr::V6(v6) => format!("[{v6}]:{port}"),
        };
        Url {
            text: format!("{scheme}://{address}"),
            scheme: self.scheme,
            address,
        }
    }

    /// etcd binds to addresses and `localhost` only, never to what a name resolves to.
    ///
    /// # Errors
    /// etcd's text.
    pub fn check_bindable(&self) -> Result<(), String> {
        let host = self.host();
        if self.scheme.is_unix() || host == "localhost" || host.parse::<IpAddr>().is_ok() {
            return Ok(());
        }
        Err(format!("expected IP in URL for binding ({self})"))
    }

    /// An advertised URL needs a host.
    ///
    /// # Errors
    /// etcd's text.
    pub fn check_host(&self) -> Result<(), String> {
        if self.scheme.is_unix() || !self.host().is_empty() {
            return Ok(());
        }
        Err(format!("unexpected empty host ({self})"))
    }
}

impl fmt::Display for Url {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

/// Go's rule: a scheme is letters, digits and `+-.` up to the first colon, a letter first.
fn split_scheme(text: &str) -> Result<(&str, &str), &'static str> {
    let colon = text.find(':');
    if colon == Some(0) {
        return Err("missing protocol scheme");
    }
    let candidate = &text[..colon.unwrap_or(0)];
    let valid = candidate.starts_with(|c: char| c.is_ascii_alphabetic())
        && candidate
            .chars()
            .all(|c| c.is_ascii_alphanumeric() || "+-.".contains(c));
    if valid {
        return Ok((candidate, &text[candidate.len() + 1..]));
    }
    let first_segment = &text[..text.find('/').unwrap_or(text.len())];
    if first_segment.contains(':') {
        return Err("first path segment in URL cannot contain colon");
    }
    Ok(("", text))
}

/// What Go's URL parser refuses in a host, and ports that no listener could have.
fn check_host(host: &str) -> Result<(), String> {
    let behind_host = match host.strip_prefix('[') {
        Some(inside) => match inside.find(']') {
            Some(end) => &inside[end + 1..],
            None => return Err("missing ']' in host".to_owned()),
        },
        None => {
            if let Some(bad) = host.chars().find(|c| " \"<>^`{|}\\%".contains(*c)) {
                return Err(format!(
                    "invalid character {:?} in host name",
                    bad.to_string()
                ));
            }
            host.rfind(':').map_or("", |colon| &host[colon..])
        }
    };
    let digits = behind_host.strip_prefix(':').unwrap_or(behind_host);
    let valid = digits.is_empty()
        || (behind_host.starts_with(':')
            && digits.bytes().all(|b| b.is_ascii_digit())
            && digits.parse::<u16>().is_ok());
    if valid {
        Ok(())
    } else {
        Err(format!("invalid port {behind_host:?} after host"))
    }
}

/// Go's `net.SplitHostPort`; `None` where that has an error.
pub fn split_host_port(address: &str) -> Option<(&str, &str)> {
    let (host, behind) = match address.strip_prefix('[') {
        Some(inside) => inside.split_once(']')?,
        None => {
            let colon = address.find(':')?;
            address.split_at(colon)
        }
    };
    let port = behind.strip_prefix(':')?;
    if port.contains(':') || host.contains(['[', ']']) || port.contains(['[', ']']) {
        return None;
    }
    Some((host, port))
}

/// A comma-separated list, sorted by text, without duplicates.
///
/// # Errors
/// The error of the first bad URL.
pub fn parse_urls(list: &str) -> Result<Vec<Url>, String> {
    let mut urls = list
        .split(',')
        .map(Url::parse)
        .collect::<Result<Vec<_>, _>>()?;
    urls.sort();
    urls.dedup();
    Ok(urls)
}

/// The texts of some URLs, joined by commas.
pub fn join(urls: &[Url]) -> String {
    let texts: Vec<&str> = urls.iter().map(Url::as_str).collect();
    texts.join(",")
}

/// Member names and their peer URLs, as `--initial-cluster` gives them. Prints as etcd does: pairs
/// `name=url`, sorted, joined by commas.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct UrlsMap(BTreeMap<String, Vec<Url>>);

impl UrlsMap {
    /// Parses `n1=url,n1=url2,n2=url`; empty items are skipped.
    ///
    /// # Errors
    /// The error of the first bad URL, by name.
    pub fn parse(text: &str) -> Result<UrlsMap, String> {
        let mut texts: BTreeMap<String, Vec<&str>> = BTreeMap::new();
        for item in text.split(',').filter(|item| !item.is_empty()) {
            let (name, url) = item.split_once('=').unwrap_or((item, ""));
            texts.entry(name.to_owned()).or_default().push(url);
        }
        let mut members = BTreeMap::new();
        for (name, urls) in texts {
            let mut urls = urls
                .into_iter()
                .map(Url::parse)
                .collect::<Result<Vec<_>, _>>()?;
            urls.sort();
            members.insert(name, urls);
        }
        Ok(UrlsMap(members))
    }

    /// One member's entry.
    pub fn single(name: &str, urls: &[Url]) -> UrlsMap {
        UrlsMap(BTreeMap::from([(name.to_owned(), urls.to_vec())]))
    }

    /// The peer URLs of a member, sorted.
    pub fn get(&self, name: &str) -> Option<&[Url]> {
        self.0.get(name).map(Vec::as_slice)
    }

    /// Members in the order of their names.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &[Url])> {
        self.0
            .iter()
            .map(|(name, urls)| (name.as_str(), urls.as_slice()))
    }

    /// How many members are named.
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether none is.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Whether one URL stands twice, in one member or in two.
    pub fn has_duplicate_url(&self) -> bool {
        let mut urls: Vec<&Url> = self.0.values().flatten().collect();
        urls.sort();
        urls.windows(2).any(|pair| pair[0] == pair[1])
    }
}

impl fmt::Display for UrlsMap {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut pairs: Vec<String> = self
            .iter()
            .flat_map(|(name, urls)| urls.iter().map(move |url| format!("{name}={url}")))
            .collect();
        pairs.sort();
        f.write_str(&pairs.join(","))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_text_is_kept() {
        for text in [
            "http://localhost:2379",
            "http://LocalHost:80",
            "https://[::1]:2380",
            "http://127.0.0.1:",
            "unix:///var/run/etcd.sock",
            "unixs://relative:1",
        ] {
            assert_eq!(Url::parse(text).unwrap().to_string(), text);
        }
        assert_eq!(Url::parse(" HTTP://a:1 ").unwrap().as_str(), "http://a:1");
    }

    #[test]
    fn parts() {
        let url = Url::parse("https://[::1]:2380").unwrap();
        assert_eq!((url.host(), url.port()), ("::1", Some(2380)));
        assert_eq!(url.address(), "[::1]:2380");
        assert!(url.scheme().is_tls());
        let url = Url::parse("unix://localhost/tmp/s").unwrap();
        assert_eq!((url.host(), url.port()), ("", None));
        assert_eq!(url.address(), "localhost/tmp/s");
        assert_eq!(Url::parse("http://a:").unwrap().port(), None);
    }

    #[test]
    fn errors_are_etcds() {
        for (text, error) in [
            ("", "URL scheme must be http, https, unix, or unixs: "),
            (
                "localhost:2379",
                "URL scheme must be http, https, unix, or unixs: localhost:2379",
            ),
            (
                "127.0.0.1:2379",
                "parse \"127.0.0.1:2379\": first path segment in URL cannot contain colon",
            ),
            (":1", "parse \":1\": missing protocol scheme"),
            (
                "http://localhost",
                "URL address does not have the form \"host:port\": http://localhost",
            ),
            (
                "http://::1:2379",
                "URL address does not have the form \"host:port\": http://::1:2379",
            ),
            (
                "http://localhost:2379/",
                "URL must not contain a path: http://localhost:2379/",
            ),
            ("http://[::1", "parse \"http://[::1\": missing ']' in host"),
            (
                "http://a:b",
                "parse \"http://a:b\": invalid port \":b\" after host",
            ),
            (
                "http://a:70000",
                "parse \"http://a:70000\": invalid port \":70000\" after host",
            ),
            (
                "http://a b:1",
                "parse \"http://a b:1\": invalid character \" \" in host name",
            ),
            (
                "ftp://a:1",
                "URL scheme must be http, https, unix, or unixs: ftp://a:1",
            ),
        ] {
            assert_eq!(Url::parse(text).unwrap_err(), error);
        }
    }

    #[test]
    fn lists_are_sorted_and_unique() {
        let urls = parse_urls("http://b:1,http://a:1, http://b:1").unwrap();
        assert_eq!(join(&urls), "http://a:1,http://b:1");
        assert!(parse_urls("http://b:1,").is_err());
    }

    #[test]
    fn clusters() {
        let map = UrlsMap::parse("b=http://b:2,,a=http://a:2,b=http://b:1").unwrap();
        assert_eq!(map.to_string(), "a=http://a:2,b=http://b:1,b=http://b:2");
        assert_eq!(map.len(), 2);
        assert_eq!(join(map.get("b").unwrap()), "http://b:1,http://b:2");
        assert!(!map.has_duplicate_url());
        assert!(
            UrlsMap::parse("a=http://a:2,b=http://a:2")
                .unwrap()
                .has_duplicate_url()
        );
        assert_eq!(
            UrlsMap::parse("a").unwrap_err(),
            "URL scheme must be http, https, unix, or unixs: "
        );
    }

    #[test]
    fn binding_needs_an_address() {
        assert!(
            Url::parse("http://0.0.0.0:1")
                .unwrap()
                .check_bindable()
                .is_ok()
        );
        assert!(
            Url::parse("http://localhost:1")
                .unwrap()
                .check_bindable()
                .is_ok()
        );
        assert!(Url::parse("unix://x").unwrap().check_bindable().is_ok());
        assert_eq!(
            Url::parse("http://example.com:1").unwrap().check_bindable(),
            Err("expected IP in URL for binding (http://example.com:1)".to_owned())
        );
        assert_eq!(
            Url::parse("http://:1").unwrap().check_bindable(),
            Err("expected IP in URL for binding (http://:1)".to_owned())
        );
    }
}
