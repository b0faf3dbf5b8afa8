//! What is urgent: its mark, and from where the kernel would send it.

use std::net::{IpAddr, SocketAddr, UdpSocket};

/// What marks datagrams as urgent: the class AF42 (RFC 2597). Linux's queues put it before others (its bits say "low
/// delay" in the older reading, RFC 1349), Wi-Fi sends it in the category of video, and networks that don't know it carry
/// it as all else. WireGuard marks its handshakes in the same class.
pub const CLASS: u8 = 0x90;

/// A STUN binding request (RFC 8489, section 5), such as ICE's checks are.
const BINDING_REQUEST: [u8; 2] = [0, 1];

/// Whether this is a check from an address that is not the kernel's choice for where it goes. The kernel would send it out
/// all the same, by the interface that its routes name and with a source of another one: no such pair can work as it is
/// meant, and at a NAT it may take the port that the check from the right address needs.
pub fn is_astray(to: SocketAddr, from: Option<IpAddr>, datagram: &[u8]) -> bool {
    let Some(from) = from.filter(|_| datagram.starts_with(&BINDING_REQUEST)) else { return false };
    let any = if to.is_ipv4() { IpAddr::from([0; 4]) } else { IpAddr::from([0; 16]) };
    let chosen = UdpSocket::bind((any, 0)).and_then(|socket| {
        socket.connect(to)?;
        socket.local_addr()
    });
    !chosen.is_ok_and(|chosen| chosen.ip() == from)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_checks_from_another_address_than_the_kernels_choice_are_astray() {
        let to = "127.0.0.1:9".parse().unwrap();
        let check = [0, 1, 0, 0];
        let (right, wrong) = (Some("127.0.0.1".parse().unwrap()), Some("127.0.0.2".parse().unwrap()));
        assert!(!is_astray(to, right, &check) && !is_astray(to, None, &check));
        assert!(is_astray(to, wrong, &check));
        assert!(!is_astray(to, wrong, &[1, 1, 0, 0]), "an answer goes out from where the question came to");
        assert!(!is_astray(to, wrong, &[0xd1, 1]));
    }
}
