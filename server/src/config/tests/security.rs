use ferrite_tls::{Info, Version};

use super::*;

#[test]
fn versions_and_suites() {
    for (args, error) in [
        (
            &["--tls-min-version=TLS1.1"][..],
            "unexpected TLS version \"TLS1.1\" (must be one of: TLS1.2, TLS1.3)",
        ),
        (
            &["--tls-min-version=TLS1.3", "--tls-max-version=TLS1.2"],
            "min version (TLS1.3) is greater than max version (TLS1.2)",
        ),
        (
            &[
                "--tls-min-version=TLS1.3",
                "--cipher-suites=TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256",
            ],
            "cipher suites cannot be configured when only TLS1.3 is enabled",
        ),
        (
            &["--cipher-suites=TLS_X"],
            "unexpected TLS cipher suite \"TLS_X\"",
        ),
    ] {
        assert_eq!(invalid(args, &[]), error, "{args:?}");
    }
    let names = "TLS_RSA_WITH_AES_128_CBC_SHA,TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384";
    let suites = format!("--cipher-suites={names}");
    let given = loaded(&[&suites, "--tls-max-version=TLS1.2"], &[]);
    for security in [&given.config.client_tls, &given.config.peer_tls] {
        let protocol = &security.info.protocol;
        assert_eq!(protocol.suites.names().join(","), names);
        assert_eq!(
            (protocol.min, protocol.max),
            (Version::Tls12, Version::Tls12)
        );
    }
    let missing = Note::MissingSuites("TLS_RSA_WITH_AES_128_CBC_SHA".to_owned());
    assert!(given.notes.contains(&missing), "{:?}", given.notes);
}

/// Everything that a certificate needs, as flags with this prefix.
fn flags(prefix: &str, more: &[&str]) -> Vec<String> {
    [
        "cert-file=/c",
        "key-file=/k",
        "client-cert-file=/cc",
        "client-key-file=/ck",
        "trusted-ca-file=/ca",
        "client-cert-auth",
    ]
    .iter()
    .map(|flag| format!("--{prefix}{flag}"))
    .chain(more.iter().map(|flag| (*flag).to_owned()))
    .collect()
}

fn expected() -> Info {
    let path = |path: &str| Some(PathBuf::from(path));
    Info {
        cert_file: path("/c"),
        key_file: path("/k"),
        client_cert_file: path("/cc"),
        client_key_file: path("/ck"),
        trusted_ca_file: path("/ca"),
        client_cert_auth: true,
        ..Info::default()
    }
}

fn names(names: &[&str]) -> Vec<String> {
    names.iter().map(|name| (*name).to_owned()).collect()
}

#[test]
fn certificates_of_the_listeners() {
    let more = [
        "--client-crl-file=/crl",
        "--client-cert-allowed-hostname=a,b",
        "--listen-client-urls=https://localhost:2379",
        "--advertise-client-urls=https://localhost:2379",
        "--listen-metrics-urls=http://localhost:2381",
        "--peer-crl-file=/peer-crl",
        "--peer-cert-allowed-cn=x,y",
        "--peer-skip-client-san-verification",
    ];
    let all = [flags("", &more), flags("peer-", &[])].concat();
    let all: Vec<&str> = all.iter().map(String::as_str).collect();
    let given = loaded(&all, &[]).config;
    let clients = Info {
        crl_file: Some(PathBuf::from("/crl")),
        allowed_hostnames: names(&["a", "b"]),
        ..expected()
    };
    assert_eq!(
        (given.client_tls.info, given.client_tls.auto),
        (clients, false)
    );
    let members = Info {
        crl_file: Some(PathBuf::from("/peer-crl")),
        allowed_cns: names(&["x", "y"]),
        skip_client_san_verify: true,
        ..expected()
    };
    assert_eq!((given.peer_tls.info, given.peer_tls.auto), (members, false));
    let hosts = loaded(&["--peer-cert-allowed-hostname=h"], &[]).config;
    assert_eq!(hosts.peer_tls.info.allowed_hostnames, ["h"]);
}

#[test]
fn certificates_in_a_file() {
    let section = "cert-file: /c, key-file: /k, client-cert-file: /cc, client-key-file: /ck, trusted-ca-file: /ca, \
                   client-cert-auth: true";
    let text = format!(
        "client-transport-security: {{{section}, allowed-hostname: [a, b]}}\n\
         peer-transport-security: {{{section}, allowed-cn: [x], skip-client-san-verification: true}}\n\
         self-signed-cert-validity: 0"
    );
    let config = match with_file(&text) {
        Outcome::Run(loaded) => loaded.config,
        Outcome::Exit(exit) => panic!("{exit:?}"),
    };
    let clients = Info {
        allowed_hostnames: names(&["a", "b"]),
        ..expected()
    };
    assert_eq!(config.client_tls.info, clients);
    let members = Info {
        allowed_cns: names(&["x"]),
        skip_client_san_verify: true,
        ..expected()
    };
    assert_eq!(config.peer_tls.info, members);
    assert_eq!(config.self_signed_cert_validity, 1);
}

#[test]
fn listeners_without_tls_do_not_use_them() {
    let plain = [
        "--cert-file=/c",
        "--client-cert-auth",
        "--auto-tls",
        "--peer-cert-file=/c",
        "--peer-client-cert-auth",
        "--peer-auto-tls",
    ];
    let notes = loaded(&plain, &[]).notes;
    for (what, port) in [("client", 2379), ("peer", 2380)] {
        let url = format!("http://localhost:{port}");
        let ignored = Note::CertificatesIgnored {
            what,
            url: url.clone(),
        };
        for note in [
            ignored,
            Note::CertAuthIgnored { what, url },
            Note::AutoTlsIgnored(what),
        ] {
            assert!(notes.contains(&note), "{note:?}");
        }
    }
}

#[test]
fn certificates_that_are_made() {
    let auto = [
        "--auto-tls",
        "--peer-auto-tls",
        "--self-signed-cert-validity=3",
        "--listen-client-urls=https://localhost:2379",
        "--advertise-client-urls=https://localhost:2379",
        "--listen-peer-urls=https://localhost:2380",
    ];
    let config = loaded(&auto, &[]).config;
    assert!(config.client_tls.auto && config.peer_tls.auto);
    assert_eq!(config.self_signed_cert_validity, 3);
}
