//! Endpoints that a participant tells of (SEDP, section 8.5.4): what its programs read and write.

use super::{
    DATA, GONE, HEADER, INFO_DST, INFO_REPLY, INFO_REPLY_IP4, INFO_TS, MAX_SUBMESSAGES, PAD, PID_STATUS_INFO,
    Parameters, Submessage, VENDORS, number, sender,
};

/// The writers of these announcements (section 9.3.1.5).
pub(super) const PUBLICATIONS: [u8; 4] = [0x00, 0x00, 0x03, 0xc2];
pub(super) const SUBSCRIPTIONS: [u8; 4] = [0x00, 0x00, 0x04, 0xc2];

/// HEARTBEAT and ACKNACK stand beside the announcements (section 9.4.5.1.1).
const ACKNACK: u8 = 0x06;
pub(super) const HEARTBEAT: u8 = 0x07;
const GAP: u8 = 0x08;

const PID_TOPIC_NAME: u16 = 0x0005;
const PID_ENDPOINT_GUID: u16 = 0x005a;
const PID_KEY_HASH: u16 = 0x0070;

/// What all of the network knows an endpoint by.
pub(crate) type Guid = [u8; 16];

/// Whether something is written or read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Direction {
    Writer,
    Reader,
}

/// A participant says that it has an endpoint, or has it no longer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Endpoint<'a> {
    pub(crate) guid: Guid,
    pub(crate) direction: Direction,
    /// The topic's name in DDS; `None` when the endpoint goes.
    pub(crate) topic: Option<&'a str>,
}

/// The endpoints in a message, of the participant that sent it.
pub(crate) fn endpoints(message: &[u8]) -> impl Iterator<Item = Endpoint<'_>> {
    let participant = sender(message);
    let mut rest = message.get(HEADER..).filter(|_| participant.is_some()).unwrap_or_default();
    (0..MAX_SUBMESSAGES)
        .map_while(move |_| {
            let submessage = Submessage::take(&mut rest)?;
            match submessage.kind {
                PAD
                | INFO_TS
                | INFO_DST
                | INFO_REPLY
                | INFO_REPLY_IP4
                | ACKNACK
                | HEARTBEAT
                | GAP
                | VENDORS.. => Some(None),
                DATA => Some(submessage.endpoint()),
                // Another sender's, or user data.
                _ => None,
            }
        })
        .flatten()
        .filter(move |endpoint| {
            participant.is_some_and(|participant| endpoint.guid.starts_with(&participant))
        })
}

impl<'a> Submessage<'a> {
    fn endpoint(&self) -> Option<Endpoint<'a>> {
        let writer: [u8; 4] = *self.body.get(8..)?.first_chunk()?;
        let direction = match writer {
            PUBLICATIONS => Direction::Writer,
            SUBSCRIPTIONS => Direction::Reader,
            _ => return None,
        };
        let to_qos = number(self.body.get(2..)?, self.is_little_endian())?;
        let mut rest = self.body.get(4 + usize::from(to_qos)..)?;
        let (mut is_gone, mut key) = (false, None);
        if self.has(Self::INLINE_QOS) {
            let mut parameters = Parameters::of(rest, self.is_little_endian());
            while let Some((id, value)) = parameters.next() {
                match id {
                    PID_STATUS_INFO => {
                        let status = value.first_chunk::<4>().map(|bytes| u32::from_be_bytes(*bytes));
                        is_gone = status.is_some_and(|status| status & GONE != 0);
                    }
                    PID_KEY_HASH => key = value.first_chunk::<16>().copied(),
                    _ => {}
                }
            }
            rest = Parameters::of(rest, self.is_little_endian()).end()?;
        }
        let (guid, topic) = listed(rest);
        let topic = if is_gone { None } else { Some(topic?) };
        Some(Endpoint { guid: guid.or(key.filter(|_| is_gone))?, direction, topic })
    }
}

/// What the payload says.
fn listed(payload: &[u8]) -> (Option<Guid>, Option<&str>) {
    let (mut guid, mut topic) = (None, None);
    let Some((encapsulation, list)) = payload.split_first_chunk::<4>() else { return (guid, topic) };
    let little = match encapsulation {
        [0, 2, ..] => false,
        [0, 3, ..] => true,
        _ => return (guid, topic),
    };
    let mut parameters = Parameters::of(list, little);
    while let Some((id, value)) = parameters.next() {
        match id {
            PID_ENDPOINT_GUID => guid = value.first_chunk::<16>().copied(),
            PID_TOPIC_NAME => topic = text(value, little),
            _ => {}
        }
        if guid.is_some() && topic.is_some() {
            break;
        }
    }
    (guid, topic)
}

/// A string: its length with the zero at its end, and that.
fn text(value: &[u8], little: bool) -> Option<&str> {
    let (len, rest) = value.split_first_chunk::<4>()?;
    let len = if little { u32::from_le_bytes(*len) } else { u32::from_be_bytes(*len) };
    let bytes = rest.get(..usize::try_from(len).ok()?.checked_sub(1)?)?;
    std::str::from_utf8(bytes).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    const PARTICIPANT: [u8; 12] = [1, 15, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12];

    fn guid(number: u8) -> Guid {
        let mut guid = [0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, number, 4];
        guid[..12].copy_from_slice(&PARTICIPANT);
        guid
    }

    fn message(parts: &[Vec<u8>]) -> Vec<u8> {
        let mut message = b"RTPS\x02\x03\x01\x0f".to_vec();
        message.extend(PARTICIPANT);
        message.extend(parts.concat());
        message
    }

    fn data(writer: [u8; 4], flags: u8, rest: &[u8]) -> Vec<u8> {
        let len = u16::try_from(20 + rest.len()).unwrap().to_le_bytes();
        let mut data = vec![0x15, flags | 1, len[0], len[1], 0, 0, 16, 0, 0, 0, 0, 0];
        data.extend(writer);
        data.extend([0, 0, 0, 0, 1, 0, 0, 0]);
        data.extend(rest);
        data
    }

    fn parameter(id: u16, value: &[u8]) -> Vec<u8> {
        let mut parameter = id.to_le_bytes().to_vec();
        let padded = value.len().next_multiple_of(4);
        parameter.extend(u16::try_from(padded).unwrap().to_le_bytes());
        parameter.extend(value);
        parameter.resize(4 + padded, 0);
        parameter
    }

    fn announced(topic: &str, number: u8) -> Vec<u8> {
        let mut name = u32::try_from(topic.len() + 1).unwrap().to_le_bytes().to_vec();
        name.extend(topic.bytes().chain([0]));
        let list =
            [vec![0, 3, 0, 0], parameter(0x005a, &guid(number)), parameter(0x0005, &name), vec![1, 0, 0, 0]];
        list.concat()
    }

    #[test]
    fn readers_and_writers_are_told_with_their_topics() {
        let parts = [
            vec![0x0e, 1, 12, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0],
            data(SUBSCRIPTIONS, 4, &announced("rt/cmd_vel", 1)),
            data(PUBLICATIONS, 4, &announced("rt/tf", 2)),
            vec![0x07, 1, 4, 0, 0, 0, 0, 0],
        ];
        let whole = message(&parts);
        let found: Vec<_> = endpoints(&whole).collect();
        assert_eq!(
            found,
            [
                Endpoint { guid: guid(1), direction: Direction::Reader, topic: Some("rt/cmd_vel") },
                Endpoint { guid: guid(2), direction: Direction::Writer, topic: Some("rt/tf") },
            ]
        );
        for len in 0..whole.len() {
            assert!(endpoints(&whole[..len]).count() <= 2);
        }
    }

    #[test]
    fn an_endpoint_that_goes_is_known_by_its_key() {
        let qos = [parameter(0x0070, &guid(3)), parameter(0x0071, &[0, 0, 0, 3]), vec![1, 0, 0, 0]].concat();
        let message = message(&[data(PUBLICATIONS, 2, &qos)]);
        let gone = Endpoint { guid: guid(3), direction: Direction::Writer, topic: None };
        assert_eq!(endpoints(&message).collect::<Vec<_>>(), [gone]);
    }

    #[test]
    fn nobody_speaks_for_another_participant_and_user_data_is_passed_over() {
        let mut foreign = message(&[data(PUBLICATIONS, 4, &announced("rt/tf", 2))]);
        foreign[8] ^= 1;
        assert_eq!(endpoints(&foreign).count(), 0);
        let user = message(&[data([0, 0, 0x12, 3], 4, &announced("rt/tf", 2))]);
        assert_eq!(endpoints(&user).count(), 0);
        assert_eq!(endpoints(b"no RTPS at all, but long enough").count(), 0);
    }
}
