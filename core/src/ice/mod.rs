//! Interactive Connectivity Establishment (RFC 8445): checks over every pair of a local and a remote candidate, until
//! some are known to work. Trickled (RFC 8838); one [`Agent`] for one peer.
//!
//! ```text
//!   candidates ──>┌───────────┐  checks, answers (STUN)   own host address ─────────> remote address
//!                 │   Agent   │ <────────────────────────────────────────────────────
//!   Heard    <────└───────────┘                           own relayed address ──────> remote relayed address
//! ```
//!
//! What is here finds addresses. Which of them carries traffic is decided by probes of Ria's own ([`crate::path`]); an agent
//! is made when a direct way is sought and dropped when one is in use, and in between [`answer`] speaks for it.
//! The state machine is that of the crate `is`. Around it stand the bounds that it lacks: only what is authentic reaches
//! it ([`message`]), an answer counts only from where its check went, addresses that nobody announced are few,
//! and its randomness is given by the caller. Credentials are those of a pair of runs ([`credentials`]).

mod agent;
pub mod credentials;
pub mod message;

pub use agent::{Agent, Config, Datagram, Heard, LocalCandidate, answer};
pub use credentials::Credentials;
pub use message::Message;
