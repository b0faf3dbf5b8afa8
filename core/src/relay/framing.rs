//! TURN over a stream: where one message ends and the next begins (RFC 8489 section 6.2.2, RFC 8656 section 12.5).
//!
//! A STUN message says its own length, which is a multiple of four. ChannelData says the length of its payload and is
//! padded to a multiple of four; the padding is not part of it. Nothing else belongs on such a stream.

use crate::stun::{Form, classify};

const STUN_HEADER: usize = 20;
const CHANNEL_HEADER: usize = 4;

/// The longest frame: a ChannelData header and the longest payload that it can announce, padded.
pub const MAX_FRAME: usize = CHANNEL_HEADER + 0x1_0000;

/// What came is neither STUN nor ChannelData, and where the next message begins can't be told.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("what came on the stream is not TURN")]
pub struct NotTurn;

/// How much padding follows a datagram of this length.
pub const fn padding(len: usize) -> usize {
    len.wrapping_neg() % 4
}

/// Appends a datagram as a frame.
pub fn push(datagram: &[u8], stream: &mut Vec<u8>) {
    stream.extend_from_slice(datagram);
    stream.resize(stream.len() + padding(datagram.len()), 0);
}

/// Cuts the first datagram off what has come so far; leaves it when it is not whole yet.
pub fn take<'a>(stream: &mut &'a [u8]) -> Result<Option<&'a [u8]>, NotTurn> {
    let Some((first, rest)) = stream.split_first() else { return Ok(None) };
    let header = match first {
        0x00..=0x03 => STUN_HEADER,
        0x40..=0x4f => CHANNEL_HEADER,
        _ => return Err(NotTurn),
    };
    let Some([_, high, low]) = rest.first_chunk() else { return Ok(None) };
    let len = header + usize::from(u16::from_be_bytes([*high, *low]));
    let Some((datagram, behind)) = stream.split_at_checked(len) else { return Ok(None) };
    let matches_form = match classify(datagram) {
        Some(Form::Message) => header == STUN_HEADER,
        Some(Form::ChannelData { .. }) => header == CHANNEL_HEADER,
        None => false,
    };
    if !matches_form {
        return Err(NotTurn);
    }
    let Some(behind) = behind.get(padding(len)..) else { return Ok(None) };
    *stream = behind;
    Ok(Some(datagram))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::relay::channel_header;

    fn channel_data(len: usize) -> Vec<u8> {
        let header = channel_header(0x4001, len).unwrap();
        header.into_iter().chain((0..len).map(|n| n as u8)).collect()
    }

    fn binding() -> Vec<u8> {
        [&[0, 1, 0, 0, 0x21, 0x12, 0xa4, 0x42][..], &[7; 12]].concat()
    }

    #[test]
    fn frames_come_out_as_they_went_in_however_they_are_cut() {
        let datagrams = [channel_data(1), binding(), channel_data(0), channel_data(1263), channel_data(8)];
        let mut stream = Vec::new();
        datagrams.iter().for_each(|datagram| push(datagram, &mut stream));
        assert_eq!(stream.len() % 4, 0);
        for step in [1, 3, 7, 500, stream.len()] {
            let (mut held, mut seen) = (Vec::new(), Vec::new());
            for piece in stream.chunks(step) {
                held.extend_from_slice(piece);
                let mut rest = &held[..];
                while let Some(datagram) = take(&mut rest).unwrap() {
                    seen.push(datagram.to_vec());
                }
                held = rest.to_vec();
            }
            assert_eq!(seen, datagrams, "in pieces of {step}");
            assert!(held.is_empty());
        }
    }

    #[test]
    fn what_is_not_turn_is_refused_at_once() {
        for bad in [&b"SSH-2.0-OpenSSH_9.6"[..], &[4; 148], &[0xd1; 20], &[0, 1, 0, 0].repeat(5)] {
            assert_eq!(take(&mut &bad[..]), Err(NotTurn), "{bad:?}");
        }
    }

    proptest! {
        #[test]
        fn any_bytes_end_or_wait(bytes in proptest::collection::vec(any::<u8>(), 0..400)) {
            let mut rest = &bytes[..];
            while let Ok(Some(datagram)) = take(&mut rest) {
                prop_assert!(classify(datagram).is_some());
            }
            prop_assert!(rest.len() <= bytes.len());
        }
    }
}
