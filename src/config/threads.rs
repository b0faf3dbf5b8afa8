//! How many threads packets pass through.

use std::fmt;
use std::str::FromStr;

use serde::Deserialize;
use serde::de::{Error, Visitor};

/// The largest number that can be set.
const MOST: usize = 16;

/// The largest number that is taken unasked: one thread reads and sends for all, and does not keep more busy.
const MOST_UNASKED: usize = 4;

/// The key `packet_threads`.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum PacketThreads {
    /// As the machine has cores.
    #[default]
    Auto,
    /// So many.
    Fixed(usize),
}

/// What was set is neither a number of threads nor "auto".
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is neither \"auto\" nor a number from 1 to {MOST}")]
pub struct UnknownThreads(String);

impl PacketThreads {
    /// How many that are on this machine. The cores that count are those that this process may run on.
    pub fn count(self) -> usize {
        match self {
            Self::Auto => for_cores(std::thread::available_parallelism().map_or(1, usize::from)),
            Self::Fixed(count) => count,
        }
    }

    fn fixed(count: i64) -> Result<Self, UnknownThreads> {
        let fits = usize::try_from(count).ok().filter(|count| (1..=MOST).contains(count));
        fits.map(Self::Fixed).ok_or_else(|| UnknownThreads(count.to_string()))
    }
}

/// Half of the cores, since programs need the others; up to three, one thread does better, for it hands nothing over.
fn for_cores(cores: usize) -> usize {
    if cores <= 3 { 1 } else { (cores / 2).min(MOST_UNASKED) }
}

impl FromStr for PacketThreads {
    type Err = UnknownThreads;

    fn from_str(text: &str) -> Result<Self, UnknownThreads> {
        match text {
            "auto" => Ok(Self::Auto),
            _ => text.parse().map_err(|_| UnknownThreads(text.to_owned())).and_then(Self::fixed),
        }
    }
}

impl<'de> Deserialize<'de> for PacketThreads {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Either;
        impl Visitor<'_> for Either {
            type Value = PacketThreads;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "\"auto\" or a number from 1 to {MOST}")
            }

            fn visit_i64<E: Error>(self, count: i64) -> Result<PacketThreads, E> {
                PacketThreads::fixed(count).map_err(E::custom)
            }

            fn visit_str<E: Error>(self, text: &str) -> Result<PacketThreads, E> {
                text.parse().map_err(E::custom)
            }
        }
        deserializer.deserialize_any(Either)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn small_machines_have_one_thread_and_large_ones_not_too_many() {
        let counts: Vec<usize> = [1, 2, 3, 4, 6, 8, 64].into_iter().map(for_cores).collect();
        assert_eq!(counts, [1, 1, 1, 2, 3, 4, 4]);
        assert_eq!(PacketThreads::Fixed(7).count(), 7);
    }

    #[test]
    fn it_is_a_number_or_one_word() {
        assert_eq!("auto".parse(), Ok(PacketThreads::Auto));
        assert_eq!("16".parse(), Ok(PacketThreads::Fixed(16)));
        for bad in ["0", "17", "-1", "many", ""] {
            let error = bad.parse::<PacketThreads>().unwrap_err().to_string();
            assert!(error.starts_with(&format!("{bad:?} is neither")), "{error}");
        }
    }
}
