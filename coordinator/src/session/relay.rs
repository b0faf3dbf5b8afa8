//! A stand-alone relay's connection, from its first words to its last (see [`ria_protocol::relay`]).
//!
//! Whom the relay must refuse it hears as soon as the coordinator knows, ahead of everything else.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use axum::extract::ws::WebSocket;
use rcgen::CertificateSigningRequestParams;
use ria_protocol::enrol::Authority;
use ria_protocol::keys::SpkiHash;
use ria_protocol::message::to_bytes;
use ria_protocol::name::Name;
use ria_protocol::relay::{
    FromRelay, RELAY_PROTOCOL, RelayHello, RelayRefusal, RelayRefusalCode, RelayTerms, ToRelay, tls_name,
};
use ria_protocol::time::UnixTime;
use tokio::time::{Instant, MissedTickBehavior, interval};

use super::greeted::shown_version;
use super::socket::{Closed, Socket};
use super::{Peer, Services, reconnect_after};
use crate::config::standalone::check_host;
use crate::enrol::check_request;
use crate::registry::{Arrived, RelayError};
use crate::relays::deny::{DenyList, difference, whole};
use crate::relays::presence::RelaySession;
use crate::state::relay::{Place, RelayEntry, RelayKind, StandaloneRelay};

/// How long a relay may take for its first words.
const PATIENCE: Duration = Duration::from_secs(10);

/// Life of its certificate, and how often it gets another one.
const CERTIFICATE: Duration = Duration::from_secs(30 * 24 * 3600);
const RENEWED_EVERY: Duration = Duration::from_secs(5 * 24 * 3600);

/// Why the connection ends.
enum End {
    Refused(RelayRefusal),
    Drained,
    Closed,
}

impl From<RelayRefusalCode> for End {
    fn from(code: RelayRefusalCode) -> Self {
        Self::Refused(code.into())
    }
}

impl From<Closed> for End {
    fn from(closed: Closed) -> Self {
        match closed {
            Closed::Gone | Closed::Silent => Self::Closed,
            Closed::Malformed => RelayRefusalCode::BadMessage.into(),
        }
    }
}

/// Serves one relay until either side has had enough.
pub async fn run(socket: WebSocket, peer: Peer, services: Arc<Services>) {
    let mut socket = Socket::new(socket);
    let end = match greet(&mut socket, &peer, &services).await {
        Ok(hello) => serve_known(&mut socket, &peer, &services, hello).await,
        Err(end) => end,
    };
    match end {
        End::Refused(refusal) => {
            tracing::info!(reason = refusal.text, "a relay is refused");
            let _ = socket.send_encoded(to_bytes(&ToRelay::Refused(refusal)).into()).await;
        }
        End::Drained => {
            let _ = socket.send_encoded(to_bytes(&ToRelay::Drain(reconnect_after())).into()).await;
        }
        End::Closed => {}
    }
    socket.close().await;
}

/// The first words of a relay that is one of ours. From here on it is known by its TLS key, at the place that it named.
async fn greet(socket: &mut Socket, peer: &Peer, services: &Services) -> Result<RelayHello, End> {
    let deadline = Instant::now() + PATIENCE;
    let FromRelay::Hello(hello) = socket.next_as_before(deadline).await? else {
        return Err(RelayRefusalCode::BadMessage.into());
    };
    if !(hello.protocol_min..=hello.protocol_max).contains(&RELAY_PROTOCOL) {
        return Err(RelayRefusalCode::ProtocolVersion.into());
    }
    let world = services.registry.world();
    let known = standalone(&world.relays, &hello.name).ok_or(RelayRefusalCode::KeyUnknown)?;
    verify(known, &hello, peer, UnixTime::from(SystemTime::now()))?;
    check_request(&hello.csr, peer.identity.tls_key()).map_err(|_| RelayRefusalCode::BadMessage)?;
    let host = hello.place.host.clone().unwrap_or_else(|| peer.address.ip().to_canonical().to_string());
    if check_host(&host).is_err() {
        return Err(RelayRefusalCode::BadMessage.into());
    }
    let place = Place { host, udp_port: hello.place.udp_port, tls_port: hello.place.tls_port };
    let moved = known.place.as_ref() != Some(&place);
    let arrived = Arrived { name: hello.name.clone(), tls_key: peer.identity.tls_key(), place };
    services.registry.place_relay(arrived).await.map_err(|error| match error {
        RelayError::Unavailable(error) => {
            let code = RelayRefusalCode::Unavailable;
            End::Refused(RelayRefusal { code, text: format!("{} ({error})", code.advice()) })
        }
        RelayError::Known(_) | RelayError::Unknown(_) | RelayError::TooMany => {
            RelayRefusalCode::KeyUnknown.into()
        }
    })?;
    if moved {
        services.relays.set_changed();
    }
    peer.slot.release();
    Ok(hello)
}

/// Whether this is the relay: by its TLS key, and before that is known by the secret of its key.
fn verify(
    known: &StandaloneRelay,
    hello: &RelayHello,
    peer: &Peer,
    now: UnixTime,
) -> Result<(), RelayRefusalCode> {
    let holds_secret = hello.secret.as_ref().is_some_and(|secret| secret.digest() == known.key_digest);
    match known.tls_key {
        Some(key) if key == peer.identity.tls_key() => Ok(()),
        Some(_) if holds_secret => Err(RelayRefusalCode::KeyUsed),
        Some(_) => Err(RelayRefusalCode::KeyUnknown),
        None if !holds_secret => Err(RelayRefusalCode::KeyUnknown),
        None if known.key_expires.is_some_and(|end| end <= now) => Err(RelayRefusalCode::KeyExpired),
        None => Ok(()),
    }
}

fn standalone<'r>(relays: &'r [Arc<RelayEntry>], name: &Name) -> Option<&'r StandaloneRelay> {
    relays.iter().find(|relay| relay.name == *name).and_then(|relay| match &relay.kind {
        RelayKind::Standalone(own) => Some(own),
        RelayKind::Turn(_) => None,
    })
}

async fn serve_known(socket: &mut Socket, peer: &Peer, services: &Services, hello: RelayHello) -> End {
    let now = || UnixTime::from(SystemTime::now());
    let presences = &services.relays.presences;
    let from = peer.address.ip().to_canonical();
    let session = presences.begin(&hello.name, shown_version(&hello.version), from, now());
    tracing::info!(relay = %hello.name, "relay connected");
    let connection = Connection { services, hello: &hello, tls_key: peer.identity.tls_key(), session };
    let end = match connection.serve(socket).await {
        Ok(never) => match never {},
        Err(end) => end,
    };
    presences.end(&hello.name, session, now());
    tracing::info!(relay = %hello.name, "relay disconnected");
    end
}

/// A connection has no result but its end.
enum Never {}

struct Connection<'a> {
    services: &'a Services,
    hello: &'a RelayHello,
    tls_key: SpkiHash,
    session: RelaySession,
}

impl Connection<'_> {
    async fn serve(&self, socket: &mut Socket) -> Result<Never, End> {
        let relays = &self.services.relays;
        // Listening begins before the state is read, so that no change is missed between the two.
        let mut denials = relays.denials.subscribe();
        let mut listed = relays.subscribe();
        let mut presences = relays.presences.subscribe();
        let mut authorities = self.services.authorities.subscribe();
        let mut renewal = interval(RENEWED_EVERY);
        renewal.set_missed_tick_behavior(MissedTickBehavior::Delay);
        renewal.tick().await;
        let mut told = denials.borrow_and_update().clone();
        self.send_terms(socket, &told).await?;
        let mut urls = self.services.registry.world().told_urls();
        loop {
            tokio::select! {
                biased;
                Ok(()) = denials.changed() => {
                    let list = denials.borrow_and_update().clone();
                    self.send_difference(socket, &told, &list).await?;
                    told = list;
                }
                () = self.services.draining.cancelled() => return Err(End::Drained),
                Ok(()) = listed.changed() => {
                    self.check_listed()?;
                    let now = self.services.registry.world().told_urls();
                    if urls != now {
                        urls = now;
                        self.send_terms(socket, &told).await?;
                    }
                }
                Ok(()) = presences.changed() => {
                    // One that was removed is told so.
                    self.check_listed()?;
                    if !relays.presences.is_current(&self.hello.name, self.session) {
                        return Err(RelayRefusalCode::Replaced.into());
                    }
                }
                Ok(()) = authorities.changed() => self.send_terms(socket, &told).await?,
                _ = renewal.tick() => self.send_terms(socket, &told).await?,
                message = socket.next_as() => match message? {
                    FromRelay::Load(load) => relays.presences.report(&self.hello.name, self.session, load),
                    FromRelay::Hello(_) => return Err(RelayRefusalCode::BadMessage.into()),
                },
            }
        }
    }

    /// Whether it is on the list still, and the same.
    fn check_listed(&self) -> Result<(), RelayRefusalCode> {
        self.entry().map(|_| ())
    }

    fn entry(&self) -> Result<StandaloneRelay, RelayRefusalCode> {
        let world = self.services.registry.world();
        // Another one may have its name by now.
        let known =
            standalone(&world.relays, &self.hello.name).filter(|own| own.tls_key == Some(self.tls_key));
        known.cloned().ok_or(RelayRefusalCode::Removed)
    }

    async fn send_difference(
        &self,
        socket: &mut Socket,
        before: &DenyList,
        after: &DenyList,
    ) -> Result<(), End> {
        let (denied, admitted) = difference(before, after, UnixTime::from(SystemTime::now()));
        if !denied.is_empty() {
            socket.send_encoded(to_bytes(&ToRelay::Deny(denied)).into()).await?;
        }
        if !admitted.is_empty() {
            socket.send_encoded(to_bytes(&ToRelay::Admit(admitted)).into()).await?;
        }
        Ok(())
    }

    async fn send_terms(&self, socket: &mut Socket, denied: &DenyList) -> Result<(), End> {
        let own = self.entry()?;
        let world = self.services.registry.world();
        let authority = self.services.authorities.current();
        let issued = CertificateSigningRequestParams::from_der(&self.hello.csr.as_slice().into()).and_then(
            |request| authority.issue_server(&request.public_key, &[tls_name(&self.hello.name)], CERTIFICATE),
        );
        let certificate = issued.map_err(|error| {
            tracing::debug!(%error, "a relay's certificate request can't be granted");
            RelayRefusalCode::BadMessage
        })?;
        let settings = self.services.relays.settings();
        let terms = RelayTerms {
            key: own.secret.clone(),
            networks: own.networks.clone(),
            denied: whole(denied),
            certificate: certificate.to_vec(),
            chain: authority.chain().map(|certificate| Authority(certificate.to_vec())).collect(),
            trusts: authority.trusted_pins(),
            urls: world.told_urls(),
            time: UnixTime::from(SystemTime::now()),
            node_bytes_per_second: settings.node_bytes_per_second,
            node_allocations: settings.node_allocations.and_then(|most| u64::try_from(most).ok()),
        };
        Ok(socket.send_encoded(to_bytes(&ToRelay::Terms(terms)).into()).await?)
    }
}
