//! TLS: the coordinator's own certification authority, who a node is by its certificate, and the choice of protocol
//! by ALPN on the one port.

pub mod accept;
pub mod authority;
pub mod begun;
pub mod leaf;
pub mod operator;
pub mod shown;
pub mod succession;
pub mod turn;
pub mod verifier;
pub mod wide;
