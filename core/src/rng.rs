//! The engine's randomness: HMAC-SHA256 in counter mode over one seed, so that a seed gives one run.

use ring::hmac;

/// A deterministic generator. As good as its seed: for real use the seed comes from the operating system.
pub(crate) struct Rng {
    key: hmac::Key,
    counter: u64,
    block: [u8; 32],
    used: usize,
}

impl Rng {
    pub(crate) fn new(seed: &[u8; 32]) -> Self {
        Self { key: hmac::Key::new(hmac::HMAC_SHA256, seed), counter: 0, block: [0; 32], used: 32 }
    }

    /// A generator of its own for another part, so that one part's draws don't shift another's.
    pub(crate) fn fork(&mut self) -> Self {
        Self::new(&self.bytes())
    }

    /// `N` random bytes.
    pub(crate) fn bytes<const N: usize>(&mut self) -> [u8; N] {
        let mut bytes = [0; N];
        for byte in &mut bytes {
            *byte = self.byte();
        }
        bytes
    }

    /// A random number.
    pub(crate) fn u64(&mut self) -> u64 {
        u64::from_le_bytes(self.bytes())
    }

    fn byte(&mut self) -> u8 {
        if self.used >= self.block.len() {
            let tag = hmac::sign(&self.key, &self.counter.to_le_bytes());
            self.block.copy_from_slice(tag.as_ref());
            self.counter += 1;
            self.used = 0;
        }
        let byte = self.block.get(self.used).copied().unwrap_or_default();
        self.used += 1;
        byte
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_seed_gives_one_run_and_forks_differ() {
        let (mut a, mut b) = (Rng::new(&[1; 32]), Rng::new(&[1; 32]));
        assert_eq!(a.bytes::<80>(), b.bytes::<80>());
        let (mut x, mut y) = (a.fork(), a.fork());
        assert_ne!(x.u64(), y.u64());
        assert_ne!(Rng::new(&[2; 32]).u64(), Rng::new(&[1; 32]).u64());
    }
}
