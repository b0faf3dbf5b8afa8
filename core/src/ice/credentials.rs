//! User name fragments and passwords of ICE (RFC 8445, section 5.3), which nobody needs to send.
//!
//! Both ends of a pair derive them, for each direction, from the Diffie-Hellman secret of their two static keys and the
//! runs that they are in: HKDF-SHA256 (RFC 5869). What travels is the boot id, as before. So they are the pair's own:
//! neither another member nor the coordinator can make a check that is taken, and with a new run come new ones. An agent
//! that only begins anew in the same run keeps them; that needs no signalling, so it also works while the coordinator
//! is away.

use std::fmt;

use ria_protocol::id::BootId;
use ria_protocol::keys::WgPublicKey;
use ring::hkdf;
use zeroize::Zeroize;

/// Length of a user name fragment that is derived: 48 bits (24 are asked for).
pub const UFRAG_LEN: usize = 8;

/// Length of a password that is derived: 144 bits (128 are asked for).
const PASSWORD_LEN: usize = 24;

/// Characters of both: ice-char of RFC 8839, section 5.4.
const ICE_CHARS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";

/// What one end is named by, and what checks that are sent to it are keyed with.
#[derive(Clone, PartialEq, Eq)]
pub struct Credentials {
    /// User name fragment.
    pub ufrag: String,
    /// Password.
    pub password: String,
}

impl fmt::Debug for Credentials {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Credentials({})", self.ufrag)
    }
}

/// A run of a node.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Run<'a> {
    pub(crate) key: &'a WgPublicKey,
    pub(crate) boot: BootId,
}

/// The secret of a pair from which its credentials come.
pub(crate) struct Root([u8; 32]);

impl Drop for Root {
    fn drop(&mut self) {
        self.0.zeroize();
    }
}

struct Length(usize);

impl hkdf::KeyType for Length {
    fn len(&self) -> usize {
        self.0
    }
}

impl Root {
    /// From what X25519 gave, with a context that both ends write the same way.
    pub(crate) fn derive(shared: &[u8], context: &[&[u8]]) -> Option<Self> {
        let mut root = [0; 32];
        hkdf::Salt::new(hkdf::HKDF_SHA256, b"ria ice v1")
            .extract(shared)
            .expand(context, Length(32))
            .and_then(|okm| okm.fill(&mut root))
            .ok()?;
        Some(Self(root))
    }

    /// The credentials of `owner` towards `other`.
    pub(crate) fn credentials(&self, owner: Run<'_>, other: Run<'_>) -> Option<Credentials> {
        let mut bytes = [0; (UFRAG_LEN + PASSWORD_LEN) / 4 * 3];
        let context =
            [&b"credentials"[..], &owner.key.0, owner.boot.as_bytes(), &other.key.0, other.boot.as_bytes()];
        hkdf::Prk::new_less_safe(hkdf::HKDF_SHA256, &self.0)
            .expand(&context, Length(bytes.len()))
            .and_then(|okm| okm.fill(&mut bytes))
            .ok()?;
        let mut ufrag = ice_chars(&bytes);
        let password = ufrag.split_off(UFRAG_LEN);
        Some(Credentials { ufrag, password })
    }
}

/// Three bytes as four characters, over and over.
fn ice_chars(bytes: &[u8]) -> String {
    let groups = bytes.chunks_exact(3).map(|group| {
        let word = group.iter().fold(0u32, |word, byte| word << 8 | u32::from(*byte));
        [18, 12, 6, 0].map(|shift| ICE_CHARS[(word >> shift) as usize % ICE_CHARS.len()])
    });
    groups.flatten().map(char::from).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn run(key: &WgPublicKey, boot: u8) -> Run<'_> {
        Run { key, boot: BootId::from_bytes([boot; 10]) }
    }

    #[test]
    fn each_end_and_each_run_has_its_own() {
        let (a, b) = (WgPublicKey([1; 32]), WgPublicKey([2; 32]));
        let root = Root::derive(&[7; 32], &[b"network"]).unwrap();
        let own = root.credentials(run(&a, 1), run(&b, 2)).unwrap();
        assert_eq!((own.ufrag.len(), own.password.len()), (UFRAG_LEN, PASSWORD_LEN));
        assert_eq!(root.credentials(run(&a, 1), run(&b, 2)).unwrap(), own, "both ends derive the same");
        let others = [
            root.credentials(run(&b, 2), run(&a, 1)),
            root.credentials(run(&a, 3), run(&b, 2)),
            root.credentials(run(&a, 1), run(&b, 3)),
            Root::derive(&[8; 32], &[b"network"]).unwrap().credentials(run(&a, 1), run(&b, 2)),
            Root::derive(&[7; 32], &[b"other"]).unwrap().credentials(run(&a, 1), run(&b, 2)),
        ];
        for other in others.into_iter().flatten() {
            assert!(other.ufrag != own.ufrag && other.password != own.password);
        }
        assert!(!format!("{own:?}").contains(&own.password));
    }
}
