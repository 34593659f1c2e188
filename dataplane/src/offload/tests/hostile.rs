//! Whatever comes, nothing panics, and every length stays within its buffer.

use proptest::prelude::*;

use super::reference::{Spec, any_spec, payload};
use crate::icmp::{self, IcmpError};
use crate::offload::{Coalescer, CoalescerOptions, Cut};
use crate::{ip, ip_forward};

fn cut_all(frame: &[u8]) {
    let Ok(cut) = Cut::new(frame) else { return };
    let mut out = vec![0; cut.max_segment_len()];
    for index in 0..cut.segments() {
        let len = cut.write_segment(index, &mut out);
        let written = ip::parse(&out[..len]).expect("an IP packet");
        assert_eq!(written.len, len);
        assert_eq!(written.source, cut.ip().source);
        assert_eq!(written.destination, cut.ip().destination);
    }
}

fn coalesce_all(packets: &mut [Vec<u8>]) {
    let options = CoalescerOptions { tcp: true, udp: true };
    let mut coalescer = Coalescer::new(packets.len(), options, 5);
    for (number, packet) in packets.iter().enumerate() {
        coalescer.push(number, packet).unwrap();
    }
    let mut members = 0;
    for group in coalescer.groups() {
        let first = group.first();
        let _virtio = group.finish(&mut packets[first.handle]);
        members += group.members().count();
        for member in group.members() {
            assert!(member.payload_offset <= member.len);
            assert!(member.len <= packets[member.handle].len());
        }
    }
    assert_eq!(members, packets.len());
}

fn edit_all(packet: &mut [u8]) {
    if let Some(parsed) = ip::parse(packet) {
        let mut out = [0; icmp::ERROR_LEN_MAX];
        let error = ip_forward::refusal(packet, &parsed, 1_000).unwrap_or(IcmpError::Unreachable);
        let _ = icmp::may_answer(packet, &parsed);
        let len = error.write(packet, parsed.destination, &mut out).expect("of one family");
        assert!(ip::parse(&out[..len]).is_some_and(|answer| answer.len == len));
        assert!(parsed.header_len <= parsed.len && parsed.len <= packet.len());
        ip::apply_outer_ecn(packet, 3);
        let upper = ip::upper_layer(packet, &parsed);
        assert!(upper.is_none_or(|upper| upper.start <= parsed.len));
    }
}

/// Places and values that overwrite bytes of something valid; most of them in the headers.
fn mutations() -> impl Strategy<Value = Vec<(usize, u8)>> {
    prop::collection::vec((prop_oneof![0..100usize, 0..2_000usize], any::<u8>()), 0..8)
}

fn mutate(bytes: &mut Vec<u8>, mutations: &[(usize, u8)], keep: usize) {
    for (at, value) in mutations {
        if let Some(byte) = bytes.get_mut(*at) {
            *byte = *value;
        }
    }
    bytes.truncate(keep);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(1_000))]

    #[test]
    fn random_bytes(mut bytes in prop::collection::vec(any::<u8>(), 0..300), version in 0..3u8) {
        for at in [0, 16] {
            if let (Some(byte), 1..) = (bytes.get_mut(at), version) {
                *byte = if version == 1 { 0x45 } else { 0x60 };
            }
        }
        cut_all(&bytes);
        edit_all(&mut bytes.clone());
        coalesce_all(&mut [bytes.clone(), bytes.clone(), bytes]);
    }

    #[test]
    fn mutated_frames(
        spec in any_spec(),
        len in 0..2_000usize,
        size in 0..1_500u16,
        mutations in mutations(),
        cut_short in prop_oneof![3 => Just(0usize), 1 => 0..200usize],
    ) {
        let mut frame = spec.frame(&payload(len), size);
        let keep = frame.len().saturating_sub(cut_short);
        mutate(&mut frame, &mutations, keep);
        cut_all(&frame);
    }

    #[test]
    fn mutated_trains(
        v6 in any::<bool>(),
        udp in any::<bool>(),
        mutations in prop::collection::vec((0..6usize, mutations(), 0..2_000usize), 0..6),
    ) {
        let spec = if udp { Spec::udp(v6) } else { Spec::tcp(v6) };
        let mut packets = spec.segments(&payload(2_900), 500);
        for (number, mutations, keep) in &mutations {
            mutate(&mut packets[*number], mutations, *keep);
        }
        for packet in &packets {
            edit_all(&mut packet.clone());
        }
        coalesce_all(&mut packets);
    }
}
