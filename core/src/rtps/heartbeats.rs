//! Heartbeats of discovery: what a participant's writer of endpoints has to offer (HEARTBEAT, RTPS section 9.4.5.6).

use super::endpoints::{HEARTBEAT, PUBLICATIONS, SUBSCRIPTIONS};
use super::{GuidPrefix, HEADER, INFO_DST, INFO_TS, MAX_SUBMESSAGES, PAD, Submessage, VENDORS, sender};

/// What a heartbeat says, but for its number.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Heartbeat<'a> {
    pub(crate) participant: GuidPrefix,
    /// Flags, such as whether an answer is wanted.
    pub(crate) flags: u8,
    /// Reader, writer, and the first and last sample that there is.
    pub(crate) content: &'a [u8; 24],
}

/// The heartbeat about endpoints in a message that carries nothing else; `None` for every other message.
pub(crate) fn heartbeat(message: &[u8]) -> Option<Heartbeat<'_>> {
    let participant = sender(message)?;
    let mut rest = message.get(HEADER..)?;
    let mut found = None;
    for _ in 0..MAX_SUBMESSAGES {
        if rest.is_empty() {
            return found;
        }
        let submessage = Submessage::take(&mut rest)?;
        match submessage.kind {
            PAD | INFO_TS | INFO_DST | VENDORS.. => {}
            HEARTBEAT if found.is_none() => {
                let content: &[u8; 24] = submessage.body.first_chunk()?;
                let writer: &[u8; 4] = content.get(4..)?.first_chunk()?;
                if ![PUBLICATIONS, SUBSCRIPTIONS].contains(writer) {
                    return None;
                }
                found = Some(Heartbeat { participant, flags: submessage.flags, content });
            }
            _ => return None,
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    fn message(writer: [u8; 4], last: u8, count: u8, more: &[u8]) -> Vec<u8> {
        let mut message = b"RTPS\x02\x03\x01\x0f".to_vec();
        message.extend([7; 12]);
        message.extend([INFO_DST, 1, 12, 0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12]);
        message.extend([HEARTBEAT, 1, 28, 0, 0, 0, 3, 0xc7]);
        message.extend(writer);
        message.extend([0, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, last, 0, 0, 0, count, 0, 0, 0]);
        message.extend(more);
        message
    }

    #[test]
    fn the_number_of_a_heartbeat_does_not_matter_and_what_it_offers_does() {
        let (first, again) = (message(PUBLICATIONS, 9, 1, &[]), message(PUBLICATIONS, 9, 2, &[]));
        let read = heartbeat(&first).unwrap();
        assert_eq!((read.participant, Some(read)), ([7; 12], heartbeat(&again)));
        let news = message(PUBLICATIONS, 10, 3, &[]);
        assert_ne!(heartbeat(&news), Some(read));
        for len in 0..first.len() {
            assert_ne!(heartbeat(&first[..len]), Some(read));
        }
    }

    #[test]
    fn what_others_write_and_what_carries_more_is_none_of_them() {
        assert!(heartbeat(&message([0, 0, 0x12, 3], 9, 1, &[])).is_none());
        let with_data = message(PUBLICATIONS, 9, 1, &[0x15, 1, 4, 0, 0, 0, 0, 0]);
        assert!(heartbeat(&with_data).is_none());
        assert!(heartbeat(b"no RTPS at all, but long enough").is_none());
    }
}
