//! Who has which hardware address on one network: ARP (RFC 826) for one interface with one address.

use std::collections::{BTreeMap, VecDeque};
use std::net::Ipv4Addr;
use std::time::{Duration, Instant};

use crate::packet::ethernet::{self, Arp, BROADCAST, IPV4, Mac};

/// Between two questions for the same address.
const ASK_EVERY: Duration = Duration::from_secs(1);

/// Questions without an answer after which nobody is there.
const ASK_MAX: u32 = 3;

/// After this an address is asked for again, while the old answer is still used.
const STALE: Duration = Duration::from_secs(30);

/// Frames that wait for one answer.
const WAITING_MAX: usize = 32;

/// Addresses known, or asked for, at most.
const ENTRIES_MAX: usize = 4096;

#[derive(Debug)]
struct Entry {
    mac: Option<Mac>,
    /// When it was heard of, or asked for.
    since: Instant,
    asked: u32,
    waiting: VecDeque<Vec<u8>>,
}

/// The neighbours on one network.
#[derive(Debug)]
pub struct Neighbours {
    mac: Mac,
    address: Ipv4Addr,
    entries: BTreeMap<Ipv4Addr, Entry>,
    out: Vec<Vec<u8>>,
}

impl Neighbours {
    /// Nobody is known yet; the network is told who is there.
    pub fn new(mac: Mac, address: Ipv4Addr) -> Self {
        let mut neighbours = Self { mac, address, entries: BTreeMap::new(), out: Vec::new() };
        neighbours.set_address(address);
        neighbours
    }

    /// The own address.
    pub fn address(&self) -> Ipv4Addr {
        self.address
    }

    /// The own hardware address.
    pub fn mac(&self) -> Mac {
        self.mac
    }

    /// Takes another address, and announces it (RFC 5227).
    pub fn set_address(&mut self, address: Ipv4Addr) {
        self.address = address;
        let own = (self.mac, address);
        self.out.push(Arp { is_request: true, sender: own, target: ([0; 6], address) }.frame(BROADCAST));
    }

    /// Frames that are to be sent.
    pub fn poll_frames(&mut self) -> std::vec::Drain<'_, Vec<u8>> {
        self.out.drain(..)
    }

    /// Learns from an ARP frame, and answers it.
    pub fn handle_arp(&mut self, frame: &[u8], now: Instant) {
        let Some(arp) = Arp::read(frame) else { return };
        let (mac, address) = arp.sender;
        let is_for_us = arp.target.1 == self.address;
        if mac == self.mac || mac[0] & 1 != 0 || address == self.address {
            return;
        }
        // Who asks us is going to want an answer; of others only news about those whom we know are of use.
        let is_of_use = self.entries.contains_key(&address) || is_for_us && self.entries.len() < ENTRIES_MAX;
        if is_of_use && !address.is_unspecified() {
            let waiting = self.entries.remove(&address).map(|entry| entry.waiting).unwrap_or_default();
            for mut frame in waiting {
                ethernet::write(&mut frame, mac, self.mac, IPV4);
                self.out.push(frame);
            }
            let known = Entry { mac: Some(mac), since: now, asked: 0, waiting: VecDeque::new() };
            self.entries.insert(address, known);
        }
        if arp.is_request && is_for_us {
            let answer = Arp { is_request: false, sender: (self.mac, self.address), target: arp.sender };
            self.out.push(answer.frame(mac));
        }
    }

    /// Sends a frame, whose header has yet to be written, to a neighbour; asks who it is if that is not known. False when
    /// too much is waiting for answers.
    pub fn send(&mut self, to: Ipv4Addr, mut frame: Vec<u8>, now: Instant) -> bool {
        if !self.entries.contains_key(&to) && self.entries.len() >= ENTRIES_MAX {
            return false;
        }
        let never = now.checked_sub(STALE).unwrap_or(now);
        let entry = self.entries.entry(to).or_insert(Entry {
            mac: None,
            since: never,
            asked: 0,
            waiting: VecDeque::new(),
        });
        let age = now.saturating_duration_since(entry.since);
        let has_to_ask = match entry.mac {
            Some(_) => age >= STALE + ASK_EVERY * entry.asked,
            None => entry.asked == 0,
        };
        if has_to_ask {
            entry.asked += 1;
            if entry.mac.is_none() {
                entry.since = now;
            }
        }
        let is_taken = match entry.mac {
            Some(mac) => {
                ethernet::write(&mut frame, mac, self.mac, IPV4);
                self.out.push(frame);
                true
            }
            None if entry.waiting.len() < WAITING_MAX => {
                entry.waiting.push_back(frame);
                true
            }
            None => false,
        };
        if has_to_ask {
            self.ask(to);
        }
        is_taken
    }

    /// Asks again where no answer came, and gives up in the end: then the frames that waited are handed out.
    pub fn handle_time(&mut self, now: Instant) -> Vec<Vec<u8>> {
        let is_due = |entry: &Entry| entry.mac.is_none() && now >= entry.since + ASK_EVERY;
        let due: Vec<Ipv4Addr> =
            self.entries.iter().filter(|(_, entry)| is_due(entry)).map(|(address, _)| *address).collect();
        let mut given_up = Vec::new();
        for address in due {
            let Some(entry) = self.entries.get_mut(&address) else { continue };
            if entry.asked < ASK_MAX {
                (entry.since, entry.asked) = (now, entry.asked + 1);
                self.ask(address);
            } else if let Some(entry) = self.entries.remove(&address) {
                given_up.extend(entry.waiting);
            }
        }
        given_up
    }

    /// When there is somebody to ask for again.
    pub fn next_due(&self) -> Option<Instant> {
        let asked = self.entries.values().filter(|entry| entry.mac.is_none());
        asked.map(|entry| entry.since + ASK_EVERY).min()
    }

    fn ask(&mut self, address: Ipv4Addr) {
        let own = (self.mac, self.address);
        self.out.push(Arp { is_request: true, sender: own, target: ([0; 6], address) }.frame(BROADCAST));
    }
}
