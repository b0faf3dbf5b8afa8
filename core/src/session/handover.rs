//! A session that takes over from another with the same peer, after one of the two has another key.
//!
//! The old session's keys are as good as before, so traffic goes on under them until the handshake under the new ones is
//! done; what is still on its way under the old ones is decrypted for a while after that. Nothing is lost.

use super::{HANDSHAKE_ROOM, Session};
use crate::counters::DropReason;

/// How often the new session looks at its clock until nothing under the old one can be on its way any more (5 s in use).
const KEPT_FOR: u32 = 20;

/// Puts `new` in the place of `current`, which goes on as long as it is needed.
pub(crate) fn hand_over(current: &mut Box<dyn Session>, new: Box<dyn Session>) {
    let old = std::mem::replace(current, Box::new(Spent));
    *current = if old.is_ready() { Box::new(Handover { new, old: Some(old), left: KEPT_FOR }) } else { new };
}

/// Two sessions with one peer.
struct Handover {
    new: Box<dyn Session>,
    old: Option<Box<dyn Session>>,
    left: u32,
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
            Some(old) => old.open(datagram, out),
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
        if self.new.is_ready() {
            self.left = self.left.saturating_sub(1);
            if self.left == 0 {
                self.old = None;
            }
        }
        self.new.tick(out)
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
