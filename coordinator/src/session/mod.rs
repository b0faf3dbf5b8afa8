//! One node's connection, from its first words to its last: the messages of [`ria_protocol::message`] over one
//! WebSocket.
//!
//! ```text
//! hello:    Hello -> Welcome
//! greeted:  Enrol -> Enrolled (again greeted, now known), Resume -> member
//! member:   Ack, Report, Renew, Leave; patches, news, relays; pings
//! ```
//!
//! What a node may do follows from the key that it proved in the TLS handshake and from the state, never from what
//! it says of itself.

mod demand;
mod greeted;
mod member;
mod refused;
mod relay;
mod socket;
mod waiting;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use axum::extract::ws::WebSocket;
use ria_protocol::enrol::Certificate;
use ria_protocol::error::{ErrorCode, Refusal};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::accept_gate::AnonymousSlot;
use crate::admission::Admission;
use crate::config::LaptopSettings;
use crate::hub::{Hub, NodeKey};
use crate::interest::Interests;
use crate::links::Links;
use crate::oidc::Provider;
use crate::people::Logins;
use crate::registry::Registry;
use crate::relays::Relays;
use crate::tls::authority::NodeLifetimes;
use crate::tls::succession::Authorities;
use crate::tls::verifier::Identity;
use crate::witness::Witness;
pub use relay::run as run_relay;
use socket::{Closed, Socket};

/// What all sessions share.
#[derive(Debug)]
pub struct Services {
    pub registry: Registry,
    pub hub: Hub,
    /// How much is done at once for those who come.
    pub admission: Admission,
    /// How members reach each other.
    pub links: Links,
    /// Who has to do with whom in on-demand networks.
    pub interests: Interests,
    pub authorities: Authorities,
    pub lifetimes: NodeLifetimes,
    pub relays: Relays,
    pub witness: Witness,
    /// Cancelled when the coordinator is about to stop.
    pub draining: CancellationToken,
    /// What has to end before the coordinator may.
    pub tasks: TaskTracker,
    pub counters: Counters,
    /// Who is logged in to the pages, and how.
    pub logins: Logins,
    /// What is asked of laptops.
    pub laptops: LaptopSettings,
    /// Who else can say who somebody is.
    pub provider: Option<Provider>,
}

impl Services {
    /// A certificate for a node, by its request, which was checked before.
    fn certificate(&self, (network, node): NodeKey, csr: &[u8]) -> Result<Certificate, Refusal> {
        let issued = self.authorities.current().issue_node(network, node, csr, self.lifetimes);
        issued.map_err(|error| {
            tracing::debug!(%error, "a certificate request can't be granted");
            ErrorCode::BadMessage.into()
        })
    }
}

/// What went wrong since the start.
#[derive(Debug, Default)]
pub struct Counters {
    malformed: AtomicU64,
    lagged: AtomicU64,
    /// Connections that were closed at once, because too many had not shown yet whose they are.
    pub refused: Arc<AtomicU64>,
    /// When the certificate for the pages that is in files ends; 0: there is none.
    pub page_certificate_ends: AtomicU64,
    /// Nodes that wanted to join and were not admitted.
    pub joins_refused: AtomicU64,
    /// When the last scheduled backup was made; 0: there is none.
    pub last_backup: AtomicU64,
    /// Whether one that is due could not be made.
    pub backup_failing: AtomicBool,
    /// Whether something translates the addresses of all nodes.
    pub behind_bridge: AtomicBool,
}

impl Counters {
    fn count_malformed(&self) {
        let count = self.malformed.fetch_add(1, Ordering::Relaxed) + 1;
        // Said ever more rarely, so that nobody can fill the log.
        if count.is_power_of_two() {
            tracing::warn!(count, "messages of nodes could not be read; are they of another version?");
        }
    }

    fn count_lagged(&self) {
        let count = self.lagged.fetch_add(1, Ordering::Relaxed) + 1;
        if count.is_power_of_two() {
            tracing::warn!(count, "sessions were closed because nodes read too slowly; they resume");
        }
    }

    /// Messages that could not be read.
    pub fn malformed(&self) -> u64 {
        self.malformed.load(Ordering::Relaxed)
    }

    /// Sessions closed because their node took too long to read.
    pub fn lagged(&self) -> u64 {
        self.lagged.load(Ordering::Relaxed)
    }
}

/// Who is at the other end, by the TLS handshake.
#[derive(Debug, Clone)]
pub struct Peer {
    pub identity: Identity,
    /// TLS exporter value that proofs are bound to.
    pub exporter: [u8; 32],
    pub address: std::net::SocketAddr,
    /// Given back as soon as the node has shown that it is a member.
    pub slot: Arc<AnonymousSlot>,
}

/// Why a session ends.
#[derive(Debug)]
enum End {
    /// The node is told why.
    Refused(Refusal),
    /// The node reads too slowly; it comes back and resumes.
    Lagged,
    /// A newer session of the node has taken over.
    Replaced,
    /// The coordinator stops.
    Drained,
    /// Too many resume at once; it is to come again.
    Crowded,
    /// The node left the network for good.
    Left,
    /// The connection is gone.
    Closed,
}

impl From<Closed> for End {
    fn from(closed: Closed) -> Self {
        match closed {
            Closed::Gone | Closed::Silent => Self::Closed,
            Closed::Malformed => Self::Refused(ErrorCode::BadMessage.into()),
        }
    }
}

impl From<ErrorCode> for End {
    fn from(code: ErrorCode) -> Self {
        Self::Refused(code.into())
    }
}

impl From<Refusal> for End {
    fn from(refusal: Refusal) -> Self {
        Self::Refused(refusal)
    }
}

/// Serves one node until either side has had enough.
pub async fn run(socket: WebSocket, peer: Peer, services: Arc<Services>) {
    let mut socket = Socket::new(socket);
    let end = match greeted::run(&mut socket, &peer, &services).await {
        Ok(joined) => in_turn(&mut socket, &peer, &services, joined).await,
        Err(end) => end,
    };
    finish(socket, &services, end).await;
}

/// Serves a member, once it is its turn to be told its map.
async fn in_turn(socket: &mut Socket, peer: &Peer, services: &Services, joined: greeted::Joined) -> End {
    let place = tokio::select! {
        place = services.admission.map() => place,
        () = services.draining.cancelled() => return End::Drained,
    };
    match place {
        Some(place) => member::run(socket, peer, services, (joined, place)).await,
        None => End::Crowded,
    }
}

async fn finish(mut socket: Socket, services: &Services, end: End) {
    match &end {
        End::Refused(refusal) => {
            if refusal.code == ErrorCode::BadMessage {
                services.counters.count_malformed();
            }
            tracing::debug!(code = %refusal.code, "a node is refused");
            let code = refusal.code.for_version(socket.protocol());
            let refusal = Refusal { code, text: refusal.text.clone() };
            socket.say_last(ria_protocol::message::CoordinatorMessage::Refused(refusal)).await;
        }
        End::Lagged => {
            services.counters.count_lagged();
        }
        End::Drained => {
            socket.say_last(ria_protocol::message::CoordinatorMessage::Drain(reconnect_after())).await
        }
        End::Crowded => {
            socket.say_last(ria_protocol::message::CoordinatorMessage::Drain(come_again_after())).await
        }
        End::Left => socket.say_last(ria_protocol::message::CoordinatorMessage::Left).await,
        End::Replaced | End::Closed => {}
    }
    socket.close().await;
}

/// Milliseconds, spread over as long as those who wait may take.
fn come_again_after() -> u32 {
    2000 + u32::from(u16::from_le_bytes(crate::random::bytes())) % 8000
}

/// Milliseconds, spread so that not all nodes come back at once.
fn reconnect_after() -> u32 {
    500 + u32::from(u16::from_le_bytes(crate::random::bytes())) % 1500
}
