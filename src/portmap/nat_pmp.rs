//! The messages of NAT-PMP (RFC 6886).

use std::net::Ipv4Addr;

const VERSION: u8 = 0;
const OP_ADDRESS: u8 = 0;
const OP_MAP_UDP: u8 = 1;
const RESPONSE: u8 = 128;

/// Asks for the outer address, which changes nothing.
pub const ADDRESS_REQUEST: [u8; 2] = [VERSION, OP_ADDRESS];

/// An answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Response {
    /// The outer address; also comes by itself when the router has begun anew.
    Address {
        /// Seconds since the server has lost its state.
        epoch: u32,
        /// The address.
        external: Ipv4Addr,
    },
    /// The mapping is there.
    Mapped {
        /// Seconds since the server has lost its state.
        epoch: u32,
        /// Of which port.
        internal: u16,
        /// To which port.
        external: u16,
        /// For so many seconds.
        lifetime: u32,
    },
    /// No.
    Refused {
        /// Result code.
        code: u16,
    },
}

/// Asks for a mapping for so many seconds; 0 gives it back.
pub fn map_request(internal: u16, suggested: u16, lifetime: u32) -> [u8; 12] {
    let ([a, b], [c, d]) = (internal.to_be_bytes(), suggested.to_be_bytes());
    let [e, f, g, h] = lifetime.to_be_bytes();
    // Whoever gives back names no outer port (section 3.4).
    let [c, d] = if lifetime == 0 { [0, 0] } else { [c, d] };
    [VERSION, OP_MAP_UDP, 0, 0, a, b, c, d, e, f, g, h]
}

/// Reads a response.
pub fn response(datagram: &[u8]) -> Option<Response> {
    let [VERSION, op, r0, r1, rest @ ..] = datagram else { return None };
    let code = u16::from_be_bytes([*r0, *r1]);
    let number = |at: usize| rest.get(at..)?.first_chunk::<4>().copied().map(u32::from_be_bytes);
    let port = |at: usize| rest.get(at..)?.first_chunk::<2>().copied().map(u16::from_be_bytes);
    match (op.checked_sub(RESPONSE)?, code) {
        (OP_ADDRESS | OP_MAP_UDP, code) if code != 0 => Some(Response::Refused { code }),
        (OP_ADDRESS, _) => {
            let external = Ipv4Addr::from(number(4)?);
            (!external.is_unspecified()).then_some(Response::Address { epoch: number(0)?, external })
        }
        (OP_MAP_UDP, _) => Some(Response::Mapped {
            epoch: number(0)?,
            internal: port(4)?,
            external: port(6)?,
            lifetime: number(8)?,
        }),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_have_the_form_of_rfc_6886() {
        assert_eq!(map_request(41820, 41820, 3600), [0, 1, 0, 0, 0xa3, 0x5c, 0xa3, 0x5c, 0, 0, 0x0e, 0x10]);
        assert_eq!(map_request(41820, 41820, 0)[6..], [0; 6]);
        let address = [0, 128, 0, 0, 0, 0, 0, 9, 203, 0, 113, 9];
        let external = "203.0.113.9".parse().unwrap();
        assert_eq!(response(&address), Some(Response::Address { epoch: 9, external }));
        let mapped = [0, 129, 0, 0, 0, 0, 0, 9, 0xa3, 0x5c, 0xc3, 0x50, 0, 0, 0x0e, 0x10];
        let wanted = Response::Mapped { epoch: 9, internal: 41820, external: 50000, lifetime: 3600 };
        assert_eq!(response(&mapped), Some(wanted));
        assert_eq!(response(&[0, 129, 0, 2, 0, 0, 0, 9]), Some(Response::Refused { code: 2 }));
    }

    #[test]
    fn what_makes_no_sense_is_no_answer() {
        for bad in [
            &[][..],
            &[0, 0],
            &[0, 1, 0, 0, 0xa3, 0x5c, 0, 0, 0, 0, 0, 0],
            &[2, 0x81, 0, 0, 0, 0, 0, 0],
            &[0, 128, 0, 0, 0, 0, 0, 9, 203, 0, 113],
            &[0, 128, 0, 0, 0, 0, 0, 9, 0, 0, 0, 0],
            &[0, 130, 0, 0, 0, 0, 0, 9],
        ] {
            assert_eq!(response(bad), None, "{bad:?}");
        }
    }
}
