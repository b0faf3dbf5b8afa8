//! Secrets that are handed out once and kept as digests: API tokens, links.

use data_encoding::BASE32_NOPAD;
use ria_protocol::id::KeyId;

/// Bytes of a secret: more than anybody can guess.
const SECRET: usize = 20;
/// How tokens begin, so that people and scanners know one when they see it.
const TOKEN_PREFIX: &str = "riat_";

/// SHA-256.
pub fn digest(bytes: &[u8]) -> [u8; 32] {
    let mut digest = [0; 32];
    digest.copy_from_slice(ring::digest::digest(&ring::digest::SHA256, bytes).as_ref());
    digest
}

/// HMAC-SHA-256 of what a secret is derived for.
pub fn derived(key: &[u8], purpose: &str, of: &[u8]) -> [u8; 32] {
    let key = ring::hmac::Key::new(ring::hmac::HMAC_SHA256, key);
    let mut context = ring::hmac::Context::with_key(&key);
    context.update(purpose.as_bytes());
    context.update(&[0]);
    context.update(of);
    let mut out = [0; 32];
    out.copy_from_slice(context.sign().as_ref());
    out
}

/// Whether two texts are the same, in a time that tells nothing but their lengths.
pub fn same(a: &[u8], b: &[u8]) -> bool {
    a.len() == b.len() && a.iter().zip(b).fold(0, |differs, (a, b)| differs | (a ^ b)) == 0
}

/// A fresh secret in letters and digits.
pub fn fresh() -> String {
    base32(&crate::random::bytes::<SECRET>())
}

/// In lower-case letters and digits.
pub fn base32(bytes: &[u8]) -> String {
    BASE32_NOPAD.encode(bytes).to_ascii_lowercase()
}

/// A token, complete; shown once.
pub fn token_text(id: KeyId, secret: &str) -> String {
    format!("{TOKEN_PREFIX}{id}_{secret}")
}

/// The identity of a token and the digest of its secret.
pub fn read_token(text: &str) -> Option<(KeyId, [u8; 32])> {
    let (id, secret) = text.strip_prefix(TOKEN_PREFIX)?.split_once('_')?;
    Some((id.parse().ok()?, digest(secret.as_bytes())))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_is_read_as_it_was_written_and_anything_else_is_none() {
        let (id, secret) = (KeyId::from_bytes([7; 5]), fresh());
        assert_eq!(secret.len(), 32);
        let text = token_text(id, &secret);
        assert_eq!(read_token(&text), Some((id, digest(secret.as_bytes()))));
        for other in ["", "riat_", "riat__", "ria1_abc", &text[1..], &text.replace('_', "-")] {
            assert_eq!(read_token(other), None, "{other:?}");
        }
        assert_ne!(read_token(&format!("{text}a")), read_token(&text));
    }

    #[test]
    fn comparison_and_derivation_tell_apart_what_differs() {
        assert!(same(b"abc", b"abc") && !same(b"abc", b"abd") && !same(b"abc", b"ab") && same(b"", b""));
        assert_ne!(derived(b"k", "a", b"x"), derived(b"k", "b", b"x"));
        assert_ne!(derived(b"k", "a", b"x"), derived(b"l", "a", b"x"));
    }
}
