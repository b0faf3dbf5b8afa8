//! What somebody has seen of a node before they change it, as one word (RFC 9110, section 8.8.3): it is another word as soon
//! as somebody else has changed something that administrators decide.

use data_encoding::HEXLOWER;

use super::stock::StaticEntry;
use super::{MemberEntry, Network};

/// The word.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Etag(String);

impl Etag {
    /// As somebody sends it back; anything else than the right one fits nothing.
    pub fn given(text: &str) -> Self {
        Self(text.to_owned())
    }

    /// The word itself, without quotes.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    fn of(parts: &[&str]) -> Self {
        // Parts may hold anything, so each says how long it is.
        let whole: String = parts.iter().map(|part| format!("{}:{part}", part.len())).collect();
        let digest = ring::digest::digest(&ring::digest::SHA256, whole.as_bytes());
        Self(HEXLOWER.encode(digest.as_ref().get(..8).unwrap_or_default()))
    }
}

impl MemberEntry {
    /// What administrators have decided of it.
    pub fn etag(&self) -> Etag {
        let disabled = self.disabled.map(|since| since.0.to_string()).unwrap_or_default();
        Etag::of(&[self.name.as_str(), &self.tags.join(" "), &disabled])
    }
}

impl StaticEntry {
    /// What administrators have decided of it.
    pub fn etag(&self) -> Etag {
        let gateway = self.gateway.map(|gateway| gateway.to_string()).unwrap_or_default();
        Etag::of(&[self.name.as_str(), &self.tags.join(" "), &gateway, &self.wg_key.to_string()])
    }
}

/// Somebody else was quicker.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "somebody else has changed this node meanwhile: it is {name} now, {standing}, with {tags}; look at it, and make your \
     change again"
)]
pub struct NodeChanged {
    name: String,
    standing: &'static str,
    tags: String,
}

impl NodeChanged {
    /// Whether a member is still as whoever changes it has seen it; nothing seen fits everything.
    pub fn check(seen: Option<&Etag>, member: &MemberEntry) -> Result<(), Self> {
        if seen.is_none_or(|seen| *seen == member.etag()) {
            return Ok(());
        }
        let tags = if member.tags.is_empty() {
            "no tags".to_owned()
        } else {
            format!("tags {}", member.tags.join(" "))
        };
        let standing = if member.disabled.is_some() { "kept out" } else { "taking part" };
        Err(Self { name: member.name.to_string(), standing, tags })
    }
}

/// The same of a device with stock WireGuard.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "somebody else has changed this device meanwhile: it is {name} now, {way}; look at it, and make your change again"
)]
pub struct StaticChanged {
    name: String,
    way: String,
}

impl StaticChanged {
    /// Whether a static peer is still as whoever changes it has seen it; nothing seen fits everything.
    pub fn check(seen: Option<&Etag>, peer: &StaticEntry, network: &Network) -> Result<(), Self> {
        if seen.is_none_or(|seen| *seen == peer.etag()) {
            return Ok(());
        }
        let way = match peer.gateway.map(|gateway| network.members.get(&gateway)) {
            Some(Some(gateway)) => format!("reached through {}", gateway.name),
            Some(None) => "without its gateway".to_owned(),
            None => "reached by each member itself".to_owned(),
        };
        Err(Self { name: peer.name.to_string(), way })
    }
}

#[cfg(test)]
mod tests {
    use ria_protocol::time::UnixTime;

    use super::*;
    use crate::state::tests::member;

    #[test]
    fn only_what_people_decide_makes_another_word() {
        let robot = member(2, "robot-7");
        let seen = robot.etag();
        let same = MemberEntry {
            last_contact: UnixTime(robot.last_contact.0 + 9),
            agent_version: "2".into(),
            ..MemberEntry::clone(&robot)
        };
        assert_eq!(NodeChanged::check(Some(&seen), &same), Ok(()));
        let tagged = MemberEntry { tags: vec!["arm".into()], ..MemberEntry::clone(&robot) };
        let told = NodeChanged::check(Some(&seen), &tagged).unwrap_err().to_string();
        assert!(told.contains("robot-7 now, taking part, with tags arm"), "{told}");
        assert_eq!(NodeChanged::check(None, &tagged), Ok(()));
        let off = MemberEntry { disabled: Some(UnixTime(3)), ..MemberEntry::clone(&robot) };
        assert!(
            NodeChanged::check(Some(&seen), &off).unwrap_err().to_string().contains("kept out, with no tags")
        );
        assert!(NodeChanged::check(Some(&Etag::given("*")), &robot).is_err());
        // What stands in one part does not spill into the next.
        assert_ne!(Etag::of(&["a", "b c"]), Etag::of(&["a b", "c"]));
    }
}
