//! Names of members on this machine, as the loop sees them: begun, and what is told when they can't be had.

use std::io;

use ria_api::state::Severity;
use tokio::sync::mpsc;

use super::control::{Control, Input};
use crate::config::Config;
use crate::names::{Mode, Names, Place};

const IN_HOSTS: &str = "in /etc/hosts";

/// Begins with none.
pub fn start(config: &Config, inputs: &mpsc::UnboundedSender<Input>) -> Names {
    let inputs = inputs.clone();
    // Only fails while the agent stops.
    Names::start(&config.names, &config.state_dir, move |done| _ = inputs.send(Input::NamesPut(done)))
}

impl Control {
    /// That names could not be put where they should be is worth a word, and nothing else depends on it.
    pub(super) fn handle_names(&mut self, done: Result<Place, io::Error>) {
        let place = done.as_ref().ok().copied();
        self.changed |= std::mem::replace(&mut self.names_place, place) != place;
        self.changed |= match done {
            Ok(_) => self.conditions.clear("names-not-set"),
            Err(error) => {
                // Who did not ask for it may not miss it.
                let asked = matches!(self.names.mode(), Mode::Hosts | Mode::Resolved);
                let severity = if asked { Severity::Warning } else { Severity::Info };
                let by = if self.names.mode() == Mode::Resolved { "by systemd-resolved" } else { IN_HOSTS };
                let text = format!(
                    "names of peers can't be made known {by}: {error}; addresses work, and so do names in ria's own \
                     commands. To do without: [names] mode = \"off\" in agent.toml"
                );
                self.conditions.set("names-not-set", severity, text)
            }
        };
    }
}
