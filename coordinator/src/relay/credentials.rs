//! Credentials that prove themselves: `username = <expiry>:<network>:<node>`, `password = base64(HMAC-SHA-256(secret,
//! username))`. A relay that knows the secret knows every user, also after its restart, and keeps no list.

use std::fmt;

use data_encoding::BASE64;
use ria_protocol::id::{NetworkId, NodeId};
use ria_protocol::time::UnixTime;
use ring::hmac;
use zeroize::Zeroize;

/// A node's TURN user name and password.
#[derive(Clone, PartialEq, Eq)]
pub struct RelayCredentials {
    /// TURN user name (RFC 8489, section 9.2).
    pub username: String,
    /// TURN password.
    pub password: String,
    /// When they end.
    pub expires: UnixTime,
}

impl fmt::Debug for RelayCredentials {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "RelayCredentials(until {})", self.expires.0)
    }
}

impl Drop for RelayCredentials {
    fn drop(&mut self) {
        self.password.zeroize();
    }
}

impl RelayCredentials {
    /// Makes a node's credentials, good until `expires`.
    pub fn issue(secret: &[u8; 32], network: NetworkId, node: NodeId, expires: UnixTime) -> Self {
        let user = User { owner: Owner { network, node }, expires };
        let username = user.to_string();
        let password = password(&hmac::Key::new(hmac::HMAC_SHA256, secret), &username);
        Self { username, password, expires: user.expires }
    }
}

impl RelayCredentials {
    /// The same for another TURN server, as the TURN REST API has them (and coturn's `use-auth-secret`): the password is an
    /// HMAC-SHA1 over the user name, which is the expiry and anything else.
    pub fn issue_turn(secret: &str, node: NodeId, expires: UnixTime) -> Self {
        let username = format!("{}:{node}", expires.0);
        let key = hmac::Key::new(hmac::HMAC_SHA1_FOR_LEGACY_USE_ONLY, secret.as_bytes());
        let password = BASE64.encode(hmac::sign(&key, username.as_bytes()).as_ref());
        Self { username, password, expires }
    }
}

/// The password that goes with a user name.
pub(super) fn password(secret: &hmac::Key, username: &str) -> String {
    BASE64.encode(hmac::sign(secret, username.as_bytes()).as_ref())
}

/// Whose an allocation is. The expiry is no part of it: renewed credentials are the same owner's.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) struct Owner {
    pub(super) network: NetworkId,
    pub(super) node: NodeId,
}

/// What a user name says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct User {
    pub(super) owner: Owner,
    pub(super) expires: UnixTime,
}

impl fmt::Display for User {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}:{}", self.expires.0, self.owner.network, self.owner.node)
    }
}

impl User {
    /// Reads a user name; whether it is genuine shows the password.
    pub(super) fn parse(username: &str) -> Option<Self> {
        let mut parts = username.split(':');
        let (expires, network, node) = (parts.next()?, parts.next()?, parts.next()?);
        if parts.next().is_some() {
            return None;
        }
        let owner = Owner { network: network.parse().ok()?, node: node.parse().ok()? };
        Some(Self { owner, expires: UnixTime(expires.parse().ok()?) })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn user_name_reads_back_and_the_password_hangs_on_all_of_it() {
        let (network, node) = (NetworkId::from_bytes([1; 10]), NodeId::from_bytes([2; 10]));
        let credentials = RelayCredentials::issue(&[7; 32], network, node, UnixTime(1000));
        let user = User::parse(&credentials.username).unwrap();
        assert_eq!(user, User { owner: Owner { network, node }, expires: credentials.expires });
        assert_eq!(credentials.expires, UnixTime(1000));
        let later = RelayCredentials::issue(&[7; 32], network, node, UnixTime(1001));
        let other = RelayCredentials::issue(&[8; 32], network, node, UnixTime(1000));
        assert_ne!(credentials.password, later.password);
        assert_ne!(credentials.password, other.password);
        assert!(!format!("{credentials:?}").contains(&credentials.password));
    }

    #[test]
    fn credentials_for_other_servers_are_those_of_the_rest_api() {
        let node = NodeId::from_bytes([2; 10]);
        let issued = RelayCredentials::issue_turn("north-of-the-border", node, UnixTime(1_800_000_000));
        assert_eq!(issued.username, format!("1800000000:{node}"));
        // printf %s "$username" | openssl dgst -sha1 -hmac north-of-the-border -binary | base64
        assert_eq!(issued.password, "HRDDwobqe3J8OsIPGHC8k/k6vmk=");
    }

    #[test]
    fn other_user_names_are_refused() {
        for text in [
            "",
            "1",
            "::",
            "1:a:b",
            "x:aaaaaaaaaaaaaaaa:aaaaaaaaaaaaaaaa",
            "1:aaaaaaaaaaaaaaaa:aaaaaaaaaaaaaaaa:",
        ] {
            assert_eq!(User::parse(text), None, "{text}");
        }
    }
}
