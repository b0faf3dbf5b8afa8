//! TURN over a stream: where one message ends and the next begins (RFC 8489 section 6.2.2, RFC 8656 section 12.5), as a
//! server reads it.

use stun_types::message::MAGIC_COOKIE;

const STUN_HEADER: usize = 20;
const CHANNEL_HEADER: usize = 4;

/// Largest message of somebody who has no allocation yet: requests are far smaller.
const MAX_BEFORE: usize = 2048;

/// A message at the head of a stream.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::relay) struct Frame {
    /// Length of the message.
    pub(in crate::relay) len: usize,
    /// The same with the padding behind it.
    pub(in crate::relay) padded: usize,
    /// Whether it is ChannelData, which also begins as the methods of HTTP do.
    pub(in crate::relay) is_data: bool,
}

/// Where the next message begins can't be told, so the stream is of no more use.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(in crate::relay) enum NotTurn {
    #[error("neither STUN nor ChannelData")]
    Unknown,
    #[error("a message too long for somebody without an allocation")]
    TooLong,
}

/// The message at the head, as soon as its length is known; it may not be there as a whole yet.
pub(in crate::relay) fn head(stream: &[u8]) -> Result<Option<Frame>, NotTurn> {
    let Some(first) = stream.first() else { return Ok(None) };
    let header = match first {
        0x00..=0x03 => STUN_HEADER,
        0x40..=0x7f => CHANNEL_HEADER,
        _ => return Err(NotTurn::Unknown),
    };
    let &[_, _, high, low, ref rest @ ..] = stream else { return Ok(None) };
    let len = usize::from(u16::from_be_bytes([high, low]));
    if header == STUN_HEADER {
        let cookie = MAGIC_COOKIE.to_be_bytes();
        let seen = rest.get(..rest.len().min(cookie.len())).unwrap_or_default();
        if len % 4 != 0 || !cookie.starts_with(seen) {
            return Err(NotTurn::Unknown);
        }
    }
    let len = header + len;
    Ok(Some(Frame { len, padded: len.next_multiple_of(4), is_data: header == CHANNEL_HEADER }))
}

/// How many bytes at the head are whole messages.
pub(in crate::relay) fn whole(stream: &[u8], has_allocation: bool) -> Result<usize, NotTurn> {
    let mut at = 0;
    while let Some(frame) = head(stream.get(at..).unwrap_or_default())? {
        if !has_allocation && frame.is_data {
            return Err(NotTurn::Unknown);
        }
        if !has_allocation && frame.padded > MAX_BEFORE {
            return Err(NotTurn::TooLong);
        }
        if stream.len() - at < frame.padded {
            break;
        }
        at += frame.padded;
    }
    Ok(at)
}

/// Appends a datagram as a frame. Over UDP a sender may have padded ChannelData; here it is padded, and exactly so.
pub(in crate::relay) fn push(datagram: &[u8], stream: &mut Vec<u8>) {
    let announced = head(datagram).ok().flatten().map(|frame| frame.len);
    let len = announced.map_or(datagram.len(), |len| len.min(datagram.len()));
    stream.extend_from_slice(datagram.get(..len).unwrap_or_default());
    stream.resize(stream.len().next_multiple_of(4), 0);
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn binding() -> Vec<u8> {
        [&[0, 1, 0, 0, 0x21, 0x12, 0xa4, 0x42][..], &[7; 12]].concat()
    }

    #[test]
    fn the_length_is_known_from_the_first_bytes() {
        assert_eq!(head(&[]), Ok(None));
        assert_eq!(head(&[0x40, 1, 0]), Ok(None));
        let frame = |len, padded, is_data| Ok(Some(Frame { len, padded, is_data }));
        assert_eq!(head(&[0x40, 1, 0, 5]), frame(9, 12, true));
        assert_eq!(head(&[0x7f, 1, 0xff, 0xff]), frame(65_539, 65_540, true));
        assert_eq!(head(&binding()), frame(20, 20, false));
        assert_eq!(head(&binding()[..6]), frame(20, 20, false));
    }

    #[test]
    fn other_protocols_are_refused_at_once() {
        for bad in [&[0x16, 3, 1][..], &[0xd1; 9], &[0, 1, 0, 3], &[0, 1, 0, 0, 0x21, 0x13]] {
            assert_eq!(head(bad), Err(NotTurn::Unknown), "{bad:?}");
        }
        for bad in [&b"GET / HTTP/1.1"[..], b"SSH-2.0"] {
            assert_eq!(whole(bad, false), Err(NotTurn::Unknown), "{bad:?}");
        }
    }

    #[test]
    fn strangers_may_not_announce_much() {
        let long = [0, 1, 0x10, 0];
        assert_eq!(whole(&long, true), Ok(0));
        assert_eq!(whole(&long, false), Err(NotTurn::TooLong));
    }

    #[test]
    fn datagrams_are_padded_to_four_bytes_and_not_twice() {
        let mut stream = Vec::new();
        push(&[0x40, 1, 0, 1, 9], &mut stream);
        push(&[0x40, 1, 0, 1, 9, 0, 0, 0], &mut stream);
        push(&binding(), &mut stream);
        let padded = [0x40, 1, 0, 1, 9, 0, 0, 0];
        assert_eq!(stream, [&padded[..], &padded, &binding()].concat());
        assert_eq!(whole(&stream, true), Ok(stream.len()));
        assert_eq!(whole(&stream[..15], true), Ok(8));
    }

    proptest! {
        #[test]
        fn any_bytes_end_or_wait(bytes in proptest::collection::vec(any::<u8>(), 0..400)) {
            if let Ok(whole) = whole(&bytes, true) {
                prop_assert!(whole <= bytes.len() && whole % 4 == 0);
            }
        }
    }
}
