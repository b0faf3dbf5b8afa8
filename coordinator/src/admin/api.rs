//! What the admin socket says: the JSON that `--json` prints. Fields are only ever added. Times are seconds since
//! 1970-01-01 UTC.

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};

use ria_protocol::demand::PeerMode;
use ria_protocol::id::{BootId, KeyId, NetworkId, NodeId};
use ria_protocol::keys::{SpkiHash, WgPublicKey};
use ria_protocol::map::{CandidateKind, MemberKind, Revision};
use ria_protocol::multicast::MulticastGroups;
use ria_protocol::name::Name;
use ria_protocol::prefix::Prefix;
use ria_protocol::time::UnixTime;
use serde::{Deserialize, Serialize};

use crate::audit::Row;
use crate::state::JoinKeyStatus;
use crate::state::domains::WantedDomains;
use crate::state::people::UserName;

/// A network.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct NetworkView {
    pub id: NetworkId,
    pub name: Name,
    pub prefix_v4: Prefix,
    pub prefix_v6: Prefix,
    pub mtu: u16,
    pub revision: Revision,
    pub created: UnixTime,
    pub nodes: usize,
    pub online: usize,
    /// ROS domains: `per-robot`, or those that all members share (`7`, `7,8`); absent where they are everybody's choice.
    #[serde(default)]
    pub ros_domains: Option<WantedDomains>,
    /// Multicast groups that are carried beside discovery: `none`, or such as `mdns,239.1.2.3:5000-5010`.
    #[serde(default)]
    pub multicast: MulticastGroups,
    /// Of whom its members are told: `push` (everybody), or `on-demand`.
    #[serde(default)]
    pub peers: PeerMode,
}

/// A request to tell the members of a network of others than before.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SetPeers {
    pub mode: PeerMode,
}

/// A request for other multicast groups of a network.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SetMulticast {
    pub groups: MulticastGroups,
}

/// A request for a network.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CreateNetwork {
    pub name: Name,
    pub prefix_v4: Option<Prefix>,
    /// Bytes.
    #[serde(default)]
    pub mtu: Option<u16>,
    /// `shared`, `per-robot`, or a list.
    #[serde(default)]
    pub ros_domains: Option<WantedDomains>,
    /// Multicast groups that are carried beside discovery.
    #[serde(default)]
    pub multicast: Option<MulticastGroups>,
    /// Of whom its members are told; `push` unless it is said.
    #[serde(default)]
    pub peers: Option<PeerMode>,
}

/// A join key without its secret.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct KeyView {
    pub id: KeyId,
    pub network: Name,
    pub status: JoinKeyStatus,
    pub reusable: bool,
    pub tags: Vec<Name>,
    pub created: UnixTime,
    pub expires: Option<UnixTime>,
    pub revoked: Option<UnixTime>,
    pub uses: u64,
    /// Seconds that nodes which join by it may be away; absent when they stay.
    pub ephemeral: Option<u64>,
    /// Whether an administrator has to approve each node.
    pub approve: bool,
}

/// A join key, and who has used it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct KeyDetail {
    #[serde(flatten)]
    pub view: KeyView,
    /// The latest ones, oldest first.
    pub used_by: Vec<KeyUseView>,
}

/// A use of a join key.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct KeyUseView {
    pub node: NodeId,
    /// Its name; that of then when it is no member now.
    pub name: Name,
    pub time: UnixTime,
    pub state: KeyUserState,
}

/// What became of a node that used a join key.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum KeyUserState {
    Member,
    Waiting,
    Rejected,
    Gone,
}

/// A node that waits for approval.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PendingView {
    /// The identity that it will have.
    pub id: NodeId,
    /// The name that it will have.
    pub name: Name,
    pub network: Name,
    pub state: PendingState,
    /// To be compared with what `ria status` shows on the machine.
    pub fingerprint: String,
    pub wg_key: WgPublicKey,
    pub tls_key: SpkiHash,
    pub join_key: KeyId,
    pub tags: Vec<String>,
    /// Whether it is a member that was away for too long.
    pub former: bool,
    pub connected: bool,
    /// From where it asked last.
    pub address: IpAddr,
    pub agent_version: String,
    pub asked: UnixTime,
    pub heard: UnixTime,
    /// When it is forgotten unless it is heard of before.
    pub expires: UnixTime,
}

/// What was decided about it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum PendingState {
    Waiting,
    Rejected,
}

/// How a node is approved.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Approve {
    /// Another name than it asked for.
    pub name: Option<Name>,
}

/// Another name for a node.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Rename {
    pub name: Name,
}

/// Other tags for a node.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Tag {
    pub add: Vec<Name>,
    pub remove: Vec<Name>,
}

/// A request for a join key.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CreateKey {
    /// May be left out while there is one network.
    pub network: Option<Name>,
    pub reusable: bool,
    /// Seconds from now; absent means never.
    pub expires_after: Option<u64>,
    pub tags: Vec<Name>,
    /// Seconds that nodes which join by it may be away; absent means that they stay.
    #[serde(default)]
    pub ephemeral: Option<u64>,
    /// Whether an administrator has to approve each node.
    #[serde(default)]
    pub approve: bool,
}

/// A join key, just made.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct CreatedKey {
    /// The key itself. It is shown only once.
    pub key: String,
    #[serde(flatten)]
    pub view: KeyView,
    /// Where nodes will look for the coordinator.
    pub urls: Vec<String>,
}

fn node_kind() -> MemberKind {
    MemberKind::Node
}

/// A request for a static peer.
#[derive(Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct AddStatic {
    /// May be left out while there is one network.
    pub network: Option<Name>,
    pub name: Name,
    pub public_key: WgPublicKey,
    pub tags: Vec<Name>,
    /// Where the device listens, when that is known.
    pub listens_at: Option<SocketAddr>,
    /// Seconds; 0 for none.
    pub keepalive: u16,
    pub way: StaticWay,
}

/// How a static peer reaches the network.
#[derive(Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct StaticWay {
    /// Name or id of the member that forwards for it; absent when all members talk to it themselves.
    pub via: Option<String>,
    /// `[MEMBER=]HOST:PORT`: where the device reaches its gateway or a member.
    pub endpoints: Vec<String>,
    /// Base64.
    pub psk: Option<String>,
}

/// What a static peer's file has to say, but for the secrets, which whoever asked has.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct StaticView {
    pub node: NodeView,
    pub mtu: u16,
    /// Port that the device listens at.
    pub listen_port: Option<u16>,
    /// Seconds; absent for none.
    pub keepalive: Option<u16>,
    pub peers: Vec<StaticPeerView>,
    /// What an administrator should know.
    pub notes: Vec<String>,
}

/// A member in a static peer's file.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct StaticPeerView {
    pub name: Name,
    pub wg_key: WgPublicKey,
    /// `HOST:PORT`.
    pub endpoint: String,
    pub allowed: Vec<Prefix>,
}

/// A node.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct NodeView {
    pub id: NodeId,
    /// For `If-Match`: another word as soon as somebody has changed name, tags or standing.
    #[serde(default)]
    pub etag: String,
    pub name: Name,
    pub network: Name,
    #[serde(default = "node_kind")]
    pub kind: MemberKind,
    /// The member that forwards for it, when it is a static peer behind one.
    #[serde(default)]
    pub gateway: Option<Name>,
    /// The static peers that it forwards for.
    #[serde(default)]
    pub forwards_for: Vec<Name>,
    /// Whether it is a static peer with a pre-shared key.
    #[serde(default)]
    pub psk: bool,
    pub online: bool,
    pub addresses: Vec<IpAddr>,
    pub tags: Vec<String>,
    pub wg_key: WgPublicKey,
    /// SHA-256 of the public key of its certificate; a static peer has none.
    pub tls_key: Option<SpkiHash>,
    pub joined: UnixTime,
    /// A static peer joined without.
    pub join_key: Option<KeyId>,
    /// The coordinator hears nothing of a static peer.
    pub last_contact: Option<UnixTime>,
    /// When the membership ends unless the node is heard of before; a static peer's does not.
    pub expires: Option<UnixTime>,
    /// Seconds that it may be away before it is removed; absent when it stays.
    pub ephemeral: Option<u64>,
    pub agent_version: String,
    /// By how many seconds its clock was ahead of the coordinator's when it connected; negative when it was behind.
    #[serde(default)]
    pub clock_offset: Option<i64>,
    /// Since when an administrator keeps the node out; absent while it may take part.
    #[serde(default)]
    pub disabled: Option<UnixTime>,
    /// Whose laptop it is, where it is somebody's.
    #[serde(default)]
    pub owner: Option<UserName>,
    /// When that person last logged in from it.
    #[serde(default)]
    pub validated: Option<UnixTime>,
    /// Since when it is kept out because that person has to log in again.
    #[serde(default)]
    pub login_due: Option<UnixTime>,
    /// Its own ROS domain, where each node has one.
    #[serde(default)]
    pub ros_domain: Option<u8>,
    /// The run of its agent; absent while it was not seen since the coordinator's start.
    pub boot: Option<BootId>,
    pub candidates: Vec<CandidateView>,
    /// The revision of the map that the node has confirmed, and when; absent as above.
    pub acked_revision: Option<Revision>,
    pub acked_at: Option<UnixTime>,
    /// The network's present revision.
    pub map_revision: Revision,
    /// Another machine that tries to use the node's identity; absent when there is none.
    pub cloned: Option<ClonedView>,
}

/// Two machines with one identity.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ClonedView {
    /// Since when this is known.
    pub since: UnixTime,
    /// From where the one that is kept is connected, or was last.
    pub kept: IpAddr,
    /// From where the one that is refused was heard last.
    pub refused: String,
}

/// Where a node may be reached.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct CandidateView {
    pub kind: CandidateKind,
    pub address: SocketAddr,
}

/// A URL of the coordinator.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct UrlView {
    pub url: String,
    /// Whether it stands in the settings; else it was added.
    pub configured: bool,
    /// Whether nodes are told of it: not of an address that is this machine only.
    pub told: bool,
}

/// A relay that nodes are told of.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RelayView {
    pub name: String,
    /// `own`: the coordinator's; `standalone`: Ria's on another machine; `turn`: another TURN server.
    pub kind: String,
    /// Absent where nodes find it as they find the coordinator, and while a relay has not said where it is.
    pub host: Option<String>,
    /// 0 while a relay has not said where it is.
    pub udp_port: u16,
    /// Where TURN over TLS is spoken, too.
    pub tls_port: Option<u16>,
    /// Of a stand-alone relay.
    #[serde(default)]
    pub standalone: Option<StandaloneView>,
    /// Absent where that is not known.
    #[serde(default)]
    pub load: Option<RelayLoadView>,
}

/// What else there is to say of a stand-alone relay.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct StandaloneView {
    pub state: RelayState,
    /// Since when it is in this state, if that is known.
    pub since: Option<UnixTime>,
    /// Its version; absent when it was not connected since the coordinator was started.
    pub version: Option<String>,
    /// From where it is connected, or was last.
    pub from: Option<IpAddr>,
    /// The networks that it serves; absent for all.
    pub networks: Option<Vec<Name>>,
    /// Until when its key is good for its first connection.
    pub key_expires: Option<UnixTime>,
}

/// Whether a stand-alone relay is connected.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum RelayState {
    /// Its key was not used yet.
    Expected,
    Connected,
    Away,
}

/// What a relay has to do. Packets, bytes and drops count from its start.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RelayLoadView {
    /// Allocations now.
    pub clients: u64,
    /// Of these, over TCP or TLS.
    pub streams: u64,
    pub packets: u64,
    pub bytes: u64,
    /// Datagrams that went nowhere, by reason.
    pub drops: BTreeMap<String, u64>,
}

/// A stand-alone relay to expect.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct AddRelay {
    pub name: Name,
    /// The networks that it serves; empty for all.
    #[serde(default)]
    pub networks: Vec<Name>,
    /// Seconds in which it has to connect for the first time; absent for any time.
    pub expires_after: Option<u64>,
}

/// A stand-alone relay that is expected.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct AddedRelay {
    /// Its key. It is shown only once.
    pub key: String,
    #[serde(flatten)]
    pub view: RelayView,
    /// Where it will look for the coordinator.
    pub urls: Vec<String>,
}

/// Another TURN server to tell nodes of.
#[derive(Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct AddTurn {
    pub name: String,
    pub host: String,
    pub udp_port: u16,
    /// Where it speaks TURN over TLS.
    #[serde(default)]
    pub tls_port: Option<u16>,
    /// Certificates (PEM) of the authorities of which one has issued its own.
    #[serde(default)]
    pub tls_ca: Option<String>,
    /// What credentials for it are made of.
    pub secret: String,
}

impl std::fmt::Debug for AddTurn {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "AddTurn({} at {}:{})", self.name, self.host, self.udp_port)
    }
}

/// A URL to add or to remove.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct UrlRequest {
    pub url: String,
}

/// Rows of the audit log, and whether the whole log is as it was written.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct AuditView {
    pub rows: Vec<Row>,
    pub chain: ChainView,
}

/// Whether the audit log is as it was written.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ChainView {
    pub intact: bool,
    /// What is wrong; absent when nothing is.
    pub problem: Option<String>,
    /// Rows written so far.
    pub length: u64,
    /// When all of it was verified last; what has come since is verified at each look.
    #[serde(default)]
    pub whole: Option<UnixTime>,
}

/// A certification authority.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct AuthorityView {
    /// Its short name, as in its certificate.
    pub id: String,
    /// SHA-256 of its public key, as in join keys.
    pub pin: SpkiHash,
    pub status: AuthorityStatus,
    pub ends: UnixTime,
    /// SHA-256 of its certificate, as browsers show it. Of the one in use alone.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub fingerprint: Option<String>,
    /// Its certificate (PEM). Of the one in use alone.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub certificate: Option<String>,
}

/// What an authority is good for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum AuthorityStatus {
    /// It issues certificates.
    InUse,
    /// It does not any more, but nodes trust it.
    Trusted,
    /// Nodes are told not to trust it.
    Retired,
}

/// Why a request was not granted.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Problem {
    pub code: ProblemCode,
    /// What happened and what to do.
    pub message: String,
}

/// The kinds of problems.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum ProblemCode {
    /// The request makes no sense.
    BadRequest,
    /// Whoever asks may not.
    NotPermitted,
    NotFound,
    /// Something is in the way.
    Conflict,
    /// Somebody else has changed it since whoever asks has looked.
    Changed,
    /// Something has to be set first.
    NotReady,
    /// The coordinator can't do this at the moment.
    Unavailable,
}
