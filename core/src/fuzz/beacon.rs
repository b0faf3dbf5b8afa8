//! Beacons: whatever arrives at their port, each genuine one causes one probe at most, and all else none.

use std::net::SocketAddr;
use std::time::Instant;

use super::engine::{commands, network};
use super::{Unstructured, bytes, damage, pause};
use crate::beacon::LEN;
use crate::{Command, DatagramBatch, Engine, EngineConfig, Event};

const PLACES: [&str; 3] = ["192.0.2.1:41820", "[fe80::1%2]:41820", "192.0.2.66:7"];

/// Beacons of one engine before another one, from anywhere, late, twice, damaged and invented.
pub fn beacon(data: &[u8]) {
    let places: Vec<SocketAddr> = PLACES.iter().filter_map(|place| place.parse().ok()).collect();
    let (mut input, mut now) = (Unstructured::new(data), Instant::now());
    let mut engines = [0, 1].map(|side| engine(side, now));
    let wanted = Command::SetBeaconPlaces(places[..2].to_vec());
    assert!(engines[0].handle_command(wanted, now).is_ok());
    let mut genuine: Vec<(SocketAddr, Vec<u8>)> = Vec::new();
    for _ in 0..48 {
        let Ok(what) = input.arbitrary::<u8>() else { break };
        let chosen = usize::from(what >> 3) % genuine.len().max(1);
        let from = places[usize::from(what >> 6) % places.len()];
        let (from, datagram) = match (what % 5, genuine.get(chosen)) {
            (0, _) => {
                now += pause(&mut input);
                wake(&mut engines, now, &mut genuine);
                continue;
            }
            (1, Some((from, datagram))) => (*from, datagram.clone()),
            (2, Some((_, datagram))) => (from, datagram.clone()),
            (3, Some((_, datagram))) => {
                let mut datagram = datagram.clone();
                damage(&mut datagram, &mut input);
                (from, datagram)
            }
            (_, _) => (from, bytes(&mut input).to_vec()),
        };
        let is_genuine = genuine.iter().any(|(at, sent)| at.ip() == from.ip() && *sent == datagram);
        engines[1].handle_beacon(from, &datagram, now);
        let mut udp = DatagramBatch::default();
        engines[1].poll_transmit(now, &mut udp);
        let caused: Vec<usize> =
            udp.transmits().flat_map(|t| t.datagrams().map(<[u8]>::len).collect::<Vec<_>>()).collect();
        assert!(caused.len() <= usize::from(is_genuine), "{} datagrams for one beacon", caused.len());
        assert!(caused.iter().all(|len| *len <= LEN));
    }
}

/// A member that knows the other one's name and key, and nothing else.
fn engine(side: usize, now: Instant) -> Engine {
    let mut engine = Engine::new(EngineConfig { seed: [side.to_le_bytes()[0]; 32] });
    let kept = commands(side).into_iter().filter(|command| {
        matches!(command, Command::AddNetwork(_) | Command::SetMap { .. } | Command::SetHostCandidates(_))
    });
    for command in kept {
        assert!(engine.handle_command(command, now).is_ok());
    }
    let reached = Command::SetCoordinatorReached { network: network(), reached: false };
    assert!(engine.handle_command(reached, now).is_ok());
    engine
}

/// What is due is done; what is sent goes nowhere, but for beacons.
fn wake(engines: &mut [Engine; 2], now: Instant, genuine: &mut Vec<(SocketAddr, Vec<u8>)>) {
    for engine in engines {
        let mut wakes = 0;
        while engine.poll_timeout().is_some_and(|at| at <= now) {
            engine.handle_timeout(now);
            engine.poll_transmit(now, &mut DatagramBatch::default());
            wakes += 1;
            assert!(wakes < 100, "the engine turns in a circle");
        }
        while let Some(event) = engine.poll_event() {
            if let Event::BeaconDue { from, datagram, .. } = event {
                genuine.push((from, datagram));
            }
        }
    }
    let excess = genuine.len().saturating_sub(32);
    genuine.drain(..excess);
}
