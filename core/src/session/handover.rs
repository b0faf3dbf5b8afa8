//! A session that takes over from another with the same peer, after one of the two has another key.
//!
//! The old session's keys are as good as before, so traffic goes on under them until the handshake under the new ones is
//! done; what is still on its way under the old ones is decrypted for a while after that. Nothing is lost: an end that goes
//! on under the old ones, because the confirmation of the new ones got lost, is sent another.

use super::{HANDSHAKE_ROOM, Session};
use crate::counters::DropReason;

/// How often the new session looks at its clock until nothing under the old one can be on its way any more (5 s in use).
const KEPT_FOR: u32 = 20;

/// Puts `new` in the place of `current`, which goes on as long as it is needed.
pub(crate) fn hand_over(current: &mut Box<dyn Session>, new: Box<dyn Session>) {
    let old = std::mem::replace(current, Box::new(Spent));
    *current = if old.is_ready() {
        Box::new(Handover { new, old: Some(old), left: KEPT_FOR, is_doubted: false })
    } else {
        new
    };
}

/// Two sessions with one peer.
struct Handover {
    new: Box<dyn Session>,
    old: Option<Box<dyn Session>>,
    left: u32,
    /// Whether something came under the old keys while the new ones were good here.
    is_doubted: bool,
}

impl Session for Handover {
    fn is_ready(&self) -> bool {
        self.new.is_ready() || self.old.as_ref().is_some_and(|old| old.is_ready())
    }

    fn seal(&mut self, packet: &[u8], out: &mut [u8]) -> Option<usize> {
        match &mut self.old {
            Some(old) if !self.new.is_ready() => old.seal(packet, out),
            Some(_) | None => self.new.seal(packet, out),
        }
    }

    fn open(&mut self, datagram: &[u8], out: &mut [u8]) -> Result<usize, DropReason> {
        // Both count their keys from the same number, so only trying tells whose this is.
        self.new.open(datagram, out).or_else(|reason| match &mut self.old {
            Some(old) => {
                let len = old.open(datagram, out)?;
                self.is_doubted = self.new.is_ready();
                Ok(len)
            }
            None => Err(reason),
        })
    }

    fn handle_handshake(&mut self, datagram: &[u8], out: &mut [u8]) -> Result<Option<usize>, DropReason> {
        self.new.handle_handshake(datagram, out)
    }

    fn initiate(&mut self, out: &mut [u8]) -> Option<usize> {
        self.new.initiate(out)
    }

    fn tick(&mut self, out: &mut [u8]) -> Option<usize> {
        if let Some(old) = &mut self.old {
            // It begins no handshakes any more; all that is wanted of it is that its keys end in time.
            let _ = old.tick(&mut [0; HANDSHAKE_ROOM]);
        }
        let is_doubted = std::mem::take(&mut self.is_doubted);
        if is_doubted {
            self.left = KEPT_FOR;
        } else if self.new.is_ready() {
            self.left = self.left.saturating_sub(1);
            if self.left == 0 {
                self.old = None;
            }
        }
        let due = self.new.tick(out);
        // Where this end has nothing to say, only a keepalive tells the other that the new keys are good.
        due.or_else(|| if is_doubted { self.new.seal(&[], out) } else { None })
    }

    fn take_settled(&mut self) -> Option<Box<dyn Session>> {
        if self.old.is_some() {
            return None;
        }
        Some(std::mem::replace(&mut self.new, Box::new(Spent)))
    }
}

/// Stands where a session was taken from.
struct Spent;

impl Session for Spent {
    fn is_ready(&self) -> bool {
        false
    }

    fn seal(&mut self, _: &[u8], _: &mut [u8]) -> Option<usize> {
        None
    }

    fn open(&mut self, _: &[u8], _: &mut [u8]) -> Result<usize, DropReason> {
        Err(DropReason::NoSuchSession)
    }

    fn handle_handshake(&mut self, _: &[u8], _: &mut [u8]) -> Result<Option<usize>, DropReason> {
        Err(DropReason::NoSuchSession)
    }

    fn initiate(&mut self, _: &mut [u8]) -> Option<usize> {
        None
    }

    fn tick(&mut self, _: &mut [u8]) -> Option<usize> {
        None
    }
}

#[cfg(test)]
mod tests {
    use ria_protocol::keys::WgPublicKey;

    use super::*;
    use crate::session::wireguard::WireGuard;
    use crate::session::{NetworkSessions, OVERHEAD, SessionFactory};

    const ROOM: usize = HANDSHAKE_ROOM + OVERHEAD;

    fn end(key: u8) -> Box<dyn NetworkSessions> {
        WireGuard.network(&[key; 32])
    }

    fn sessions(a: &dyn NetworkSessions, b: &dyn NetworkSessions) -> (Box<dyn Session>, Box<dyn Session>) {
        let key = |of: &dyn NetworkSessions| WgPublicKey(of.public_key().0);
        (a.session(&key(b), None, 1), b.session(&key(a), None, 1))
    }

    /// `a` begins; the keepalive that confirms the keys to `b`.
    fn shake_hands(a: &mut dyn Session, b: &mut dyn Session) -> Vec<u8> {
        let (mut initiation, mut response, mut keepalive) = ([0; ROOM], [0; ROOM], [0; ROOM]);
        let len = a.initiate(&mut initiation).unwrap();
        let len = b.handle_handshake(&initiation[..len], &mut response).unwrap().unwrap();
        let len = a.handle_handshake(&response[..len], &mut keepalive).unwrap().unwrap();
        keepalive[..len].to_vec()
    }

    fn opens(from: &mut dyn Session, to: &mut dyn Session) -> Result<usize, DropReason> {
        let packet = [&[0x45, 0, 0, 20], &[0; 16][..]].concat();
        let (mut sealed, mut opened) = ([0; ROOM], [0; ROOM]);
        let len = from.seal(&packet, &mut sealed).unwrap();
        to.open(&sealed[..len], &mut opened)
    }

    #[test]
    fn an_end_that_did_not_hear_that_the_new_keys_are_good_is_told_again() {
        let (a_net, b_net, a_later) = (end(1), end(2), end(3));
        let (mut a, mut b) = sessions(&*a_net, &*b_net);
        let keepalive = shake_hands(&mut *a, &mut *b);
        assert_eq!(b.open(&keepalive, &mut [0; ROOM]), Ok(0));
        let (new_a, new_b) = sessions(&*a_later, &*b_net);
        hand_over(&mut a, new_a);
        hand_over(&mut b, new_b);
        let lost = shake_hands(&mut *a, &mut *b);
        assert!(!lost.is_empty());
        // Whatever comes for however long, it is decrypted, and a keepalive is tried again.
        let mut out = [0; ROOM];
        for _ in 0..3 * KEPT_FOR {
            assert_eq!(opens(&mut *b, &mut *a), Ok(20));
            assert!(a.tick(&mut out).is_some() && a.take_settled().is_none());
        }
        assert_eq!(opens(&mut *b, &mut *a), Ok(20));
        let len = a.tick(&mut out).unwrap();
        assert_eq!(b.open(&out[..len], &mut [0; ROOM]), Ok(0));
        // Now the old keys are of no use any more.
        for _ in 0..=KEPT_FOR {
            assert_eq!(opens(&mut *b, &mut *a), Ok(20));
            assert_eq!(a.tick(&mut out), None);
        }
        assert!(a.take_settled().is_some());
    }
}
