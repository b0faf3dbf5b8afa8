//! The messages of PCP (RFC 6887), as far as a mapping for one UDP port over IPv4 needs them.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddrV4};

/// Servers listen there, NAT-PMP's too.
pub const PORT: u16 = 5351;

/// Announcements come to this group and port (RFC 6887, section 14.1.1; RFC 6886, section 3.2.1).
pub const ANNOUNCEMENTS: SocketAddrV4 = SocketAddrV4::new(Ipv4Addr::new(224, 0, 0, 1), 5350);

const VERSION: u8 = 2;
const OPCODE_ANNOUNCE: u8 = 0;
const OPCODE_MAP: u8 = 1;
const RESPONSE: u8 = 0x80;
const UDP: u8 = 17;

const HEADER: usize = 24;
const MAP_LEN: usize = HEADER + 36;

/// Longest message (RFC 6887, section 7).
const LONGEST: usize = 1100;

/// By which a client knows its own mapping again.
pub type Nonce = [u8; 12];

/// What is asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct MapRequest {
    /// The client's own address.
    pub client: Ipv4Addr,
    /// Its UDP port.
    pub internal: u16,
    /// The outer address that it would like; unspecified for any.
    pub suggested: SocketAddrV4,
    /// For so many seconds; 0 gives the mapping back.
    pub lifetime: u32,
    /// Its nonce.
    pub nonce: Nonce,
}

/// An answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Response {
    /// The mapping is there.
    Mapped {
        /// Outer address and port.
        external: SocketAddrV4,
        /// For so many seconds.
        lifetime: u32,
        /// Seconds since the server has lost its state.
        epoch: u32,
        /// Whose it is.
        nonce: Nonce,
        /// Of which port.
        internal: u16,
    },
    /// The server has begun anew.
    Announced {
        /// Seconds since.
        epoch: u32,
    },
    /// The server speaks another version: NAT-PMP only, as a rule.
    OtherVersion,
    /// No.
    Refused {
        /// Result code.
        code: u8,
        /// Seconds for which it stays so.
        lifetime: u32,
    },
}

/// Writes a MAP request.
pub fn map_request(request: &MapRequest) -> [u8; MAP_LEN] {
    let mut bytes = [0; MAP_LEN];
    let fields: [(usize, &[u8]); 9] = [
        (0, &[VERSION, OPCODE_MAP]),
        (4, &request.lifetime.to_be_bytes()),
        (8, &request.client.to_ipv6_mapped().octets()),
        (24, &request.nonce),
        (36, &[UDP]),
        (40, &request.internal.to_be_bytes()),
        (42, &request.suggested.port().to_be_bytes()),
        (44, &request.suggested.ip().to_ipv6_mapped().octets()),
        (MAP_LEN, &[]),
    ];
    for (at, field) in fields {
        if let Some(place) = bytes.get_mut(at..at + field.len()) {
            place.copy_from_slice(field);
        }
    }
    bytes
}

/// Reads a response; `None` for what is none, or is not about UDP and IPv4.
pub fn response(datagram: &[u8]) -> Option<Response> {
    let [version, opcode, _, code, ..] = *datagram else { return None };
    if version != VERSION {
        // Whatever else it says, it is in another language.
        return (opcode & RESPONSE != 0).then_some(Response::OtherVersion);
    }
    let well_formed = opcode & RESPONSE != 0 && datagram.len().is_multiple_of(4) && datagram.len() <= LONGEST;
    if !well_formed || datagram.len() < HEADER {
        return None;
    }
    let lifetime = number(datagram, 4)?;
    let epoch = number(datagram, 8)?;
    match (code, opcode & !RESPONSE) {
        (0, OPCODE_ANNOUNCE) => Some(Response::Announced { epoch }),
        (0, OPCODE_MAP) => mapped(datagram, lifetime, epoch),
        (1, _) => Some(Response::OtherVersion),
        (code, OPCODE_MAP) if code != 0 => Some(Response::Refused { code, lifetime }),
        _ => None,
    }
}

fn mapped(datagram: &[u8], lifetime: u32, epoch: u32) -> Option<Response> {
    let nonce = *datagram.get(24..)?.first_chunk::<12>()?;
    let port = |at: usize| datagram.get(at..)?.first_chunk::<2>().copied().map(u16::from_be_bytes);
    let ip = Ipv6Addr::from(*datagram.get(44..)?.first_chunk::<16>()?);
    let IpAddr::V4(ip) = IpAddr::V6(ip).to_canonical() else { return None };
    let (internal, external) = (port(40)?, SocketAddrV4::new(ip, port(42)?));
    if *datagram.get(36)? != UDP || external.port() == 0 || external.ip().is_unspecified() {
        return None;
    }
    Some(Response::Mapped { external, lifetime, epoch, nonce, internal })
}

fn number(datagram: &[u8], at: usize) -> Option<u32> {
    datagram.get(at..)?.first_chunk::<4>().copied().map(u32::from_be_bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn request() -> MapRequest {
        MapRequest {
            client: "192.168.1.10".parse().unwrap(),
            internal: 41820,
            suggested: "0.0.0.0:41820".parse().unwrap(),
            lifetime: 3600,
            nonce: *b"0123456789ab",
        }
    }

    /// What a server makes of a request.
    fn answer(external: &str) -> Vec<u8> {
        let external: SocketAddrV4 = external.parse().unwrap();
        let mut bytes = map_request(&request()).to_vec();
        bytes[1] |= RESPONSE;
        bytes[8..24].fill(0);
        bytes[8..12].copy_from_slice(&77u32.to_be_bytes());
        bytes[42..44].copy_from_slice(&external.port().to_be_bytes());
        bytes[44..60].copy_from_slice(&external.ip().to_ipv6_mapped().octets());
        bytes
    }

    #[test]
    fn a_request_has_the_form_of_rfc_6887() {
        let bytes = map_request(&request());
        assert_eq!(bytes[..8], [2, 1, 0, 0, 0, 0, 0x0e, 0x10]);
        assert_eq!(bytes[8..24], [0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff, 192, 168, 1, 10]);
        assert_eq!(&bytes[24..36], b"0123456789ab");
        assert_eq!(bytes[36..44], [17, 0, 0, 0, 0xa3, 0x5c, 0xa3, 0x5c]);
        assert_eq!(bytes[44..60], [0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff, 0, 0, 0, 0]);
    }

    #[test]
    fn answers_are_read_and_told_apart() {
        let external: SocketAddrV4 = "203.0.113.9:50000".parse().unwrap();
        let wanted =
            Response::Mapped { external, lifetime: 3600, epoch: 77, nonce: request().nonce, internal: 41820 };
        assert_eq!(response(&answer("203.0.113.9:50000")), Some(wanted));
        let mut refused = answer("203.0.113.9:50000");
        refused[3] = 2;
        assert_eq!(response(&refused), Some(Response::Refused { code: 2, lifetime: 3600 }));
        assert_eq!(response(&[0, 0x81, 0, 1, 0, 0, 0, 0]), Some(Response::OtherVersion));
        let announced = [&[2, 0x80, 0, 0, 0, 0, 0, 0, 0, 0, 0, 3][..], &[0; 12]].concat();
        assert_eq!(response(&announced), Some(Response::Announced { epoch: 3 }));
    }

    #[test]
    fn what_makes_no_sense_is_no_answer() {
        let good = answer("203.0.113.9:50000");
        for len in [0, 3, 23, 59] {
            assert_eq!(response(&good[..len]), None, "{len}");
        }
        assert_eq!(response(&map_request(&request())), None, "a request");
        assert_eq!(response(&answer("0.0.0.0:50000")), None);
        assert_eq!(response(&answer("203.0.113.9:0")), None);
        let mut tcp = good.clone();
        tcp[36] = 6;
        assert_eq!(response(&tcp), None);
        let mut v6 = good;
        v6[44] = 0x20;
        assert_eq!(response(&v6), None);
    }
}
