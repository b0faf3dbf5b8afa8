//! The machine below in the agent's loop: what NetworkManager and logind tell, and what follows from it.
//!
//! Addresses and routes come from the kernel (`roaming`), whoever manages them. NetworkManager adds what the kernel does not
//! tell: the access point, and whether somebody wants a login first.

use std::time::Duration;

use ria_api::state::{Connectivity, Severity, Uplink, UplinkKind};
use ria_protocol::id::NetworkId;
use tokio::sync::{mpsc, oneshot};

use super::control::{Control, Input};
use super::events::Draft;
use super::times::Look;
use crate::coordinator::session::Order;
use crate::machine::{self, News};

/// How long the good-byes may take.
const GOOD_BYE: Duration = Duration::from_secs(2);

/// What is known of it.
#[derive(Debug, Default)]
pub struct Machine {
    /// What NetworkManager tells, where there is one.
    uplink: Option<Box<Uplink>>,
    /// Interface and access point that were in use last; between two there may be none for a moment.
    access_point: Option<(String, String)>,
}

impl Machine {
    /// Starts listening, where the system bus may be used.
    pub fn start(wanted: bool, inputs: &mpsc::UnboundedSender<Input>) -> Self {
        if wanted {
            let inputs = inputs.clone();
            // Only fails while the agent stops.
            machine::start(move |news| drop(inputs.send(Input::Machine(news))));
        }
        Self::default()
    }

    /// Takes what is told now; the access points before and now, when it is another one.
    fn follow(&mut self, uplink: Option<Box<Uplink>>) -> Option<(String, String)> {
        let point =
            uplink.as_ref().and_then(|uplink| Some((uplink.interface.clone(), uplink.access_point.clone()?)));
        self.uplink = uplink;
        let (interface, now) = point?;
        let before = self.access_point.replace((interface.clone(), now.clone()));
        before.filter(|(on, point)| *on == interface && *point != now).map(|(_, before)| (before, now))
    }
}

impl Control {
    /// A service of the machine tells something.
    pub(super) async fn handle_machine_news(&mut self, news: News) {
        match news {
            News::Uplink(uplink) => self.follow_machine_uplink(uplink).await,
            News::GoesToSleep(answer) => self.go_to_sleep(answer),
            News::IsAwake => {
                tracing::info!("this machine is awake");
                // Else the next tick would tell it once more.
                self.forget_suspension();
                self.handle_resume().await;
            }
        }
    }

    async fn follow_machine_uplink(&mut self, uplink: Option<Box<Uplink>>) {
        self.changed = true;
        let portal = uplink.as_ref().is_some_and(|uplink| uplink.connectivity == Connectivity::Portal);
        if portal {
            let text = "this network wants a login before it lets anything out (captive portal); log in with a browser on \
                        this machine, or use another network";
            self.conditions.set("captive-portal", Severity::Warning, text);
        } else {
            self.conditions.clear("captive-portal");
        }
        let moved = self.machine.follow(uplink);
        self.note_uplinks();
        let Some((before, after)) = moved else { return };
        tracing::info!("this machine's Wi-Fi has another access point now");
        self.tell_access_point(&before, &after);
        // The addresses are the same, and a queue of the access point before may hold what is on its way.
        self.tell_host_candidates().await;
    }

    fn tell_access_point(&mut self, before: &str, after: &str) {
        let running: Vec<NetworkId> =
            self.networks.values().filter(|network| network.in_engine).map(|network| network.id()).collect();
        for id in running {
            let draft = Draft {
                severity: Severity::Info,
                kind: "access_point",
                before: before.into(),
                after: after.into(),
                text: format!("this machine's Wi-Fi went from access point {before} to {after}"),
                ..Draft::default()
            };
            self.events.tell(id, draft);
        }
    }

    /// Stores what is not stored yet and closes the streams, so that the coordinator shows this machine as away at once.
    fn go_to_sleep(&mut self, answer: oneshot::Sender<()>) {
        tracing::info!("this machine goes to sleep");
        let ids: Vec<NetworkId> = self.networks.keys().copied().collect();
        let look = Look::now();
        let mut paused = Vec::new();
        for id in ids {
            self.save_live(id);
            self.store_time(id, &look);
            if let Some(network) = self.networks.get(&id) {
                let (closed, wait) = oneshot::channel();
                network.order(Order::Pause(closed));
                paused.push(wait);
            }
        }
        tokio::spawn(async move {
            let all = async {
                for wait in paused {
                    let _ = wait.await;
                }
            };
            let _ = tokio::time::timeout(GOOD_BYE, all).await;
            let _ = answer.send(());
        });
    }

    /// What this machine is connected by: NetworkManager's word, else what the kernel's routes say.
    pub(super) fn uplink(&self) -> Uplink {
        if let Some(uplink) = &self.machine.uplink {
            return (**uplink).clone();
        }
        let Some(interface) = self.host.uplink_interface() else { return Uplink::default() };
        let kind = if is_wireless(interface) { UplinkKind::Wifi } else { UplinkKind::Unknown };
        Uplink { source: "kernel".into(), interface: interface.into(), kind, ..Uplink::default() }
    }
}

fn is_wireless(interface: &str) -> bool {
    std::path::Path::new("/sys/class/net").join(interface).join("phy80211").exists()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(interface: &str, point: Option<&str>) -> Option<Box<Uplink>> {
        let uplink = Uplink {
            interface: interface.into(),
            access_point: point.map(str::to_owned),
            ..Uplink::default()
        };
        Some(Box::new(uplink))
    }

    #[test]
    fn only_another_access_point_of_the_same_radio_is_a_move() {
        let mut machine = Machine::default();
        assert_eq!(machine.follow(at("wlan0", Some("a"))), None, "the first one");
        assert_eq!(machine.follow(at("wlan0", Some("a"))), None);
        assert_eq!(machine.follow(at("wlan0", None)), None, "between two");
        assert_eq!(machine.follow(at("wlan0", Some("b"))), Some(("a".into(), "b".into())));
        assert_eq!(machine.follow(at("wlan1", Some("c"))), None, "another radio");
        assert_eq!(machine.follow(None), None, "NetworkManager went away");
        assert_eq!(
            machine.follow(at("wlan1", Some("d"))),
            Some(("c".into(), "d".into())),
            "and moved meanwhile"
        );
    }
}
