use std::path::{Path, PathBuf};

use ferrite_test_authority::{Authority, Pair, Subject, self_signed, write};
use tempfile::TempDir;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use super::*;

/// What a handshake has come to, on either side.
type Shaken = (Result<Option<Certificate>, String>, Result<(), String>);

struct Files {
    dir: TempDir,
    ca: Authority,
}

impl Files {
    fn new() -> Self {
        let files = Self {
            dir: tempfile::tempdir().unwrap(),
            ca: Authority::new("ca"),
        };
        files.ca.write(files.path());
        files
    }

    fn path(&self) -> &Path {
        self.dir.path()
    }

    fn file(&self, name: &str) -> Option<PathBuf> {
        Some(self.path().join(name))
    }

    /// The pair in the files of that name, and the authority.
    fn info(&self, name: &str, pair: &Pair) -> Info {
        let (cert, key) = pair.write(self.path(), name);
        Info {
            cert_file: Some(cert),
            key_file: Some(key),
            trusted_ca_file: self.file("ca.crt"),
            ..Info::default()
        }
    }

    fn member(&self) -> Info {
        self.info("member", &self.ca.issue(&Subject::member("member")))
    }

    fn client(&self, subject: &Subject) -> Info {
        self.info("client", &self.ca.issue(subject))
    }
}

/// Shakes hands, and sends a byte in each direction: a server of TLS 1.3 refuses behind the client's back.
async fn shake(server: &Server, client: &Client, host: &str) -> Shaken {
    let (near, far) = tokio::io::duplex(1 << 16);
    let accepting = async {
        let mut accepted = server
            .accept(near)
            .await
            .map_err(|rejected| rejected.error)?;
        accepted
            .stream
            .write_all(b"x")
            .await
            .map_err(|error| text(&error))?;
        accepted
            .stream
            .flush()
            .await
            .map_err(|error| text(&error))?;
        Ok(accepted.certificate)
    };
    let connecting = async {
        let mut stream = client
            .connect(host, far)
            .await
            .map_err(|error| text(&error))?;
        stream.read_u8().await.map_err(|error| text(&error))?;
        Ok(())
    };
    tokio::join!(accepting, connecting)
}

async fn shaken(server: &Info, client: &Info) -> Shaken {
    shake(
        &server.server(&[]).unwrap(),
        &client.client(&[]).unwrap(),
        "localhost",
    )
    .await
}

const UNKNOWN: &str =
    "tls: failed to verify certificate: x509: certificate signed by unknown authority";

#[tokio::test]
async fn both_show_who_they_are() {
    let files = Files::new();
    let (accepted, connected) =
        shaken(&files.member(), &files.client(&Subject::client("me"))).await;
    assert_eq!(connected, Ok(()));
    let shown = accepted.unwrap().unwrap();
    assert_eq!(&*shown.common_name, "me");
    assert_eq!((shown.dns_names.len(), shown.ip_addresses.len()), (0, 0));
}

#[tokio::test]
async fn clients_without_a_good_certificate_are_refused() {
    let files = Files::new();
    let member = files.member();
    let none = Info {
        trusted_ca_file: files.file("ca.crt"),
        ..Info::default()
    };
    let (accepted, connected) = shaken(&member, &none).await;
    let missing = "tls: client didn't provide a certificate";
    assert_eq!(accepted, Err(missing.to_owned()));
    assert_eq!(
        connected,
        Err("remote error: tls: certificate required".to_owned())
    );
    let other = Authority::new("other").issue(&Subject::client("me"));
    let other = files.info("other", &other);
    let (accepted, connected) = shaken(&member, &other).await;
    assert_eq!(accepted, Err(UNKNOWN.to_owned()));
    assert_eq!(
        connected,
        Err("remote error: tls: unknown certificate authority".to_owned())
    );
    let old = Subject {
        days: (-3, -2),
        ..Subject::client("me")
    };
    let (accepted, _) = shaken(&member, &files.client(&old)).await;
    let expired = accepted.unwrap_err();
    let text = "tls: failed to verify certificate: x509: certificate has expired or is not yet valid: current time 2";
    assert!(
        expired.starts_with(text) && expired.ends_with('Z'),
        "{expired}"
    );
    let server_only = Subject {
        usages: (true, false),
        ..Subject::client("me")
    };
    let (accepted, _) = shaken(&member, &files.client(&server_only)).await;
    let usage =
        "tls: failed to verify certificate: x509: certificate specifies an incompatible key usage";
    assert_eq!(accepted, Err(usage.to_owned()));
}

#[tokio::test]
async fn servers_are_believed_for_their_names_only() {
    let files = Files::new();
    let server = Info {
        trusted_ca_file: None,
        ..files.member()
    };
    let server = server.server(&[]).unwrap();
    let options = Info {
        trusted_ca_file: files.file("ca.crt"),
        ..Info::default()
    };
    let client = options.client(&[]).unwrap();
    for (host, error) in [
        ("localhost", ""),
        ("127.0.0.1", ""),
        (
            "else.example",
            "tls: failed to verify certificate: x509: certificate is valid for localhost, not else.example",
        ),
        (
            "127.0.0.2",
            "tls: failed to verify certificate: x509: certificate is valid for 127.0.0.1, not 127.0.0.2",
        ),
    ] {
        let (_, connected) = shake(&server, &client, host).await;
        assert_eq!(connected.err().unwrap_or_default(), error, "{host}");
    }
    let named = Info {
        server_name: Some("localhost".to_owned()),
        ..options.clone()
    };
    let (_, connected) = shake(&server, &named.client(&[]).unwrap(), "else.example").await;
    assert_eq!(connected, Ok(()));
    let trusting = Info {
        insecure_skip_verify: true,
        ..Info::default()
    };
    let (_, connected) = shake(&server, &trusting.client(&[]).unwrap(), "else.example").await;
    assert_eq!(connected, Ok(()));
    let nameless = Subject {
        hosts: Vec::new(),
        ..Subject::member("localhost")
    };
    let nameless = Info {
        trusted_ca_file: None,
        ..files.info("nameless", &files.ca.issue(&nameless))
    };
    let nameless = nameless.server(&[]).unwrap();
    for (host, error) in [
        (
            "localhost",
            "certificate is not valid for any names, but wanted to match localhost",
        ),
        (
            "127.0.0.1",
            "cannot validate certificate for 127.0.0.1 because it doesn't contain any IP SANs",
        ),
    ] {
        let (_, connected) = shake(&nameless, &client, host).await;
        let error = format!("tls: failed to verify certificate: x509: {error}");
        assert_eq!(connected, Err(error));
    }
}

#[tokio::test]
async fn what_go_takes_is_taken() {
    let files = Files::new();
    let member = files.member();
    for max in [Version::Tls12, Version::Tls13] {
        let mut server = member.clone();
        server.protocol.max = max;
        let old = files.info("v1", &files.ca.issue_version_1("old"));
        let (accepted, connected) = shaken(&server, &old).await;
        assert_eq!(
            (&*accepted.unwrap().unwrap().common_name, connected),
            ("old", Ok(()))
        );
    }
    // Of another authority with the same name, it is refused.
    let other = files.info("v1", &Authority::new("ca").issue_version_1("old"));
    assert_eq!(shaken(&member, &other).await.0, Err(UNKNOWN.to_owned()));

    let authority = Subject {
        is_authority: true,
        ..Subject::member("both")
    };
    let signed = files.info("signed", &files.ca.issue(&authority));
    assert_eq!(shaken(&signed, &signed).await.1, Ok(()));
    let own = self_signed(&authority);
    let own = Info {
        trusted_ca_file: Some(write(files.path(), "own.crt", own.cert.as_bytes())),
        ..files.info("own", &own)
    };
    let (accepted, connected) = shaken(&own, &own).await;
    assert_eq!(
        (&*accepted.unwrap().unwrap().common_name, connected),
        ("both", Ok(()))
    );
    let stranger = Info {
        trusted_ca_file: files.file("ca.crt"),
        ..own
    };
    assert_eq!(shaken(&member, &stranger).await.0, Err(UNKNOWN.to_owned()));
    let old = Subject {
        days: (-3, -2),
        ..authority
    };
    let old = files.info("old", &files.ca.issue(&old));
    assert!(
        shaken(&member, &old)
            .await
            .0
            .unwrap_err()
            .contains("expired")
    );
}

#[tokio::test]
async fn an_authority_counts_until_it_expires() {
    let dir = tempfile::tempdir().unwrap();
    let ca = Authority::valid("ca", (-3, -1));
    let files = Files { dir, ca };
    files.ca.write(files.path());
    let (_, connected) = shaken(&files.member(), &files.client(&Subject::client("me"))).await;
    assert_eq!(connected, Err(UNKNOWN.to_owned()));
}

#[tokio::test]
async fn names_that_may_connect() {
    let files = Files::new();
    let client = files.client(&Subject {
        hosts: ["a.example", "10.0.0.1", "*.local"]
            .map(str::to_owned)
            .to_vec(),
        ..Subject::client("me")
    });
    let texts = |texts: &[&str]| texts.iter().map(|text| (*text).to_owned()).collect();
    for (cns, hosts, allowed) in [
        (&["you", "me"][..], &[][..], true),
        (&["you"], &[], false),
        (&[], &["b.example", "a.example"], true),
        (&[], &["10.0.0.1"], true),
        (&[], &["10.0.0.2", "me"], false),
        (&[], &["m0.LOCAL"], true),
        (&[], &["*.local"], true),
        (&[], &["local"], false),
        (&[], &["a.m0.local"], false),
        (&[], &["*.example"], false),
    ] {
        let server = Info {
            allowed_cns: texts(cns),
            allowed_hostnames: texts(hosts),
            ..files.member()
        };
        let (accepted, connected) = shaken(&server, &client).await;
        match allowed {
            true => assert_eq!(connected, Ok(())),
            false => {
                assert_eq!(
                    accepted,
                    Err("client certificate authentication failed".to_owned())
                );
                assert_eq!(
                    connected,
                    Err("remote error: tls: bad certificate".to_owned())
                );
            }
        }
    }
    // In the other direction, too.
    let client = Info {
        allowed_cns: texts(&["somebody"]),
        ..client
    };
    let (accepted, connected) = shaken(&files.member(), &client).await;
    assert_eq!(
        accepted,
        Err("remote error: tls: bad certificate".to_owned())
    );
    assert_eq!(
        connected,
        Err("client certificate authentication failed".to_owned())
    );
}

#[tokio::test]
async fn what_is_revoked_is_refused_from_then_on() {
    let files = Files::new();
    let pair = files.ca.issue(&Subject::client("me"));
    let client = files.info("client", &pair).client(&[]).unwrap();
    let crl = write(files.path(), "crl", &files.ca.revoke(&[1, 2]));
    let server = Info {
        crl_file: Some(crl.clone()),
        ..files.member()
    };
    let server = server.server(&[]).unwrap();
    assert_eq!(shake(&server, &client, "localhost").await.1, Ok(()));
    write(files.path(), "crl", &files.ca.revoke(&[1, pair.serial]));
    let (accepted, connected) = shake(&server, &client, "localhost").await;
    let revoked = format!("transport: certificate serial {:04x} revoked", pair.serial);
    assert_eq!(accepted, Err(revoked));
    assert_eq!(connected, Err("EOF".to_owned()));
    write(files.path(), "crl", b"nothing");
    assert_eq!(
        shake(&server, &client, "localhost").await.0,
        Err("x509: malformed crl".to_owned())
    );
    std::fs::remove_file(&crl).unwrap();
    let gone = format!("open {}: no such file or directory", crl.display());
    assert_eq!(shake(&server, &client, "localhost").await.0, Err(gone));
    write(files.path(), "crl", &files.ca.revoke(&[]));
    assert_eq!(shake(&server, &client, "localhost").await.1, Ok(()));
}

#[tokio::test]
async fn certificates_are_replaced_while_they_are_in_use() {
    let files = Files::new();
    let server = files.member().server(&[]).unwrap();
    let client = files
        .client(&Subject::client("before"))
        .client(&[])
        .unwrap();
    let shown = |shaken: Shaken| shaken.0.map(|shown| shown.unwrap().common_name.to_string());
    assert_eq!(
        shown(shake(&server, &client, "localhost").await),
        Ok("before".to_owned())
    );
    files.client(&Subject::client("after"));
    assert_eq!(
        shown(shake(&server, &client, "localhost").await),
        Ok("after".to_owned())
    );
    // The server's, for another name.
    let other = Subject {
        hosts: vec!["else.example".to_owned()],
        ..Subject::member("member")
    };
    files.info("member", &files.ca.issue(&other));
    assert!(
        shake(&server, &client, "localhost")
            .await
            .1
            .unwrap_err()
            .contains("else.example")
    );
    assert_eq!(
        shown(shake(&server, &client, "else.example").await),
        Ok("after".to_owned())
    );
    // Without files, nobody is let in; with them, everybody again.
    std::fs::remove_file(files.path().join("member.key")).unwrap();
    assert!(shake(&server, &client, "localhost").await.1.is_err());
    files.member();
    assert_eq!(shake(&server, &client, "localhost").await.1, Ok(()));
}

#[tokio::test]
async fn versions_and_suites() {
    let files = Files::new();
    let (server, client) = (files.member(), files.client(&Subject::client("me")));
    let limited = |info: &Info, min, max, suites: &[&str]| {
        let suites: Vec<String> = suites.iter().map(|name| (*name).to_owned()).collect();
        let suites = Suites::parse(&suites).unwrap();
        let protocol = Protocol { min, max, suites };
        Info {
            protocol,
            ..info.clone()
        }
    };
    let of_12 = limited(&client, Version::Tls12, Version::Tls12, &[]);
    assert_eq!(shaken(&server, &of_12).await.1, Ok(()));
    let of_13 = limited(&server, Version::Tls13, Version::Tls13, &[]);
    let (accepted, _) = shaken(&of_13, &of_12).await;
    assert_eq!(
        accepted,
        Err("tls: client offered only unsupported versions".to_owned())
    );
    let chacha = [
        "TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305",
        "TLS_RSA_WITH_AES_128_GCM_SHA256",
    ];
    let one = limited(&server, Version::Tls12, Version::Tls13, &chacha);
    assert_eq!(
        one.protocol.suites.missing(),
        ["TLS_RSA_WITH_AES_128_GCM_SHA256"]
    );
    assert_eq!(shaken(&one, &of_12).await.1, Ok(()));
    // TLS 1.3 has its own.
    assert_eq!(shaken(&one, &client).await.1, Ok(()));
    let aes = ["TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256"];
    let other = limited(&client, Version::Tls12, Version::Tls12, &aes);
    let (accepted, _) = shaken(&one, &other).await;
    assert_eq!(
        accepted,
        Err("tls: no cipher suite supported by both client and server".to_owned())
    );
    let gone = limited(&server, Version::Tls12, Version::Tls12, &chacha[1..]);
    assert_eq!(
        gone.server(&[]).unwrap_err().to_string(),
        "none of the TLS cipher suites is available"
    );
    let unknown = Suites::parse(&["X".to_owned()]).unwrap_err();
    assert_eq!(unknown.to_string(), "unexpected TLS cipher suite \"X\"");
}

#[tokio::test]
async fn who_does_not_speak_tls() {
    let server = Files::new().member().server(&[]).unwrap();
    for (said, error, is_eof) in [
        (
            &b"GET / HTTP/1.1\r\n\r\n"[..],
            "tls: first record does not look like a TLS handshake",
            false,
        ),
        (b"", "EOF", true),
    ] {
        let (near, mut far) = tokio::io::duplex(1000);
        far.write_all(said).await.unwrap();
        far.shutdown().await.unwrap();
        let rejected = server.accept(near).await.unwrap_err();
        assert_eq!((&*rejected.error, rejected.is_eof), (error, is_eof));
    }
    let (near, _far) = tokio::io::duplex(1000);
    tokio::time::pause();
    assert_eq!(server.accept(near).await.unwrap_err().error, "i/o timeout");
}

#[tokio::test]
async fn a_member_makes_a_certificate_for_itself() {
    let dir = tempfile::tempdir().unwrap();
    let dir = dir.path().join("fixtures").join("peer");
    let hosts = ["127.0.0.1".to_owned(), "localhost".to_owned()];
    let made = self_signed_info(&dir, &hosts);
    let key = std::fs::metadata(dir.join("key.pem")).unwrap();
    assert_eq!(
        std::os::unix::fs::PermissionsExt::mode(&key.permissions()) & 0o777,
        0o600
    );
    let (accepted, connected) = shaken(&made, &made).await;
    assert_eq!(
        (accepted.map(|shown| shown.is_some()), connected),
        (Ok(false), Ok(()))
    );
    // Who wants to verify it can.
    let careful = Info {
        trusted_ca_file: Some(dir.join("cert.pem")),
        ..Info::default()
    };
    assert_eq!(shaken(&made, &careful).await.1, Ok(()));
    let before = std::fs::read(dir.join("cert.pem")).unwrap();
    self_signed_info(&dir, &hosts);
    assert_eq!(
        std::fs::read(dir.join("cert.pem")).unwrap(),
        before,
        "it is kept"
    );
    let never = super::self_signed(&dir, &hosts, 0).unwrap_err().to_string();
    assert_eq!(
        never,
        "selfSignedCertValidity is invalid,it should be greater than 0"
    );
}

fn self_signed_info(dir: &Path, hosts: &[String]) -> Info {
    super::self_signed(dir, hosts, 1).unwrap()
}

#[test]
fn files_that_are_not_as_they_must_be() {
    let files = Files::new();
    let member = files.member();
    let refused = |info: Info| info.server(&[]).unwrap_err().to_string();
    let gone = files.file("gone");
    let path = gone.clone().unwrap();
    assert_eq!(
        refused(Info {
            cert_file: gone.clone(),
            ..member.clone()
        }),
        format!("open {}: no such file or directory", path.display())
    );
    assert_eq!(
        refused(Info {
            trusted_ca_file: gone.clone(),
            ..member.clone()
        }),
        format!("open {}: no such file or directory", path.display())
    );
    assert_eq!(
        refused(Info {
            key_file: None,
            ..member.clone()
        }),
        format!(
            "KeyFile and CertFile must both be present[key: , cert: {}]",
            files.file("member.crt").unwrap().display()
        )
    );
    assert_eq!(
        refused(Info {
            client_cert_file: gone.clone(),
            ..member.clone()
        }),
        format!(
            "ClientKeyFile and ClientCertFile must both be present or both absent: key: , cert: {}]",
            path.display()
        )
    );
    let empty = Some(write(files.path(), "empty", b""));
    assert_eq!(
        refused(Info {
            cert_file: empty.clone(),
            ..member.clone()
        }),
        "tls: failed to find any PEM data in certificate input"
    );
    assert_eq!(
        refused(Info {
            key_file: empty,
            ..member.clone()
        }),
        "tls: failed to find any PEM data in key input"
    );
    files.client(&Subject::client("me"));
    assert_eq!(
        refused(Info {
            key_file: files.file("client.key"),
            ..member.clone()
        }),
        "tls: private key does not match public key"
    );
    let both = Info {
        allowed_cns: vec!["a".to_owned()],
        allowed_hostnames: vec!["b".to_owned()],
        ..member
    };
    assert_eq!(
        refused(both),
        "AllowedCNs and AllowedHostnames are mutually exclusive (cns=[\"a\"], hostnames=[\"b\"])"
    );
}
