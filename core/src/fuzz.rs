//! Bodies of the fuzz targets for what the engine takes in. The fuzzer runs them, and the tests replay its corpora.
//!
//! The bytes of an input are read as instructions ([`Unstructured`]), so that the fuzzer gets behind the authentication
//! that stops random bytes: it turns real datagrams over, in any order, from anywhere. What is held: no panic; only
//! packets that were sent come out, at most once; no timer turns in a circle; maps fold the same way however they come.

#![allow(clippy::disallowed_methods, reason = "virtual time has to begin somewhere")]

mod beacon;
mod engine;
mod ice;
mod lan;
mod map;
mod multicast;
mod offload;
mod parts;

use std::time::Duration;

use arbitrary::Unstructured;

pub use beacon::beacon;
pub use engine::{datagrams, tun_packets};
pub use ice::ice_checks;
pub use lan::lan;
pub use map::fold as map_fold;
pub use multicast::rtps;
pub use offload::offload;
pub use parts::{path_probe, relay_client, session};

/// A target's name and body.
pub type Target = (&'static str, fn(&[u8]));

/// The targets of this crate.
pub const TARGETS: [Target; 11] = [
    ("beacon", beacon),
    ("datagrams", datagrams),
    ("tun_packets", tun_packets),
    ("map_fold", map_fold),
    ("relay_client", relay_client),
    ("path_probe", path_probe),
    ("ice_checks", ice_checks),
    ("session", session),
    ("rtps", rtps),
    ("offload", offload),
    ("lan", lan),
];

/// Up to four seconds, mostly short.
fn pause(input: &mut Unstructured<'_>) -> Duration {
    let step = input.arbitrary::<u8>().unwrap_or(0);
    Duration::from_millis(1 << (step % 13))
}

/// Some bytes of the input.
fn bytes<'a>(input: &mut Unstructured<'a>) -> &'a [u8] {
    let len = usize::from(input.arbitrary::<u8>().unwrap_or(0));
    input.bytes(len.min(input.len())).unwrap_or_default()
}

/// Turns over, cuts off or appends what the input says.
fn damage(datagram: &mut Vec<u8>, input: &mut Unstructured<'_>) {
    let at = usize::from(input.arbitrary::<u8>().unwrap_or(0));
    match input.arbitrary::<u8>().unwrap_or(0) % 4 {
        0 => {
            if let Some(byte) = datagram.get_mut(at) {
                *byte ^= input.arbitrary::<u8>().unwrap_or(0);
            }
        }
        1 => datagram.truncate(at),
        2 => datagram.extend_from_slice(bytes(input)),
        _ => {
            let from = at.min(datagram.len());
            let with = bytes(input);
            let to = (from + with.len()).min(datagram.len());
            datagram.splice(from..to, with.iter().copied());
        }
    }
}

#[cfg(test)]
mod tests {
    #[test]
    fn corpora_are_replayed() {
        super::TARGETS.iter().for_each(|(name, body)| ria_corpus::replay(name, *body));
    }
}
