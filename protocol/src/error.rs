//! Reasons for which a coordinator refuses a node. The text of each says what to do next.

use std::fmt;

use minicbor::{Decode, Encode};
use serde::{Deserialize, Serialize};

/// Why the coordinator refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Encode, Decode, Serialize, Deserialize)]
#[cbor(index_only)]
#[serde(rename_all = "kebab-case")]
pub enum ErrorCode {
    /// No protocol version in common.
    #[n(0)]
    ProtocolVersion,
    /// A message that this state does not allow, or that can't be read.
    #[n(1)]
    BadMessage,
    /// No such join key, or a wrong secret.
    #[n(2)]
    JoinKeyUnknown,
    /// The join key's time is over.
    #[n(3)]
    JoinKeyExpired,
    /// The join key was for one node and has been used.
    #[n(4)]
    JoinKeyUsed,
    /// An administrator revoked the join key.
    #[n(5)]
    JoinKeyRevoked,
    /// A proof of possession of a key is wrong.
    #[n(6)]
    ProofFailed,
    /// The name belongs to another member.
    #[n(7)]
    NameTaken,
    /// No address is free in the network's prefix.
    #[n(8)]
    NetworkFull,
    /// An administrator removed this node.
    #[n(9)]
    NotAMember,
    /// The certificate has expired or is not the node's.
    #[n(10)]
    Certificate,
    /// Too many attempts.
    #[n(11)]
    RateLimited,
    /// An administrator must approve first.
    #[n(12)]
    ApprovalPending,
    /// The coordinator is shutting down or can't write.
    #[n(13)]
    Unavailable,
    /// The new WireGuard key belongs to another member (since version 2).
    #[n(14)]
    KeyTaken,
    /// An administrator decided not to let this node in (since version 2).
    #[n(16)]
    Rejected,
    /// The membership ended by itself: it was to end when the node is away for long (since version 2).
    #[n(17)]
    MembershipEnded,
    /// Another machine uses this node's identity at the moment (since version 2).
    #[n(18)]
    Cloned,
    /// An administrator has disabled this node for the time being.
    #[n(21)]
    Disabled,
    /// The person whose laptop it is has to log in again, or may not any more (since version 2).
    #[n(22)]
    LoginDue,
}

impl ErrorCode {
    /// The stable name, as in JSON and D-Bus errors.
    pub const fn name(self) -> &'static str {
        match self {
            Self::ProtocolVersion => "protocol-version",
            Self::BadMessage => "bad-message",
            Self::JoinKeyUnknown => "join-key-unknown",
            Self::JoinKeyExpired => "join-key-expired",
            Self::JoinKeyUsed => "join-key-used",
            Self::JoinKeyRevoked => "join-key-revoked",
            Self::ProofFailed => "proof-failed",
            Self::NameTaken => "name-taken",
            Self::NetworkFull => "network-full",
            Self::NotAMember => "not-a-member",
            Self::Certificate => "certificate",
            Self::RateLimited => "rate-limited",
            Self::ApprovalPending => "approval-pending",
            Self::Unavailable => "unavailable",
            Self::KeyTaken => "key-taken",
            Self::Rejected => "rejected",
            Self::MembershipEnded => "membership-ended",
            Self::Cloned => "cloned",
            Self::Disabled => "disabled",
            Self::LoginDue => "login-due",
        }
    }

    /// Whether trying again later may help without anybody doing anything.
    pub const fn is_temporary(self) -> bool {
        matches!(self, Self::RateLimited | Self::ApprovalPending | Self::Unavailable | Self::Cloned)
    }

    /// What happened and what to do about it.
    pub const fn advice(self) -> &'static str {
        match self {
            Self::ProtocolVersion => "agent and coordinator share no protocol version; update the older one",
            Self::BadMessage => "the coordinator did not understand this agent; update the older of the two",
            Self::JoinKeyUnknown => {
                "the coordinator does not know this join key; ask the administrator for one made by it (ria-coordinator key create)"
            }
            Self::JoinKeyExpired => "the join key has expired; ask the administrator for a new one",
            Self::JoinKeyUsed => {
                "the join key was for one node and has been used; ask for a new one, or for one made with --reusable"
            }
            Self::JoinKeyRevoked => "an administrator revoked the join key; ask for a new one",
            Self::ProofFailed => {
                "the proof of the node's keys failed; remove the state directory and join again"
            }
            Self::NameTaken => "another member has this name; choose one with --name",
            Self::NetworkFull => "the network has no free address; the administrator must remove nodes",
            Self::NotAMember => {
                "an administrator removed this node from the network; join again with a new key"
            }
            Self::Certificate => "the node's certificate is not valid any more; join again with a new key",
            Self::RateLimited => "too many attempts; this is tried again by itself",
            Self::ApprovalPending => {
                "an administrator must approve this node first; this is tried again by itself"
            }
            Self::Disabled => {
                "an administrator has disabled this node in this network; it comes back by itself once it is enabled again (ria-coordinator node enable)"
            }
            Self::LoginDue => {
                "this laptop is somebody's, who has to show that they are still there: ria login, with the coordinator's address"
            }
            Self::Unavailable => "the coordinator can't do this at the moment; this is tried again by itself",
            Self::KeyTaken => {
                "the new WireGuard key belongs to another member; make another one with `ria rotate-key`"
            }
            Self::Rejected => {
                "an administrator did not let this node in; ask whether that was meant (ria-coordinator node approve \
                 lets it in after all)"
            }
            Self::MembershipEnded => {
                "the membership was for as long as the node is connected, and it was away for too long; join again \
                 with a key"
            }
            Self::Cloned => {
                "another machine is connected with the identity of this one, as after copying a card; only one of \
                 them can be this node"
            }
        }
    }
}

impl fmt::Display for ErrorCode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// A refusal, as it travels.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode, thiserror::Error)]
#[error("{text}")]
#[cbor(map)]
pub struct Refusal {
    /// Why.
    #[n(0)]
    pub code: ErrorCode,
    /// For people: what happened, and what to do.
    #[n(1)]
    pub text: String,
}

impl From<ErrorCode> for Refusal {
    fn from(code: ErrorCode) -> Self {
        Self { code, text: code.advice().to_owned() }
    }
}
