//! One-time codes by time (RFC 6238): SHA-1, six digits, steps of 30 seconds, as every authenticator has them.

use data_encoding::BASE32_NOPAD;
use ria_protocol::time::UnixTime;

/// Bytes of a secret, as long as the hash (RFC 4226, section 4).
pub const SECRET: usize = 20;
const STEP: u64 = 30;
const DIGITS: usize = 6;
const MODULUS: u32 = 1_000_000;
/// Steps before and after the present one that count, for clocks that are somewhat off.
const TOLERANCE: u64 = 1;

/// The code of a step.
fn code(secret: &[u8], step: u64) -> String {
    let key = ring::hmac::Key::new(ring::hmac::HMAC_SHA1_FOR_LEGACY_USE_ONLY, secret);
    let tag = ring::hmac::sign(&key, &step.to_be_bytes());
    let hash = tag.as_ref();
    // RFC 4226, section 5.3: the last four bits choose where 31 bits are taken.
    let offset = usize::from(hash.last().copied().unwrap_or(0) & 0xf);
    let number = hash.iter().skip(offset).take(4).fold(0u32, |n, byte| (n << 8) | u32::from(*byte));
    format!("{:0DIGITS$}", (number & 0x7fff_ffff) % MODULUS)
}

/// The step for which this is the code, if it is about now. Each is good once: whoever checks remembers the step.
pub fn step_of(secret: &[u8], given: &str, now: UnixTime) -> Option<u64> {
    let given: String = given.chars().filter(|c| !c.is_whitespace()).collect();
    let present = now.0 / STEP;
    let near = present.saturating_sub(TOLERANCE)..=present + TOLERANCE;
    near.into_iter().find(|step| super::secret::same(code(secret, *step).as_bytes(), given.as_bytes()))
}

/// The secret as people type it.
pub fn shown(secret: &[u8]) -> String {
    BASE32_NOPAD.encode(secret)
}

/// The secret as authenticators scan it.
pub fn uri(secret: &[u8], user: &str) -> String {
    let user = crate::admin::client::escaped(user);
    format!("otpauth://totp/Ria:{user}?secret={}&issuer=Ria", shown(secret))
}

/// The code that an authenticator would show at this time.
#[cfg(test)]
pub(crate) fn now_code(secret: &[u8], now: UnixTime) -> String {
    code(secret, now.0 / STEP)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// RFC 6238, appendix B, cut to six digits.
    #[test]
    fn codes_are_those_of_the_rfc() {
        let secret = b"12345678901234567890";
        let vectors = [
            (59, "287082"),
            (1_111_111_109, "081804"),
            (1_111_111_111, "050471"),
            (1_234_567_890, "005924"),
            (2_000_000_000, "279037"),
            (20_000_000_000, "353130"),
        ];
        for (time, expected) in vectors {
            assert_eq!(now_code(secret, UnixTime(time)), expected);
            assert_eq!(step_of(secret, expected, UnixTime(time)), Some(time / STEP));
        }
    }

    #[test]
    fn a_code_is_good_for_about_a_minute_and_only_for_its_secret() {
        let (secret, now) = ([7; SECRET], UnixTime(1_000_000));
        let good = now_code(&secret, now);
        let spaced = format!("{} {}", &good[..3], &good[3..]);
        assert!(step_of(&secret, &spaced, now).is_some());
        assert!(step_of(&secret, &good, UnixTime(now.0 + STEP)).is_some());
        assert!(step_of(&secret, &good, UnixTime(now.0 + 3 * STEP)).is_none());
        assert!(step_of(&[8; SECRET], &good, now).is_none());
        assert!(step_of(&secret, "", now).is_none());
    }
}
