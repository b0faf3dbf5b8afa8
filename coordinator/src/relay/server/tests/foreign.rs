//! The relay against a TURN client that others wrote (`turn-client-proto`).

use stun_types::TransportType;
use turn_client_proto::api::{Transmit, TurnConfig, TurnEvent, TurnPollRet, TurnRecvRet};
use turn_client_proto::prelude::*;
use turn_client_proto::types::TurnCredentials;
use turn_client_proto::udp::TurnClientUdp;

use super::*;

/// Two foreign clients at one relay, without latency.
struct Pair {
    world: World,
    clients: [TurnClientUdp; 2],
    received: [Vec<Vec<u8>>; 2],
    events: Vec<TurnEvent>,
    start: Instant,
}

impl Pair {
    fn new() -> Self {
        let client = |node: u8| {
            let credentials = credentials(1, node, START);
            let credentials = TurnCredentials::new(&credentials.username, &credentials.password);
            let mut config = TurnConfig::new(credentials);
            config.set_anonymous_username(turn_client_proto::stun::auth::Feature::Disabled);
            let local = format!("10.0.0.{node}:4000").parse().unwrap();
            TurnClientUdp::allocate(local, server_address(local), config)
        };
        let world = World::new(1);
        let start = world.now;
        Self {
            world,
            clients: [client(1), client(2)],
            received: [Vec::new(), Vec::new()],
            events: Vec::new(),
            start,
        }
    }

    fn their_now(&self) -> turn_client_proto::stun::Instant {
        let elapsed = SECOND + (self.world.now - self.start);
        turn_client_proto::stun::Instant::from_nanos(elapsed.as_nanos() as i64)
    }

    fn relayed(&self, index: usize) -> SocketAddr {
        self.clients[index].relayed_addresses().next().expect("an allocation").1
    }

    /// Lets time pass in steps, and everything be sent.
    fn run(&mut self, duration: Duration) {
        let end = self.world.now + duration;
        while self.world.now < end {
            for index in 0..2 {
                let now = self.their_now();
                let polled = self.clients[index].poll(now);
                assert!(matches!(polled, TurnPollRet::WaitUntil(_)), "{polled:?}");
                while let Some(transmit) = self.clients[index].poll_transmit(now) {
                    self.deliver(index, transmit.data.to_vec());
                }
                while let Some(event) = self.clients[index].poll_event() {
                    self.events.push(event);
                }
            }
            self.world.now += Duration::from_millis(50);
            let clock = self.world.clock();
            self.world.server.handle_timeout(clock);
        }
    }

    fn deliver(&mut self, from: usize, mut bytes: Vec<u8>) {
        let clock = self.world.clock();
        let action = self.world.server.handle(tuple(self.clients[from].local_addr()), &mut bytes, clock);
        let (to, bytes) = match action {
            Action::Wrap(..) | Action::Unwrap(_) => unreachable!("nothing is outside here"),
            Action::Drop => return,
            Action::Forward(to) => (to.remote, bytes),
            Action::Send(to) => (to.remote, self.world.server.output().to_vec()),
        };
        let now = self.their_now();
        let Some(index) = self.clients.iter().position(|client| client.local_addr() == to) else { return };
        let transmit = Transmit::new(bytes, TransportType::Udp, server_address(to), to);
        if let TurnRecvRet::PeerData(data) = self.clients[index].recv(transmit, now) {
            self.received[index].push(data.data().to_vec());
        }
    }

    fn say(&mut self, from: usize, payload: &[u8]) {
        let (to, now) = (self.relayed(1 - from), self.their_now());
        let sent = self.clients[from].send_to(TransportType::Udp, to, payload, now).unwrap().unwrap();
        self.deliver(from, sent.build().data);
    }
}

#[test]
fn a_foreign_client_allocates_binds_relays_and_refreshes() {
    let mut pair = Pair::new();
    pair.run(SECOND);
    let relayed = [pair.relayed(0), pair.relayed(1)];
    for index in 0..2 {
        let now = pair.their_now();
        pair.clients[index].create_permission(TransportType::Udp, relayed[1 - index].ip(), now).unwrap();
    }
    pair.run(SECOND);
    pair.say(0, b"by indication");
    assert_eq!(pair.received[1], [b"by indication".to_vec()]);
    for index in 0..2 {
        let now = pair.their_now();
        pair.clients[index].bind_channel(TransportType::Udp, relayed[1 - index], now).unwrap();
    }
    pair.run(SECOND);
    pair.say(0, b"by channel");
    pair.say(1, b"and back");
    pair.run(3600 * SECOND);
    pair.say(0, b"an hour later");
    assert_eq!(pair.received[1].len(), 3);
    assert_eq!(pair.received[0], [b"and back".to_vec()]);
    assert!(!pair.events.iter().any(|event| format!("{event:?}").contains("Failed")), "{:?}", pair.events);
    assert_eq!(pair.world.counters().drops.iter().map(|(_, count)| count).sum::<u64>(), 0);
}
