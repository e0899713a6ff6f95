//! Peer URLs as etcd's client library checks them before it sends them.

/// Refuses what is no peer URL.
///
/// # Errors
///
/// The library's text.
pub(crate) fn check(url: &str) -> Result<(), String> {
    let url = url.trim();
    let (scheme, rest) = match url.split_once("://") {
        Some((scheme, rest)) => (scheme.to_lowercase(), rest),
        None => {
            let scheme = url.split_once(':').map_or("", |(scheme, _)| scheme);
            (scheme.to_lowercase(), "")
        }
    };
    match scheme.as_str() {
        "http" | "https" => {
            let (host, path) = match rest.find(['/', '?', '#']) {
                Some(end) => rest.split_at(end),
                None => (rest, ""),
            };
            if !has_port(host.rsplit('@').next().unwrap_or_default()) {
                return Err(format!(
                    "URL address does not have the form \"host:port\": {url}"
                ));
            }
            if path.starts_with('/') {
                return Err(format!("URL must not contain a path: {url}"));
            }
            Ok(())
        }
        "unix" | "unixs" => Ok(()),
        _ => Err(format!(
            "URL scheme must be http, https, unix, or unixs: {url}"
        )),
    }
}

fn has_port(host: &str) -> bool {
    match host.strip_prefix('[') {
        Some(rest) => rest.contains("]:"),
        None => host.matches(':').count() == 1,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn good_and_bad_urls() {
        for url in [
            "http://10.0.0.1:2380",
            "https://[::1]:2380",
            " http://host:1 ",
            "unix:///run/peer",
            "http://host:",
        ] {
            assert_eq!(check(url), Ok(()), "{url}");
        }
        for (url, error) in [
            (
                "bogus",
                "URL scheme must be http, https, unix, or unixs: bogus",
            ),
            ("", "URL scheme must be http, https, unix, or unixs: "),
            (
                "ftp://a:1",
                "URL scheme must be http, https, unix, or unixs: ftp://a:1",
            ),
            (
                "http://a",
                "URL address does not have the form \"host:port\": http://a",
            ),
            ("http://a:1/x", "URL must not contain a path: http://a:1/x"),
            ("http://a:1/", "URL must not contain a path: http://a:1/"),
        ] {
            assert_eq!(check(url), Err(error.to_owned()), "{url}");
        }
    }
}
