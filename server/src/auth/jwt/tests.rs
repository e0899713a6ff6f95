use std::path::Path;

use super::*;

/// Tokens that an etcd has made with the keys beside it: the method, and the token of `root`.
const OF_ETCD: &str = include_str!("testdata/of_etcd.txt");

/// A moment at which they were good.
const THEN: Duration = Duration::from_secs(1_795_847_000);

/// The files of keys for each method, private and public.
const KEYS: [(&str, &str, &str); 13] = [
    ("HS256", "secret", ""),
    ("HS384", "secret", ""),
    ("HS512", "secret", ""),
    ("RS256", "rsa.pem", "rsa.pub"),
    ("RS384", "rsa1.pem", ""),
    ("RS512", "rsa.pem", ""),
    ("PS256", "rsa.pem", "rsa.pub"),
    ("PS384", "rsa1.pem", ""),
    ("PS512", "rsa.pem", ""),
    ("ES256", "ec256.sec1", "ec256.pub"),
    ("ES384", "ec384.p8", ""),
    ("ES512", "ec521.sec1", ""),
    ("EdDSA", "ed.pem", "ed.pub"),
];

fn path(file: &str) -> String {
    let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("src/auth/jwt/testdata");
    dir.join(file).display().to_string()
}

fn jwt(method: &str, private: &str, public: &str, ttl: &str) -> Result<Jwt, OptionsError> {
    let file = |name: &str| {
        if name.is_empty() {
            String::new()
        } else {
            path(name)
        }
    };
    let (private, public) = (file(private), file(public));
    Jwt::new(&[
        ("sign-method", method),
        ("priv-key", &private),
        ("pub-key", &public),
        ("ttl", ttl),
    ])
}

#[test]
fn a4_public_keys_are_read_from_certificates() {
    for (method, private, certificate) in [
        ("RS256", "rsa.pem", "rsa.crt"),
        ("ES256", "ec256.sec1", "ec256.crt"),
    ] {
        let token = jwt(method, private, certificate, "").unwrap();
        let token = token.sign("u", 7, THEN).unwrap();
        let knower = jwt(method, "", certificate, "").unwrap();
        assert_eq!(knower.verify(&token, THEN).unwrap().username, "u");
    }
}

#[test]
fn a4_tokens_of_etcd_are_known() {
    let mut known = 0;
    for line in OF_ETCD.lines() {
        let (method, token) = line.split_once(' ').unwrap();
        let (_, private, public) = KEYS.into_iter().find(|keys| keys.0 == method).unwrap();
        let jwt = jwt(method, private, public, "").unwrap();
        let claims = jwt.verify(token, THEN).expect(method);
        assert_eq!((claims.username.as_str(), claims.revision), ("root", 4));
        let hours_later = THEN + Duration::from_secs(7200);
        assert_eq!(
            jwt.verify(token, hours_later),
            Err(Invalid::Time),
            "{method}"
        );
        known += 1;
    }
    assert_eq!(known, KEYS.len());
}

#[test]
fn a4_what_is_signed_is_known_until_it_ends_and_nothing_else_is() {
    for (method, private, public) in KEYS {
        let jwt = jwt(method, private, public, "1m30s").unwrap();
        let token = jwt.sign("u", 7, THEN).unwrap();
        let claims = Claims {
            username: "u".to_owned(),
            revision: 7,
        };
        let last = THEN + Duration::from_millis(89_999);
        assert_eq!(jwt.verify(&token, last), Ok(claims), "{method}");
        let over = THEN + Duration::from_secs(90);
        assert_eq!(jwt.verify(&token, over), Err(Invalid::Time), "{method}");
        let (message, signature) = token.rsplit_once('.').unwrap();
        for forged in [
            format!("{message}.{}", &signature[1..]),
            format!("{message}."),
            format!("{message}.{signature}A"),
        ] {
            assert!(jwt.verify(&forged, THEN).is_err(), "{method} {forged}");
        }
        let (header, _) = message.split_once('.').unwrap();
        let root = URL_SAFE_NO_PAD.encode(r#"{"exp":9999999999,"revision":7,"username":"root"}"#);
        let forged = format!("{header}.{root}.{signature}");
        assert_eq!(
            jwt.verify(&forged, THEN),
            Err(Invalid::Signature),
            "{method}"
        );
    }
}

#[test]
fn a4_the_method_is_the_members_choice() {
    let member = jwt("RS256", "rsa.pem", "", "").unwrap();
    let other = jwt("PS256", "rsa.pem", "", "").unwrap();
    let token = other.sign("u", 7, THEN).unwrap();
    assert_eq!(member.verify(&token, THEN), Err(Invalid::Method));
    let none = URL_SAFE_NO_PAD.encode(r#"{"alg":"none","typ":"JWT"}"#);
    let root = URL_SAFE_NO_PAD.encode(r#"{"revision":7,"username":"root"}"#);
    let unsigned = format!("{none}.{root}.");
    assert_eq!(member.verify(&unsigned, THEN), Err(Invalid::Method));
    for malformed in ["", ".", "..", "a.b", "a.b.c", &format!("{none}.{root}")] {
        assert_eq!(
            member.verify(malformed, THEN),
            Err(Invalid::Malformed),
            "{malformed}"
        );
    }
}

#[test]
fn a4_what_a_token_must_say() {
    let jwt = jwt("HS256", "secret", "", "").unwrap();
    let signer = jwt.signer.as_ref().unwrap();
    let says = |claims: &str| {
        let header = URL_SAFE_NO_PAD.encode(r#"{"alg":"HS256"}"#);
        let message = format!("{header}.{}", URL_SAFE_NO_PAD.encode(claims));
        let signature = URL_SAFE_NO_PAD.encode(signer.sign(message.as_bytes()).unwrap());
        jwt.verify(&format!("{message}.{signature}"), THEN)
    };
    let user = |revision| {
        Ok(Claims {
            username: "u".to_owned(),
            revision,
        })
    };
    let then = THEN.as_secs();
    for (claims, expected) in [
        (r#"{"username":"u","revision":7}"#.to_owned(), user(7)),
        (
            r#"{"username":"u","revision":7.9,"x":{}}"#.to_owned(),
            user(7),
        ),
        (r#"{"username":"u","revision":-7}"#.to_owned(), user(0)),
        (r#"{"username":"u"}"#.to_owned(), Err(Invalid::Claims)),
        (
            r#"{"username":"u","revision":"7"}"#.to_owned(),
            Err(Invalid::Claims),
        ),
        (
            r#"{"username":1,"revision":7}"#.to_owned(),
            Err(Invalid::Claims),
        ),
        (r#"{"revision":7}"#.to_owned(), Err(Invalid::Claims)),
        (
            r#"{"username":"u","revision":7,"exp":"x"}"#.to_owned(),
            Err(Invalid::Time),
        ),
        (
            format!(r#"{{"username":"u","revision":7,"exp":{then}}}"#),
            Err(Invalid::Time),
        ),
        (
            format!(r#"{{"username":"u","revision":7,"nbf":{then}}}"#),
            user(7),
        ),
        (
            format!(r#"{{"username":"u","revision":7,"nbf":{}}}"#, then + 1),
            Err(Invalid::Time),
        ),
    ] {
        assert_eq!(says(&claims), expected, "{claims}");
    }
}

#[test]
fn a4_a_member_with_the_public_key_makes_no_tokens() {
    let maker = jwt("ES256", "ec256.pem", "", "").unwrap();
    let knower = jwt("ES256", "", "ec256.pub", "").unwrap();
    let token = maker.sign("u", 7, THEN).unwrap();
    assert_eq!(knower.verify(&token, THEN).unwrap().username, "u");
    let error = knower.sign("u", 7, THEN).unwrap_err();
    assert_eq!(error.code(), Code::Unknown);
    let text = "auth: token signing attempted with verify-only key";
    assert_eq!(error.message(), text);
}

#[test]
fn a4_options_that_make_no_sense() {
    let error = |result: Result<Jwt, OptionsError>| result.unwrap_err().to_string();
    let invalid = "auth: invalid auth options";
    assert_eq!(error(jwt("", "secret", "", "")), invalid);
    assert_eq!(error(jwt("none", "secret", "", "")), invalid);
    assert_eq!(error(jwt("HS256", "no such file", "", "")), invalid);
    assert_eq!(error(jwt("HS256", "secret", "", "5")), invalid);
    let missing = "auth: missing key data";
    assert_eq!(error(jwt("HS256", "", "", "")), missing);
    assert_eq!(error(jwt("HS256", "", "secret", "")), missing);
    assert_eq!(error(jwt("RS256", "", "", "")), missing);
    let mismatch = "auth: public and private keys don't match";
    assert_eq!(error(jwt("EdDSA", "ed.pem", "other.pub", "")), mismatch);
    for (method, private, public) in [
        ("RS256", "ed.pem", ""),
        ("ES256", "ec384.p8", ""),
        ("EdDSA", "secret", ""),
        ("RS256", "", "ed.pub"),
        ("ES256", "ec256.sec1", "rsa.pub"),
    ] {
        let error = error(jwt(method, private, public, ""));
        assert!(error.contains("key"), "{method}: {error}");
    }
    // What is unknown is only told.
    let path = path("secret");
    Jwt::new(&[("sign-method", "HS256"), ("priv-key", &path), ("x", "y")]).unwrap();
}
