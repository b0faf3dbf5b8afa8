//! A first look at a STUN message: whether it belongs to ICE, to whom, and whether it is authentic. Nothing that a stranger
//! sent gets further than this.

use ring::hmac;

const HEADER: usize = 20;
const COOKIE: [u8; 4] = [0x21, 0x12, 0xa4, 0x42];

const BINDING_REQUEST: u16 = 0x0001;
const BINDING_SUCCESS: u16 = 0x0101;
const BINDING_ERROR: u16 = 0x0111;

const USERNAME: u16 = 0x0006;
const MESSAGE_INTEGRITY: u16 = 0x0008;
const ERROR_CODE: u16 = 0x0009;
const XOR_MAPPED_ADDRESS: u16 = 0x0020;
const PRIORITY: u16 = 0x0024;
const USE_CANDIDATE: u16 = 0x0025;
/// From here on a receiver may ignore what it does not know (RFC 8489, section 14).
const OPTIONAL: u16 = 0x8000;
const ALTERNATE_SERVER: u16 = 0x8023;

/// Transaction id (RFC 8489, section 5).
pub type TransactionId = [u8; 12];

/// What a message is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Class {
    /// A check.
    Request,
    /// Its answer.
    Success,
    /// Its answer, by one who can't accept it (487, Role Conflict).
    Error,
}

/// A Binding message as ICE uses them: well-formed, with MESSAGE-INTEGRITY, and a request with USERNAME.
#[derive(Debug, Clone, Copy)]
pub struct Message<'a> {
    /// What it is.
    pub class: Class,
    /// Which transaction it belongs to.
    pub id: TransactionId,
    /// The receiver's and the sender's user name fragments; only in requests.
    pub ufrags: Option<(&'a str, &'a str)>,
    bytes: &'a [u8],
    /// Where MESSAGE-INTEGRITY begins.
    integrity_at: usize,
}

impl<'a> Message<'a> {
    /// Looks at a datagram; `None` when it is not ICE's.
    pub fn parse(bytes: &'a [u8]) -> Option<Self> {
        let head = bytes.first_chunk::<HEADER>()?;
        let class = match u16::from_be_bytes([head[0], head[1]]) {
            BINDING_REQUEST => Class::Request,
            BINDING_SUCCESS => Class::Success,
            BINDING_ERROR => Class::Error,
            _ => return None,
        };
        let len = usize::from(u16::from_be_bytes([head[2], head[3]]));
        if head[4..8] != COOKIE || len % 4 != 0 || bytes.len() != HEADER + len {
            return None;
        }
        let mut found = Found::default();
        for attribute in Attributes::of(bytes) {
            found.take(attribute?)?;
        }
        let ufrags = found.username.and_then(|name| name.split_once(':'));
        let complete = match class {
            Class::Request => ufrags.is_some() && found.priority,
            Class::Success => found.mapped,
            Class::Error => found.error,
        };
        let mut id = [0; 12];
        id.copy_from_slice(&head[8..]);
        complete.then_some(Self { class, id, ufrags, bytes, integrity_at: found.integrity? })
    }

    /// Whether the sender knows this password (RFC 8489, section 14.5).
    pub fn is_by(&self, password: &str) -> bool {
        let covered = self.bytes.get(4..self.integrity_at);
        let tag = self.bytes.get(self.integrity_at + 4..self.integrity_at + 24);
        let len = u16::try_from(self.integrity_at + 24 - HEADER).ok();
        let (Some(covered), Some(tag), Some(len)) = (covered, tag, len) else { return false };
        let head = [self.bytes.first_chunk::<2>().copied().unwrap_or_default(), len.to_be_bytes()].concat();
        let key = hmac::Key::new(hmac::HMAC_SHA1_FOR_LEGACY_USE_ONLY, password.as_bytes());
        hmac::verify(&key, &[&head, covered].concat(), tag).is_ok()
    }
}

#[derive(Default)]
struct Found<'a> {
    username: Option<&'a str>,
    priority: bool,
    mapped: bool,
    error: bool,
    integrity: Option<usize>,
}

impl<'a> Found<'a> {
    /// Notes an attribute; `None` when no message of ICE's has it.
    fn take(&mut self, attribute: Attribute<'a>) -> Option<()> {
        let Attribute { kind, at, value } = attribute;
        // What follows the integrity is not covered by it; the fingerprint does.
        if self.integrity.is_some() {
            return (kind >= OPTIONAL).then_some(());
        }
        match (kind, value.len()) {
            (USERNAME, ..=512) => self.username = Some(std::str::from_utf8(value).ok()?),
            (PRIORITY, 4) => self.priority = true,
            (USE_CANDIDATE, 0) => {}
            (XOR_MAPPED_ADDRESS, 8) if value.get(1) == Some(&1) => self.mapped = true,
            (XOR_MAPPED_ADDRESS, 20) if value.get(1) == Some(&2) => self.mapped = true,
            (ERROR_CODE, 4..=767) => self.error = true,
            (MESSAGE_INTEGRITY, 20) => self.integrity = Some(at),
            (kind, _) if kind >= OPTIONAL && kind != ALTERNATE_SERVER => {}
            _ => return None,
        }
        Some(())
    }
}

struct Attribute<'a> {
    kind: u16,
    at: usize,
    value: &'a [u8],
}

/// The attributes of a message one by one; an item is `None` when the rest can't be read.
struct Attributes<'a> {
    bytes: &'a [u8],
    at: usize,
}

impl<'a> Attributes<'a> {
    fn of(bytes: &'a [u8]) -> Self {
        Self { bytes, at: HEADER }
    }

    fn read(&self) -> Option<(Attribute<'a>, usize)> {
        let rest = self.bytes.get(self.at..)?;
        let [a, b, c, d] = *rest.first_chunk::<4>()?;
        let len = usize::from(u16::from_be_bytes([c, d]));
        let value = rest.get(4..4 + len)?;
        let next = self.at + 4 + len.next_multiple_of(4);
        (next <= self.bytes.len())
            .then_some((Attribute { kind: u16::from_be_bytes([a, b]), at: self.at, value }, next))
    }
}

impl<'a> Iterator for Attributes<'a> {
    type Item = Option<Attribute<'a>>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.at >= self.bytes.len() {
            return None;
        }
        let read = self.read();
        self.at = read.as_ref().map_or(self.bytes.len(), |(_, next)| *next);
        Some(read.map(|(attribute, _)| attribute))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// The sample request of RFC 5769, section 2.1; its password is below.
    const SAMPLE: &str = "000100582112a442b7e7a701bc34d686fa87dfae802200105354554e207465737420636c69656e74\
        002400046e0001ff80290008932ff9b151263b36000600096576746a3a68367659202020000800149aeaa70cbfd8cb56\
        781ef2b5b2d3f249c1b571a280280004e57a3bcf";
    const PASSWORD: &str = "VOkJxbRl1RmTxUk/WvJxBt";

    fn sample() -> Vec<u8> {
        let hex: Vec<u8> = SAMPLE.bytes().collect();
        let digits = hex.chunks(2).map(|pair| std::str::from_utf8(pair).unwrap());
        digits.map(|pair| u8::from_str_radix(pair, 16).unwrap()).collect()
    }

    #[test]
    fn the_sample_request_is_read_and_verified() {
        let bytes = sample();
        let message = Message::parse(&bytes).unwrap();
        assert_eq!(message.class, Class::Request);
        assert_eq!(message.ufrags, Some(("evtj", "h6vY")));
        assert_eq!(message.id[..4], [0xb7, 0xe7, 0xa7, 0x01]);
        assert!(message.is_by(PASSWORD));
        assert!(!message.is_by("another password, as long"));
    }

    #[test]
    fn what_no_check_has_is_refused() {
        // MAPPED-ADDRESS in the place of SOFTWARE: nobody but old servers sends it.
        let mut bytes = sample();
        bytes[20..22].copy_from_slice(&[0, 1]);
        assert!(Message::parse(&bytes).is_none());
        let mut request_without_priority = sample();
        request_without_priority[40] = 0x80;
        assert!(Message::parse(&request_without_priority).is_none());
    }

    proptest! {
        #[test]
        fn no_changed_message_is_authentic(at in 0..80usize, change in 1..=255u8) {
            let mut bytes = sample();
            bytes[at] ^= change;
            // The length is not covered as it is sent; one that is wrong is refused before.
            prop_assert!(!Message::parse(&bytes).is_some_and(|message| message.is_by(PASSWORD)));
        }

        #[test]
        fn any_bytes_are_looked_at(mut bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            if let Some(cookie) = bytes.get_mut(4..8) {
                cookie.copy_from_slice(&COOKIE);
            }
            let _ = Message::parse(&bytes).map(|message| message.is_by("password"));
        }
    }
}
