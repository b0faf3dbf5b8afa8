//! UDP in batches, for the agent and the relay alike: many datagrams come with one system call (recvmmsg, GRO), runs of equal
//! ones go with one (GSO), singly where a network card or a route does not take runs.
//!
//! What the datagrams say, which goes when, and what becomes of those that don't get through, is the users' business.

pub mod kernel;
mod marked;
mod open;
mod socket;

pub use marked::Message;
pub use open::{Granted, open};
pub use socket::{Buffers, Run, Socket, canonical};
