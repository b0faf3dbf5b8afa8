//! Members that are not held yet in an on-demand network: whom packets are for that nobody held has, when the
//! coordinator was asked for them, and the first packets, which wait for the answer.
//!
//! Everything is bounded: how many addresses, how many bytes in all, how old what is sent may be. What waited too long is
//! dropped when its address is looked at next, at the latest when room is needed.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::time::{Duration, Instant};

use ria_protocol::prefix::Prefix;

use super::pending::Pending;

/// Most addresses that are asked for, or known not to be there, at a time.
const MAX_PLACES: usize = 64;

/// Most bytes that wait in all.
const MAX_BYTES: usize = 128 * 1024;

/// Longest time between two questions for one address while packets for it keep coming.
const ASK_AGAIN: Duration = Duration::from_secs(1);

/// How long nobody is asked for an address again that nobody has.
const ABSENT_FOR: Duration = Duration::from_secs(5);

#[derive(Debug)]
enum Place {
    Asked { last: Instant, packets: Pending },
    Absent { until: Instant },
}

/// Whom this node looks for in one network.
#[derive(Debug, Default)]
pub(super) struct Wanted {
    /// Where members can be; empty where all that there are are told of unasked.
    prefixes: Vec<Prefix>,
    places: BTreeMap<IpAddr, Place>,
    /// Packets that were given up since this was asked last.
    given_up: usize,
}

impl Wanted {
    /// Members of these prefixes are looked for.
    pub(super) fn set_prefixes(&mut self, prefixes: Vec<Prefix>) {
        self.prefixes = prefixes;
        for address in self.addresses() {
            if !self.covers(address) {
                self.given_up += self.places.remove(&address).map_or(0, |place| packets_of(place).len());
            }
        }
    }

    fn covers(&self, address: IpAddr) -> bool {
        self.prefixes.iter().any(|prefix| prefix.contains(address))
    }

    /// Somebody has something to say to an address that no peer has. `None`: nobody can be there. Else whether the
    /// coordinator is to be asked now.
    pub(super) fn look_for(&mut self, to: IpAddr, now: Instant) -> Option<bool> {
        if !self.covers(to) {
            return None;
        }
        if !self.places.contains_key(&to) && self.places.len() >= MAX_PLACES {
            self.forget_old(now);
        }
        let (full, asked) =
            (self.places.len() >= MAX_PLACES, Place::Asked { last: now, packets: Pending::default() });
        match self.places.get_mut(&to) {
            None if full => return None,
            Some(Place::Absent { until }) if *until > now => return None,
            Some(Place::Asked { last, .. }) if now.saturating_duration_since(*last) < ASK_AGAIN => {
                return Some(false);
            }
            Some(Place::Asked { last, .. }) => *last = now,
            Some(place @ Place::Absent { .. }) => *place = asked,
            None => _ = self.places.insert(to, asked),
        }
        Some(true)
    }

    /// The same for a packet, which waits, if there is room, until it is known who has the address.
    pub(super) fn handle_packet(&mut self, to: IpAddr, packet: &[u8], now: Instant) -> Option<bool> {
        let ask = self.look_for(to, now)?;
        if self.bytes() + packet.len() > MAX_BYTES {
            self.places.values_mut().for_each(|place| {
                if let Place::Asked { packets, .. } = place {
                    self.given_up += packets.expire(now);
                }
            });
        }
        let room = self.bytes() + packet.len() <= MAX_BYTES;
        self.given_up += match self.places.get_mut(&to) {
            Some(Place::Asked { packets, .. }) if room => packets.push(packet, now),
            Some(_) | None => 1,
        };
        Some(ask)
    }

    /// Nobody has this address whom this node may have to do with.
    pub(super) fn handle_absent(&mut self, address: IpAddr, now: Instant) {
        if let Some(place @ Place::Asked { .. }) = self.places.get_mut(&address) {
            let before = std::mem::replace(place, Place::Absent { until: now + ABSENT_FOR });
            self.given_up += packets_of(before).len();
        }
    }

    /// Who is looked for.
    pub(super) fn addresses(&self) -> Vec<IpAddr> {
        self.places.keys().copied().collect()
    }

    /// Somebody has this address now: takes what waits for it, oldest first, but for what has waited too long.
    pub(super) fn take(&mut self, address: IpAddr, now: Instant) -> Vec<Vec<u8>> {
        let Some(Place::Asked { mut packets, .. }) = self.places.remove(&address) else { return Vec::new() };
        self.given_up += packets.expire(now);
        packets_of(Place::Asked { last: now, packets })
    }

    /// How many packets were given up since this was asked last.
    pub(super) fn take_given_up(&mut self) -> usize {
        std::mem::take(&mut self.given_up)
    }

    fn bytes(&self) -> usize {
        let waiting = self.places.values().map(|place| match place {
            Place::Asked { packets, .. } => packets.bytes(),
            Place::Absent { .. } => 0,
        });
        waiting.sum()
    }

    /// Forgets what is of no more use.
    fn forget_old(&mut self, now: Instant) {
        let given_up = &mut self.given_up;
        self.places.retain(|_, place| match place {
            Place::Asked { last, packets } => {
                *given_up += packets.expire(now);
                !packets.is_empty() || now.saturating_duration_since(*last) < ASK_AGAIN
            }
            Place::Absent { until } => *until > now,
        });
    }
}

fn packets_of(place: Place) -> Vec<Vec<u8>> {
    match place {
        Place::Asked { mut packets, .. } => std::iter::from_fn(|| packets.pop()).collect(),
        Place::Absent { .. } => Vec::new(),
    }
}

#[cfg(test)]
#[allow(clippy::disallowed_methods, reason = "any starting point will do")]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn wanted() -> Wanted {
        let mut wanted = Wanted::default();
        wanted.set_prefixes(vec!["10.213.0.0/16".parse().unwrap()]);
        wanted
    }

    fn address(low: u8) -> IpAddr {
        [10, 213, 0, low].into()
    }

    #[test]
    fn first_packets_wait_and_the_question_is_asked_once_a_second() {
        let (mut wanted, start) = (wanted(), Instant::now());
        assert_eq!(wanted.handle_packet(address(7), &[1], start), Some(true));
        assert_eq!(wanted.handle_packet(address(7), &[2], start), Some(false));
        assert_eq!(wanted.handle_packet([192, 0, 2, 1].into(), &[1], start), None, "nobody is there");
        assert_eq!(wanted.handle_packet(address(7), &[3], start + ASK_AGAIN), Some(true));
        assert_eq!(wanted.addresses(), [address(7)]);
        assert_eq!(wanted.take(address(7), start + ASK_AGAIN), [[1], [2], [3]]);
        assert_eq!((wanted.addresses(), wanted.take_given_up()), (vec![], 0));
    }

    #[test]
    fn who_is_not_there_is_not_asked_for_again_at_once() {
        let (mut wanted, start) = (wanted(), Instant::now());
        assert_eq!(wanted.handle_packet(address(7), &[1], start), Some(true));
        wanted.handle_absent(address(7), start);
        wanted.handle_absent(address(8), start);
        assert_eq!((wanted.take_given_up(), wanted.addresses()), (1, vec![address(7)]));
        assert_eq!(wanted.handle_packet(address(7), &[2], start + ABSENT_FOR / 2), None);
        assert_eq!(wanted.handle_packet(address(7), &[3], start + ABSENT_FOR), Some(true));
        assert_eq!(wanted.take(address(7), start + ABSENT_FOR), [[3]]);
    }

    #[test]
    fn a_network_that_is_pushed_keeps_nothing() {
        let (mut wanted, start) = (wanted(), Instant::now());
        wanted.handle_packet(address(7), &[1], start);
        wanted.set_prefixes(Vec::new());
        assert_eq!(wanted.take_given_up(), 1);
        assert_eq!(wanted.handle_packet(address(7), &[1], start), None);
    }

    #[test]
    fn what_waited_too_long_is_not_sent() {
        let (mut wanted, start) = (wanted(), Instant::now());
        wanted.handle_packet(address(7), &[1], start);
        assert!(wanted.take(address(7), start + Duration::from_secs(4)).is_empty());
        assert_eq!(wanted.take_given_up(), 1);
    }

    proptest! {
        #[test]
        fn it_is_bounded_whatever_comes(
            packets in proptest::collection::vec((any::<u8>(), 1_usize..1500, 0_u64..400), 0..600)
        ) {
            let (mut wanted, mut now) = (wanted(), Instant::now());
            let mut came = 0;
            for (low, size, wait) in packets {
                now += Duration::from_millis(wait);
                came += usize::from(wanted.handle_packet(address(low), &vec![0; size], now).is_some());
                prop_assert!(wanted.places.len() <= MAX_PLACES && wanted.bytes() <= MAX_BYTES);
            }
            let sent: usize = wanted.addresses().into_iter().map(|a| wanted.take(a, now).len()).sum();
            prop_assert_eq!(came, sent + wanted.take_given_up(), "each packet is sent or counted");
        }
    }
}
