//! The file format of a backup: encrypted with a passphrase, or plain where that is wanted.
//!
//! ```text
//! "ria-backup-1\n" | kind (1 byte) | rounds (4 bytes) | salt (16 bytes) | content, encrypted | tag (16 bytes)
//! ```
//!
//! Kind 1: ChaCha20-Poly1305 (RFC 8439) with a key by PBKDF2-HMAC-SHA256 (RFC 8018) from passphrase, salt and rounds; the
//! salt is drawn for each file, so the key is used once and the nonce may be zero. What stands before the content is
//! authenticated with it. Kind 0: plain, followed by its SHA-256 in the place of the tag.

use std::num::NonZeroU32;

use ring::aead::{Aad, CHACHA20_POLY1305, LessSafeKey, NONCE_LEN, Nonce, UnboundKey};
use ring::digest::{SHA256, digest};
use ring::pbkdf2::{PBKDF2_HMAC_SHA256, derive};
use zeroize::Zeroizing;

use crate::random;

const MAGIC: &[u8] = b"ria-backup-1\n";
const SALT: usize = 16;
const HEADER: usize = MAGIC.len() + 1 + 4 + SALT;
const PLAIN: u8 = 0;
const ENCRYPTED: u8 = 1;
/// What OWASP recommends for this function (2023); a third of a second.
const ROUNDS: u32 = 600_000;
/// A file that asks for more is no backup but an attempt to keep us busy.
const MAX_ROUNDS: u32 = 20_000_000;

/// Protects a backup; wiped from memory after use.
pub type Passphrase = Zeroizing<String>;

/// A backup can't be read.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum OpenError {
    #[error("it is no backup of ria-coordinator, or one of a newer version")]
    Foreign,
    #[error("it is encrypted; name the file with its passphrase: --passphrase-file")]
    PassphraseMissing,
    #[error("the passphrase is wrong, or the file is damaged or cut short")]
    WrongOrDamaged,
    #[error("the file is damaged or cut short")]
    Damaged,
}

/// The bytes of a backup file with this content.
pub fn seal(content: &[u8], passphrase: Option<&Passphrase>) -> Result<Vec<u8>, OpenError> {
    let kind = if passphrase.is_some() { ENCRYPTED } else { PLAIN };
    let salt = random::bytes::<SALT>();
    let mut file = [MAGIC, &[kind], &ROUNDS.to_be_bytes(), &salt].concat();
    let mut body = Zeroizing::new(content.to_vec());
    match passphrase {
        None => body.extend_from_slice(digest(&SHA256, content).as_ref()),
        Some(passphrase) => {
            let (key, nonce) = key(passphrase, &salt, ROUNDS)?;
            key.seal_in_place_append_tag(nonce, Aad::from(&file), &mut *body)
                .map_err(|_| OpenError::Damaged)?;
        }
    }
    file.extend_from_slice(&body);
    Ok(file)
}

/// The content of a backup file.
pub fn open(file: &[u8], passphrase: Option<&Passphrase>) -> Result<Zeroizing<Vec<u8>>, OpenError> {
    if !file.starts_with(MAGIC) {
        return Err(OpenError::Foreign);
    }
    let (header, body) = file.split_at_checked(HEADER).ok_or(OpenError::Damaged)?;
    let rounds: [u8; 4] = header[MAGIC.len() + 1..][..4].try_into().map_err(|_| OpenError::Damaged)?;
    let rounds = u32::from_be_bytes(rounds);
    match header[MAGIC.len()] {
        PLAIN => {
            let end = body.len().checked_sub(32).ok_or(OpenError::Damaged)?;
            let (content, sum) = body.split_at(end);
            let whole = digest(&SHA256, content).as_ref() == sum;
            if whole { Ok(Zeroizing::new(content.to_vec())) } else { Err(OpenError::Damaged) }
        }
        ENCRYPTED if rounds <= MAX_ROUNDS => {
            let passphrase = passphrase.ok_or(OpenError::PassphraseMissing)?;
            let (key, nonce) = key(passphrase, &header[HEADER - SALT..], rounds)?;
            let mut body = Zeroizing::new(body.to_vec());
            let opened = key.open_in_place(nonce, Aad::from(header), &mut body);
            let length = opened.map_err(|_| OpenError::WrongOrDamaged)?.len();
            body.truncate(length);
            Ok(body)
        }
        _ => Err(OpenError::Foreign),
    }
}

fn key(passphrase: &Passphrase, salt: &[u8], rounds: u32) -> Result<(LessSafeKey, Nonce), OpenError> {
    let rounds = NonZeroU32::new(rounds).ok_or(OpenError::Damaged)?;
    let mut bytes = Zeroizing::new([0; 32]);
    derive(PBKDF2_HMAC_SHA256, rounds, salt, passphrase.as_bytes(), &mut *bytes);
    let key = UnboundKey::new(&CHACHA20_POLY1305, &*bytes).map_err(|_| OpenError::Damaged)?;
    Ok((LessSafeKey::new(key), Nonce::assume_unique_for_key([0; NONCE_LEN])))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_sealed_opens_whole_and_with_its_passphrase_only() {
        let (right, wrong) = (Zeroizing::new("correct horse".to_owned()), Zeroizing::new("horse".to_owned()));
        let file = seal(b"all there is", Some(&right)).unwrap();
        assert_eq!(open(&file, Some(&right)).unwrap().as_slice(), b"all there is");
        assert_eq!(open(&file, Some(&wrong)), Err(OpenError::WrongOrDamaged));
        assert_eq!(open(&file, None), Err(OpenError::PassphraseMissing));
        assert_eq!(open(&file[..file.len() - 1], Some(&right)), Err(OpenError::WrongOrDamaged));
        let mut changed = file.clone();
        changed[HEADER] ^= 1;
        assert_eq!(open(&changed, Some(&right)), Err(OpenError::WrongOrDamaged));
        assert!(!file.windows(3).any(|part| part == b"all"));
    }

    #[test]
    fn every_cut_and_every_changed_byte_of_a_plain_file_shows() {
        let file = seal(b"content", None).unwrap();
        assert_eq!(open(&file, None).unwrap().as_slice(), b"content");
        for at in 0..file.len() {
            assert!(open(&file[..at], None).is_err());
            // Rounds and salt mean nothing here.
            if !(MAGIC.len() + 1..HEADER).contains(&at) {
                let mut changed = file.clone();
                changed[at] ^= 0x80;
                assert!(open(&changed, None).is_err(), "byte {at}");
            }
        }
    }
}
