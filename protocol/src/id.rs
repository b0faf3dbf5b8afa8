//! Identities: random byte strings, written as lower-case base32 (RFC 4648, no padding).

use std::fmt;
use std::str::FromStr;

use data_encoding::Specification;
use minicbor::{Decode, Encode};
use serde::{Deserialize, Serialize};

/// Lower-case base32 without padding, the alphabet of everything that people may have to type.
pub(crate) fn base32() -> data_encoding::Encoding {
    let mut spec = Specification::new();
    spec.symbols.push_str("abcdefghijklmnopqrstuvwxyz234567");
    spec.translate.from.push_str("ABCDEFGHIJKLMNOPQRSTUVWXYZ");
    spec.translate.to.push_str("abcdefghijklmnopqrstuvwxyz");
    // The specification above is a constant and valid; the library's own table is the same alphabet.
    spec.encoding().unwrap_or(data_encoding::BASE32_NOPAD)
}

/// A text is not the identity that it should be.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("not a valid {kind}: expected {length} characters a-z, 2-7")]
pub struct ParseIdError {
    kind: &'static str,
    length: usize,
}

macro_rules! identity {
    ($(#[$doc:meta])* $name:ident, $bytes:literal, $kind:literal) => {
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Encode, Decode, Serialize, Deserialize)]
        #[cbor(transparent)]
        #[serde(try_from = "String", into = "String")]
        pub struct $name(#[cbor(with = "minicbor::bytes")] [u8; $bytes]);

        impl $name {
            /// Length in bytes.
            pub const LEN: usize = $bytes;

            /// Wraps bytes that the caller drew at random.
            pub const fn from_bytes(bytes: [u8; $bytes]) -> Self {
                Self(bytes)
            }

            /// The bytes.
            pub const fn as_bytes(&self) -> &[u8; $bytes] {
                &self.0
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&base32().encode(&self.0))
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, concat!(stringify!($name), "({})"), self)
            }
        }

        impl FromStr for $name {
            type Err = ParseIdError;

            fn from_str(text: &str) -> Result<Self, Self::Err> {
                let wrong = ParseIdError { kind: $kind, length: base32().encode_len($bytes) };
                let bytes = base32().decode(text.as_bytes()).map_err(|_| wrong.clone())?;
                Ok(Self(bytes.try_into().map_err(|_| wrong)?))
            }
        }

        impl TryFrom<String> for $name {
            type Error = ParseIdError;

            fn try_from(text: String) -> Result<Self, Self::Error> {
                text.parse()
            }
        }

        impl From<$name> for String {
            fn from(id: $name) -> Self {
                id.to_string()
            }
        }
    };
}

identity!(
    /// A network: a set of members that share addresses and a policy.
    NetworkId, 10, "network id"
);
identity!(
    /// A node within a network. A node that is in two networks has two of them.
    NodeId, 10, "node id"
);
identity!(
    /// A join key, without its secret.
    KeyId, 5, "join key id"
);
identity!(
    /// A life of a coordinator's database: another with each restore from a backup.
    EpochId, 10, "epoch id"
);
identity!(
    /// One run of an agent: drawn when the process starts, so that peers notice a restart.
    BootId, 10, "boot id"
);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_form_reads_back_in_either_case() {
        let id = NodeId::from_bytes([7; 10]);
        assert_eq!(id.to_string().len(), 16);
        assert_eq!(id.to_string().parse::<NodeId>(), Ok(id));
        assert_eq!(id.to_string().to_uppercase().parse::<NodeId>(), Ok(id));
    }

    #[test]
    fn wrong_text_names_what_was_expected() {
        let error = "robot-7".parse::<NodeId>().unwrap_err().to_string();
        assert_eq!(error, "not a valid node id: expected 16 characters a-z, 2-7");
        assert!("a".repeat(17).parse::<NodeId>().is_err());
    }
}
