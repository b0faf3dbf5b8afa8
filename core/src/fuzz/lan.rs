//! Packets from and to local networks behind this node: whatever they are, nothing but addresses and checksums changes, and
//! what goes in comes out again as it was.

use arbitrary::Unstructured;

use crate::lan::{Lan, Lans};

/// The body of the target.
pub fn lan(data: &[u8]) {
    let mut input = Unstructured::new(data);
    let length = input.arbitrary::<u8>().unwrap_or(0) % 33;
    let prefix = |bytes: [u8; 4]| ria_protocol::prefix::Prefix::new(bytes.into(), length).ok();
    let (Some(prefix), Some(here)) = (
        prefix(input.arbitrary().unwrap_or([10, 66, 3, 0])),
        prefix(input.arbitrary().unwrap_or([192, 168, 10, 0])),
    ) else {
        return;
    };
    let Some(mut lans) = Lans::new(&[Lan { prefix, here }], 1500) else { return };
    let packet = input.bytes(input.len()).unwrap_or_default();
    let left = lans.leaving(packet).to_vec();
    check(packet, &left);
    let mut entered = packet.to_vec();
    if lans.enter(&mut entered) {
        check(packet, &entered);
        let to = |bytes: &[u8]| <[u8; 4]>::try_from(bytes.get(16..20).unwrap_or_default()).ok();
        assert!(to(&entered).is_some_and(|to| here.contains(to.into())), "it goes to the local network");
        assert!(to(packet).is_some_and(|to| prefix.contains(to.into())), "it was for it");
    } else {
        assert_eq!(entered, packet, "what is for others is left alone");
    }
}

/// Lengths, and what no address or checksum is within, stay.
fn check(before: &[u8], after: &[u8]) {
    assert_eq!(before.len(), after.len());
    assert_eq!(before.get(..10), after.get(..10), "version, length, fragment, hop limit, protocol");
}
