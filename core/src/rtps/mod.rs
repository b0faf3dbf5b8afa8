//! Reads as much of RTPS (the wire protocol of DDS, OMG formal/2022-04-01) as discovery needs: who announces itself.
//!
//! ```text
//!  message      "RTPS" version:2 vendor:2 guidPrefix:12  submessage...
//!  submessage   kind flags length:2  body                       (section 9.4.1)
//!  DATA         extraFlags:2 octetsToInlineQos:2 reader:4 writer:4 sequenceNumber:8 [inlineQos] [payload]
//!  payload      encapsulation:2 options:2  parameter...         (section 9.4.2.11)
//!  parameter    id:2 length:2 value
//! ```
//!
//! Everything is looked at in place, and each loop is bounded. Owns no state; what is done with an announcement is not
//! decided here.

pub(crate) mod endpoints;
pub(crate) mod heartbeats;
pub(crate) mod locators;
#[cfg(test)]
mod tests;

use std::time::Duration;

const MAGIC: &[u8; 4] = b"RTPS";
const HEADER: usize = 20;

/// Submessages and parameters beyond these are not looked at: real announcements have 3 and some 30.
const MAX_SUBMESSAGES: usize = 16;
const MAX_PARAMETERS: usize = 128;

/// Submessages (section 9.4.5.1.1).
const PAD: u8 = 0x01;
const INFO_TS: u8 = 0x09;
const INFO_REPLY_IP4: u8 = 0x0d;
const INFO_DST: u8 = 0x0e;
const INFO_REPLY: u8 = 0x0f;
const DATA: u8 = 0x15;
/// From here on they are the vendor's own (section 8.3.3.2), which nobody else may need: Fast DDS adds the time of sending.
const VENDORS: u8 = 0x80;

/// The writer of a participant's announcements (section 9.3.1.5): ENTITYID_SPDP_BUILTIN_PARTICIPANT_WRITER.
const SPDP_WRITER: [u8; 4] = [0x00, 0x01, 0x00, 0xc2];

/// Parameters (section 9.6.3).
const PID_SENTINEL: u16 = 0x0001;
const PID_PARTICIPANT_LEASE_DURATION: u16 = 0x0002;
const PID_STATUS_INFO: u16 = 0x0071;

/// Set in PID_STATUS_INFO when a participant is disposed of or unregistered (section 9.6.4.9).
const GONE: u32 = 0b11;

/// What all entities of one participant have in common (section 9.3.1.5).
pub(crate) type GuidPrefix = [u8; 12];

/// A participant says that it is there, or that it goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Announcement<'a> {
    pub(crate) participant: GuidPrefix,
    /// Without hearing from it for so long, others forget it; where it says so.
    pub(crate) lease: Option<Duration>,
    /// It goes.
    pub(crate) is_farewell: bool,
    /// What it tells of itself.
    pub(crate) content: &'a [u8],
}

/// Who sent an RTPS message; `None` when it is none.
pub(crate) fn sender(message: &[u8]) -> Option<GuidPrefix> {
    let header: &[u8; HEADER] = message.first_chunk()?;
    let (magic, rest) = header.split_first_chunk::<4>()?;
    if magic != MAGIC {
        return None;
    }
    rest.last_chunk::<12>().copied()
}

/// The announcement in a message that carries nothing else; `None` for every other message.
pub(crate) fn announcement(message: &[u8]) -> Option<Announcement<'_>> {
    let participant = sender(message)?;
    let mut rest = message.get(HEADER..)?;
    let mut found = None;
    for _ in 0..MAX_SUBMESSAGES {
        if rest.is_empty() {
            return found;
        }
        let submessage = Submessage::take(&mut rest)?;
        match submessage.kind {
            PAD | INFO_TS | INFO_DST | INFO_REPLY | INFO_REPLY_IP4 | VENDORS.. => {}
            DATA if found.is_none() => found = Some(submessage.announcement(participant)?),
            // Another sender's (INFO_SRC), or something beside the announcement, which must get through.
            _ => return None,
        }
    }
    None
}

struct Submessage<'a> {
    kind: u8,
    flags: u8,
    body: &'a [u8],
}

impl<'a> Submessage<'a> {
    fn take(rest: &mut &'a [u8]) -> Option<Self> {
        let (header, after) = rest.split_first_chunk::<4>()?;
        let [kind, flags, len @ ..] = *header;
        let len = usize::from(if flags & 1 == 1 { u16::from_le_bytes(len) } else { u16::from_be_bytes(len) });
        // Section 9.4.5.1.3: 0 says that it is the last one, but for the two that may be empty.
        let is_last = len == 0 && kind != PAD && kind != INFO_TS;
        let (body, others) = if is_last { (after, &[][..]) } else { after.split_at_checked(len)? };
        *rest = others;
        Some(Self { kind, flags, body })
    }

    fn is_little_endian(&self) -> bool {
        self.flags & 1 == 1
    }

    fn has(&self, flag: u8) -> bool {
        self.flags & flag != 0
    }

    /// Flags of DATA.
    const INLINE_QOS: u8 = 0x02;
    const PAYLOAD: u8 = 0x04;

    /// Reads a DATA submessage (section 9.4.5.4).
    fn announcement(&self, participant: GuidPrefix) -> Option<Announcement<'a>> {
        let to_qos = number(self.body.get(2..)?, self.is_little_endian())?;
        if self.body.get(8..12)? != SPDP_WRITER {
            return None;
        }
        // Counted from behind the field itself.
        let mut rest = self.body.get(4 + usize::from(to_qos)..)?;
        let mut is_farewell = false;
        if self.has(Self::INLINE_QOS) {
            let mut parameters = Parameters::of(rest, self.is_little_endian());
            let status = parameters.find(PID_STATUS_INFO).and_then(<[u8]>::first_chunk::<4>);
            is_farewell = status.is_some_and(|bytes| u32::from_be_bytes(*bytes) & GONE != 0);
            rest = Parameters::of(rest, self.is_little_endian()).end()?;
        }
        let content = if self.has(Self::PAYLOAD) { rest } else { &[] };
        let lease = if is_farewell { None } else { lease(content) };
        Some(Announcement { participant, lease, is_farewell, content })
    }
}

/// The lease in an announcement's payload.
fn lease(payload: &[u8]) -> Option<Duration> {
    let (encapsulation, list) = payload.split_first_chunk::<4>()?;
    let little = match encapsulation {
        [0, 2, ..] => false,
        [0, 3, ..] => true,
        _ => return None,
    };
    let value = Parameters::of(list, little).find(PID_PARTICIPANT_LEASE_DURATION)?;
    let seconds: &[u8; 4] = value.first_chunk()?;
    let seconds = if little { i32::from_le_bytes(*seconds) } else { i32::from_be_bytes(*seconds) };
    let fraction: &[u8; 4] = value.get(4..)?.first_chunk()?;
    let fraction = if little { u32::from_le_bytes(*fraction) } else { u32::from_be_bytes(*fraction) };
    let millis = (u64::from(fraction) * 1000) >> 32;
    // Infinite ones are i32::MAX, and nobody can be heard from in negative time.
    Some(Duration::from_secs(u64::try_from(seconds).ok()?) + Duration::from_millis(millis))
}

/// A parameter list.
struct Parameters<'a> {
    rest: &'a [u8],
    little: bool,
    left: usize,
}

impl<'a> Parameters<'a> {
    fn of(rest: &'a [u8], little: bool) -> Self {
        Self { rest, little, left: MAX_PARAMETERS }
    }

    /// The next one; `None` at the end of the list, and where it is broken.
    fn next(&mut self) -> Option<(u16, &'a [u8])> {
        self.left = self.left.checked_sub(1)?;
        let (id, len) = (number(self.rest, self.little)?, number(self.rest.get(2..)?, self.little)?);
        if id == PID_SENTINEL {
            return None;
        }
        let (value, rest) = self.rest.get(4..)?.split_at_checked(len.into())?;
        self.rest = rest;
        Some((id, value))
    }

    fn find(&mut self, wanted: u16) -> Option<&'a [u8]> {
        while let Some((id, value)) = self.next() {
            if id == wanted {
                return Some(value);
            }
        }
        None
    }

    /// What stands behind the list.
    fn end(mut self) -> Option<&'a [u8]> {
        while self.next().is_some() {}
        let is_sentinel = number(self.rest, self.little)? == PID_SENTINEL;
        self.rest.get(4..).filter(|_| is_sentinel)
    }
}

fn number(bytes: &[u8], little: bool) -> Option<u16> {
    let bytes: &[u8; 2] = bytes.first_chunk()?;
    Some(if little { u16::from_le_bytes(*bytes) } else { u16::from_be_bytes(*bytes) })
}
