//! Beacons on the local network: the sockets by which members find each other when nobody else tells them where they are.
//!
//! ```text
//!   engine ── BeaconDue ──► agent's loop ── send ──► every link, to the group and to all
//!   engine ◄── packet thread ◄── bounded queue ◄── a task per family ◄── UDP port 41821
//! ```
//!
//! Which beacon goes when, and what one that is heard means, is the engine's. Here are the group, the port, and the links
//! that they are used on. What comes in is taken at a bounded pace, whatever others send.

mod sockets;

use std::collections::VecDeque;
use std::io;
use std::net::{SocketAddr, UdpSocket};
use std::time::Duration;

use ria_core::beacon::LEN;
use tokio::sync::mpsc;
use tokio::task::AbortHandle;

use crate::netdev::host::Place;

/// The port at which beacons are heard, on all machines the same; no packets of tunnels come here.
pub const PORT: u16 = 41821;

/// Beacons that may wait for the packet thread.
pub const BACKLOG: usize = 64;

/// Time between two datagrams that are looked at: 200 a second. What a flood brings beyond that, the kernel drops.
const PACE: Duration = Duration::from_millis(5);

/// Datagrams that are recognised as a copy: one goes to the group and to all, and arrives twice where both work.
const RECENT: usize = 16;

/// What arrived at the port.
#[derive(Debug)]
pub struct Heard {
    /// From whom.
    pub from: SocketAddr,
    /// What.
    pub datagram: [u8; LEN],
}

/// The agent's beacons; switched off until they are started.
#[derive(Default)]
pub struct Beacons {
    listeners: Vec<UdpSocket>,
    tasks: Vec<AbortHandle>,
    places: Vec<Place>,
}

impl Beacons {
    /// Opens the port for what is available of IPv4 and IPv6. Must be called within the runtime that serves it.
    pub fn start(heard: &mpsc::Sender<Heard>) -> io::Result<Self> {
        let mut beacons = Self::default();
        let opened = [sockets::listen_v4(PORT), sockets::listen_v6(PORT)];
        let mut failure = None;
        for socket in opened {
            match socket.and_then(|socket| beacons.add(socket, heard)) {
                Ok(()) => {}
                Err(error) => failure = Some(error),
            }
        }
        match failure {
            Some(error) if beacons.listeners.is_empty() => Err(error),
            Some(_) | None => Ok(beacons),
        }
    }

    fn add(&mut self, socket: UdpSocket, heard: &mpsc::Sender<Heard>) -> io::Result<()> {
        let listening = tokio::net::UdpSocket::from_std(socket.try_clone()?)?;
        self.listeners.push(socket);
        self.tasks.push(tokio::spawn(listen(listening, heard.clone())).abort_handle());
        Ok(())
    }

    /// This machine is on these links now. Returns whether anything has changed.
    pub fn follow(&mut self, places: Vec<Place>) -> bool {
        if self.listeners.is_empty() || places == self.places {
            return false;
        }
        for socket in &self.listeners {
            places.iter().for_each(|place| sockets::join(socket, place));
        }
        self.places = places;
        true
    }

    /// The addresses from which beacons can go, each with the port of this agent's tunnels.
    pub fn addresses(&self, udp_port: u16) -> Vec<SocketAddr> {
        self.places.iter().map(|place| place.socket_address(udp_port)).collect()
    }

    /// Sends a beacon to everybody on the link of this address.
    pub fn send(&self, from: SocketAddr, datagram: &[u8]) {
        let Some(place) = self.places.iter().find(|place| place.socket_address(from.port()) == from) else {
            return;
        };
        if let Err(error) = sockets::send(place, PORT, datagram) {
            tracing::debug!(interface = place.interface, %error, "no beacon can be sent here");
        }
    }
}

impl Drop for Beacons {
    fn drop(&mut self) {
        self.tasks.iter().for_each(AbortHandle::abort);
    }
}

/// Passes on what may be a beacon.
async fn listen(socket: tokio::net::UdpSocket, heard: mpsc::Sender<Heard>) {
    let mut buffer = [0; LEN + 1];
    let mut recent: VecDeque<(SocketAddr, [u8; LEN])> = VecDeque::with_capacity(RECENT);
    loop {
        let received = socket.recv_from(&mut buffer).await;
        if let Ok((length, from)) = received
            && let Ok(datagram) = <[u8; LEN]>::try_from(buffer.get(..length).unwrap_or_default())
            && !recent.contains(&(from, datagram))
        {
            if recent.len() >= RECENT {
                recent.pop_front();
            }
            recent.push_back((from, datagram));
            // A packet thread that is that busy has peers.
            let _ = heard.try_send(Heard { from: ria_datagrams::canonical(from), datagram });
        }
        tokio::time::sleep(PACE).await;
    }
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use super::*;

    #[tokio::test]
    async fn two_agents_of_one_machine_hear_and_a_copy_counts_once() {
        let (heard, mut first) = mpsc::channel(8);
        let (other, mut second) = mpsc::channel(8);
        let _beacons = [Beacons::start(&heard).unwrap(), Beacons::start(&other).unwrap()];
        let sender = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        sender.set_broadcast(true).unwrap();
        let all = SocketAddr::from(([127, 255, 255, 255], PORT));
        for datagram in [&[1; LEN][..], &[1; LEN], &[2; LEN + 1], &[3; LEN - 1], &[4; LEN]] {
            sender.send_to(datagram, all).unwrap();
        }
        for inbox in [&mut first, &mut second] {
            for expected in [1, 4] {
                let heard = inbox.recv().await.unwrap();
                assert_eq!((heard.from, heard.datagram), (sender.local_addr().unwrap(), [expected; LEN]));
            }
            assert!(inbox.is_empty());
        }
    }
}
