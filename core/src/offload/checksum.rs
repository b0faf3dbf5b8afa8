//! The Internet checksum (RFC 1071). Sums are kept in the machine's byte order, which its section 2 (B) allows: the
//! folded result is stored as it is.

use super::headers::Headers;

/// A sum that has not been folded yet.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Sum(u64);

impl Sum {
    /// Adds bytes that begin at an even offset of what is summed.
    pub fn add(self, bytes: &[u8]) -> Self {
        let (words, rest) = bytes.as_chunks::<4>();
        // Plain additions of 32-bit words into 64 bits, which compilers turn into vector code; 64 KiB can't overflow.
        let mut sum = words.iter().map(|word| u64::from(u32::from_ne_bytes(*word))).sum::<u64>();
        let mut last = [0; 4];
        for (to, from) in last.iter_mut().zip(rest) {
            *to = *from;
        }
        sum += u64::from(u32::from_ne_bytes(last));
        // Folded to 32 bits, so that sums of sums can't overflow either.
        Self(fold_once(self.0) + fold_once(sum))
    }

    /// The sum in 16 bits, as it stands in a field whose checksum is completed later.
    pub fn partial(self) -> [u8; 2] {
        let mut sum = fold_once(self.0);
        sum = (sum & 0xffff) + (sum >> 16);
        sum = (sum & 0xffff) + (sum >> 16);
        sum = (sum & 0xffff) + (sum >> 16);
        u16::try_from(sum).unwrap_or(u16::MAX).to_ne_bytes()
    }

    /// The checksum: the complement of the sum.
    pub fn checksum(self) -> [u8; 2] {
        self.partial().map(|byte| !byte)
    }

    /// Whether what was summed, its checksum field included, is as it was sent.
    pub fn is_right(self) -> bool {
        self.partial() == [0xff; 2]
    }
}

fn fold_once(sum: u64) -> u64 {
    (sum & 0xffff_ffff) + (sum >> 32)
}

/// The sum of the pseudo-header of TCP and UDP (RFC 9293 section 3.1, RFC 8200 section 8.1) for a transport header
/// and payload of `len` bytes.
pub(super) fn pseudo_header(headers: &Headers, ip: &[u8], len: usize) -> Sum {
    let addresses = ip.get(headers.addresses()).unwrap_or_default();
    let len = u16::try_from(len).unwrap_or(u16::MAX).to_be_bytes();
    Sum::default().add(addresses).add(&[0, headers.protocol.number(), len[0], len[1]])
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// The definition, word by word.
    fn reference(bytes: &[u8]) -> u16 {
        let mut sum = 0u32;
        for pair in bytes.chunks(2) {
            sum += u32::from(u16::from_be_bytes([pair[0], *pair.get(1).unwrap_or(&0)]));
            sum = (sum & 0xffff) + (sum >> 16);
        }
        !u16::try_from(sum).unwrap()
    }

    #[test]
    fn the_example_of_rfc_1071() {
        let sum = Sum::default().add(&[0x00, 0x01, 0xf2, 0x03, 0xf4, 0xf5, 0xf6, 0xf7]);
        assert_eq!(sum.partial(), [0xdd, 0xf2]);
    }

    proptest! {
        #[test]
        fn any_bytes_sum_as_defined(bytes in proptest::collection::vec(any::<u8>(), 0..3000), cut in 0usize..1500) {
            let cut = (cut * 2).min(bytes.len() & !1);
            let sum = Sum::default().add(&bytes[..cut]).add(&bytes[cut..]);
            prop_assert_eq!(sum.checksum(), reference(&bytes).to_be_bytes());
        }
    }

    #[test]
    fn a_long_run_of_ones_does_not_overflow() {
        let bytes = vec![0xff; 65_535];
        assert_eq!(Sum::default().add(&bytes).checksum(), reference(&bytes).to_be_bytes());
    }
}
