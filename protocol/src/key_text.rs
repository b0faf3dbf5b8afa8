//! The text form of keys that people hand over: a prefix, base32, and a checksum against slips.
//!
//! ```text
//! prefix + base32( content || first 4 bytes of SHA-256 over the content )
//! ```

use crate::id::base32;

const CHECKSUM_LEN: usize = 4;
/// Far above any real key; keeps a wrong file from being decoded at length.
const MAX_TEXT: usize = 4096;

/// A text is no key of the wanted kind.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Unreadable {
    /// Nothing there.
    Empty,
    /// It begins otherwise.
    Foreign,
    /// Its prefix has a higher number.
    Newer,
    /// Characters are missing or altered.
    Damaged,
}

/// The text of a key.
pub(crate) fn write(prefix: &str, content: &[u8]) -> String {
    let bytes = [content, &checksum(content)].concat();
    format!("{prefix}{}", base32().encode(&bytes))
}

/// The content of a key; surrounding white space, letter case and an editor's byte order mark do not matter.
pub(crate) fn read(prefix: &str, text: &str) -> Result<Vec<u8>, Unreadable> {
    let text = text.trim_start_matches('\u{feff}').trim();
    if text.is_empty() {
        return Err(Unreadable::Empty);
    }
    let begins = text.get(..prefix.len()).filter(|p| p.eq_ignore_ascii_case(prefix));
    let Some(body) = begins.and_then(|p| text.get(p.len()..)) else {
        return Err(if is_newer(prefix, text) { Unreadable::Newer } else { Unreadable::Foreign });
    };
    if body.len() > MAX_TEXT {
        return Err(Unreadable::Damaged);
    }
    let mut bytes = base32().decode(body.as_bytes()).map_err(|_| Unreadable::Damaged)?;
    let at = bytes.len().checked_sub(CHECKSUM_LEN).ok_or(Unreadable::Damaged)?;
    let sum = bytes.split_off(at);
    if sum == checksum(&bytes) { Ok(bytes) } else { Err(Unreadable::Damaged) }
}

fn checksum(bytes: &[u8]) -> [u8; CHECKSUM_LEN] {
    let digest = ring::digest::digest(&ring::digest::SHA256, bytes);
    let mut sum = [0; CHECKSUM_LEN];
    sum.copy_from_slice(&digest.as_ref()[..CHECKSUM_LEN]);
    sum
}

/// The same prefix with a higher number: `ria2_…` for `ria1_…`.
fn is_newer(prefix: &str, text: &str) -> bool {
    let kind = prefix.trim_end_matches('_').trim_end_matches(|c: char| c.is_ascii_digit());
    let Some((head, _)) = text.split_once('_') else { return false };
    let head = head.to_ascii_lowercase();
    head.strip_prefix(kind).is_some_and(|n| n.parse::<u32>().is_ok_and(|n| n > 1))
}
