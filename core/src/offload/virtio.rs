//! The header before each packet of a TUN device in `IFF_VNET_HDR` mode: `struct virtio_net_hdr` of
//! `linux/virtio_net.h` (VIRTIO 1.2 section 5.1.6), in the machine's byte order.

/// Length of the header in bytes.
pub const VIRTIO_HEADER: usize = 10;

/// The checksum field holds the sum of the pseudo-header only and is still to be completed.
const NEEDS_CHECKSUM: u8 = 1;

const TYPE_NONE: u8 = 0;
const TYPE_TCP_V4: u8 = 1;
const TYPE_TCP_V6: u8 = 4;
const TYPE_UDP: u8 = 5;
/// Flag beside the type: the flow uses ECN (RFC 3168), so CWR belongs to the first segment only.
const TYPE_ECN: u8 = 0x80;

/// What a super-packet consists of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum GsoType {
    /// It is a plain packet.
    None,
    /// TCP over IPv4.
    TcpV4,
    /// TCP over IPv6.
    TcpV6,
    /// UDP over IPv4 or IPv6.
    Udp,
}

/// The header, read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct VirtioHeader {
    /// Whether the transport checksum is still to be completed.
    pub needs_checksum: bool,
    /// How to cut.
    pub gso_type: GsoType,
    /// Length of all headers before the payload; a hint only.
    pub header_len: u16,
    /// Payload bytes of each segment but the last.
    pub gso_size: u16,
    /// Where the checksummed part begins: the transport header.
    pub checksum_start: u16,
    /// Where its checksum field is, counted from there.
    pub checksum_offset: u16,
}

impl VirtioHeader {
    /// Reads a header; `None` for a type that was never asked for.
    pub fn read(bytes: &[u8; VIRTIO_HEADER]) -> Option<Self> {
        let word = |at: usize| u16::from_ne_bytes([bytes[at], bytes[at + 1]]);
        let gso_type = match bytes[1] & !TYPE_ECN {
            TYPE_NONE => GsoType::None,
            TYPE_TCP_V4 => GsoType::TcpV4,
            TYPE_TCP_V6 => GsoType::TcpV6,
            TYPE_UDP => GsoType::Udp,
            _ => return None,
        };
        Some(Self {
            needs_checksum: bytes[0] & NEEDS_CHECKSUM != 0,
            gso_type,
            header_len: word(2),
            gso_size: word(4),
            checksum_start: word(6),
            checksum_offset: word(8),
        })
    }

    /// Its bytes.
    pub fn to_bytes(self) -> [u8; VIRTIO_HEADER] {
        let mut bytes = [0; VIRTIO_HEADER];
        bytes[0] = if self.needs_checksum { NEEDS_CHECKSUM } else { 0 };
        bytes[1] = match self.gso_type {
            GsoType::None => TYPE_NONE,
            GsoType::TcpV4 => TYPE_TCP_V4,
            GsoType::TcpV6 => TYPE_TCP_V6,
            GsoType::Udp => TYPE_UDP,
        };
        let words = [self.header_len, self.gso_size, self.checksum_start, self.checksum_offset];
        for (to, word) in bytes[2..].chunks_exact_mut(2).zip(words) {
            to.copy_from_slice(&word.to_ne_bytes());
        }
        bytes
    }
}
