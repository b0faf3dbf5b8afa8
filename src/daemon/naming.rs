//! Names of members on this machine, as the loop sees them: begun, and what is told when they can't be had.

use std::io;

use ria_api::state::Severity;
use ria_protocol::demand::Sought;
use tokio::sync::mpsc;

use super::control::{Control, Input};
use super::network::Network;
use crate::config::Config;
use crate::coordinator::session::Order;
use crate::names::{DOMAIN, Mode, Names, Place};

const IN_HOSTS: &str = "in /etc/hosts";
const REPLACED: &str = "Another program has put another file in the place of /etc/hosts since the agent started, which its \
                        service can't write to: systemctl restart ria";

/// Begins with none.
pub fn start(config: &Config, inputs: &mpsc::UnboundedSender<Input>) -> Names {
    let (inputs, names) = (inputs.clone(), inputs.clone());
    // These only fail while the agent stops.
    let tell = move |done| _ = inputs.send(Input::NamesPut(done));
    let seek = move |name| _ = names.send(Input::NameSought(name));
    Names::start(&config.names, &config.state_dir, tell, seek)
}

impl Control {
    /// A program asks for the address of somebody who is not held.
    pub(super) fn handle_name_sought(&self, full: &str) {
        let Some((label, zone)) = full.split_once('.') else { return };
        let Ok(name) = label.parse() else { return };
        let is_zone = |network: &&Network| {
            zone.strip_suffix(DOMAIN).and_then(|rest| rest.strip_suffix('.'))
                == Some(network.membership.identity.network_name.as_str())
        };
        if let Some(network) =
            self.networks.values().find(is_zone).filter(|network| network.holds().is_some())
        {
            network.order(Order::Seek(Sought::Name(name)));
        }
    }

    /// That names could not be put where they should be is worth a word, and nothing else depends on it.
    pub(super) fn handle_names(&mut self, done: Result<Place, io::Error>) {
        let place = done.as_ref().ok().copied();
        self.changed |= std::mem::replace(&mut self.names_place, place) != place;
        self.names_in_hosts |= place == Some(Place::Hosts);
        self.changed |= match done {
            Ok(_) => self.conditions.clear("names-not-set"),
            Err(error) => {
                // Who did not ask for it may not miss it.
                let asked = matches!(self.names.mode(), Mode::Hosts | Mode::Resolved);
                // A service may write to the file that was there when it started, and to nothing else in /etc.
                let replaced = self.names_in_hosts && error.kind() == io::ErrorKind::ReadOnlyFilesystem;
                let severity = if asked || replaced { Severity::Warning } else { Severity::Info };
                let by = if self.names.mode() == Mode::Resolved { "by systemd-resolved" } else { IN_HOSTS };
                let cure =
                    if replaced { REPLACED } else { "To do without: [names] mode = \"off\" in agent.toml" };
                let text = format!(
                    "names of peers can't be made known {by}: {error}; addresses work, and so do names in ria's own \
                     commands. {cure}"
                );
                self.conditions.set("names-not-set", severity, text)
            }
        };
    }
}
