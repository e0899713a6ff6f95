//! Whether a client's certificate is for the address that the client comes from. Members are asked that,
//! and who reads metrics over TLS (spec/http.md section 5).

use std::net::IpAddr;

use ferrite_tls::Certificate;
use hickory_resolver::TokioResolver;
use hickory_resolver::net::NetError;
use hickory_resolver::proto::rr::{Name, RData, RecordType};

/// A certificate without any name is for everywhere.
///
/// # Errors
/// etcd's text: it is for other places.
pub(super) async fn check(certificate: &Certificate, from: IpAddr) -> Result<(), String> {
    let addresses = &certificate.ip_addresses;
    let names = &certificate.dns_names;
    if (addresses.is_empty() && names.is_empty()) || addresses.contains(&from) {
        return Ok(());
    }
    if names.is_empty() {
        let listed: Vec<String> = addresses.iter().map(ToString::to_string).collect();
        return Err(format!(
            "x509: certificate is valid for {}, not {from}",
            listed.join(", ")
        ));
    }
    match is_one_of(names, from).await {
        Ok(true) => Ok(()),
        Ok(false) => Err(mismatch(names, from, "")),
        Err(error) => Err(mismatch(names, from, &format!(" ({error})"))),
    }
}

fn mismatch(names: &[String], from: IpAddr, failure: &str) -> String {
    let quoted: Vec<String> = names.iter().map(|name| format!("{name:?}")).collect();
    format!(
        "tls: {:?} does not match any of DNSNames [{}]{failure}",
        from.to_string(),
        quoted.join(" ")
    )
}

/// Whether the address has one of the names, or one of the names the address. Otherwise the last failure to
/// find that out, if there was one.
async fn is_one_of(names: &[String], from: IpAddr) -> Result<bool, NetError> {
    // Each time anew, as the files that say how may have changed; it is rare.
    let dns = TokioResolver::builder_tokio()?.build()?;
    let mut failure = None;
    match dns.lookup(Name::from(from), RecordType::PTR).await {
        Ok(found) => {
            let found = found
                .answers()
                .iter()
                .filter_map(|record| match &record.data {
                    RData::PTR(name) => Some(name.to_utf8()),
                    _ => None,
                });
            if found.into_iter().any(|name| fits(&name, names)) {
                return Ok(true);
            }
        }
        Err(error) => failure = Some(error),
    }
    for name in names.iter().filter(|name| !name.starts_with("*.")) {
        match dns.lookup_ip(name.as_str()).await {
            Ok(found) if found.iter().any(|address| address == from) => return Ok(true),
            Ok(_) => {}
            Err(error) => failure = Some(error),
        }
    }
    failure.map_or(Ok(false), Err)
}

/// Whether the name of an address is one of those of a certificate. As for etcd, a star stands for any
/// number of labels here.
fn fits(name: &str, names: &[String]) -> bool {
    let name = name.strip_suffix('.').unwrap_or(name);
    names.iter().any(|pattern| match pattern.strip_prefix('*') {
        Some(rest) if rest.starts_with('.') => name.ends_with(rest),
        _ => name == pattern,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn certificate(names: &[&str], addresses: &[&str]) -> Certificate {
        Certificate {
            common_name: "".into(),
            dns_names: names.iter().map(|name| (*name).to_owned()).collect(),
            ip_addresses: addresses
                .iter()
                .map(|address| address.parse().unwrap())
                .collect(),
        }
    }

    #[tokio::test]
    async fn addresses_and_names() {
        let from = "192.0.2.1".parse().unwrap();
        let checked = |names: &'static [&str], addresses: &'static [&str]| async move {
            check(&certificate(names, addresses), from).await
        };
        assert_eq!(checked(&[], &[]).await, Ok(()));
        assert_eq!(checked(&[], &["192.0.2.2", "192.0.2.1"]).await, Ok(()));
        let other = "x509: certificate is valid for 192.0.2.2, ::1, not 192.0.2.1";
        assert_eq!(
            checked(&[], &["192.0.2.2", "::1"]).await,
            Err(other.to_owned())
        );
        let names = ["a.example".to_owned(), "*.b.example".to_owned()];
        assert_eq!(
            mismatch(&names, from, " (no such host)"),
            "tls: \"192.0.2.1\" does not match any of DNSNames [\"a.example\" \"*.b.example\"] (no such host)"
        );
        // The hosts file of every system has this one.
        let local = certificate(&["localhost"], &[]);
        let here = check(&local, "127.0.0.1".parse().unwrap());
        assert_eq!(here.await, Ok(()));
    }

    #[test]
    fn names_and_stars() {
        let names = ["a.example".to_owned(), "*.b.example".to_owned()];
        for (name, expected) in [
            ("a.example", true),
            ("a.example.", true),
            ("x.a.example", false),
            ("x.b.example.", true),
            ("x.y.b.example", true),
            ("b.example", false),
        ] {
            assert_eq!(fits(name, &names), expected, "{name}");
        }
    }
}
