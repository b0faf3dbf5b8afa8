//! Changes made on this machine that its coordinator has not been told of: kept until they are, also over a restart.

use minicbor::{Decode, Encode};
use ria_protocol::message::NodeMessage;
use ria_protocol::requester::{LocalChange, LocalDeed, Requester};
use ria_protocol::time::UnixTime;

/// The newest are kept.
const MAX: usize = 16;

/// Something that was changed on this machine, for the coordinator to know.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub struct Note {
    /// Grows from note to note.
    #[n(0)]
    pub number: u64,
    /// What.
    #[n(1)]
    pub deed: LocalDeed,
    /// By whom.
    #[n(2)]
    pub by: Requester,
    /// When, as well as the time was known.
    #[n(3)]
    pub at: UnixTime,
}

impl Note {
    /// For the stream; `now` is the coordinator's time.
    pub fn message(&self, now: UnixTime) -> NodeMessage {
        let ago = u32::try_from(now.since(self.at).as_secs()).unwrap_or(u32::MAX);
        NodeMessage::Changed(LocalChange { deed: self.deed, by: self.by.clone(), ago })
    }
}

/// What one network's coordinator does not know yet.
#[derive(Debug, Clone, Default, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub struct Untold {
    /// The number of the last note.
    #[n(0)]
    last: u64,
    /// Oldest first.
    #[n(1)]
    notes: Vec<Note>,
}

impl Untold {
    /// Another one.
    pub fn add(&mut self, deed: LocalDeed, by: Requester, at: UnixTime) -> Note {
        self.last += 1;
        let note = Note { number: self.last, deed, by, at };
        self.notes.push(note.clone());
        let excess = self.notes.len().saturating_sub(MAX);
        self.notes.drain(..excess);
        note
    }

    /// The coordinator was told of this one and those before; whether that is news.
    pub fn forget(&mut self, number: u64) -> bool {
        let before = self.notes.len();
        self.notes.retain(|note| note.number > number);
        self.notes.len() < before
    }

    /// All, oldest first.
    pub fn notes(&self) -> &[Note] {
        &self.notes
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn by() -> Requester {
        Requester { via: "socket".into(), uid: Some(0), user: None, login: None, program: None }
    }

    #[test]
    fn the_newest_are_kept_until_they_are_told() {
        let mut untold = Untold::default();
        (0..20).for_each(|second| _ = untold.add(LocalDeed::SwitchedOn, by(), UnixTime(second)));
        let numbers: Vec<u64> = untold.notes().iter().map(|note| note.number).collect();
        assert_eq!(numbers, (5..=20).collect::<Vec<_>>());
        assert!(untold.forget(19));
        assert!(!untold.forget(19), "no news");
        assert_eq!(untold.notes().len(), 1);
        assert!(untold.forget(20));
        assert_eq!(untold.add(LocalDeed::SwitchedOff, by(), UnixTime(0)).number, 21, "no number comes twice");
    }

    #[test]
    fn how_long_ago_it_was_is_told_by_the_coordinators_clock_and_never_negative() {
        let note = Untold::default().add(LocalDeed::SetUrl, by(), UnixTime(100));
        let ago = |now| {
            let NodeMessage::Changed(change) = note.message(UnixTime(now)) else { panic!("no change") };
            change.ago
        };
        assert_eq!((ago(160), ago(50), ago(u64::MAX)), (60, 0, u32::MAX));
    }
}
