//! Frames of the TUN become the packets that the reference builds.

use proptest::prelude::*;

use super::reference::{CWR, ECE, FIN, PSH, Spec, any_spec, payload};
use crate::offload::{Cut, CutError, VNET_HEADER_LEN};

fn cut(frame: &[u8]) -> Result<Vec<Vec<u8>>, CutError> {
    let cut = Cut::new(frame)?;
    let write = |index| {
        let mut out = vec![0xaa; cut.max_segment_len()];
        let len = cut.write_segment(index, &mut out);
        assert_eq!(len, cut.segment_len(index));
        out.truncate(len);
        out
    };
    Ok((0..cut.segments()).map(write).collect())
}

fn set_u16(frame: &mut [u8], at: usize, value: u16) {
    frame[at..at + 2].copy_from_slice(&value.to_ne_bytes());
}

#[test]
fn a_full_tso_packet() {
    for v6 in [false, true] {
        let spec = Spec { flags: 0x10 | CWR | FIN | PSH, seq: u32::MAX - 5_000, ..Spec::tcp(v6) };
        let data = payload(65_535 - spec.headers_len());
        let frame = spec.frame(&data, 1_368);
        assert_eq!(cut(&frame).unwrap(), spec.segments(&data, 1_368));
    }
}

#[test]
fn the_ecn_bit_of_the_type_is_accepted() {
    let spec = Spec { flags: 0x10 | ECE | CWR, ..Spec::tcp(false) };
    let data = payload(5_000);
    let mut frame = spec.frame(&data, 1_000);
    frame[1] |= 0x80;
    assert_eq!(cut(&frame).unwrap(), spec.segments(&data, 1_000));
}

#[test]
fn a_uso_packet_of_128_datagrams() {
    for v6 in [false, true] {
        let spec = Spec::udp(v6);
        let data = payload(128 * 500);
        assert_eq!(cut(&spec.frame(&data, 500)).unwrap(), spec.segments(&data, 500));
    }
}

#[test]
fn bytes_after_the_ip_length_are_left_out() {
    let spec = Spec::tcp(true);
    let data = payload(3_000);
    let mut frame = spec.frame(&data, 1_000);
    frame.extend([0xee; 33]);
    assert_eq!(cut(&frame).unwrap(), spec.segments(&data, 1_000));
}

#[test]
fn finished_packets_pass_as_they_are() {
    let packet = Spec::udp(false).packet(b"with a wrong checksum, that is not our business");
    let mut frame = vec![0; VNET_HEADER_LEN];
    frame.extend(&packet);
    frame[VNET_HEADER_LEN + 26] ^= 1;
    assert_eq!(cut(&frame).unwrap(), vec![frame[VNET_HEADER_LEN..].to_vec()]);
}

#[test]
fn a_udp_checksum_of_zero_is_sent_as_ones() {
    // Two bytes of payload that bring the sum to all ones.
    let spec = Spec::udp(false);
    let found = (0..=u16::MAX).find(|word| {
        let packet = spec.packet(&word.to_be_bytes());
        packet[26..28] == [0xff, 0xff]
    });
    let data = found.expect("one word does it").to_be_bytes();
    assert_eq!(cut(&spec.frame(&data, 0)).unwrap(), vec![spec.packet(&data)]);
    assert_eq!(cut(&spec.frame(&data, 2)).unwrap(), vec![spec.packet(&data)]);
}

/// Destination options between the IPv6 header and TCP: all segments carry them.
#[test]
fn extension_headers_are_kept() {
    let spec = Spec::tcp(true);
    let data = payload(2_500);
    let insert = |packet: &[u8]| {
        let mut longer = packet[..40].to_vec();
        longer.extend([6, 0, 1, 4, 0, 0, 0, 0]);
        longer.extend(&packet[40..]);
        longer[6] = 60;
        let length = u16::from_be_bytes([packet[4], packet[5]]) + 8;
        longer[4..6].copy_from_slice(&length.to_be_bytes());
        longer
    };
    let frame = spec.frame(&data, 1_000);
    let mut longer = frame[..VNET_HEADER_LEN].to_vec();
    longer.extend(insert(&frame[VNET_HEADER_LEN..]));
    set_u16(&mut longer, 6, 48);
    let expected: Vec<_> = spec.segments(&data, 1_000).iter().map(|one| insert(one)).collect();
    assert_eq!(cut(&longer).unwrap(), expected);
}

/// One line each: what is done to a good frame (virtio header at 0, IP at 16, TCP or UDP at 36 or
/// 56), and what it is refused for.
#[test]
fn lies_are_refused() {
    type Lie = fn(&mut Vec<u8>);
    let table: &[(Spec, Lie, CutError)] = &[
        /*  1 */ (Spec::tcp(false), |f| f.clear(), CutError::Truncated),
        /*  2 */ (Spec::tcp(false), |f| f.truncate(15), CutError::Truncated),
        /*  3 */ (Spec::tcp(false), |f| f.truncate(16), CutError::Ip),
        /*  4 */ (Spec::tcp(false), |f| f.truncate(35), CutError::Ip),
        /*  5 */ (Spec::tcp(false), |f| f.truncate(f.len() - 1), CutError::Ip),
        /*  6 */ (Spec::tcp(true), |f| f.truncate(f.len() - 1), CutError::Ip),
        /*  7 */ (Spec::tcp(false), |f| f[16] = 0x44, CutError::Ip),
        /*  8 */ (Spec::tcp(false), |f| f[16] = 0x55, CutError::Ip),
        /*  9 */ (Spec::tcp(false), |f| f[1] = 3, CutError::GsoType),
        /* 10 */ (Spec::tcp(false), |f| f[1] = 2, CutError::GsoType),
        /* 11 */ (Spec::tcp(false), |f| f[1] = 4, CutError::Mismatch),
        /* 12 */ (Spec::tcp(true), |f| f[1] = 1, CutError::Mismatch),
        /* 13 */ (Spec::tcp(false), |f| f[1] = 5, CutError::Mismatch),
        /* 14 */ (Spec::udp(false), |f| f[1] = 1, CutError::Mismatch),
        /* 15 */ (Spec::udp(true), |f| f[1] = 4, CutError::Mismatch),
        /* 16 */ (Spec::tcp(false), |f| f[22] = 0x20, CutError::Mismatch),
        /* 17 */ (Spec::tcp(false), |f| f[23] = 1, CutError::Mismatch),
        /* 18 */ (Spec::tcp(true), |f| f[22] = 44, CutError::Mismatch),
        /* 19 */ (Spec::tcp(false), |f| set_u16(f, 4, 0), CutError::GsoSize),
        /* 20 */ (Spec::udp(false), |f| set_u16(f, 4, 0), CutError::GsoSize),
        /* 21 */ (Spec::udp(false), |f| set_u16(f, 4, 23), CutError::GsoSize),
        /* 22 */ (Spec::tcp(false), |f| set_u16(f, 6, 21), CutError::ChecksumOffset),
        /* 23 */ (Spec::tcp(false), |f| set_u16(f, 6, u16::MAX), CutError::ChecksumOffset),
        /* 24 */ (Spec::tcp(true), |f| set_u16(f, 8, 6), CutError::ChecksumOffset),
        /* 25 */ (Spec::udp(true), |f| set_u16(f, 8, u16::MAX), CutError::ChecksumOffset),
        /* 26 */ (Spec::tcp(false), |f| f[36 + 12] = 0x40, CutError::Transport),
        /* 27 */ (Spec::tcp(false), |f| shorten_ip(f, 20 + 31), CutError::Transport),
        /* 28 */ (Spec::tcp(false), |f| shorten_ip(f, 20 + 12), CutError::Transport),
        /* 29 */ (Spec::udp(false), |f| shorten_ip(f, 20 + 7), CutError::Transport),
        /* 30 */ (Spec::udp(false), |f| shorten_ip(f, 20), CutError::Transport),
    ];
    for (number, (spec, lie, error)) in table.iter().enumerate() {
        let mut frame = spec.frame(&payload(3_000), 1_000);
        lie(&mut frame);
        assert_eq!(cut(&frame), Err(*error), "case {}", number + 1);
    }
}

fn shorten_ip(frame: &mut [u8], len: u16) {
    frame[18..20].copy_from_slice(&len.to_be_bytes());
}

#[test]
fn a_partial_checksum_must_lie_within_the_packet() {
    let good = Spec::udp(false).frame(b"payload", 0);
    for (start, offset) in [(19, 6), (28, 6), (20, 14), (u16::MAX, u16::MAX), (34, 0)] {
        let mut frame = good.clone();
        set_u16(&mut frame, 6, start);
        set_u16(&mut frame, 8, offset);
        let is_inside = start >= 20 && u32::from(start) + u32::from(offset) + 2 <= 35;
        assert_eq!(cut(&frame).is_ok(), is_inside, "{start} {offset}");
    }
}

proptest! {
    #[test]
    fn cutting_equals_the_reference(
        spec in any_spec(),
        len in 0..20_000usize,
        size in 1..3_000usize,
    ) {
        let size = if spec.udp { size.max(len.div_ceil(128)) } else { size.max(50) };
        let data = payload(len);
        let frame = spec.frame(&data, size as u16);
        prop_assert_eq!(cut(&frame).unwrap(), spec.segments(&data, size));
    }

    #[test]
    fn finishing_equals_the_reference(spec in any_spec(), len in 0..2_000usize) {
        let data = payload(len);
        let cut = cut(&spec.frame(&data, 0)).unwrap();
        // A TCP checksum of zero may be sent as ones: the same in one's complement.
        let mut expected = spec.packet(&data);
        let at = spec.ip_len() + spec.checksum_at();
        if expected[at..at + 2] == [0, 0] {
            expected[at..at + 2].fill(0xff);
        }
        prop_assert_eq!(cut, vec![expected]);
    }
}

#[test]
fn tcp_frames_of_absurdly_many_packets_are_refused() {
    let spec = Spec::tcp(false);
    let frame = |len, size| spec.frame(&payload(len), size);
    assert_eq!(Cut::new(&frame(60_000, 1)).err(), Some(CutError::GsoSize));
    assert_eq!(Cut::new(&frame(60_000, 8)).map(|cut| cut.segments()), Ok(7_500));
    assert_eq!(Cut::new(&frame(100, 1)).map(|cut| cut.segments()), Ok(100), "coalesced from such");
}

#[test]
fn claimed_segments_count_what_a_frame_costs() {
    let spec = Spec::udp(false);
    assert_eq!(Cut::claimed_segments(&spec.frame(&payload(100), 0)), 1);
    assert!((60..=61).contains(&Cut::claimed_segments(&spec.frame(&payload(60_000), 1_000))));
    assert_eq!(Cut::claimed_segments(&[5; 16]), 1);
    assert_eq!(Cut::claimed_segments(&[]), 1);
}
