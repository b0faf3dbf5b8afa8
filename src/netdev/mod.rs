//! What the agent needs of the kernel's network: the overlay interface, the UDP socket, addresses and routes.
//!
//! Nothing here knows peers, keys or coordinators.

pub mod backlog;
pub mod clock;
pub mod exclusions;
pub mod frames;
pub mod host;
pub mod keep;
pub mod netlink;
pub mod room;
pub mod routes;
pub mod tun;
pub mod udp;
pub mod urgent;
