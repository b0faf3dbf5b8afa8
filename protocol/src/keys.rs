//! Public keys and signatures as values. Private keys have no type here: they never travel. The one secret that does is
//! the pre-shared key of a static peer.

use std::fmt;
use std::str::FromStr;

use data_encoding::BASE64;
use minicbor::{Decode, Encode};
use serde::{Deserialize, Serialize};

/// A text is no valid key.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("not a valid key: expected 44 characters of base64 (32 bytes)")]
pub struct ParseKeyError;

macro_rules! key {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Encode, Decode, Serialize, Deserialize)]
        #[cbor(transparent)]
        #[serde(try_from = "String", into = "String")]
        pub struct $name(#[cbor(with = "minicbor::bytes")] pub [u8; 32]);

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&BASE64.encode(&self.0))
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, concat!(stringify!($name), "({})"), self)
            }
        }

        impl FromStr for $name {
            type Err = ParseKeyError;

            fn from_str(text: &str) -> Result<Self, Self::Err> {
                let bytes = BASE64.decode(text.as_bytes()).map_err(|_| ParseKeyError)?;
                Ok(Self(bytes.try_into().map_err(|_| ParseKeyError)?))
            }
        }

        impl TryFrom<String> for $name {
            type Error = ParseKeyError;

            fn try_from(text: String) -> Result<Self, Self::Error> {
                text.parse()
            }
        }

        impl From<$name> for String {
            fn from(key: $name) -> Self {
                key.to_string()
            }
        }
    };
}

key!(
    /// A WireGuard public key (X25519).
    WgPublicKey
);
key!(
    /// SHA-256 of a SubjectPublicKeyInfo (RFC 5280 section 4.1.2.7), the pin of a certification authority.
    SpkiHash
);
key!(
    /// An owner's key that signs member records of a locked network (Ed25519, RFC 8032).
    LockKey
);

/// An Ed25519 signature (RFC 8032), 64 bytes.
#[derive(Clone, Copy, PartialEq, Eq, Encode, Decode)]
#[cbor(transparent)]
pub struct Signature(#[cbor(with = "minicbor::bytes")] pub [u8; 64]);

impl fmt::Debug for Signature {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Signature({})", BASE64.encode(&self.0))
    }
}

/// A pre-shared key (WireGuard's whitepaper, section 5.2): shared by a static peer and the members that talk to it.
#[derive(Clone, PartialEq, Eq, Encode, Decode)]
#[cbor(transparent)]
pub struct PresharedKey(#[cbor(with = "minicbor::bytes")] pub [u8; 32]);

impl PresharedKey {
    /// The key as WireGuard's files have it. Only for the one who is meant to know it.
    pub fn reveal(&self) -> String {
        BASE64.encode(&self.0)
    }
}

impl fmt::Debug for PresharedKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("PresharedKey(secret)")
    }
}

impl FromStr for PresharedKey {
    type Err = ParseKeyError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        text.parse::<WgPublicKey>().map(|bytes| Self(bytes.0))
    }
}

impl SpkiHash {
    /// The hash of a public key in its DER form.
    pub fn of(spki_der: &[u8]) -> Self {
        let digest = ring::digest::digest(&ring::digest::SHA256, spki_der);
        let mut hash = [0; 32];
        hash.copy_from_slice(digest.as_ref());
        Self(hash)
    }
}
