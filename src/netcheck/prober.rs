//! A socket that asks STUN servers, several at a time, and waits for the answers.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::time::Duration;

use quinn_udp::{UdpSockRef, UdpSocketState};
use rand_core::{OsRng, RngCore};
use socket2::{Domain, Protocol, Socket, Type};
use tokio::net::UdpSocket;
use tokio::time::{Instant, sleep_until, timeout_at};

use super::stun::{self, Reply};

/// When a question is asked again, while nothing has answered it.
const SENDS: [Duration; 3] = [Duration::ZERO, Duration::from_millis(200), Duration::from_millis(500)];

/// Room for one datagram.
const BUFFER: usize = 2048;

/// A question.
#[derive(Debug, Clone, Copy)]
pub struct Question {
    /// Whom.
    pub to: SocketAddr,
    /// From where the answer shall come: flags of CHANGE-REQUEST.
    pub change: Option<u32>,
    /// Length of the request.
    pub len: usize,
}

impl Question {
    /// A plain one.
    pub fn plain(to: SocketAddr) -> Self {
        Self { to, change: None, len: 0 }
    }
}

/// An answer.
#[derive(Debug, Clone, Copy)]
pub struct Heard {
    /// Where it came from.
    pub from: SocketAddr,
    /// What it says.
    pub reply: Reply,
    /// How long it took.
    pub rtt: Duration,
}

/// The socket.
#[derive(Debug)]
pub struct Prober {
    socket: UdpSocket,
}

impl Prober {
    /// With any port, for one address family.
    pub fn open(v6: bool) -> io::Result<Self> {
        let any: IpAddr = if v6 { Ipv6Addr::UNSPECIFIED.into() } else { Ipv4Addr::UNSPECIFIED.into() };
        let domain = if v6 { Domain::IPV6 } else { Domain::IPV4 };
        let socket = Socket::new(domain, Type::DGRAM, Some(Protocol::UDP))?;
        if v6 {
            socket.set_only_v6(true)?;
        }
        socket.set_nonblocking(true)?;
        socket.bind(&SocketAddr::new(any, 0).into())?;
        Ok(Self { socket: UdpSocket::from_std(socket.into())? })
    }

    /// What it sends is never fragmented, on this machine or under way, whatever the kernel remembers of the path
    /// (`IP_PMTUDISC_PROBE`, which this state sets).
    pub fn forbid_fragments(&self) -> io::Result<()> {
        UdpSocketState::new(UdpSockRef::from(&self.socket)).map(|_| ())
    }

    /// Its port.
    #[cfg(test)]
    pub fn port(&self) -> u16 {
        self.socket.local_addr().map_or(0, |address| address.port())
    }

    /// Asks all questions and waits for the answers, so long at most; each answer, or none, in the questions' order.
    pub async fn ask(&self, questions: &[Question], patience: Duration) -> Vec<Option<Heard>> {
        let begin = Instant::now();
        let mut sent: Vec<(u128, usize, Instant)> = Vec::new();
        let mut heard: Vec<Option<Heard>> = vec![None; questions.len()];
        for (round, after) in SENDS.into_iter().enumerate() {
            let next = SENDS.get(round + 1).map_or(patience, |next| (*next).min(patience));
            sleep_until(begin + after).await;
            for (number, question) in questions.iter().enumerate().filter(|(n, _)| heard[*n].is_none()) {
                let id = number_of_transaction();
                sent.push((id, number, Instant::now()));
                let bytes = stun::request(id, question.change, question.len);
                // Without a route there is no answer either.
                let _ = self.socket.send_to(&bytes, question.to).await;
            }
            self.listen(&sent, &mut heard, begin + next).await;
            if heard.iter().all(Option::is_some) || begin.elapsed() >= patience {
                break;
            }
        }
        heard
    }

    async fn listen(&self, sent: &[(u128, usize, Instant)], heard: &mut [Option<Heard>], until: Instant) {
        let mut buffer = [0; BUFFER];
        while heard.iter().any(Option::is_none) {
            let Ok(received) = timeout_at(until, self.socket.recv_from(&mut buffer)).await else { return };
            // An error here is an ICMP message about an earlier datagram.
            let Ok((len, from)) = received else { continue };
            // Where fragments are forbidden the kernel also hands over several at once (GRO).
            for reply in stun::messages(buffer.get(..len).unwrap_or_default()).filter_map(stun::reply) {
                let Some((_, number, at)) = sent.iter().find(|(id, _, _)| *id == reply.id) else { continue };
                let answer = Heard { from: stun::canonical(from), reply, rtt: at.elapsed() };
                if let Some(slot) = heard.get_mut(*number) {
                    slot.get_or_insert(answer);
                }
            }
        }
    }

    /// Whether this socket and another hear each other by their outer addresses. Each sends first, so that a filter lets
    /// the other in.
    pub async fn meets(&self, other: &Self, [own, others]: [SocketAddr; 2], patience: Duration) -> bool {
        let ids = [number_of_transaction(), number_of_transaction()];
        let until = Instant::now() + patience;
        for _ in SENDS {
            // Without a route they don't meet either.
            let _ = self.socket.send_to(&stun::request(ids[0], None, 0), others).await;
            let _ = other.socket.send_to(&stun::request(ids[1], None, 0), own).await;
            let next = (Instant::now() + SENDS[1]).min(until);
            let heard = async {
                tokio::select! {
                    () = self.hear_request(ids[1]) => {}
                    () = other.hear_request(ids[0]) => {}
                }
            };
            if timeout_at(next, heard).await.is_ok() {
                return true;
            }
        }
        false
    }

    async fn hear_request(&self, id: u128) {
        let mut buffer = [0; BUFFER];
        loop {
            // An error here is an ICMP message about an earlier datagram.
            let Ok((len, _)) = self.socket.recv_from(&mut buffer).await else { continue };
            if buffer.get(..len).and_then(stun::request_id) == Some(id) {
                return;
            }
        }
    }
}

/// 96 random bits (RFC 8489, section 5).
fn number_of_transaction() -> u128 {
    let mut bytes = [0; 16];
    OsRng.fill_bytes(&mut bytes[4..]);
    u128::from_be_bytes(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn sockets_meet_where_nothing_is_in_between() {
        let [a, b, c] = [(); 3].map(|()| Prober::open(false).unwrap());
        let at = |prober: &Prober| SocketAddr::from((Ipv4Addr::LOCALHOST, prober.port()));
        assert!(a.meets(&b, [at(&a), at(&b)], Duration::from_secs(5)).await);
        assert!(!a.meets(&b, [at(&c), at(&c)], Duration::from_millis(10)).await);
    }

    #[tokio::test]
    async fn silence_ends_when_patience_does() {
        let (prober, silent) = (Prober::open(false).unwrap(), Prober::open(false).unwrap());
        let to = SocketAddr::from((Ipv4Addr::LOCALHOST, silent.port()));
        let heard = prober.ask(&[Question::plain(to)], Duration::from_millis(50)).await;
        assert_eq!(heard.len(), 1);
        assert!(heard[0].is_none());
    }
}
