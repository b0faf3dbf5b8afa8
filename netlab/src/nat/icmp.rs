//! ICMP errors through a translator (RFC 4787 REQ-10, RFC 5508): the packet that an error is about is inside it, and is
//! translated back the way it came. Errors never end a mapping.

use std::net::SocketAddrV4;
use std::time::Instant;

use super::{Dropped, Hairpin, Side, Translator};
use crate::packet::{self, End, Header, Kind, Protocol, checksum};

/// Where in an ICMP error the packet begins that it is about.
const EMBEDDED: usize = 8;

/// The packet that an error is about.
struct Embedded {
    header: Header,
    protocol: Protocol,
    source: SocketAddrV4,
    destination: SocketAddrV4,
}

fn embedded(packet: &[u8], header: &Header) -> Result<Embedded, Dropped> {
    let body = packet.get(header.len..header.total).ok_or(Dropped::Malformed)?;
    if checksum::of(body) != 0 {
        return Err(Dropped::Malformed);
    }
    let about = body.get(EMBEDDED..).ok_or(Dropped::Malformed)?;
    let header = Header::read(about).ok_or(Dropped::Malformed)?;
    if header.fragment_offset != 0 {
        return Err(Dropped::Fragment);
    }
    match packet::kind(&header, about) {
        Kind::Session { protocol, source, destination } => {
            Ok(Embedded { header, protocol, source, destination })
        }
        Kind::Error | Kind::Other => Err(Dropped::Protocol),
    }
}

/// Rewrites one end of the packet inside, and the error's own checksum.
fn rewrite_embedded(packet: &mut [u8], header: &Header, about: &Embedded, end: End, to: SocketAddrV4) {
    let Some(body) = packet.get_mut(header.len..header.total) else { return };
    if let Some(inner) = body.get_mut(EMBEDDED..) {
        packet::rewrite(inner, &about.header, about.protocol, end, to);
    }
    if let Some(field) = body.get_mut(2..4) {
        field.fill(0);
    }
    let sum = checksum::of(body);
    if let Some(field) = body.get_mut(2..4) {
        field.copy_from_slice(&sum.to_be_bytes());
    }
}

/// An error from outside about a packet that went out. Any router on its way may have made it, so its own source is not
/// filtered; the packet inside has to be one that a host can have sent.
pub fn inbound_error(
    nat: &mut Translator,
    packet: &mut [u8],
    header: &Header,
    now: Instant,
) -> Result<(), Dropped> {
    let about = embedded(packet, header)?;
    if *about.source.ip() != nat.external {
        return Err(Dropped::NoMapping);
    }
    let mapping = nat.table.by_port(about.protocol, about.source.port(), now).ok_or(Dropped::NoMapping)?;
    if !mapping.knows_address(*about.destination.ip(), now) {
        return Err(Dropped::Filtered);
    }
    let inside = mapping.inside();
    rewrite_embedded(packet, header, &about, End::Source, inside);
    packet::rewrite_plain(packet, End::Destination, *inside.ip());
    Ok(())
}

/// An error from inside about a packet that came in.
pub fn outbound_error(
    nat: &mut Translator,
    packet: &mut [u8],
    header: &Header,
    now: Instant,
) -> Result<Side, Dropped> {
    let about = embedded(packet, header)?;
    let ends = (about.destination, about.source);
    let port = nat.table.port_of(&nat.behaviour, about.protocol, ends, now);
    // An end that was let in without having been written to has no mapping of its own, unless none depends on it.
    let port = port.ok_or(Dropped::NoMapping)?;
    let external = SocketAddrV4::new(nat.external, port);
    rewrite_embedded(packet, header, &about, End::Destination, external);
    packet::rewrite_plain(packet, End::Source, nat.external);
    if header.destination != nat.external {
        return Ok(Side::Outside);
    }
    if nat.behaviour.hairpin == Hairpin::Off {
        return Err(Dropped::Hairpin);
    }
    let header = Header::read_whole(packet).ok_or(Dropped::Malformed)?;
    inbound_error(nat, packet, &header, now).map(|()| Side::Inside)
}
