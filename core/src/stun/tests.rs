//! The RFC's test vectors (RFC 5769), the Binding client in virtual time, and broken datagrams.
#![allow(clippy::disallowed_methods, reason = "a test begins now")]

use proptest::prelude::*;
use stun_types::attribute::{Realm, Software, Username};
use stun_types::message::{
    IntegrityAlgorithm, LongTermKeyCredentials, MessageWriteVec, ShortTermCredentials,
};
use stun_types::prelude::{AttributeStaticType, MessageWriteExt};

use super::*;

/// RFC 5769, section 2.1: a Binding request with short-term credentials.
const REQUEST: &str = "000100582112a442b7e7a701bc34d686fa87dfae802200105354554e207465737420636c69656e74002400046e0001ff\
    80290008932ff9b151263b36000600096576746a3a68367659202020000800149aeaa70cbfd8cb56781ef2b5b2d3f249c1b571a280280004\
    e57a3bcf";

/// RFC 5769, section 2.2: its response over IPv4.
const RESPONSE_V4: &str = "0101003c2112a442b7e7a701bc34d686fa87dfae8022000b7465737420766563746f7220002000080001a147e112a643\
    000800142b91f599fd9e90c38c7489f92af9ba53f06be7d780280004c07d4c96";

/// RFC 5769, section 2.3: its response over IPv6.
const RESPONSE_V6: &str = "010100482112a442b7e7a701bc34d686fa87dfae8022000b7465737420766563746f7220002000140002a1470113a9fa\
    a5d3f179bc25f4b5bed2b9d900080014a382954e4be67bf11784c97c8292c275bfe3ed4180280004c8fb0b4c";

/// RFC 5769, section 2.4: a request with long-term credentials.
const LONG_TERM: &str = "000100602112a44278ad3433c6ad72c029da412e00060012e3839ee38388e383aae38383e382afe382b900000015001c\
    662f2f3439396b39353464364f4c33346f4c394653547679363473410014000b6578616d706c652e6f726700000800 14f67024656dd64a3e02b8e0712e85c9a28ca89666";

fn bytes(hex: &str) -> Vec<u8> {
    let digits: Vec<u8> = hex.bytes().filter(u8::is_ascii_hexdigit).collect();
    digits.chunks(2).map(|pair| u8::from_str_radix(std::str::from_utf8(pair).unwrap(), 16).unwrap()).collect()
}

fn server() -> SocketAddr {
    "198.51.100.1:3478".parse().unwrap()
}

fn client(now: Instant) -> BindingClient {
    BindingClient::new(server(), Randomness::new([1; 32]), now)
}

/// The server's answer to the request in a datagram.
fn answer(request: &[u8], mapped: &str) -> Vec<u8> {
    let request = parse(request).unwrap();
    let mut response = Message::builder_success(&request, MessageWriteVec::new());
    response
        .add_attribute(&XorMappedAddress::new(mapped.parse().unwrap(), request.transaction_id()))
        .unwrap();
    response.finish()
}

#[test]
fn the_rfcs_test_vectors_are_read_and_verified() {
    let key = ShortTermCredentials::new("VOkJxbRl1RmTxUk/WvJxBt".to_owned()).make_key();
    for (hex, mapped) in
        [(RESPONSE_V4, "192.0.2.1:32853"), (RESPONSE_V6, "[2001:db8:1234:5678:11:2233:4455:6677]:32853")]
    {
        let bytes = bytes(hex);
        let message = parse(&bytes).expect("well formed");
        let address = message.attribute::<XorMappedAddress>().unwrap().addr(message.transaction_id());
        assert_eq!(address, mapped.parse().unwrap());
        assert_eq!(message.validate_integrity_with_key(&key).unwrap(), IntegrityAlgorithm::Sha1);
    }
    let request = bytes(REQUEST);
    let message = parse(&request).expect("well formed");
    assert_eq!(message.attribute::<Software>().unwrap().software(), "STUN test client");
    assert!(message.validate_integrity_with_key(&key).is_ok());
}

#[test]
fn the_rfcs_long_term_vector_is_verified() {
    let bytes = bytes(LONG_TERM);
    let message = parse(&bytes).expect("well formed");
    let username = message.attribute::<Username>().unwrap().username().to_owned();
    assert_eq!(username, "マトリックス");
    assert_eq!(message.attribute::<Realm>().unwrap().realm(), "example.org");
    let credentials = LongTermKeyCredentials::new(username, "TheMatrIX".to_owned(), "example.org".to_owned());
    let key = credentials.make_key(IntegrityAlgorithm::Sha1);
    assert!(message.validate_integrity_with_key(&key).is_ok());
    assert!(message.has_attribute(Username::TYPE));
}

#[test]
fn each_protocol_of_the_port_is_told_apart() {
    assert_eq!(classify(&bytes(REQUEST)), Some(Form::Message));
    assert_eq!(classify(&[0x40, 0x03, 0, 2, 9, 9]), Some(Form::ChannelData { channel: 0x4003, len: 2 }));
    assert_eq!(
        classify(&[0x40, 0x03, 0, 2, 9, 9, 0, 0]),
        Some(Form::ChannelData { channel: 0x4003, len: 2 })
    );
    assert_eq!(classify(&[0x40, 0x03, 0, 3, 9, 9]), None, "cut short");
    assert_eq!(classify(&[0x50, 0x00, 0, 0]), None);
    // WireGuard: initiation, response, cookie, data; even with a receiver index that is the magic cookie.
    for (kind, len) in [(1, 148), (2, 92), (3, 64), (4, 32), (4, 1312)] {
        let mut datagram = vec![0; len];
        datagram[0] = kind;
        datagram[4..8].copy_from_slice(&MAGIC_COOKIE.to_be_bytes());
        assert_eq!(classify(&datagram), None, "type {kind}");
    }
    assert!(!is_stun_or_channel(&[0xd1; 60]) && !is_stun_or_channel(&[]) && !is_stun_or_channel(&[0; 19]));
}

#[test]
fn asks_seven_times_as_the_rfc_says_and_gives_up_after_39_seconds() {
    let start = Instant::now();
    let mut client = client(start);
    let mut sent = Vec::new();
    let mut now = start;
    loop {
        while let Some(outgoing) = client.poll_transmit() {
            assert_eq!(outgoing.to, server());
            sent.push((now - start).as_millis());
        }
        let Some(next) = client.poll_timeout() else { break };
        now = next;
        client.handle_timeout(now);
    }
    assert_eq!(sent, [0, 500, 1500, 3500, 7500, 15500, 31500]);
    assert_eq!((now - start).as_millis(), 39500);
    assert_eq!(client.poll_event(), Some(BindingEvent::NoAnswer));
}

#[test]
fn learns_the_reflexive_address_from_the_server_alone() {
    let now = Instant::now();
    let mut client = client(now);
    let request = client.poll_transmit().unwrap().payload;
    let response = answer(&request, "203.0.113.7:1234");
    assert!(!client.handle_datagram("198.51.100.2:3478".parse().unwrap(), &response), "another sender");
    assert!(!client.handle_datagram(server(), &bytes(RESPONSE_V4)), "another transaction");
    assert!(!client.handle_datagram(server(), &request), "its own request");
    assert_eq!(client.mapped_address(), None);
    let mapped_source: SocketAddr = "[::ffff:198.51.100.1]:3478".parse().unwrap();
    assert!(client.handle_datagram(mapped_source, &response));
    let address = "203.0.113.7:1234".parse().unwrap();
    assert_eq!(
        (client.mapped_address(), client.poll_event()),
        (Some(address), Some(BindingEvent::Mapped(address)))
    );
    assert_eq!(client.poll_timeout(), None);
    assert!(!client.handle_datagram(server(), &response), "once only");
    // After a change of network the old answer is worth nothing.
    client.restart(now);
    assert!(!client.handle_datagram(server(), &response));
    let again = client.poll_transmit().unwrap().payload;
    assert!(client.handle_datagram(server(), &answer(&again, "203.0.113.7:4321")));
}

#[test]
fn randomness_is_of_the_seed_alone_and_jitter_stays_in_bounds() {
    let ids = |seed| {
        let mut randomness = Randomness::new([seed; 32]);
        (0..100).map(|_| randomness.transaction_id()).collect::<std::collections::BTreeSet<_>>()
    };
    assert_eq!(ids(1), ids(1));
    assert_eq!(ids(1).union(&ids(2)).count(), 200);
    let mut randomness = Randomness::new([3; 32]);
    let second = Duration::from_secs(1);
    let jittered: Vec<_> = (0..500).map(|_| randomness.jitter(second)).collect();
    assert!(jittered.iter().all(|j| (second * 3 / 4..=second * 5 / 4).contains(j)));
    assert!(jittered.iter().any(|j| *j < second * 9 / 10) && jittered.iter().any(|j| *j > second * 11 / 10));
}

proptest! {
    #[test]
    fn anything_may_arrive(mut datagram in prop::collection::vec(any::<u8>(), 0..200), sound in any::<bool>()) {
        if sound && datagram.len() >= 20 {
            datagram.truncate(datagram.len() / 4 * 4);
            datagram[0] &= 1;
            let len = (datagram.len() - 20) as u16;
            datagram[2..4].copy_from_slice(&len.to_be_bytes());
            datagram[4..8].copy_from_slice(&MAGIC_COOKIE.to_be_bytes());
            prop_assert_eq!(classify(&datagram), Some(Form::Message));
        }
        if let Some(Form::ChannelData { len, .. }) = classify(&datagram) {
            prop_assert!(datagram.len() >= CHANNEL_HEADER + len);
        }
        let _ = parse(&datagram);
        prop_assert!(!client(Instant::now()).handle_datagram(server(), &datagram));
    }
}
