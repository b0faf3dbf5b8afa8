//! The internet checksum: whole (RFC 1071) and mended after a change (RFC 1624).

/// Adds bytes to a one's-complement sum; all parts but the last have an even length.
pub fn add(sum: u64, bytes: &[u8]) -> u64 {
    let (words, rest) = bytes.as_chunks::<2>();
    let mut sum = words.iter().fold(sum, |sum, word| sum + u64::from(u16::from_be_bytes(*word)));
    if let [last] = rest {
        sum += u64::from(*last) << 8;
    }
    sum
}

/// The checksum that a sum stands for.
pub fn finish(mut sum: u64) -> u16 {
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    // Folded to 16 bits by the loop.
    !u16::try_from(sum).unwrap_or(0)
}

/// The checksum of bytes; 0 when they contain their own right one.
pub fn of(bytes: &[u8]) -> u16 {
    finish(add(0, bytes))
}

/// The checksum after `old` became `new`; both of the same, even length, at an even place.
///
/// Equation 3 of RFC 1624, which unlike that of RFC 1141 is right when the sum becomes zero.
pub fn mend(checksum: u16, old: &[u8], new: &[u8]) -> u16 {
    let (old, _) = old.as_chunks::<2>();
    let sum = old.iter().fold(u64::from(!checksum), |sum, word| sum + u64::from(!u16::from_be_bytes(*word)));
    finish(add(sum, new))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn the_examples_of_the_rfcs_come_out() {
        // RFC 1071, section 3.
        assert_eq!(of(&[0x00, 0x01, 0xf2, 0x03, 0xf4, 0xf5, 0xf6, 0xf7]), !0xddf2);
        // RFC 1624, section 4: a field goes from 0x5555 to 0x3285 under checksum 0xdd2f.
        assert_eq!(mend(0xdd2f, &[0x55, 0x55], &[0x32, 0x85]), 0x0000);
        // An odd length counts as if a zero followed.
        assert_eq!(of(&[1, 2, 3]), of(&[1, 2, 3, 0]));
    }

    proptest! {
        #[test]
        fn mending_is_as_good_as_counting_anew(
            mut bytes in prop::collection::vec(any::<u8>(), 8..200),
            word in any::<[u8; 2]>(),
            place in any::<prop::sample::Index>(),
        ) {
            let at = place.index(bytes.len() / 2) * 2;
            let before = of(&bytes);
            let old = [bytes[at], bytes[at + 1]];
            bytes[at..at + 2].copy_from_slice(&word);
            let (mended, counted) = (mend(before, &old, &word), of(&bytes));
            // Zero has two forms; which one comes out differs only where everything is zero.
            prop_assert!(mended == counted || bytes.iter().all(|byte| *byte == 0), "{mended:x} {counted:x}");
        }
    }
}
