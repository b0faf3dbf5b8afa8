//! What the agent keeps of one network: who it is there, its keys, its certificate, and the last known state.

use std::fmt;
use std::net::IpAddr;

use crate::state::kept::Kept;
use crate::state::untold::Untold;
use minicbor::{Decode, Encode};
use rand_core::{OsRng, RngCore};
use ria_protocol::enrol::Certificate;
use ria_protocol::id::{KeyId, NetworkId, NodeId};
use ria_protocol::keys::{SpkiHash, WgPublicKey};
use ria_protocol::map::{Live, Relay, Snapshot};
use ria_protocol::name::Name;
use ria_protocol::time::UnixTime;
use x25519_dalek::{PublicKey, StaticSecret};
use zeroize::{Zeroize, ZeroizeOnDrop, Zeroizing};

/// Who this machine is in a network.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub struct Identity {
    /// The network.
    #[n(0)]
    pub network: NetworkId,
    /// The network's name.
    #[n(1)]
    pub network_name: Name,
    /// The node.
    #[n(2)]
    pub node: NodeId,
    /// The node's name.
    #[n(3)]
    pub name: Name,
    /// Where the coordinator answers, best first.
    #[n(4)]
    pub urls: Vec<String>,
    /// The pin of the join key.
    #[n(5)]
    pub ca_pin: SpkiHash,
    /// The join key that was used.
    #[n(6)]
    pub key_id: KeyId,
    /// Whether the network shall be up.
    #[n(7)]
    pub enabled: bool,
    /// Which `riaN` is preferred, so that a robot's interface keeps its name.
    #[n(8)]
    pub interface: u16,
    /// Why the coordinator has put this node out, once it has.
    #[n(9)]
    pub refused: Option<String>,
    /// What the coordinator said when it disabled this node, while it is disabled.
    #[n(20)]
    pub suspended: Option<String>,
    /// Whether the membership has ended by itself, so that this machine may join again by itself.
    #[n(21)]
    pub ended: Option<bool>,
}

impl Identity {
    /// Whether the membership has ended by itself.
    pub fn has_ended(&self) -> bool {
        self.refused.is_some() && self.ended == Some(true)
    }
}

/// The private keys of a node in one network.
#[derive(Clone, PartialEq, Eq, Encode, Decode, Zeroize, ZeroizeOnDrop)]
#[cbor(map)]
pub struct NodeKeys {
    #[cbor(n(0), with = "minicbor::bytes")]
    wg: [u8; 32],
    #[cbor(n(1), with = "minicbor::bytes")]
    tls: Vec<u8>,
    /// The WireGuard key that takes over once the map says so.
    #[cbor(n(2), with = "minicbor::bytes")]
    next_wg: Option<[u8; 32]>,
}

/// What was learnt at the last contact with the coordinator.
#[derive(Debug, Clone, Default, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub struct Contact {
    /// The coordinator's address, which is also that of its relay.
    #[n(0)]
    pub address: Option<IpAddr>,
    /// The coordinator's clock. Robots boot in 1970: no certificate is checked against an earlier time.
    #[n(1)]
    pub time: UnixTime,
    /// Relays with credentials.
    #[n(2)]
    pub relays: Vec<Relay>,
    /// The URL that answered.
    #[n(10)]
    pub reached: Option<String>,
    /// The URL that a person has set on this machine.
    #[n(11)]
    pub by_hand: Option<String>,
}

/// One network as it is stored.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Membership {
    /// Who this machine is.
    pub identity: Identity,
    /// Its keys.
    pub keys: NodeKeys,
    /// Its certificate.
    pub certificate: Certificate,
    /// The last map; absent before the first.
    pub map: Option<Snapshot>,
    /// Where members were last.
    pub live: Vec<Live>,
    /// The last contact.
    pub contact: Contact,
    /// What is kept for the coordinator.
    pub kept: Kept,
    /// What the coordinator has not been told of.
    pub untold: Untold,
}

/// A key pair for TLS can't be made.
#[derive(Debug, thiserror::Error)]
#[error("no TLS key can be made: {0}")]
pub struct KeyError(#[from] rcgen::Error);

impl NodeKeys {
    /// New keys from the system's generator.
    pub fn generate() -> Result<Self, KeyError> {
        let mut wg = [0; 32];
        OsRng.fill_bytes(&mut wg);
        let tls = rcgen::KeyPair::generate()?;
        Ok(Self { wg, tls: tls.serialize_der(), next_wg: None })
    }

    /// X25519 private key.
    pub fn wg(&self) -> Zeroizing<[u8; 32]> {
        Zeroizing::new(self.wg)
    }

    /// X25519 as a type that does the arithmetic.
    pub fn wg_secret(&self) -> StaticSecret {
        StaticSecret::from(self.wg)
    }

    /// X25519 public key.
    pub fn wg_public(&self) -> WgPublicKey {
        WgPublicKey(PublicKey::from(&self.wg_secret()).to_bytes())
    }

    /// Makes the WireGuard key that is to take over, unless there is one already; tells whether it made one.
    pub fn prepare_next(&mut self) -> bool {
        if self.next_wg.is_some() {
            return false;
        }
        let next = self.next_wg.insert([0; 32]);
        OsRng.fill_bytes(next);
        true
    }

    /// Tells stored keys with one that is to take over from those without.
    pub fn ticket(&self) -> u64 {
        self.next_wg.is_some().into()
    }

    /// Gives up the key that was to take over; tells whether there was one.
    pub fn drop_next(&mut self) -> bool {
        let dropped = self.next_wg.is_some();
        self.next_wg.zeroize();
        self.next_wg = None;
        dropped
    }

    /// The WireGuard key that this node wants to be known by.
    pub fn wanted(&self) -> WgKey {
        WgKey(StaticSecret::from(self.next_wg.unwrap_or(self.wg)))
    }

    /// Puts the new key in the place of the old one, if this is it.
    pub fn adopt(&mut self, listed: &WgPublicKey) -> bool {
        let Some(next) = self.next_wg.filter(|next| WgKey(StaticSecret::from(*next)).public() == *listed)
        else {
            return false;
        };
        self.wg = next;
        self.drop_next()
    }

    /// The TLS key pair.
    pub fn tls(&self) -> Result<rcgen::KeyPair, KeyError> {
        Ok(rcgen::KeyPair::try_from(self.tls.as_slice())?)
    }

    /// PKCS #8 of the TLS key.
    pub fn tls_der(&self) -> &[u8] {
        &self.tls
    }
}

/// A WireGuard private key on its way to a proof.
#[derive(Clone)]
pub struct WgKey(StaticSecret);

impl WgKey {
    /// The private half.
    pub fn secret(&self) -> &StaticSecret {
        &self.0
    }

    /// The public half.
    pub fn public(&self) -> WgPublicKey {
        WgPublicKey(PublicKey::from(&self.0).to_bytes())
    }
}

impl fmt::Debug for WgKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "WgKey({})", self.public())
    }
}

impl fmt::Debug for NodeKeys {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("NodeKeys(hidden)")
    }
}
