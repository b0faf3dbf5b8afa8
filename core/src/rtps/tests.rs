use proptest::prelude::*;

use super::*;

/// As Fast DDS writes it: INFO_TS, then DATA with a parameter list.
fn message(little: bool, lease: (i32, u32)) -> Vec<u8> {
    let mut bytes = b"RTPS\x02\x03\x01\x0f".to_vec();
    bytes.extend([7; 12]);
    let u16s = |n: u16| if little { n.to_le_bytes() } else { n.to_be_bytes() };
    let u32s = |n: u32| if little { n.to_le_bytes() } else { n.to_be_bytes() };
    let flag = u8::from(little);
    bytes.extend([INFO_TS, flag]);
    bytes.extend(u16s(8));
    bytes.extend([0; 8]);
    let mut payload = vec![0, if little { 3 } else { 2 }, 0, 0];
    for (id, value) in [(0x0015u16, vec![2, 3, 0, 0]), (2, [u32s(lease.0 as u32), u32s(lease.1)].concat())] {
        payload.extend(u16s(id));
        payload.extend(u16s(u16::try_from(value.len()).unwrap()));
        payload.extend(value);
    }
    payload.extend(u16s(PID_SENTINEL));
    payload.extend([0, 0]);
    bytes.extend([DATA, flag | 0x04]);
    bytes.extend(u16s(u16::try_from(20 + payload.len()).unwrap()));
    bytes.extend([0, 0]);
    bytes.extend(u16s(16));
    bytes.extend([0x00, 0x01, 0x00, 0xc7]);
    bytes.extend(SPDP_WRITER);
    bytes.extend([0; 8]);
    bytes.extend(payload);
    bytes
}

#[test]
fn an_announcement_is_read_in_both_byte_orders() {
    for little in [false, true] {
        let bytes = message(little, (20, 1 << 31));
        let read = announcement(&bytes).unwrap();
        assert_eq!(read.participant, [7; 12]);
        assert_eq!(read.lease, Some(Duration::from_millis(20_500)));
        assert!(!read.is_farewell && read.content.len() == 4 + 8 + 12 + 4);
    }
}

#[test]
fn what_vendors_add_does_not_matter() {
    let bytes = message(true, (20, 0));
    let with = [&bytes[..], &[VENDORS, 1, 8, 0], &[9; 8]].concat();
    assert_eq!(announcement(&with), announcement(&bytes));
    assert!(announcement(&with).is_some());
}

#[test]
fn a_farewell_is_told_apart() {
    let mut bytes = message(true, (20, 0));
    // Inline QoS with the status, between header and payload, and the key hash before it.
    let at = HEADER + 12 + 4 + 20;
    let mut qos = vec![0x70, 0, 16, 0];
    qos.extend([9; 16]);
    qos.extend([0x71, 0, 4, 0, 0, 0, 0, 1, 1, 0, 0, 0]);
    bytes.splice(at..at, qos.iter().copied());
    bytes[HEADER + 12 + 1] |= 0x02;
    let len =
        u16::from_le_bytes([bytes[HEADER + 14], bytes[HEADER + 15]]) + u16::try_from(qos.len()).unwrap();
    bytes[HEADER + 14..HEADER + 16].copy_from_slice(&len.to_le_bytes());
    let read = announcement(&bytes).unwrap();
    assert!(read.is_farewell && read.content.len() == 28);
    // A last submessage may leave its length open.
    let mut open = bytes.clone();
    open[HEADER + 14..HEADER + 16].copy_from_slice(&[0, 0]);
    assert_eq!(announcement(&open), Some(read));
}

#[test]
fn other_messages_are_no_announcements() {
    let good = message(true, (20, 0));
    let mut user_data = good.clone();
    user_data[HEADER + 12 + 4 + 8..][..4].copy_from_slice(&[0, 0, 0x12, 0x03]);
    assert!(announcement(&user_data).is_none() && sender(&user_data) == Some([7; 12]));
    // With a heartbeat behind it, or as said on behalf of another.
    let more = [&good[..], &[0x07, 1, 28, 0], &[0; 28]].concat();
    assert!(announcement(&more).is_none());
    let other = [&good[..HEADER], &[0x0c, 1, 20, 0], &[0; 20], &good[HEADER..]].concat();
    assert!(announcement(&other).is_none());
    let mut many = good[..HEADER].to_vec();
    (0..64).for_each(|_| many.extend([PAD, 1, 0, 0]));
    many.extend(&good[HEADER..]);
    assert!(announcement(&many).is_none());
    assert!(sender(b"RTPT").is_none() && sender(&good[..19]).is_none());
}

proptest! {
    #[test]
    fn cut_and_damaged_messages_are_read_or_refused(
        cut in 0usize..120, at in 0usize..100, value: u8, little: bool,
    ) {
        let mut bytes = message(little, (20, 0));
        bytes.truncate(cut.max(HEADER));
        if let Some(byte) = bytes.get_mut(at) {
            *byte = value;
        }
        if let Some(read) = announcement(&bytes) {
            prop_assert!(read.content.len() <= bytes.len());
        }
    }

    #[test]
    fn any_bytes_are_read_or_refused(tail in proptest::collection::vec(any::<u8>(), 0..200)) {
        let mut bytes = b"RTPS\x02\x03\x01\x0f".to_vec();
        bytes.extend(tail);
        let _ = announcement(&bytes);
    }
}
