//! Whatever arrives: counted or answered, never a crash, never more sent to strangers than they sent.

use proptest::prelude::*;

use super::*;

/// One datagram of each kind that a client sends, with credentials where it has them.
fn samples(world: &mut World) -> Vec<Vec<u8>> {
    let now = world.now;
    let b = world.relayed(1);
    let robot = &mut world.robots[0];
    let mut samples = vec![[&robot.client.wrap(b, 4, now).unwrap(), &b"data"[..]].concat()];
    robot.client.send_to(b, b"indication", now);
    robot.client.connect_peer("198.51.100.1:50000".parse().unwrap(), now).unwrap();
    robot.client.handle_timeout(now + ria_core::relay::KEEPALIVE);
    while let Some(outgoing) = robot.client.poll_transmit() {
        // The bind is sent twice, since its answer does not come.
        if !samples.contains(&outgoing.payload) {
            samples.push(outgoing.payload);
        }
    }
    robot.client.restart(now);
    samples.extend(robot.client.poll_transmit().map(|outgoing| outgoing.payload));
    samples
}

fn feed(world: &mut World, from: SocketAddr, bytes: &[u8]) -> Action {
    let clock = world.clock();
    world.server.handle(tuple(from), &mut bytes.to_vec(), clock)
}

#[test]
fn samples_are_what_they_should_be() {
    let mut world = pair(1);
    let samples = samples(&mut world);
    assert_eq!(samples.len(), 5, "data, indication, bind, refresh, allocate");
    let from = world.robots[0].address;
    for sample in &samples {
        assert_ne!(feed(&mut world, from, sample), Action::Drop, "{sample:02x?}");
    }
}

#[test]
fn strangers_get_no_data_through_and_no_answer_to_it() {
    let mut world = pair(2);
    let stranger = "10.9.9.9:9999".parse().unwrap();
    let samples = samples(&mut world);
    assert_eq!(feed(&mut world, stranger, &samples[0]), Action::Drop);
    assert_eq!(feed(&mut world, stranger, &samples[1]), Action::Drop);
    assert_eq!(world.counters().dropped(DropReason::NoAllocation), 2);
    // A signed request, sent again from elsewhere: its nonce is of no use there.
    assert!(matches!(feed(&mut world, stranger, &samples[2]), Action::Send(_)));
    assert_eq!(world.counters().allocations, 2);
}

#[test]
fn answers_to_strangers_are_small_and_few() {
    let mut world = World::new(3);
    let stranger = "10.9.9.9:9999".parse().unwrap();
    let mut binding = [&[0, 1, 0, 0, 0x21, 0x12, 0xa4, 0x42][..], &[7; 12]].concat();
    assert!(matches!(feed(&mut world, stranger, &binding), Action::Send(_)));
    assert!(world.server.output().len() <= 32);
    binding[1] = 3;
    assert!(matches!(feed(&mut world, stranger, &binding), Action::Send(_)));
    assert!(world.server.output().len() <= 64, "{}", world.server.output().len());
    let answered = (0..1000).filter(|_| feed(&mut world, stranger, &binding) != Action::Drop).count();
    assert!(answered < 200, "{answered} answers in no time");
    assert!(world.counters().dropped(DropReason::RateLimited) > 800);
    assert!(
        feed(&mut world, "10.9.9.8:1".parse().unwrap(), &binding) != Action::Drop,
        "others are not affected"
    );
}

#[test]
fn a_datagram_changed_on_its_way_is_not_believed() {
    let mut world = pair(4);
    let from = world.robots[0].address;
    let bind = samples(&mut world).swap_remove(2);
    let before = world.counters().requests;
    for index in 20..bind.len() {
        let mut changed = bind.clone();
        changed[index] ^= 0x10;
        feed(&mut world, from, &changed);
        let success =
            world.server.output().first() == Some(&0x01) && world.server.output().get(1) == Some(&0x09);
        assert!(!success, "byte {index} is not protected");
    }
    assert!(world.counters().requests > before);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(128))]

    #[test]
    fn random_datagrams_never_crash(
        datagrams in prop::collection::vec((prop::collection::vec(any::<u8>(), 0..300), any::<bool>()), 1..20),
    ) {
        let mut world = pair(5);
        for (bytes, stranger) in datagrams {
            let from = if stranger { "10.9.9.9:9".parse().unwrap() } else { world.robots[0].address };
            feed(&mut world, from, &bytes);
        }
    }

    #[test]
    fn mutated_datagrams_never_crash(
        changes in prop::collection::vec((any::<prop::sample::Index>(), any::<prop::sample::Index>(), any::<u8>()), 1..60),
        cut in any::<prop::sample::Index>(),
    ) {
        let mut world = pair(6);
        let from = world.robots[0].address;
        let mut samples = samples(&mut world);
        for (which, index, value) in &changes {
            let sample = which.get_mut(&mut samples);
            *index.get_mut(sample) = *value;
        }
        for sample in &samples {
            feed(&mut world, from, sample);
            feed(&mut world, from, &sample[..cut.index(sample.len())]);
        }
        // It works on as before.
        world.run(SECOND);
        let renewed = credentials(1, 3, START);
        world.robot_at("10.0.0.3:3".parse().unwrap(), renewed);
        world.run(SECOND);
        prop_assert!(world.robots[2].client.relayed_address().is_some());
    }

    #[test]
    fn the_client_survives_anything_from_the_server(
        datagrams in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..200), 1..40),
        stun in any::<bool>(),
    ) {
        let mut world = pair(7);
        let (now, address) = (world.now, world.robots[0].address);
        for mut bytes in datagrams {
            if stun && bytes.len() >= 20 {
                bytes.truncate(bytes.len() / 4 * 4);
                bytes[0] &= 0x01;
                let len = (bytes.len() - 20) as u16;
                bytes[2..4].copy_from_slice(&len.to_be_bytes());
                bytes[4..8].copy_from_slice(&[0x21, 0x12, 0xa4, 0x42]);
            }
            world.robots[0].client.handle_datagram(server_address(address), &bytes, now);
        }
        world.run(SECOND);
        prop_assert!(world.robots[0].client.relayed_address().is_some());
    }
}
