//! Commands about static peers. The device's keys are made here, in the command, and never reach the coordinator; only
//! a pre-shared key does, for the members that need it.

use data_encoding::BASE64;
use ria_protocol::keys::WgPublicKey;
use ria_protocol::name::Name;
use x25519_dalek::{PublicKey, StaticSecret};
use zeroize::Zeroizing;

use super::commands::{Outcome, with_network};
use super::{Common, NodeArgs, StaticWayArgs, complain};
use crate::admin::api::{AddStatic, NodeView, StaticView, StaticWay};
use crate::admin::client::escaped;
use crate::random;

/// A static peer to add.
pub(super) struct NewStatic {
    pub name: Name,
    pub network: Option<Name>,
    pub way: StaticWayArgs,
    pub public_key: Option<WgPublicKey>,
    pub listens_at: Option<std::net::SocketAddr>,
    pub keepalive: u16,
    pub tags: Vec<Name>,
}

/// What the answer is printed as: the device's file beside what the coordinator says.
#[derive(serde::Serialize)]
struct Printed<'a> {
    /// The file. It is shown only once.
    config: String,
    #[serde(flatten)]
    view: &'a StaticView,
}

/// The secrets that a file may hold.
struct Secrets {
    private_key: Option<Zeroizing<String>>,
    psk: Option<Zeroizing<String>>,
}

fn way(args: StaticWayArgs) -> (StaticWay, Option<Zeroizing<String>>) {
    let psk = args.psk.then(|| Zeroizing::new(BASE64.encode(&random::bytes::<32>())));
    let way = StaticWay { via: args.via, endpoints: args.endpoints, psk: psk.as_deref().cloned() };
    (way, psk)
}

pub(super) async fn add(new: NewStatic, common: &Common) -> Outcome {
    let (way, psk) = way(new.way);
    let (public_key, private_key) = match new.public_key {
        Some(public_key) => (public_key, None),
        None => {
            let secret = StaticSecret::from(random::bytes::<32>());
            let text = Zeroizing::new(BASE64.encode(secret.as_bytes()));
            (WgPublicKey(PublicKey::from(&secret).to_bytes()), Some(text))
        }
    };
    let request = AddStatic {
        network: new.network,
        name: new.name,
        public_key,
        tags: new.tags,
        listens_at: new.listens_at,
        keepalive: new.keepalive,
        way,
    };
    let view: StaticView = common.client().post("/v1/static-peers", &request).await?;
    show(common, &view, &Secrets { private_key, psk })
}

pub(super) async fn set_gateway(node: &NodeArgs, args: StaticWayArgs, common: &Common) -> Outcome {
    let (way, psk) = way(args);
    let path = format!("/v1/static-peers/{}/gateway", escaped(&node.node));
    let view: StaticView = common.client().post(&with_network(&path, node.network.as_deref()), &way).await?;
    show(common, &view, &Secrets { private_key: None, psk })
}

fn show(common: &Common, view: &StaticView, secrets: &Secrets) -> Outcome {
    if !common.json {
        // Beside the file, which alone goes to standard output.
        complain(&summary(&view.node));
        view.notes.iter().for_each(|note| complain(note));
    }
    let printed = Printed { config: config(view, secrets), view };
    common.show(&printed, |printed| printed.config.clone())
}

fn summary(node: &NodeView) -> String {
    let way = match &node.gateway {
        Some(gateway) => format!("behind {gateway}, which sees what it says"),
        None => "with which all members talk themselves".to_owned(),
    };
    format!("{} is a static peer of network {}, {way}", node.name, node.network)
}

/// A file for `wg-quick`, which the apps for phones take as well.
fn config(view: &StaticView, secrets: &Secrets) -> String {
    use std::fmt::Write as _;

    let node = &view.node;
    let mut text =
        format!("# {} in network {}. This file is secret.\n[Interface]\n", node.name, node.network);
    // Writing to a string can't fail.
    let _ = match &secrets.private_key {
        Some(key) => writeln!(text, "PrivateKey = {}", key.as_str()),
        None => writeln!(
            text,
            "# Put the device's private key here. Its public key is {}\n# PrivateKey =",
            node.wg_key
        ),
    };
    let length = |ip: &std::net::IpAddr| if ip.is_ipv4() { 32 } else { 128 };
    let addresses: Vec<_> = node.addresses.iter().map(|ip| format!("{ip}/{}", length(ip))).collect();
    let _ = writeln!(text, "Address = {}\nMTU = {}", addresses.join(", "), view.mtu);
    if let Some(port) = view.listen_port {
        let _ = writeln!(text, "ListenPort = {port}");
    }
    for peer in &view.peers {
        let role = if node.gateway.is_some() { " (gateway)" } else { "" };
        let _ = writeln!(text, "\n# {}{role}\n[Peer]\nPublicKey = {}", peer.name, peer.wg_key);
        if let Some(psk) = &secrets.psk {
            let _ = writeln!(text, "PresharedKey = {}", psk.as_str());
        }
        let allowed: Vec<_> = peer.allowed.iter().map(ToString::to_string).collect();
        let _ = writeln!(text, "Endpoint = {}\nAllowedIPs = {}", peer.endpoint, allowed.join(", "));
        if let Some(keepalive) = view.keepalive {
            let _ = writeln!(text, "PersistentKeepalive = {keepalive}");
        }
    }
    text
}
