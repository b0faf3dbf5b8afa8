use std::net::SocketAddrV4;

use proptest::prelude::*;

use super::*;

fn end() -> impl Strategy<Value = SocketAddrV4> {
    (any::<u32>(), any::<u16>()).prop_map(|(address, port)| SocketAddrV4::new(address.into(), port))
}

proptest! {
    #[test]
    fn rewriting_keeps_all_checksums_right(
        from in end(), to in end(), new in end(), payload in prop::collection::vec(any::<u8>(), 0..100),
    ) {
        for end in [End::Source, End::Destination] {
            for (protocol, mut packet) in
                [(Protocol::Udp, build::udp(from, to, &payload)), (Protocol::Tcp, build::tcp(from, to, 2))]
            {
                let header = Header::read_whole(&packet).unwrap();
                rewrite(&mut packet, &header, protocol, end, new);
                build::assert_sums(&packet);
                let header = Header::read_whole(&packet).unwrap();
                let Kind::Session { source, destination, .. } = kind(&header, &packet) else { panic!() };
                let (changed, kept, unchanged) = match end {
                    End::Source => (source, destination, to),
                    End::Destination => (destination, source, from),
                };
                prop_assert_eq!((changed, kept), (new, unchanged));
            }
        }
        let mut echo = build::icmp(from, to, [8, 0], [1, 2, 3, 4], &payload);
        let header = Header::read_whole(&echo).unwrap();
        rewrite(&mut echo, &header, Protocol::Icmp, End::Source, new);
        take_hop(&mut echo);
        build::assert_sums(&echo);
    }

    #[test]
    fn any_bytes_are_read_or_refused(mut bytes in prop::collection::vec(any::<u8>(), 0..80), like_ip: bool) {
        if like_ip && !bytes.is_empty() {
            bytes[0] = 0x40 | (bytes[0] & 0xf);
        }
        if let Some(header) = Header::read(&bytes) {
            prop_assert!(header.len <= bytes.len());
            kind(&header, &bytes);
            tcp_flags(&header, &bytes);
            for protocol in [Protocol::Icmp, Protocol::Tcp, Protocol::Udp] {
                rewrite(&mut bytes, &header, protocol, End::Destination, "192.0.2.1:7".parse().unwrap());
            }
            take_hop(&mut bytes);
        }
        Header::read_whole(&bytes);
    }
}

#[test]
fn a_datagram_without_checksum_stays_without_one() {
    let ends = ["10.0.0.1:1000", "192.0.2.1:53"].map(|end| end.parse().unwrap());
    let mut packet = build::udp(ends[0], ends[1], b"hello");
    packet[26..28].copy_from_slice(&[0, 0]);
    let header = Header::read_whole(&packet).unwrap();
    rewrite(&mut packet, &header, Protocol::Udp, End::Source, "198.51.100.9:4000".parse().unwrap());
    assert_eq!(packet[26..28], [0, 0]);
    build::assert_sums(&packet);
}

#[test]
fn a_right_checksum_that_comes_out_as_zero_is_written_as_all_ones() {
    let destination = "192.0.2.1:53".parse().unwrap();
    let mut written = 0;
    for port in 0..=u16::MAX {
        let mut packet = build::udp("10.0.0.1:1000".parse().unwrap(), destination, b"hello");
        let header = Header::read_whole(&packet).unwrap();
        let new = SocketAddrV4::new("198.51.100.9".parse().unwrap(), port);
        rewrite(&mut packet, &header, Protocol::Udp, End::Source, new);
        assert_ne!(packet[26..28], [0, 0], "zero would mean that there is no checksum");
        written += usize::from(packet[26..28] == [0xff, 0xff]);
    }
    assert!((1..=2).contains(&written), "{written} of all ports give that sum");
}
