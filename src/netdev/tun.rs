//! The overlay interface: a TUN device called `riaN`, which stays while its network is on, also while no agent runs
//! (`super::keep`), and is taken over by the next one.
//!
//! It is made with the kernel's offloads where there are some, so that packets come and go in frames (`super::frames`).

use std::fs::OpenOptions;
use std::io;
use std::net::IpAddr;
use std::time::Duration;

use ria_protocol::id::NetworkId;
use ria_protocol::prefix::Prefix;
use tun_rs::{DeviceBuilder, SyncDevice};

use super::host::{Host, Interface};
use super::keep::{self, Label};
use super::netlink::{Netlink, NetlinkError};

/// Discovery of large ROS graphs comes in bursts; 500 packets (the default) drop them.
const QUEUE_LENGTH: u32 = 10_000;

/// Far more networks than a robot is in.
const MAX_INTERFACES: u16 = 64;

/// How often, and at which interval, an interface is tried that an agent has which was killed and is not quite gone.
const BUSY_TRIES: u32 = 50;
const BUSY_PAUSE: Duration = Duration::from_millis(20);

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
    /// The network that it is for.
    pub network: NetworkId,
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
    /// Since when it is there, in seconds since the machine's start.
    pub since: f64,
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

/// Takes over the interface that another run has left for the network, or makes one, under the preferred name or the next
/// free one.
pub async fn create(plan: &TunPlan, netlink: &Netlink, host: &Host) -> Result<Tun, TunError> {
    check()?;
    let mut host = host.clone();
    let left: Vec<(Interface, Label)> = host
        .labelled()
        .filter(|(_, label)| label.network == plan.network)
        .map(|(i, l)| (i.clone(), l))
        .collect();
    for (interface, label) in left {
        let Some(device) = open_left(&interface).await else { continue };
        if fits(plan, &interface, &host) {
            let number = number(&interface.name).unwrap_or(plan.preferred);
            let tun = Tun::new(device, number, label.since)?;
            return tun.set_up(plan, netlink, &host).await;
        }
        discard(&device, &interface.name);
        host.interfaces.retain(|other| other.index != interface.index);
    }
    let (device, number) = open_free(plan, &host)?;
    let label = Label::now(plan.network);
    let tun = Tun::new(device, number, label.since)?.set_up(plan, netlink, &host).await?;
    // Last, so that what could not be finished goes by itself.
    netlink.label(tun.index, &label.to_string()).await?;
    keep::keep(&tun.device)?;
    Ok(tun)
}

/// Removes the interfaces that other runs have left for networks that are not to be on; gives their names.
pub async fn sweep(host: &Host, is_on: impl Fn(NetworkId) -> bool) -> Vec<String> {
    let mut gone = Vec::new();
    for (interface, _) in host.labelled().filter(|(_, label)| !is_on(label.network)) {
        if let Some(device) = open_left(interface).await
            && discard(&device, &interface.name)
        {
            gone.push(interface.name.clone());
        }
    }
    gone
}

fn discard(device: &SyncDevice, name: &str) -> bool {
    let released = keep::release(device);
    if let Err(error) = &released {
        tracing::warn!(%error, interface = name, "an interface of an earlier run stays (ip link del removes it)");
    }
    released.is_ok()
}

/// Whether an interface that was left has the plan's addresses. Of IPv6 it may lack some, where that was off.
fn fits(plan: &TunPlan, interface: &Interface, host: &Host) -> bool {
    let mut there = host.addresses_of(interface.index).filter(|ip| !is_link_local(ip));
    let wanted = |ip: &IpAddr| plan.addresses.iter().any(|(address, _)| address == ip);
    let missing = |ip: &IpAddr| !host.addresses_of(interface.index).any(|there| there == *ip);
    there.all(|ip| wanted(&ip)) && !plan.addresses.iter().any(|(ip, _)| ip.is_ipv4() && missing(ip))
}

fn is_link_local(ip: &IpAddr) -> bool {
    matches!(ip, IpAddr::V6(ip) if ip.is_unicast_link_local())
}

fn number(name: &str) -> Option<u16> {
    name.strip_prefix("ria")?.parse().ok().filter(|number| *number < MAX_INTERFACES)
}

/// Opens an interface of an earlier run; `None` when somebody has it, or when it is none that can be opened.
async fn open_left(interface: &Interface) -> Option<SyncDevice> {
    number(&interface.name)?;
    for _ in 0..BUSY_TRIES {
        match open(&interface.name) {
            // Opened by name, which another may have got meanwhile; then it goes again.
            Ok(device) => {
                return Some(device).filter(|device| device.if_index().ok() == Some(interface.index));
            }
            Err(error) if error.raw_os_error() == Some(libc::EBUSY) => tokio::time::sleep(BUSY_PAUSE).await,
            Err(error) => {
                tracing::debug!(%error, interface = interface.name, "an interface can't be taken over");
                return None;
            }
        }
    }
    None
}

fn open(name: &str) -> io::Result<SyncDevice> {
    let build =
        |offload| DeviceBuilder::new().name(name).offload(offload).packet_information(false).build_sync();
    // Some containers and old kernels refuse offloads for no reason that matters.
    build(true)
        .or_else(|error| if error.raw_os_error() == Some(libc::EBUSY) { Err(error) } else { build(false) })
}

impl Tun {
    fn new(device: SyncDevice, number: u16, since: f64) -> io::Result<Self> {
        let (name, index) = (device.name()?, device.if_index()?);
        Ok(Self { device, number, name, index, since, shortcomings: Vec::new() })
    }

    /// Makes it what the plan says; what is so already is not touched.
    async fn set_up(mut self, plan: &TunPlan, netlink: &Netlink, host: &Host) -> Result<Self, TunError> {
        // Without this the kernel sends router solicitations into the overlay. Only root may; it matters little.
        let _ = std::fs::write(format!("/proc/sys/net/ipv6/conf/{}/addr_gen_mode", self.name), "1");
        netlink.set_up(self.index, plan.mtu, QUEUE_LENGTH).await?;
        for (address, length) in &plan.addresses {
            if host.addresses_of(self.index).any(|there| there == *address) {
                continue;
            }
            match netlink.add_address(self.index, *address, *length).await {
                Ok(()) => {}
                Err(error) if address.is_ipv6() => self.shortcomings.push(format!(
                    "{error}; IPv6 is probably off on this machine, the overlay works by IPv4 alone"
                )),
                Err(error) => return Err(error.into()),
            }
        }
        Ok(self)
    }
}

fn open_free(plan: &TunPlan, host: &Host) -> Result<(SyncDevice, u16), TunError> {
    let others = (0..MAX_INTERFACES).filter(|n| *n != plan.preferred && !plan.reserved.contains(n));
    for number in std::iter::once(plan.preferred).chain(others) {
        let name = format!("ria{number}");
        if host.has_interface(&name) {
            continue;
        }
        match open(&name) {
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
