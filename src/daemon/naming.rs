//! Names of members on this machine, as the loop sees them: begun, and what is told when they can't be had.

use std::io;

use ria_api::state::Severity;
use tokio::sync::mpsc;

use super::control::{Control, Input};
use crate::config::Config;
use crate::names::{HOSTS, Mode, Names};

/// Begins with none.
pub fn start(config: &Config, inputs: &mpsc::UnboundedSender<Input>) -> Names {
    let inputs = inputs.clone();
    // Only fails while the agent stops.
    Names::start(&config.names, &config.state_dir, move |done| _ = inputs.send(Input::NamesPut(done)))
}

impl Control {
    /// That names could not be put where they should be is worth a word, and nothing else depends on it.
    pub(super) fn handle_names(&mut self, done: Result<(), io::Error>) {
        self.changed |= match done {
            Ok(()) => self.conditions.clear("names-not-set"),
            Err(error) => {
                // Who did not ask for it may not miss it.
                let asked = self.names.mode() == Mode::Hosts;
                let severity = if asked { Severity::Warning } else { Severity::Info };
                let text = format!(
                    "names of peers can't be put into {HOSTS}: {error}; addresses work, and so do names in ria's own \
                     commands. To do without: [names] mode = \"off\" in agent.toml"
                );
                self.conditions.set("names-not-set", severity, text)
            }
        };
    }
}
