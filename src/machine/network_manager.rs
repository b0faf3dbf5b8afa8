//! NetworkManager: which connection leads out, how far, and by which access point.
//!
//! All is read anew whenever something of it changes, at most twice a second: some ten small questions to a process beside.

use std::convert::Infallible;
use std::time::Duration;

use futures_util::StreamExt;
use ria_api::state::{Connectivity, Uplink, UplinkKind};
use tokio::sync::mpsc;
use zbus::fdo::DBusProxy;
use zbus::message::Type;
use zbus::names::BusName;
use zbus::{Connection, MatchRule, Message, MessageStream, ObjectPath, OwnedObjectPath};

use super::reading::Properties;
use super::{News, RETRY, connect};

/// Its name on the bus.
pub const NAME: &str = "org.freedesktop.NetworkManager";
const PATH: &str = "/org/freedesktop/NetworkManager";
const ACTIVE: &str = "org.freedesktop.NetworkManager.Connection.Active";
const DEVICE: &str = "org.freedesktop.NetworkManager.Device";
const WIRELESS: &str = "org.freedesktop.NetworkManager.Device.Wireless";
const ACCESS_POINT: &str = "org.freedesktop.NetworkManager.AccessPoint";

/// Interfaces whose changes matter here.
const INTERFACES: [&str; 5] = [NAME, ACTIVE, DEVICE, WIRELESS, ACCESS_POINT];

/// A move between access points comes as several signals; scans bring some more for each access point in reach.
const SETTLE: Duration = Duration::from_millis(100);
const LEAST_GAP: Duration = Duration::from_millis(500);

/// Kinds of connections that are no network below, but run over one.
const ABOVE: [&str; 8] = ["vpn", "wireguard", "tun", "loopback", "ip-tunnel", "dummy", "veth", "vxlan"];

/// Activated, in `State` of a connection.
const ACTIVATED: u32 = 2;

const ETHERNET: u32 = 1;
const WIFI: u32 = 2;
const MODEM: u32 = 8;

/// Tells of the network below, for ever.
pub async fn follow(tell: impl Fn(News) + Send + Sync) {
    let mut told = None;
    loop {
        let Err(error) = watch(&tell, &mut told).await;
        tracing::debug!(%error, "NetworkManager is looked for again later");
        pass_on(&tell, &mut told, None);
        tokio::time::sleep(RETRY).await;
    }
}

fn pass_on(tell: &impl Fn(News), told: &mut Option<Uplink>, uplink: Option<Uplink>) {
    if *told != uplink {
        told.clone_from(&uplink);
        tell(News::Uplink(uplink.map(Box::new)));
    }
}

/// One connection to the bus, from its beginning to its end.
async fn watch(tell: &impl Fn(News), told: &mut Option<Uplink>) -> zbus::Result<Infallible> {
    let connection = connect().await?;
    let bus = DBusProxy::new(&connection).await?;
    let mut owners = bus.receive_name_owner_changed_with_args(&[(0, NAME)]).await?;
    let rule = MatchRule::builder()
        .msg_type(Type::Signal)
        .path_namespace(PATH)
        .interface("org.freedesktop.DBus.Properties")
        .member("PropertiesChanged")
        .build()?;
    let mut changes = MessageStream::for_match_rule(rule, &connection, None).await?;
    let (dirty, mut is_dirty) = mpsc::channel(1);
    // Signals are taken off while questions are asked: else their queue would fill, and no answer get past it.
    let drain = async {
        loop {
            wait_for_change(&mut owners, &mut changes).await?;
            // One that is waiting already will do for this change, too.
            let _ = dirty.try_send(());
        }
    };
    let look = async {
        loop {
            // Asked of one that is not there, the bus would start it.
            let uplink = if bus.name_has_owner(BusName::from_static_str(NAME)?).await? {
                read(&connection).await.inspect_err(|error| tracing::debug!(%error, "NetworkManager")).ok()
            } else {
                None
            };
            pass_on(tell, told, uplink);
            let gap = tokio::time::Instant::now() + LEAST_GAP;
            // Its other end lives as long as this.
            let _ = is_dirty.recv().await;
            tokio::time::sleep(SETTLE).await;
            tokio::time::sleep_until(gap).await;
        }
    };
    tokio::select! {
        ended = drain => ended,
        ended = look => ended,
    }
}

async fn wait_for_change(
    owners: &mut zbus::fdo::NameOwnerChangedStream,
    changes: &mut MessageStream,
) -> zbus::Result<()> {
    let lost = || zbus::Error::Failure("the connection to the bus was closed".into());
    loop {
        tokio::select! {
            owner = owners.next() => return owner.map(drop).ok_or_else(lost),
            change = changes.next() => {
                if matters(&change.ok_or_else(lost)??) {
                    return Ok(());
                }
            }
        }
    }
}

fn matters(change: &Message) -> bool {
    let body = change.body();
    let interface = body.deserialize_ignore_signature::<(&str,)>();
    // What can't be read in part is looked at, rather than passed over.
    interface.map_or(true, |(interface,)| INTERFACES.contains(&interface))
}

async fn read(connection: &Connection) -> zbus::Result<Uplink> {
    let manager = Properties::of(connection, NAME, &ObjectPath::try_from(PATH)?, NAME).await?;
    let mut uplink = Uplink {
        source: "NetworkManager".into(),
        connectivity: connectivity(manager.get("Connectivity").unwrap_or_default()),
        ..Uplink::default()
    };
    // Where nothing leads out, whatever is connected is what robots meet on.
    let primary = manager.object("PrimaryConnection");
    let others: Vec<OwnedObjectPath> = manager.get("ActiveConnections").unwrap_or_default();
    for path in primary.into_iter().chain(others) {
        let active = Properties::of(connection, NAME, &path, ACTIVE).await?;
        let kind: String = active.get("Type").unwrap_or_default();
        if ABOVE.contains(&kind.as_str()) || active.get("State") != Some(ACTIVATED) {
            continue;
        }
        let devices: Vec<OwnedObjectPath> = active.get("Devices").unwrap_or_default();
        if let Some(device) = devices.first() {
            read_device(connection, device, &mut uplink).await?;
            break;
        }
    }
    Ok(uplink)
}

async fn read_device(
    connection: &Connection,
    path: &OwnedObjectPath,
    uplink: &mut Uplink,
) -> zbus::Result<()> {
    let device = Properties::of(connection, NAME, path, DEVICE).await?;
    let ip_interface = device.get::<String>("IpInterface").filter(|name| !name.is_empty());
    uplink.interface = ip_interface.or_else(|| device.get("Interface")).unwrap_or_default();
    uplink.kind = match device.get("DeviceType") {
        Some(ETHERNET) => UplinkKind::Ethernet,
        Some(WIFI) => UplinkKind::Wifi,
        Some(MODEM) => UplinkKind::Mobile,
        Some(_) => UplinkKind::Other,
        None => UplinkKind::Unknown,
    };
    if uplink.kind != UplinkKind::Wifi {
        return Ok(());
    }
    let wireless = Properties::of(connection, NAME, path, WIRELESS).await?;
    let kilobits = wireless.get::<u32>("Bitrate").filter(|rate| *rate > 0);
    uplink.rate = kilobits.map(|rate| f64::from(rate) * 1e3);
    let Some(path) = wireless.object("ActiveAccessPoint") else { return Ok(()) };
    let point = Properties::of(connection, NAME, &path, ACCESS_POINT).await?;
    uplink.access_point = point.get::<String>("HwAddress").filter(|address| !address.is_empty());
    uplink.ssid = point.get::<Vec<u8>>("Ssid").map(|ssid| printable(&ssid));
    uplink.frequency = point.get::<u32>("Frequency").filter(|mhz| *mhz > 0).map(|mhz| f64::from(mhz) * 1e6);
    let percent = point.get::<u8>("Strength").filter(|percent| *percent > 0).map(|percent| percent.min(100));
    uplink.quality = percent.map(|percent| f64::from(percent) / 100.0);
    uplink.signal = percent.map(dbm);
    Ok(())
}

/// NetworkManager gives 100 % at -40 dBm and 0 % at -100 dBm, in a straight line, and nothing beyond these.
fn dbm(percent: u8) -> f64 {
    -40.0 - 0.6 * (100.0 - f64::from(percent))
}

fn connectivity(value: u32) -> Connectivity {
    match value {
        1 => Connectivity::None,
        2 => Connectivity::Portal,
        3 => Connectivity::Limited,
        4 => Connectivity::Full,
        _ => Connectivity::Unknown,
    }
}

/// A Wi-Fi's name is bytes that anybody chooses; it comes to people's terminals.
fn printable(ssid: &[u8]) -> String {
    let text = String::from_utf8_lossy(ssid);
    text.chars().map(|c| if c.is_control() { char::REPLACEMENT_CHARACTER } else { c }).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_that_somebody_made_up_can_t_steer_a_terminal() {
        assert_eq!(printable(b"lab"), "lab");
        assert_eq!(printable(b"\x1b[2Jlab\n\xff"), "\u{fffd}[2Jlab\u{fffd}\u{fffd}");
    }

    #[test]
    fn strength_and_connectivity_are_those_of_networkmanager() {
        assert!(
            (dbm(100) + 40.0).abs() < 1e-9 && (dbm(50) + 70.0).abs() < 1e-9 && (dbm(0) + 100.0).abs() < 1e-9
        );
        let words = [0, 1, 2, 3, 4, 5].map(|value| connectivity(value).as_str());
        assert_eq!(words, ["unknown", "none", "portal", "limited", "full", "unknown"]);
    }
}
