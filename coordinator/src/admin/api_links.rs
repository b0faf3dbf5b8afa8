//! What the admin socket says of links and of what has happened on nodes. Fields are only ever added.

use ria_protocol::id::NodeId;
use ria_protocol::links::LinkPath;
use ria_protocol::name::Name;
use ria_protocol::time::UnixTime;
use serde::{Deserialize, Serialize};

/// How two members reach each other. `a` comes before `b` by name.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct LinkView {
    pub network: Name,
    pub a: Name,
    pub a_id: NodeId,
    pub b: Name,
    pub b_id: NodeId,
    /// The path in use. Each end chooses its own; where they differ, this is the one that is further from direct.
    pub path: LinkPath,
    /// Name of the relay, for a relayed path.
    pub relay: Option<String>,
    /// Smoothed round-trip time in milliseconds; the longer one, where both ends tell.
    pub rtt_ms: Option<f64>,
    /// Since when the path is in use, as far as the coordinator knows.
    pub since: UnixTime,
    /// What each end tells; absent where it does not.
    pub from_a: Option<LinkEndView>,
    pub from_b: Option<LinkEndView>,
}

/// What one end tells of a link.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct LinkEndView {
    pub path: LinkPath,
    pub relay: Option<String>,
    pub rtt_ms: Option<f64>,
    pub since: UnixTime,
}

/// Something that has happened on a node.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct HistoryView {
    pub time: UnixTime,
    pub kind: HistoryKind,
    /// The peer whose path it is; its id where it is no member any more.
    pub peer: Option<String>,
    pub before: Option<LinkPath>,
    pub after: Option<LinkPath>,
    /// For how many milliseconds nothing came through; absent where the path before worked on.
    pub gap_ms: Option<u32>,
    /// Why another path; empty for an uplink.
    pub reason: String,
    /// What the node is connected by since then.
    pub uplink: Option<UplinkView>,
}

/// What has happened.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum HistoryKind {
    /// Traffic to a peer takes another path.
    Path,
    /// The node is connected by something else.
    Uplink,
}

/// What a node is connected by.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct UplinkView {
    /// Empty while there is none.
    pub interface: String,
    /// `wifi`, `ethernet`, `mobile`, `other`, or `unknown`.
    pub kind: String,
    /// Name of the Wi-Fi network; not for laptops of people.
    pub ssid: Option<String>,
    /// Access point; not for laptops of people.
    pub access_point: Option<String>,
}

impl HistoryView {
    /// What has happened, in words.
    pub fn text(&self) -> String {
        if let Some(uplink) = &self.uplink {
            return uplink.text();
        }
        let path = |path: Option<LinkPath>| path.unwrap_or(LinkPath::None);
        let gap = self.gap_ms.map(|gap| format!(", after {:.1} s without contact", f64::from(gap) / 1000.0));
        format!(
            "path to {}: {} -> {}{} ({})",
            self.peer.as_deref().unwrap_or("-"),
            path(self.before),
            path(self.after),
            gap.unwrap_or_default(),
            self.reason
        )
    }
}

impl UplinkView {
    fn text(&self) -> String {
        if self.interface.is_empty() {
            return "connected by nothing".to_owned();
        }
        let kind = match self.kind.as_str() {
            "wifi" => "Wi-Fi",
            "ethernet" => "a cable",
            "mobile" => "a modem",
            _ => "an interface",
        };
        let ssid = self.ssid.as_ref().map(|ssid| format!(", network {ssid}"));
        let point = self.access_point.as_ref().map(|point| format!(", access point {point}"));
        format!(
            "connected by {kind} ({}){}{}",
            self.interface,
            ssid.unwrap_or_default(),
            point.unwrap_or_default()
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_has_happened_is_said_in_words() {
        let path = HistoryView {
            time: UnixTime(0),
            kind: HistoryKind::Path,
            peer: Some("robot-b".into()),
            before: Some(LinkPath::RelayUdp),
            after: Some(LinkPath::Direct),
            gap_ms: Some(640),
            reason: "proven".into(),
            uplink: None,
        };
        assert_eq!(path.text(), "path to robot-b: relay_udp -> direct, after 0.6 s without contact (proven)");
        let wifi = UplinkView {
            interface: "wlan0".into(),
            kind: "wifi".into(),
            ssid: Some("lab".into()),
            access_point: Some("02:00:00:00:00:01".into()),
        };
        let at = HistoryView { kind: HistoryKind::Uplink, uplink: Some(wifi.clone()), ..path.clone() };
        assert_eq!(at.text(), "connected by Wi-Fi (wlan0), network lab, access point 02:00:00:00:00:01");
        let none = UplinkView { interface: String::new(), ..wifi };
        let away = HistoryView { uplink: Some(none), ..at };
        assert_eq!(away.text(), "connected by nothing");
    }
}
