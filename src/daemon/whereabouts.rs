//! Where the coordinator is: the URLs that it tells in the map, the one that answered last, and the one that a person
//! has set on this machine.

use ria_api::error::ApiError;
use ria_protocol::id::NetworkId;
use ria_protocol::requester::{LocalDeed, Requester};

use super::control::{Control, Input};
use super::handle::Reply;
use crate::coordinator::finding::{self, FindError};
use crate::coordinator::greet::GreetError;
use crate::coordinator::session::Order;
use crate::state::Part;

impl Control {
    /// A URL answered, and it is this node's coordinator.
    pub(super) fn note_reached(&mut self, id: NetworkId, url: &str) {
        let Some(network) = self.networks.get_mut(&id) else { return };
        if network.membership.contact.reached.as_deref() != Some(url) {
            network.membership.contact.reached = Some(url.to_owned());
            self.saver.put(id, Part::Contact, &network.membership.contact, 0);
            self.tell_urls(id);
        }
    }

    /// The map may tell other URLs than before.
    pub(super) fn follow_urls(&mut self, id: NetworkId) {
        let Some(network) = self.networks.get_mut(&id) else { return };
        let Some(map) = &network.membership.map else { return };
        if map.network.urls.is_empty() || map.network.urls == network.membership.identity.urls {
            return;
        }
        tracing::info!(network = %map.network.name, "the coordinator has told other addresses of its own");
        network.membership.identity.urls.clone_from(&map.network.urls);
        self.saver.put(id, Part::Identity, &network.membership.identity, 0);
        self.tell_urls(id);
    }

    fn tell_urls(&self, id: NetworkId) {
        if let Some(network) = self.networks.get(&id) {
            network.order(Order::Urls(finding::urls(&network.membership)));
        }
    }

    /// A person says where the coordinator is. It is asked before it is believed.
    pub(super) fn set_url(&self, id: NetworkId, url: String, by: Requester, reply: Reply<()>) {
        let Some(network) = self.networks.get(&id) else {
            let _ = reply.send(Err(super::requests::no_such_network(id)));
            return;
        };
        let (membership, inputs) = (network.membership.clone(), self.inputs.clone());
        let reach = self.reach.clone();
        tokio::spawn(async move {
            let url = url.trim().trim_end_matches('/').to_owned();
            match finding::check(&reach, url.clone(), &membership).await {
                Ok(()) => {
                    // Only fails while the agent stops.
                    let _ = inputs.send(Input::UrlFound { network: id, url, by, reply });
                }
                Err(error) => {
                    let _ = reply.send(Err(api_error(error)));
                }
            }
        });
    }

    /// What a person said is so.
    pub(super) fn handle_url_found(&mut self, id: NetworkId, url: String, by: Requester, reply: Reply<()>) {
        let Some(network) = self.networks.get_mut(&id) else {
            let _ = reply.send(Err(super::requests::no_such_network(id)));
            return;
        };
        tracing::info!(network = %network.membership.identity.network_name, "the coordinator's address was set");
        network.membership.contact.by_hand = Some(url);
        self.saver.put(id, Part::Contact, &network.membership.contact, 0);
        self.tell_urls(id);
        self.note(id, LocalDeed::SetUrl, by);
        if let Some(network) = self.networks.get(&id) {
            network.order(Order::Reconnect);
        }
        self.changed = true;
        let _ = reply.send(Ok(()));
    }
}

fn api_error(error: FindError) -> ApiError {
    match error {
        FindError::Greet(GreetError::Dial(crate::coordinator::dial::DialError::BadUrl(_))) => {
            ApiError::InvalidArgument(error.to_string())
        }
        FindError::Greet(_) => ApiError::Unreachable(error.to_string()),
        FindError::Outdated(_) => ApiError::Refused(error.to_string()),
        FindError::Setup(_) => ApiError::Failed(error.to_string()),
    }
}
