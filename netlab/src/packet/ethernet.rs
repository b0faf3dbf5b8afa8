//! Ethernet frames and ARP (RFC 826) as bytes.

use std::net::Ipv4Addr;

/// Length of an Ethernet header.
pub const ETHERNET: usize = 14;

/// What a frame carries: IPv4.
pub const IPV4: u16 = 0x0800;

/// What a frame carries: ARP.
pub const ARP: u16 = 0x0806;

/// A hardware address.
pub type Mac = [u8; 6];

/// To everybody.
pub const BROADCAST: Mac = [0xff; 6];

/// Length of ARP for Ethernet and IPv4.
const ARP_LEN: usize = 28;

/// Hardware Ethernet, protocol IPv4, and their lengths.
const ARP_KIND: [u8; 6] = [0, 1, 8, 0, 6, 4];

/// Destination and kind of a frame.
pub fn read(frame: &[u8]) -> Option<(Mac, u16)> {
    let header = frame.first_chunk::<ETHERNET>()?;
    Some((*header.first_chunk()?, u16::from_be_bytes([header[12], header[13]])))
}

/// Writes the header of a frame that has room for it.
pub fn write(frame: &mut [u8], destination: Mac, source: Mac, kind: u16) {
    if let Some(header) = frame.first_chunk_mut::<ETHERNET>() {
        header[..6].copy_from_slice(&destination);
        header[6..12].copy_from_slice(&source);
        header[12..].copy_from_slice(&kind.to_be_bytes());
    }
}

/// A question or an answer of ARP.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Arp {
    /// It asks; else it answers.
    pub is_request: bool,
    /// Who sends it.
    pub sender: (Mac, Ipv4Addr),
    /// Whom it is about, or for.
    pub target: (Mac, Ipv4Addr),
}

impl Arp {
    /// Reads what a frame carries.
    pub fn read(frame: &[u8]) -> Option<Self> {
        let body = frame.get(ETHERNET..)?.first_chunk::<ARP_LEN>()?;
        if body[..6] != ARP_KIND || body[6] != 0 || !matches!(body[7], 1 | 2) {
            return None;
        }
        let end = |at: usize| {
            let mac = body.get(at..)?.first_chunk::<6>()?;
            let address = body.get(at + 6..)?.first_chunk::<4>()?;
            Some((*mac, Ipv4Addr::from(*address)))
        };
        Some(Self { is_request: body[7] == 1, sender: end(8)?, target: end(18)? })
    }

    /// The frame that carries it.
    pub fn frame(&self, destination: Mac) -> Vec<u8> {
        let mut frame = vec![0; ETHERNET];
        write(&mut frame, destination, self.sender.0, ARP);
        frame.extend(ARP_KIND);
        frame.extend([0, if self.is_request { 1 } else { 2 }]);
        for (mac, address) in [self.sender, self.target] {
            frame.extend(mac);
            frame.extend(address.octets());
        }
        frame
    }
}
