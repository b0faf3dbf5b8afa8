//! Bodies of the fuzz targets for what the agent reads from disk and from people. The fuzzer runs them, and the tests
//! replay its corpora.

use std::path::Path;

use arbitrary::Unstructured;
use minicbor::{Decode, Encode};
use ria_protocol::enrol::Certificate;
use ria_protocol::map::{Live, PatchSet, Snapshot};
use ria_protocol::message::{LiveUpdate, from_bytes, to_bytes};

use crate::config::Config;
use crate::netcheck::stun;
use crate::state::membership::{Contact, Identity, NodeKeys};
use crate::state::untold::Untold;
use crate::state::{file, map};

pub use crate::names::fuzz as dns_query;
pub use crate::portmap::fuzz::answers as router_answers;

/// A target's name and body.
pub type Target = (&'static str, fn(&[u8]));

/// The targets of this crate.
pub const TARGETS: [Target; 6] = [
    ("agent_config", agent_config),
    ("dns_query", dns_query),
    ("netcheck_answers", netcheck_answers),
    ("router_answers", router_answers),
    ("state_file", state_file),
    ("stored_map", stored_map),
];

/// `agent.toml`: read, or each mistake told with the key that it is at.
pub fn agent_config(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    let (mut config, mut errors) = (Config::default(), Vec::new());
    config.read_text("agent.toml", text, &mut errors);
    assert!(errors.iter().all(|error| error.starts_with("agent.toml: ")), "{errors:?}");
}

/// What comes to the sockets of a measurement, one datagram or several behind each other.
pub fn netcheck_answers(data: &[u8]) {
    for message in stun::messages(data) {
        let Some(reply) = stun::reply(message) else { continue };
        assert!(stun::request_id(message).is_none(), "an answer is no question");
        assert_eq!(reply.mapped, stun::canonical(reply.mapped));
        assert!(reply.alternate_port != Some(0) && reply.other_address.is_none_or(|other| other.port() != 0));
        let question = stun::request(reply.id, reply.alternate_port.map(u32::from), message.len());
        assert_eq!(stun::request_id(&question), Some(reply.id));
    }
}

/// Files of the state directory, with a digest that fits and without.
pub fn state_file(data: &[u8]) {
    assert!(file::parse::<Contact>(Path::new("contact"), data).is_err(), "the fuzzer computes no SHA-256");
    part::<Identity>(data);
    part::<NodeKeys>(data);
    part::<Certificate>(data);
    part::<Snapshot>(data);
    part::<Vec<Live>>(data);
    part::<Contact>(data);
    part::<Untold>(data);
}

/// What was written is read again; a file that is cut short or changed is not.
fn part<T: for<'b> Decode<'b, ()> + Encode<()>>(content: &[u8]) {
    let Ok(value) = from_bytes::<T>(content) else { return };
    let path = Path::new("part");
    let mut bytes = file::encode(&value);
    let again = file::parse::<T>(path, &bytes).map(|again| to_bytes(&again)).ok();
    assert_eq!(again, Some(to_bytes(&value)));
    assert!(file::parse::<T>(path, &bytes[..bytes.len() - 1]).is_err());
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    assert!(file::parse::<T>(path, &bytes).is_err());
}

/// The stored map and live state, folded from whatever a coordinator says.
pub fn stored_map(data: &[u8]) {
    let mut input = Unstructured::new(data);
    let mut piece = || {
        let len = usize::from(input.arbitrary::<u16>().unwrap_or(0));
        input.bytes(len.min(input.len())).unwrap_or_default()
    };
    let Ok(mut stored) = from_bytes::<Snapshot>(piece()) else { return };
    let mut live = Vec::new();
    for _ in 0..4 {
        let bytes = piece();
        if let Ok(update) = from_bytes::<LiveUpdate>(bytes) {
            map::apply_live(&mut live, &update);
        }
        if let Ok(mut patches) = from_bytes::<PatchSet>(bytes) {
            patches.from = stored.revision;
            let done = map::apply_patches(&mut stored, &patches);
            assert!(done.is_ok() && stored.revision == patches.to);
        }
        map::keep_listed(&mut live, &stored);
        assert!(live.iter().all(|live| map::member(&stored, live.node).is_some()));
        assert_eq!(from_bytes::<Snapshot>(&to_bytes(&stored)).as_ref(), Ok(&stored));
    }
}

#[cfg(test)]
mod tests {
    #[test]
    fn corpora_are_replayed() {
        super::TARGETS.iter().for_each(|(name, body)| ria_corpus::replay(name, *body));
    }
}
