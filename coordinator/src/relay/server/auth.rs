//! Who may ask: the long-term credential mechanism (RFC 8489, section 9.2) without any stored state but a deny list.
//!
//! A nonce is an hour's number and an HMAC over it and the client's address, so it need not be remembered, and is of no
//! use from another address. The same client gets the same nonce all through an hour; so a refusal that shows it the
//! nonce it had used says that the credentials are wrong, and not that the nonce was stale.

use std::collections::{BTreeSet, HashMap};
use std::time::Instant;

use data_encoding::BASE64URL_NOPAD;
use rand_core::RngCore;
use ria_protocol::id::{NetworkId, NodeId};
use ria_protocol::time::UnixTime;
use ring::hmac;
use stun_types::attribute::{ErrorCode, MessageIntegrity, MessageIntegritySha256, Nonce, Username};
use stun_types::message::{IntegrityAlgorithm, IntegrityKey, LongTermKeyCredentials, Message};
use stun_types::prelude::AttributeStaticType;

use super::{Clock, Owner, Tuple, Via};
use crate::relay::Terms;
use crate::relay::credentials::{User, password};

/// Name of the realm; the host name would only tell strangers more.
pub(super) const REALM: &str = "ria";

/// How long a nonce is handed out, in seconds; it is taken for as long again.
const NONCE_PERIOD: u64 = 3600;

/// Bytes of HMAC in a nonce: enough against guessing, few against amplification.
const NONCE_TAG: usize = 12;

/// Somebody with valid credentials.
pub(super) struct Verified {
    pub(super) user: User,
    pub(super) key: IntegrityKey,
}

pub(super) struct Authority {
    secret: hmac::Key,
    networks: Option<BTreeSet<NetworkId>>,
    nonce_key: hmac::Key,
    start: Instant,
    denied: HashMap<NodeId, UnixTime>,
}

impl Authority {
    pub(super) fn new(terms: &Terms, random: &mut (dyn RngCore + Send), now: Instant) -> Self {
        let mut nonce_key = [0; 32];
        random.fill_bytes(&mut nonce_key);
        Self {
            secret: hmac::Key::new(hmac::HMAC_SHA256, &*terms.secret),
            networks: terms.networks.clone(),
            nonce_key: hmac::Key::new(hmac::HMAC_SHA256, &nonce_key),
            start: now,
            denied: HashMap::new(),
        }
    }

    pub(super) fn set_terms(&mut self, terms: &Terms) {
        self.secret = hmac::Key::new(hmac::HMAC_SHA256, &*terms.secret);
        self.networks.clone_from(&terms.networks);
    }

    fn serves(&self, network: NetworkId) -> bool {
        self.networks.as_ref().is_none_or(|networks| networks.contains(&network))
    }

    pub(super) fn deny(&mut self, node: NodeId, until: UnixTime) {
        let denied = self.denied.entry(node).or_insert(until);
        *denied = until.max(*denied);
    }

    pub(super) fn allow(&mut self, node: NodeId) {
        self.denied.remove(&node);
    }

    pub(super) fn sweep(&mut self, now: UnixTime) {
        self.denied.retain(|_, until| now <= *until);
    }

    /// Checks a request; the error is the STUN error code to answer with.
    pub(super) fn verify(&self, from: &Tuple, message: &Message<'_>, clock: Clock) -> Result<Verified, u16> {
        let signed = message.has_attribute(MessageIntegrity::TYPE)
            || message.has_attribute(MessageIntegritySha256::TYPE);
        if !signed {
            return Err(ErrorCode::UNAUTHORIZED);
        }
        let username = message.attribute::<Username>().map_err(|_| ErrorCode::BAD_REQUEST)?;
        let nonce = message.attribute::<Nonce>().map_err(|_| ErrorCode::BAD_REQUEST)?;
        let period = self.period(clock.now);
        let fresh = |period| nonce.nonce() == self.nonce_of(from, period);
        if !(fresh(period) || period > 0 && fresh(period - 1)) {
            return Err(ErrorCode::STALE_NONCE);
        }
        let user = User::parse(username.username()).ok_or(ErrorCode::UNAUTHORIZED)?;
        let denied = self.denied.contains_key(&user.owner.node) || !self.serves(user.owner.network);
        if user.expires <= clock.unix || denied {
            return Err(ErrorCode::UNAUTHORIZED);
        }
        let username = username.username().to_owned();
        let password = password(&self.secret, &username);
        let key = LongTermKeyCredentials::new(username, password, REALM.to_owned())
            .make_key(IntegrityAlgorithm::Sha1);
        message.validate_integrity_with_key(&key).map_err(|_| ErrorCode::UNAUTHORIZED)?;
        Ok(Verified { user, key })
    }

    /// The nonce for a client.
    pub(super) fn nonce(&self, client: &Tuple, now: Instant) -> String {
        self.nonce_of(client, self.period(now))
    }

    /// A number that is a client's for as long as the key of the credentials is the same, and that nobody else can tell.
    /// Streams come from another port each time.
    pub(super) fn number_of(&self, owner: Owner, client: &Tuple) -> u32 {
        let port = match client.via {
            Via::Stream(_) => None,
            Via::Socket(_) | Via::Outside(_) => Some(client.remote.port()),
        };
        let text = format!("address {} {} {} {port:?}", owner.network, owner.node, client.remote.ip());
        let tag = hmac::sign(&self.secret, text.as_bytes());
        tag.as_ref().first_chunk().copied().map_or(0, u32::from_be_bytes)
    }

    fn period(&self, now: Instant) -> u64 {
        now.saturating_duration_since(self.start).as_secs() / NONCE_PERIOD
    }

    fn nonce_of(&self, client: &Tuple, period: u64) -> String {
        let tag = hmac::sign(&self.nonce_key, format!("{period} {client:?}").as_bytes());
        BASE64URL_NOPAD.encode(tag.as_ref().get(..NONCE_TAG).unwrap_or_default())
    }
}
