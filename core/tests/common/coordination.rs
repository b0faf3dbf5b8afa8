//! What the coordinator of a [`World`] does: says who is a member, passes on candidates, and names relays.

use std::net::IpAddr;

use ria_core::{Command, RelayServer};
use ria_protocol::map::{Live, Member, MemberKind, NetworkInfo, Patch, PatchSet, Revision, Snapshot};
use ria_protocol::record::{MemberRecord, SignedRecord};

use super::{World, network, node, overlay, turn};

impl World {
    pub fn member(&self, host: usize) -> Member {
        let address = IpAddr::from(overlay(host));
        let record = MemberRecord {
            network: network(),
            node: node(host),
            wg_key: self.hosts[host].public_key(),
            prefixes: vec![ria_protocol::prefix::Prefix::host(address)],
            tags: vec![],
            expires: None,
        };
        Member {
            record: SignedRecord::unsigned(&record),
            name: format!("robot-{host}").parse().unwrap(),
            kind: MemberKind::Node,
            stock: None,
            ros_domain: None,
            routes: None,
        }
    }

    pub fn info() -> NetworkInfo {
        NetworkInfo {
            id: network(),
            name: "lab".parse().unwrap(),
            prefix_v4: "10.213.0.0/16".parse().unwrap(),
            prefix_v6: "fd5a::/64".parse().unwrap(),
            mtu: 1280,
            lock_keys: vec![],
            urls: vec![],
            ros_domains: None,
            multicast: None,
            peers: None,
        }
    }

    /// All hosts are members and know each other; relays are announced; candidates will be passed on.
    pub fn introduce_all(&mut self) {
        self.members = (0..self.hosts.len()).collect();
        for host in 0..self.hosts.len() {
            self.give_map(host);
            self.give_relay(host);
        }
    }

    pub(super) fn give_map(&mut self, host: usize) {
        let members = self.members.iter().map(|member| self.member(*member)).collect();
        let info = NetworkInfo { mtu: self.mtu, ..Self::info() };
        let snapshot = Snapshot { revision: Revision(self.revision), network: info, members, policy: None };
        self.command(host, Command::SetMap { network: network(), snapshot });
    }

    pub fn give_relay(&mut self, host: usize) {
        let relay = RelayServer {
            name: "relay".into(),
            address: self.turn.address,
            tls_port: self.tls_port,
            username: format!("user-{host}"),
            password: turn::PASSWORD.into(),
        };
        let others = self.other_turns.iter().enumerate().map(|(index, turn)| RelayServer {
            name: format!("relay-{}", index + 2),
            address: turn.address,
            tls_port: None,
            ..relay.clone()
        });
        let relays = std::iter::once(relay.clone()).chain(others).collect();
        self.command(host, Command::SetRelays { network: network(), relays });
    }

    /// Tells a host what is known of the others.
    pub(super) fn introduce_to(&mut self, host: usize) {
        for other in 0..self.hosts.len() {
            if other != host {
                let live = self.live(other);
                self.order += 1;
                self.news.insert((self.now + self.signalling, self.order), (host, live));
            }
        }
    }

    pub fn live(&self, host: usize) -> Live {
        let reporter = &self.hosts[host];
        Live {
            node: node(host),
            online: true,
            boot: Some(reporter.boot),
            candidates: reporter.candidates.clone(),
        }
    }

    /// Patches for some hosts.
    pub fn patch(&mut self, hosts: &[usize], patch: &Patch) {
        let (from, to) = (Revision(self.revision), Revision(self.revision + 1));
        self.revision += 1;
        for host in hosts {
            let patches = PatchSet { from, to, patches: vec![patch.clone()] };
            self.command(*host, Command::ApplyPatches { network: network(), patches });
        }
    }

    /// All hosts are members, and have that on disk: there is neither coordinator nor relay.
    pub fn introduce_by_map(&mut self) {
        self.coordinator_away = true;
        self.news.clear();
        self.members = (0..self.hosts.len()).collect();
        (0..self.hosts.len()).for_each(|host| self.give_map(host));
    }

    /// The coordinator passes a host's candidates on to the others.
    pub fn pass_on(&mut self, host: usize) {
        if self.coordinator_away {
            return;
        }
        let live = self.live(host);
        for other in 0..self.hosts.len() {
            if other != host {
                self.order += 1;
                self.news.insert((self.now + self.signalling, self.order), (other, live.clone()));
            }
        }
    }
}
