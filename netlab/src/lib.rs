//! Test hosts, NATs and links made of Linux namespaces.
//!
//! A [`Lab`] owns networks (bridges), routers (NAT) and hosts. Each is a set of namespaces kept by one init process
//! that ends with the process that made the lab, however that ends; nothing is left behind, and nothing is ever put
//! into the machine's own network namespace, so labs run side by side. Needs root, `iproute2` and `nftables`.
//!
//! ```no_run
//! use netlab::{HostSpec, Lab, Nat, NetworkSpec, RouterSpec};
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let mut lab = Lab::new("example")?;
//! lab.add_network("internet", NetworkSpec::internet("198.51.100.0/24".parse()?))?;
//! lab.add_network("wifi", NetworkSpec::campus_wifi("192.168.1.0/24".parse()?))?;
//! lab.add_router("nat", RouterSpec::new("internet", "wifi", Nat::Symmetric))?;
//! let server = lab.add_host("server", HostSpec::on("internet"))?;
//! let robot = lab.add_host("robot", HostSpec::on("wifi"))?;
//! robot.run(&["ping", "-c1", &server.address().to_string()])?;          // must succeed
//! let mut daemon = robot.spawn(&["sleep", "60"], "daemon.log".as_ref())?; // background, with a log
//! let mut link = lab.link("robot")?.clone();
//! link.set_all(&["loss=3", "rate=20mbit", "udp=blocked:3478"])?;
//! lab.set_link("robot", link)?;
//! lab.cut("nat", true)?;                                                // the router's uplink
//! lab.move_host("robot", "internet")?;                                  // processes run on
//! let socket = robot.enter(|| std::net::UdpSocket::bind("0.0.0.0:0"))?; // a socket in the host
//! let key = std::fs::read(robot.path("/var/lib/ria/key"))?;             // a file of the host
//! daemon.terminate(std::time::Duration::from_secs(5))?;
//! # Ok(()) }
//! ```
//! Translators other than Linux's ([`Nat::Emulated`], [`nat`]) and delay, jitter, bursts of loss and the like ([`Link`]) are
//! made by emulators in user space, which are put in and taken out as settings ask for them.
//!
//! [`topologies::campus`] and [`topologies::same_wifi`] are ready-made descriptions for [`Lab::build`].

mod cable;
mod command;
pub mod control;
mod description;
mod emulator;
mod error;
mod files;
mod flow;
mod gateway;
mod host;
mod lab;
pub mod link;
pub mod nat;
mod network;
mod node;
mod packet;
mod random;
mod router;
mod sys;
pub mod topologies;

pub use command::{Command, Process};
pub use description::{Description, HostSpec, Nat, NetworkSpec, RouterSpec};
pub use error::Error;
pub use flow::{FlowEnd, Flows};
pub use host::Host;
pub use lab::Lab;
pub use link::{Direction, Link, LinkError, Percent, Quality, Rate, Size, Span, Udp};
