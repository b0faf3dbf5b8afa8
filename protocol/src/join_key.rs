//! The join key: all that a robot needs to find, verify and be admitted by its coordinator, as one line of text.
//!
//! ```text
//! ria1_ + base32( CBOR{urls, CA pin, key id, secret} || first 4 bytes of SHA-256 over what stands before )
//! ```
//!
//! It is a secret: its `Debug` form hides the secret, and there is deliberately no `Display`.

use std::fmt;

use minicbor::{Decode, Encode};
use zeroize::{Zeroize, ZeroizeOnDrop};

use crate::id::KeyId;
use crate::key_text::{self, Unreadable};
use crate::keys::SpkiHash;

const PREFIX: &str = "ria1_";

/// The 128-bit secret of a join key, or of a relay's key.
#[derive(Clone, PartialEq, Eq, Encode, Decode, Zeroize, ZeroizeOnDrop)]
#[cbor(transparent)]
pub struct JoinSecret(#[cbor(with = "minicbor::bytes")] [u8; 16]);

impl JoinSecret {
    /// Wraps bytes that the caller drew at random.
    pub const fn from_bytes(bytes: [u8; 16]) -> Self {
        Self(bytes)
    }

    /// SHA-256 of the secret, which is all that a coordinator stores. The secret has 128 random bits, so a plain
    /// digest can't be searched.
    pub fn digest(&self) -> [u8; 32] {
        let digest = ring::digest::digest(&ring::digest::SHA256, &self.0);
        let mut bytes = [0; 32];
        bytes.copy_from_slice(digest.as_ref());
        bytes
    }
}

impl fmt::Debug for JoinSecret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("JoinSecret(hidden)")
    }
}

/// A join key, decoded.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub struct JoinKey {
    /// Where the coordinator answers, best first: `https://host[:port]`.
    #[n(0)]
    pub urls: Vec<String>,
    /// SHA-256 of the public key of the coordinator's certification authority.
    #[n(1)]
    pub ca_pin: SpkiHash,
    /// Which key this is.
    #[n(2)]
    pub key_id: KeyId,
    /// What proves that the bearer may join.
    #[n(3)]
    pub secret: JoinSecret,
}

/// A text is no join key.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum ParseJoinKeyError {
    /// Nothing there.
    #[error("the join key is empty; paste the whole line that begins with ria1_")]
    Empty,
    /// It begins otherwise.
    #[error("this is no Ria join key: it must begin with ria1_")]
    NotAJoinKey,
    /// A newer format.
    #[error("this join key has a newer format than this version of Ria reads; update Ria on this machine")]
    NewerFormat,
    /// Characters are missing or altered.
    #[error(
        "the join key is damaged (its checksum does not match); copy the whole line again, without spaces"
    )]
    Damaged,
    /// The checksum is right and the content is not, so whoever made it is at fault.
    #[error("the join key names no usable coordinator address; ask the administrator for a new key")]
    NoUrl,
}

impl JoinKey {
    /// The text form. Treat it as a password.
    pub fn to_text(&self) -> String {
        key_text::write(PREFIX, &crate::message::to_bytes(self))
    }

    /// Reads the text form; surrounding white space, letter case and an editor's byte order mark do not matter.
    pub fn parse(text: &str) -> Result<Self, ParseJoinKeyError> {
        use ParseJoinKeyError::{Damaged, Empty, NewerFormat, NoUrl, NotAJoinKey};
        let content = key_text::read(PREFIX, text).map_err(|error| match error {
            Unreadable::Empty => Empty,
            Unreadable::Foreign => NotAJoinKey,
            Unreadable::Newer => NewerFormat,
            Unreadable::Damaged => Damaged,
        })?;
        let key: Self = crate::message::from_bytes(&content).map_err(|_| Damaged)?;
        if key.urls.is_empty() || key.urls.iter().any(|u| !u.starts_with("https://")) {
            return Err(NoUrl);
        }
        Ok(key)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key() -> JoinKey {
        JoinKey {
            urls: vec!["https://ria.lab.example".into(), "https://192.0.2.7:8443".into()],
            ca_pin: SpkiHash([3; 32]),
            key_id: KeyId::from_bytes([1, 2, 3, 4, 5]),
            secret: JoinSecret::from_bytes([9; 16]),
        }
    }

    #[test]
    fn text_reads_back_also_in_capitals_and_with_a_newline() {
        let text = key().to_text();
        assert_eq!(JoinKey::parse(&text), Ok(key()));
        assert_eq!(JoinKey::parse(&format!(" {}\n", text.to_uppercase())), Ok(key()));
        assert_eq!(JoinKey::parse(&format!("\u{feff}{text}\r\n")), Ok(key()), "as some editors save it");
    }

    #[test]
    fn every_single_lost_or_changed_character_is_noticed() {
        let text = key().to_text();
        for at in PREFIX.len()..text.len() {
            let mut changed = text.clone().into_bytes();
            changed[at] = if changed[at] == b'a' { b'b' } else { b'a' };
            let shorter = format!("{}{}", &text[..at], &text[at + 1..]);
            for bad in [String::from_utf8(changed).unwrap(), shorter, text[..at].to_owned()] {
                assert_eq!(JoinKey::parse(&bad), Err(ParseJoinKeyError::Damaged), "{bad}");
            }
        }
    }

    #[test]
    fn other_texts_get_their_own_advice() {
        assert_eq!(JoinKey::parse("  "), Err(ParseJoinKeyError::Empty));
        assert_eq!(JoinKey::parse("tskey-auth-x"), Err(ParseJoinKeyError::NotAJoinKey));
        assert_eq!(JoinKey::parse("ria2_abc"), Err(ParseJoinKeyError::NewerFormat));
        assert_eq!(JoinKey::parse("räa1_"), Err(ParseJoinKeyError::NotAJoinKey));
        let no_url = JoinKey { urls: vec!["http://plain.example".into()], ..key() };
        assert_eq!(JoinKey::parse(&no_url.to_text()), Err(ParseJoinKeyError::NoUrl));
    }

    #[test]
    fn debug_output_hides_the_secret() {
        assert!(!format!("{:?}", key()).contains("[9"));
    }
}
