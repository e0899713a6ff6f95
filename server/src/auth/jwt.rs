//! JSON Web Tokens (spec auth.md section 4): a user and an auth revision, signed. Every member that has
//! the keys knows them; one that has the public key only cannot make them.

use std::fmt;
use std::fs;
use std::time::Duration;

use aws_lc_rs::hmac;
use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::signature::{
    self, EcdsaKeyPair, EcdsaSigningAlgorithm, Ed25519KeyPair, KeyPair, ParsedPublicKey,
    RsaEncoding, RsaKeyPair, VerificationAlgorithm,
};
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use tonic::Code;
use webpki::EndEntityCert;

use super::tokens::OptionsError;
use crate::config::GoDuration;
use crate::error::Error;

/// How long a token is good if no option says it.
const DEFAULT_TTL: GoDuration = GoDuration::from_nanos(300_000_000_000);

/// How a family of algorithms signs.
enum Family {
    Hmac(hmac::Algorithm),
    Rsa(&'static dyn RsaEncoding),
    Ecdsa(&'static EcdsaSigningAlgorithm),
    Ed25519,
}

/// An algorithm by the name that tokens carry, and how its signatures are verified.
struct Algorithm {
    name: &'static str,
    family: Family,
    verification: Option<&'static dyn VerificationAlgorithm>,
}

fn algorithm(name: &str) -> Option<Algorithm> {
    use signature as s;
    let (name, family, verification): (_, _, Option<&'static dyn VerificationAlgorithm>) =
        match name {
            "HS256" => ("HS256", Family::Hmac(hmac::HMAC_SHA256), None),
            "HS384" => ("HS384", Family::Hmac(hmac::HMAC_SHA384), None),
            "HS512" => ("HS512", Family::Hmac(hmac::HMAC_SHA512), None),
            "RS256" => (
                "RS256",
                Family::Rsa(&s::RSA_PKCS1_SHA256),
                Some(&s::RSA_PKCS1_2048_8192_SHA256),
            ),
            "RS384" => (
                "RS384",
                Family::Rsa(&s::RSA_PKCS1_SHA384),
                Some(&s::RSA_PKCS1_2048_8192_SHA384),
            ),
            "RS512" => (
                "RS512",
                Family::Rsa(&s::RSA_PKCS1_SHA512),
                Some(&s::RSA_PKCS1_2048_8192_SHA512),
            ),
            "PS256" => (
                "PS256",
                Family::Rsa(&s::RSA_PSS_SHA256),
                Some(&s::RSA_PSS_2048_8192_SHA256),
            ),
            "PS384" => (
                "PS384",
                Family::Rsa(&s::RSA_PSS_SHA384),
                Some(&s::RSA_PSS_2048_8192_SHA384),
            ),
            "PS512" => (
                "PS512",
                Family::Rsa(&s::RSA_PSS_SHA512),
                Some(&s::RSA_PSS_2048_8192_SHA512),
            ),
            "ES256" => (
                "ES256",
                Family::Ecdsa(&s::ECDSA_P256_SHA256_FIXED_SIGNING),
                Some(&s::ECDSA_P256_SHA256_FIXED),
            ),
            "ES384" => (
                "ES384",
                Family::Ecdsa(&s::ECDSA_P384_SHA384_FIXED_SIGNING),
                Some(&s::ECDSA_P384_SHA384_FIXED),
            ),
            "ES512" => (
                "ES512",
                Family::Ecdsa(&s::ECDSA_P521_SHA512_FIXED_SIGNING),
                Some(&s::ECDSA_P521_SHA512_FIXED),
            ),
            "EdDSA" => ("EdDSA", Family::Ed25519, Some(&s::ED25519)),
            _ => return None,
        };
    Some(Algorithm {
        name,
        family,
        verification,
    })
}

/// What makes a signature.
enum Signer {
    Hmac(Box<hmac::Key>),
    Rsa(Box<RsaKeyPair>, &'static dyn RsaEncoding),
    Ecdsa(Box<EcdsaKeyPair>),
    Ed25519(Ed25519KeyPair),
}

impl Signer {
    fn sign(&self, message: &[u8]) -> Result<Vec<u8>, aws_lc_rs::error::Unspecified> {
        let random = SystemRandom::new();
        Ok(match self {
            Self::Hmac(key) => hmac::sign(key, message).as_ref().to_vec(),
            Self::Rsa(pair, encoding) => {
                let mut signature = vec![0; pair.public_modulus_len()];
                pair.sign(*encoding, &random, message, &mut signature)?;
                signature
            }
            Self::Ecdsa(pair) => pair.sign(&random, message)?.as_ref().to_vec(),
            Self::Ed25519(pair) => pair.sign(message).as_ref().to_vec(),
        })
    }
}

/// What knows a signature.
enum Verifier {
    Hmac(Box<hmac::Key>),
    Public(Box<ParsedPublicKey>),
}

impl Verifier {
    fn knows(&self, message: &[u8], signature: &[u8]) -> bool {
        match self {
            Self::Hmac(key) => hmac::verify(key, message, signature).is_ok(),
            Self::Public(key) => key.verify_sig(message, signature).is_ok(),
        }
    }
}

/// What a token says.
#[derive(Clone, PartialEq, Debug)]
pub(super) struct Claims {
    pub(super) username: String,
    pub(super) revision: u64,
}

/// Why a token is nobody's.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub(super) enum Invalid {
    #[error("the token is malformed")]
    Malformed,
    #[error("the token is signed by another method")]
    Method,
    #[error("the signature is invalid")]
    Signature,
    #[error("the token is expired or not valid yet")]
    Time,
    #[error("the token does not name a user and a revision")]
    Claims,
}

/// What a token is made of, in this order, as Go's library writes it.
#[derive(Serialize)]
struct Written<'a> {
    exp: i64,
    revision: u64,
    username: &'a str,
}

#[derive(Serialize, Deserialize)]
struct Header<'a> {
    alg: &'a str,
    typ: &'a str,
}

#[derive(Deserialize)]
struct ReadHeader {
    alg: String,
}

/// Makes and knows tokens.
pub(super) struct Jwt {
    method: &'static str,
    signer: Option<Signer>,
    verifier: Verifier,
    ttl: GoDuration,
}

impl fmt::Debug for Jwt {
    /// No key in any log.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Jwt")
            .field("method", &self.method)
            .field("ttl", &self.ttl)
            .finish_non_exhaustive()
    }
}

impl Jwt {
    /// With these options of `--auth-token`. Reads the files of the keys.
    pub(super) fn new(options: &[(&str, &str)]) -> Result<Self, OptionsError> {
        let option = |name: &str| {
            let found = options.iter().find(|(key, _)| *key == name);
            found
                .map(|(_, value)| *value)
                .filter(|value| !value.is_empty())
        };
        let invalid = |what: &str, why: &dyn fmt::Display| {
            tracing::error!(option = what, error = %why, "problem loading JWT options");
            OptionsError::Invalid
        };
        let ttl = option("ttl").map_or(Ok(DEFAULT_TTL), GoDuration::parse);
        let ttl = ttl.map_err(|error| invalid("ttl", &error))?;
        let file = |name| {
            let read = option(name).map(fs::read).transpose();
            read.map_err(|error| invalid(name, &error))
        };
        let (public, private) = (file("pub-key")?, file("priv-key")?);
        let method = option("sign-method").and_then(algorithm);
        let method =
            method.ok_or_else(|| invalid("sign-method", &"auth: invalid auth signature method"))?;
        const KNOWN: [&str; 4] = ["sign-method", "pub-key", "priv-key", "ttl"];
        let unknown = options.iter().map(|(key, _)| *key);
        let unknown: Vec<_> = unknown.filter(|key| !KNOWN.contains(key)).collect();
        if !unknown.is_empty() {
            tracing::warn!(keys = ?unknown, "unknown JWT options");
        }
        let given = |key: Option<Vec<u8>>| key.filter(|key| !key.is_empty());
        let (signer, verifier) = keys(&method, given(private), given(public))?;
        Ok(Self {
            method: method.name,
            signer,
            verifier,
            ttl,
        })
    }

    /// A token for a user. `now` is the time since 1970.
    pub(super) fn sign(&self, user: &str, revision: u64, now: Duration) -> Result<String, Error> {
        let failed = |text: &str| Error::status(Code::Unknown, text.to_owned());
        let Some(signer) = &self.signer else {
            return Err(failed("auth: token signing attempted with verify-only key"));
        };
        let header = Header {
            alg: self.method,
            typ: "JWT",
        };
        let now = i64::try_from(now.as_nanos()).unwrap_or(i64::MAX);
        let claims = Written {
            exp: now
                .saturating_add(self.ttl.nanos())
                .div_euclid(1_000_000_000),
            revision,
            username: user,
        };
        let (header, claims) = (encoded(&header), encoded(&claims));
        let mut token = format!("{}.{}", header, claims);
        let signature = signer.sign(token.as_bytes());
        let signature = signature.map_err(|_| failed("auth: the token could not be signed"))?;
        token.push('.');
        URL_SAFE_NO_PAD.encode_string(signature, &mut token);
        Ok(token)
    }

    /// What a token says, if it was signed with the right key and is good at `now`, the time since 1970.
    pub(super) fn verify(&self, token: &str, now: Duration) -> Result<Claims, Invalid> {
        let (message, signature) = token.rsplit_once('.').ok_or(Invalid::Malformed)?;
        let (header, claims) = message.split_once('.').ok_or(Invalid::Malformed)?;
        let header: ReadHeader = decoded(header)?;
        if header.alg != self.method {
            return Err(Invalid::Method);
        }
        let signature = URL_SAFE_NO_PAD.decode(signature);
        let signature = signature.map_err(|_| Invalid::Malformed)?;
        if !self.verifier.knows(message.as_bytes(), &signature) {
            return Err(Invalid::Signature);
        }
        let claims: Value = decoded(claims)?;
        // Absent is fine; anything but a number is not.
        let time = |name: &str| match claims.get(name) {
            None | Some(Value::Null) => Ok(None),
            Some(value) => value.as_f64().map(Some).ok_or(Invalid::Time),
        };
        let now = now.as_secs_f64();
        let over = time("exp")?.is_some_and(|until| now >= until.trunc());
        let early = time("nbf")?.is_some_and(|from| now < from.trunc());
        if over || early {
            return Err(Invalid::Time);
        }
        let username = claims.get("username").and_then(Value::as_str);
        let revision = claims.get("revision").and_then(Value::as_f64);
        match (username, revision) {
            (Some(username), Some(revision)) => Ok(Claims {
                username: username.to_owned(),
                // JSON has no integers; what is out of range ends at it.
                revision: revision as u64,
            }),
            _ => Err(Invalid::Claims),
        }
    }
}

fn encoded(part: &impl Serialize) -> String {
    let json = serde_json::to_vec(part).expect("texts and numbers are JSON");
    URL_SAFE_NO_PAD.encode(json)
}

fn decoded<T: for<'a> Deserialize<'a>>(part: &str) -> Result<T, Invalid> {
    let json = URL_SAFE_NO_PAD.decode(part);
    let json = json.map_err(|_| Invalid::Malformed)?;
    serde_json::from_slice(&json).map_err(|_| Invalid::Malformed)
}

/// What signs and what verifies, out of the contents of two files.
fn keys(
    method: &Algorithm,
    private: Option<Vec<u8>>,
    public: Option<Vec<u8>>,
) -> Result<(Option<Signer>, Verifier), OptionsError> {
    let Some(verification) = method.verification else {
        let secret = private.ok_or(OptionsError::MissingKey)?;
        let Family::Hmac(hash) = method.family else {
            return Err(OptionsError::MissingKey);
        };
        let key = Box::new(hmac::Key::new(hash, &secret));
        return Ok((Some(Signer::Hmac(key.clone())), Verifier::Hmac(key)));
    };
    let public_key = |der: &[u8]| {
        let parsed = ParsedPublicKey::new(verification, der);
        parsed.map_err(|_| {
            OptionsError::Key(format!("key is not a valid {} public key", method.name))
        })
    };
    let public = public.map(|file| public_key(&der(&file)?)).transpose()?;
    let Some(private) = private else {
        let public = public.ok_or(OptionsError::MissingKey)?;
        return Ok((None, Verifier::Public(Box::new(public))));
    };
    let (signer, own) = signer(method, &private)?;
    let own = public_key(&own)?;
    // Whether the keys belong together shows where it matters.
    if let Some(public) = public {
        const MESSAGE: &[u8] = b"one pair";
        let signature = signer.sign(MESSAGE);
        let signature = signature.map_err(|_| OptionsError::MissingKey)?;
        if public.verify_sig(MESSAGE, &signature).is_err() {
            return Err(OptionsError::KeyMismatch);
        }
    }
    Ok((Some(signer), Verifier::Public(Box::new(own))))
}

/// What signs with a private key, and the public key of it.
fn signer(method: &Algorithm, file: &[u8]) -> Result<(Signer, Vec<u8>), OptionsError> {
    let key = der(file)?;
    let invalid = |_| OptionsError::Key(format!("key is not a valid {} private key", method.name));
    Ok(match method.family {
        Family::Rsa(encoding) => {
            let pair = RsaKeyPair::from_pkcs8(&key).or_else(|_| RsaKeyPair::from_der(&key));
            let pair = Box::new(pair.map_err(invalid)?);
            let public = pair.public_key().as_ref().to_vec();
            (Signer::Rsa(pair, encoding), public)
        }
        Family::Ecdsa(algorithm) => {
            let pair = EcdsaKeyPair::from_pkcs8(algorithm, &key)
                .or_else(|_| EcdsaKeyPair::from_private_key_der(algorithm, &key));
            let pair = Box::new(pair.map_err(invalid)?);
            let public = pair.public_key().as_ref().to_vec();
            (Signer::Ecdsa(pair), public)
        }
        Family::Ed25519 => {
            let pair = Ed25519KeyPair::from_pkcs8_maybe_unchecked(&key).map_err(invalid)?;
            let public = pair.public_key().as_ref().to_vec();
            (Signer::Ed25519(pair), public)
        }
        Family::Hmac(_) => return Err(OptionsError::MissingKey),
    })
}

/// The key in a PEM file, or the one of the certificate in it.
fn der(file: &[u8]) -> Result<Vec<u8>, OptionsError> {
    // Files may have the parameters of a curve before the key.
    let blocks = pem::parse_many(file).unwrap_or_default();
    let key = blocks.into_iter().find_map(|block| {
        if block.tag() != "CERTIFICATE" {
            return block.tag().ends_with("KEY").then(|| block.into_contents());
        }
        let certificate = block.into_contents().into();
        let certificate = EndEntityCert::try_from(&certificate).ok()?;
        Some(certificate.subject_public_key_info().to_vec())
    });
    key.ok_or_else(|| OptionsError::Key("invalid key: Key must be a PEM encoded key".to_owned()))
}

#[cfg(test)]
mod tests;
