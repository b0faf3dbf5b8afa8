//! Signed tokens of a provider (RFC 7515, 7517, 7518): which key signed one, and whether it did. What they say is the
//! business of [`super::claims`].
//!
//! Signatures are checked by ring. `none`, and whatever is made with a shared secret, is no signature here.

use data_encoding::{BASE64URL, BASE64URL_NOPAD};
use ring::signature::{
    ECDSA_P256_SHA256_FIXED, ECDSA_P384_SHA384_FIXED, ED25519, RSA_PKCS1_2048_8192_SHA256,
    RSA_PKCS1_2048_8192_SHA384, RSA_PKCS1_2048_8192_SHA512, RSA_PSS_2048_8192_SHA256, RsaParameters,
    RsaPublicKeyComponents, UnparsedPublicKey, VerificationAlgorithm,
};
use serde::Deserialize;
use serde::de::DeserializeOwned;

/// Tokens are far smaller.
const LONGEST: usize = 64 * 1024;

/// A token is not what the provider has signed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum JwsError {
    #[error("it is no signed token")]
    Malformed,
    #[error("it is signed by {0:?}, which is not taken here")]
    Algorithm(String),
    #[error("it has extensions that are not understood")]
    Critical,
    #[error("it is signed by a key that the provider does not publish")]
    UnknownKey,
    #[error("its signature is wrong")]
    Signature,
}

/// How a token is signed: what is not here is refused.
#[derive(Debug, Clone, Copy)]
enum Algorithm {
    Rsa(&'static RsaParameters),
    Ec(&'static str),
    Ed25519,
}

impl Algorithm {
    fn named(name: &str) -> Option<Self> {
        Some(match name {
            "RS256" => Self::Rsa(&RSA_PKCS1_2048_8192_SHA256),
            "RS384" => Self::Rsa(&RSA_PKCS1_2048_8192_SHA384),
            "RS512" => Self::Rsa(&RSA_PKCS1_2048_8192_SHA512),
            "PS256" => Self::Rsa(&RSA_PSS_2048_8192_SHA256),
            "ES256" => Self::Ec("P-256"),
            "ES384" => Self::Ec("P-384"),
            "EdDSA" | "Ed25519" => Self::Ed25519,
            _ => return None,
        })
    }
}

#[derive(Deserialize)]
struct Header {
    alg: String,
    kid: Option<String>,
    crit: Option<serde_json::Value>,
}

/// A public key, as providers publish them.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
pub struct Jwk {
    kty: String,
    kid: Option<String>,
    alg: Option<String>,
    #[serde(rename = "use")]
    usage: Option<String>,
    crv: Option<String>,
    n: Option<String>,
    e: Option<String>,
    x: Option<String>,
    y: Option<String>,
}

/// All keys of a provider. Those of kinds that are not known here stay unused.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Keys(Vec<Jwk>);

impl Keys {
    /// Reads a JWK set.
    pub fn read(bytes: &[u8]) -> Result<Self, serde_json::Error> {
        #[derive(Deserialize)]
        struct Set {
            keys: Vec<serde_json::Value>,
        }
        let set: Set = serde_json::from_slice(bytes)?;
        Ok(Self(set.keys.into_iter().filter_map(|key| serde_json::from_value(key).ok()).collect()))
    }

    fn fitting<'k>(&'k self, header: &'k Header) -> impl Iterator<Item = &'k Jwk> {
        self.0.iter().filter(move |key| {
            let named = header.kid.is_none() || header.kid == key.kid;
            let signs = key.usage.as_deref().is_none_or(|usage| usage == "sig");
            named && signs && key.alg.as_ref().is_none_or(|alg| *alg == header.alg)
        })
    }
}

/// What a token says, if one of these keys has signed it.
pub fn verified<T: DeserializeOwned>(token: &str, keys: &Keys) -> Result<T, JwsError> {
    if token.len() > LONGEST {
        return Err(JwsError::Malformed);
    }
    let (signed, signature) = token.rsplit_once('.').ok_or(JwsError::Malformed)?;
    let (header, payload) = signed.split_once('.').ok_or(JwsError::Malformed)?;
    let header: Header = json(header)?;
    if header.crit.is_some() {
        return Err(JwsError::Critical);
    }
    let algorithm = Algorithm::named(&header.alg);
    let algorithm = algorithm.ok_or_else(|| JwsError::Algorithm(header.alg.chars().take(20).collect()))?;
    let signature = decoded(signature)?;
    let mut candidates = keys.fitting(&header).filter_map(|key| Public::of(key, algorithm)).peekable();
    if candidates.peek().is_none() {
        return Err(JwsError::UnknownKey);
    }
    if candidates.any(|key| key.has_signed(signed.as_bytes(), &signature)) {
        json(payload)
    } else {
        Err(JwsError::Signature)
    }
}

fn decoded(part: &str) -> Result<Vec<u8>, JwsError> {
    BASE64URL_NOPAD.decode(part.as_bytes()).map_err(|_| JwsError::Malformed)
}

fn json<T: DeserializeOwned>(part: &str) -> Result<T, JwsError> {
    serde_json::from_slice(&decoded(part)?).map_err(|_| JwsError::Malformed)
}

/// A key that fits an algorithm.
enum Public {
    Rsa(&'static RsaParameters, Vec<u8>, Vec<u8>),
    Other(&'static dyn VerificationAlgorithm, Vec<u8>),
}

impl Public {
    fn of(key: &Jwk, algorithm: Algorithm) -> Option<Self> {
        // Some providers pad what must not be padded.
        let field = |text: &Option<String>| {
            let bytes = text.as_ref()?.as_bytes();
            BASE64URL_NOPAD.decode(bytes).or_else(|_| BASE64URL.decode(bytes)).ok()
        };
        match (algorithm, key.kty.as_str(), key.crv.as_deref()) {
            (Algorithm::Rsa(parameters), "RSA", _) => {
                Some(Self::Rsa(parameters, field(&key.n)?, field(&key.e)?))
            }
            (Algorithm::Ec(curve), "EC", Some(own)) if curve == own => {
                let (x, y) = (field(&key.x)?, field(&key.y)?);
                let verifier: &'static dyn VerificationAlgorithm =
                    if curve == "P-256" { &ECDSA_P256_SHA256_FIXED } else { &ECDSA_P384_SHA384_FIXED };
                Some(Self::Other(verifier, [vec![4], x, y].concat()))
            }
            (Algorithm::Ed25519, "OKP", Some("Ed25519")) => Some(Self::Other(&ED25519, field(&key.x)?)),
            (_, _, _) => None,
        }
    }

    fn has_signed(&self, message: &[u8], signature: &[u8]) -> bool {
        match self {
            Self::Rsa(parameters, n, e) => {
                RsaPublicKeyComponents { n, e }.verify(parameters, message, signature).is_ok()
            }
            Self::Other(verifier, point) => {
                UnparsedPublicKey::new(*verifier, point).verify(message, signature).is_ok()
            }
        }
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use ring::rand::SystemRandom;
    use ring::signature::{ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, KeyPair};
    use serde_json::{Value, json};

    use super::*;

    /// A provider's key, which signs what it is told to.
    pub(crate) struct Signer {
        pair: EcdsaKeyPair,
        pub kid: &'static str,
    }

    impl Signer {
        pub(crate) fn new(kid: &'static str) -> Self {
            let random = SystemRandom::new();
            let pkcs8 = EcdsaKeyPair::generate_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, &random).unwrap();
            let pair = EcdsaKeyPair::from_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, pkcs8.as_ref(), &random);
            Self { pair: pair.unwrap(), kid }
        }

        pub(crate) fn jwk(&self) -> Value {
            let point = self.pair.public_key().as_ref();
            let part = |bytes: &[u8]| BASE64URL_NOPAD.encode(bytes);
            json!({ "kty": "EC", "crv": "P-256", "kid": self.kid, "use": "sig", "alg": "ES256",
                    "x": part(&point[1..33]), "y": part(&point[33..]) })
        }

        pub(crate) fn keys(&self) -> Keys {
            Keys::read(json!({ "keys": [self.jwk()] }).to_string().as_bytes()).unwrap()
        }

        pub(crate) fn sign(&self, header: &Value, claims: &Value) -> String {
            let part = |value: &Value| BASE64URL_NOPAD.encode(value.to_string().as_bytes());
            let signed = format!("{}.{}", part(header), part(claims));
            let signature = self.pair.sign(&SystemRandom::new(), signed.as_bytes()).unwrap();
            format!("{signed}.{}", BASE64URL_NOPAD.encode(signature.as_ref()))
        }
    }

    #[test]
    fn what_a_published_key_has_signed_is_taken_and_nothing_else() {
        let (signer, other) = (Signer::new("one"), Signer::new("two"));
        let claims = json!({ "sub": "ada" });
        let header = json!({ "alg": "ES256", "kid": "one" });
        let good = signer.sign(&header, &claims);
        let read = |token: &str| verified::<Value>(token, &signer.keys());
        assert_eq!(read(&good), Ok(claims.clone()));
        assert_eq!(read(&signer.sign(&json!({ "alg": "ES256" }), &claims)), Ok(claims.clone()));

        assert_eq!(read(&other.sign(&header, &claims)), Err(JwsError::Signature));
        let unknown = other.sign(&json!({ "alg": "ES256", "kid": "two" }), &claims);
        assert_eq!(read(&unknown), Err(JwsError::UnknownKey));
        for alg in ["none", "None", "HS256", "ES256K", ""] {
            let token = signer.sign(&json!({ "alg": alg, "kid": "one" }), &claims);
            assert_eq!(read(&token), Err(JwsError::Algorithm(alg.to_owned())));
            let (signed, _) = token.rsplit_once('.').unwrap();
            assert_eq!(read(&format!("{signed}.")), Err(JwsError::Algorithm(alg.to_owned())));
        }
        // An RSA algorithm with a key that is none: no key fits.
        let confused = signer.sign(&json!({ "alg": "RS256", "kid": "one" }), &claims);
        assert_eq!(read(&confused), Err(JwsError::UnknownKey));
        let critical = signer.sign(&json!({ "alg": "ES256", "kid": "one", "crit": ["b64"] }), &claims);
        assert_eq!(read(&critical), Err(JwsError::Critical));
        let parts: Vec<&str> = good.split('.').collect();
        let changed = BASE64URL_NOPAD.encode(br#"{"sub":"eve"}"#);
        assert_eq!(read(&format!("{}.{changed}.{}", parts[0], parts[2])), Err(JwsError::Signature));
        for bad in ["", ".", "..", "a.b.c", &good[1..], &parts[..2].join(".")] {
            assert!(read(bad).is_err(), "{bad}");
        }
    }

    /// RFC 8037, appendix A.4, and RFC 7515, appendix A.2.
    #[test]
    fn signatures_are_those_of_the_rfcs() {
        let keys = json!({ "keys": [
            { "kty": "OKP", "crv": "Ed25519", "x": "11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo" },
            { "kty": "oct", "k": "c2VjcmV0" }, { "no": "key" }, 7,
        ] });
        let keys = Keys::read(keys.to_string().as_bytes()).unwrap();
        let token = "eyJhbGciOiJFZERTQSJ9.RXhhbXBsZSBvZiBFZDI1NTE5IHNpZ25pbmc.hgyY0il_MGCjP0JzlnLWG1PPOt7-09PGcvMg3AIbQR6dWbhijcNR4ki4iylGjg5BhVsPt9g7sVvpAr_MuM0KAg";
        // Well signed; but what it says is no JSON.
        assert_eq!(verified::<Value>(token, &keys), Err(JwsError::Malformed));
        let wrong = token.replace("RXhh", "RXhi");
        assert_eq!(verified::<Value>(&wrong, &keys), Err(JwsError::Signature));
    }
}
