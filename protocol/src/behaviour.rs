//! The STUN attributes by which a node finds out how the NATs before it behave: those of RFC 5780, and one of Ria's own
//! for relays with one address.
//!
//! RFC 5780 wants a server with two addresses, and OTHER-ADDRESS only from such a one. A lab's relay has one address as
//! a rule, and one published port, but may well *send* from another port: ALTERNATE-PORT tells which.

/// CHANGE-REQUEST: answer from another address, port or both. Without any flag it asks what the others are.
pub const CHANGE_REQUEST: u16 = 0x0003;
/// In CHANGE-REQUEST: from another address.
pub const CHANGE_IP: u32 = 0x4;
/// In CHANGE-REQUEST: from another port.
pub const CHANGE_PORT: u32 = 0x2;

/// RESPONSE-ORIGIN: where the answer comes from, as the server knows it.
pub const RESPONSE_ORIGIN: u16 = 0x802b;

/// OTHER-ADDRESS: the server's other address with its other port.
pub const OTHER_ADDRESS: u16 = 0x802c;

/// ALTERNATE-PORT, Ria's own (comprehension-optional): the other port at the same address; two bytes and two of padding.
pub const ALTERNATE_PORT: u16 = 0xc5a1;

/// Length of a request that every answer with these attributes fits into, so that no answer is longer than what asked
/// for it.
pub const REQUEST_LEN: usize = 104;
