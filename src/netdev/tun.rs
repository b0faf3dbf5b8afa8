//! The overlay interface: a TUN device called `riaN`, which exists as long as its file descriptor.
//!
//! It is made with the kernel's offloads where there are some, so that packets come and go in frames (`super::frames`).

use std::fs::OpenOptions;
use std::io;
use std::net::IpAddr;

use ria_protocol::prefix::Prefix;
use tun_rs::{DeviceBuilder, SyncDevice};

use super::host::Host;
use super::netlink::{Netlink, NetlinkError};

/// Discovery of large ROS graphs comes in bursts; 500 packets (the default) drop them.
const QUEUE_LENGTH: u32 = 10_000;

/// Far more networks than a robot is in.
const MAX_INTERFACES: u16 = 64;

/// The bit of CAP_NET_ADMIN in the kernel's sets.
const CAP_NET_ADMIN: u32 = 12;

/// The overlay interface can't be made.
#[derive(Debug, thiserror::Error)]
pub enum TunError {
    /// No device node.
    #[error(
        "/dev/net/tun is missing; load the module (modprobe tun), or give the container the device \
         (docker run --device /dev/net/tun)"
    )]
    NoDevice,
    /// Not allowed.
    #[error(
        "the capability CAP_NET_ADMIN is missing; run the agent as the system service or as root, or give the \
         container the capability (docker run --cap-add NET_ADMIN)"
    )]
    NoCapability,
    /// Too many.
    #[error("all names from ria0 to ria{} are taken", MAX_INTERFACES - 1)]
    NoName,
    /// Another trouble.
    #[error("the overlay interface can't be made: {0}")]
    Io(#[from] io::Error),
    /// Addresses or state can't be set.
    #[error(transparent)]
    Netlink(#[from] NetlinkError),
}

/// What an interface shall be like.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TunPlan {
    /// Which N of `riaN` is preferred.
    pub preferred: u16,
    /// Names that belong to other networks of this agent.
    pub reserved: Vec<u16>,
    /// Own addresses, each with the prefix length of the network.
    pub addresses: Vec<(IpAddr, u8)>,
    /// MTU.
    pub mtu: u16,
}

/// An interface that is up.
pub struct Tun {
    /// The device.
    pub device: SyncDevice,
    /// Which N of `riaN` it is.
    pub number: u16,
    /// Its name.
    pub name: String,
    /// Kernel's number.
    pub index: u32,
    /// What could not be done and matters little, for people.
    pub shortcomings: Vec<String>,
}

/// Whether interfaces can be made at all; asked before a join key is used up.
pub fn check() -> Result<(), TunError> {
    match OpenOptions::new().read(true).write(true).open("/dev/net/tun") {
        Ok(_) => {}
        Err(error) if error.kind() == io::ErrorKind::PermissionDenied => return Err(TunError::NoCapability),
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Err(TunError::NoDevice),
        // The node is there and the driver is not.
        Err(error) if matches!(error.raw_os_error(), Some(libc::ENODEV | libc::ENXIO)) => {
            return Err(TunError::NoDevice);
        }
        Err(error) => return Err(error.into()),
    }
    if has_net_admin() { Ok(()) } else { Err(TunError::NoCapability) }
}

/// Makes an interface, under the preferred name or the next free one.
pub async fn create(plan: &TunPlan, netlink: &Netlink, host: &Host) -> Result<Tun, TunError> {
    check()?;
    let (device, number) = open_free(plan, host)?;
    let name = device.name()?;
    let index = device.if_index()?;
    // Without this the kernel sends router solicitations into the overlay. Only root may; it matters little.
    let _ = std::fs::write(format!("/proc/sys/net/ipv6/conf/{name}/addr_gen_mode"), "1");
    netlink.set_up(index, plan.mtu, QUEUE_LENGTH).await?;
    let mut shortcomings = Vec::new();
    for (address, length) in &plan.addresses {
        match netlink.add_address(index, *address, *length).await {
            Ok(()) => {}
            Err(error) if address.is_ipv6() => shortcomings.push(format!(
                "{error}; IPv6 is probably off on this machine, the overlay works by IPv4 alone"
            )),
            Err(error) => return Err(error.into()),
        }
    }
    Ok(Tun { device, number, name, index, shortcomings })
}

fn open_free(plan: &TunPlan, host: &Host) -> Result<(SyncDevice, u16), TunError> {
    let others = (0..MAX_INTERFACES).filter(|n| *n != plan.preferred && !plan.reserved.contains(n));
    for number in std::iter::once(plan.preferred).chain(others) {
        let name = format!("ria{number}");
        if host.has_interface(&name) {
            continue;
        }
        let build = |offload| {
            DeviceBuilder::new().name(&name).offload(offload).packet_information(false).build_sync()
        };
        // Some containers and old kernels refuse offloads for no reason that matters.
        match build(true).or_else(|_| build(false)) {
            Ok(device) => return Ok((device, number)),
            // Somebody took the name since the list was read.
            Err(error) if matches!(error.raw_os_error(), Some(libc::EBUSY | libc::EEXIST | libc::EINVAL)) => {
            }
            Err(error) if error.kind() == io::ErrorKind::PermissionDenied => {
                return Err(TunError::NoCapability);
            }
            Err(error) => return Err(error.into()),
        }
    }
    Err(TunError::NoName)
}

fn has_net_admin() -> bool {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let effective = status.lines().find_map(|line| line.strip_prefix("CapEff:"));
    let set = effective.and_then(|hex| u64::from_str_radix(hex.trim(), 16).ok());
    // Without /proc the attempt itself will tell.
    set.is_none_or(|set| set & (1 << CAP_NET_ADMIN) != 0)
}

/// A member's own addresses with the length of the network's prefix, IPv4 first, from its record's prefixes.
pub fn own_addresses(own: &[Prefix], network: &[Prefix; 2]) -> Vec<(IpAddr, u8)> {
    network
        .iter()
        .flat_map(|prefix| {
            own.iter()
                .filter(|own| own.to_net().prefix_len() == own.to_net().max_prefix_len())
                .filter(|own| prefix.contains(own.address()))
                .map(|own| (own.address(), prefix.length()))
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn own_addresses_take_the_networks_length_and_leave_routed_prefixes_out() {
        let parse = |texts: &[&str]| texts.iter().map(|t| t.parse().unwrap()).collect::<Vec<Prefix>>();
        let own = parse(&["fd00::7/128", "10.213.0.7/32", "192.0.2.0/24"]);
        let network = ["10.213.0.0/16".parse().unwrap(), "fd00::/64".parse().unwrap()];
        let shown: Vec<_> =
            own_addresses(&own, &network).iter().map(|(ip, len)| format!("{ip}/{len}")).collect();
        assert_eq!(shown, ["10.213.0.7/16", "fd00::7/64"]);
    }
}
