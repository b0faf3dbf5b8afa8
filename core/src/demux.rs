//! What a datagram on the one UDP port is, by its first bytes.
//!
//! ```text
//! first byte   rest                               protocol
//! 1..4         then three zero bytes              WireGuard
//! 0x00..0x03   magic cookie in bytes 4 to 7       STUN and TURN   (RFC 8489 section 5)
//! 0x40..0x4f                                      TURN ChannelData (RFC 8656 section 12.4)
//! 0xd1                                            Ria's probes
//! ```
//!
//! The ranges are those of RFC 7983; a STUN message that begins with 1 has a second byte that is not zero.

use crate::path::probe;
use crate::stun;

/// The shortest WireGuard message: an empty data message.
const MIN_WIREGUARD: usize = 32;

/// What a datagram is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    /// WireGuard handshake initiation: finds its session by the sender's key.
    Initiation,
    /// Other WireGuard message: finds its session by the receiver index.
    Session {
        /// Upper 24 bits of the receiver index.
        slot: u32,
        /// Whether it is a data message.
        data: bool,
    },
    /// STUN or TURN, ChannelData included.
    Relay,
    /// One of our own probes.
    Probe,
    /// Anything else.
    Unknown,
}

/// Looks at the first bytes of a datagram.
pub(crate) fn classify(datagram: &[u8]) -> Kind {
    match datagram {
        [probe::FIRST_BYTE, ..] => Kind::Probe,
        [kind @ 1..=4, 0, 0, 0, ..] if datagram.len() >= MIN_WIREGUARD => wireguard(*kind, datagram),
        _ if stun::is_stun_or_channel(datagram) => Kind::Relay,
        _ => Kind::Unknown,
    }
}

fn wireguard(kind: u8, datagram: &[u8]) -> Kind {
    let index_at = match kind {
        1 if datagram.len() == 148 => return Kind::Initiation,
        2 if datagram.len() == 92 => 8,
        3 if datagram.len() == 64 => 4,
        4 => 4,
        _ => return Kind::Unknown,
    };
    let index = datagram.get(index_at..index_at + 4).and_then(|bytes| bytes.try_into().ok());
    match index.map(u32::from_le_bytes) {
        Some(index) => Kind::Session { slot: index >> 8, data: kind == 4 },
        None => Kind::Unknown,
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn protocols_are_told_apart() {
        let mut data = vec![0; 40];
        data[0] = 4;
        data[4..8].copy_from_slice(&0x0012_3456u32.to_le_bytes());
        assert_eq!(classify(&data), Kind::Session { slot: 0x1234, data: true });
        let mut initiation = vec![0; 148];
        initiation[0] = 1;
        assert_eq!(classify(&initiation), Kind::Initiation);
        assert_eq!(classify(&initiation[..147]), Kind::Unknown);
        // A STUN binding response of 12 bytes.
        let stun = [&[1, 1, 0, 12, 0x21, 0x12, 0xa4, 0x42][..], &[0; 24]].concat();
        assert_eq!(classify(&stun), Kind::Relay);
        assert_eq!(classify(&[0x40, 0, 0, 4, 1, 2, 3, 4]), Kind::Relay);
        assert_eq!(classify(&[0x40, 0, 0, 9, 1, 2, 3, 4]), Kind::Unknown);
        assert_eq!(classify(&[0xd1; 84]), Kind::Probe);
        assert_eq!(classify(&[]), Kind::Unknown);
        assert_eq!(classify(&[0x21; 60]), Kind::Unknown);
    }

    proptest! {
        #[test]
        fn any_bytes_have_a_kind(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            let kind = classify(&bytes);
            prop_assert!(bytes.len() >= 4 || matches!(kind, Kind::Unknown | Kind::Probe));
        }
    }
}
