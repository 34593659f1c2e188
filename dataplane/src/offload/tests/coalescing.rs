//! Groups are what the rules say, and cutting them again gives the packets that arrived.

use proptest::prelude::*;

use super::reference::{ACK, CWR, ECE, FIN, PSH, RST, SYN, Spec, URG, payload};
use crate::offload::{
    Coalescer, CoalescerOptions, Cut, Full, GSO_NONE, GSO_TCPV4, GSO_TCPV6, GSO_UDP_L4, NEEDS_CSUM,
    VirtioHeader,
};

const ALL: CoalescerOptions = CoalescerOptions { tcp: true, udp: true };

/// Pushes all, and gives for each group its members' numbers and what is written to the TUN.
fn coalesce(packets: &[Vec<u8>], options: CoalescerOptions) -> Vec<(Vec<usize>, Vec<u8>)> {
    let mut coalescer = Coalescer::new(packets.len(), options, 0x1234_5678_9abc_def1);
    coalesce_with(&mut coalescer, packets)
}

fn coalesce_with(
    coalescer: &mut Coalescer<usize>,
    packets: &[Vec<u8>],
) -> Vec<(Vec<usize>, Vec<u8>)> {
    for (number, packet) in packets.iter().enumerate() {
        coalescer.push(number, packet).unwrap();
    }
    let write = |group: crate::offload::Group<'_, usize>| {
        let members: Vec<_> = group.members().collect();
        assert_eq!(members.len(), group.count());
        assert_eq!(members[0], group.first());
        let mut first = packets[group.first().handle].clone();
        let mut frame = group.finish(&mut first).to_bytes().to_vec();
        frame.extend(&first[..group.first().len]);
        for member in &members[1..] {
            frame.extend(&packets[member.handle][member.payload_offset..member.len]);
        }
        assert_eq!(frame.len(), 16 + group.packet_len());
        (members.iter().map(|member| member.handle).collect(), frame)
    };
    coalescer.groups().map(write).collect()
}

fn numbers(packets: &[Vec<u8>]) -> Vec<Vec<usize>> {
    coalesce(packets, ALL).into_iter().map(|(members, _)| members).collect()
}

fn header(frame: &[u8]) -> VirtioHeader {
    VirtioHeader::read(frame.first_chunk().unwrap())
}

/// `count` consecutive packets of a flow with `size` bytes of payload each.
fn stream(spec: &Spec, count: usize, size: usize) -> Vec<Vec<u8>> {
    spec.segments(&payload(count * size), size)
}

#[test]
fn a_train_of_tcp_becomes_one_packet_and_is_cut_to_the_same() {
    for v6 in [false, true] {
        let spec = Spec { seq: u32::MAX - 9_000, flags: ACK | PSH, ..Spec::tcp(v6) };
        let packets = spec.segments(&payload(43 * 1_368 + 99), 1_368);
        let groups = coalesce(&packets, ALL);
        assert_eq!(groups.len(), 1);
        let (members, frame) = &groups[0];
        assert_eq!(*members, (0..44).collect::<Vec<_>>());
        let mut expected = spec.frame(&payload(43 * 1_368 + 99), 1_368);
        let hdr_len = spec.headers_len() as u16;
        expected[2..4].copy_from_slice(&hdr_len.to_ne_bytes());
        assert_eq!(*frame, expected, "the super-packet is the one that a sender would make");
        let virtio = header(frame);
        assert_eq!(virtio.gso_type, if v6 { GSO_TCPV6 } else { GSO_TCPV4 });
        assert_eq!((virtio.flags, virtio.gso_size), (NEEDS_CSUM, 1_368));
    }
}

#[test]
fn udp_groups_hold_64_datagrams() {
    let spec = Spec::udp(false);
    let packets = stream(&spec, 130, 300);
    let groups = coalesce(&packets, ALL);
    let counts: Vec<_> = groups.iter().map(|(members, _)| members.len()).collect();
    assert_eq!(counts, [64, 64, 2]);
    assert_eq!(header(&groups[0].1).gso_type, GSO_UDP_L4);
    let off = coalesce(&packets, CoalescerOptions { tcp: true, udp: false });
    assert_eq!(off.len(), 130);
    assert!(off.iter().all(|(_, frame)| header(frame).gso_type == GSO_NONE));
}

#[test]
fn tcp_groups_hold_128_packets_and_65535_bytes() {
    let counts = |packets: &[Vec<u8>]| numbers(packets).iter().map(Vec::len).collect::<Vec<_>>();
    assert_eq!(counts(&stream(&Spec::tcp(false), 130, 100)), [128, 2]);
    // 52 + 47 × 1,390 = 65,382.
    assert_eq!(counts(&stream(&Spec::tcp(false), 50, 1_390)), [47, 3]);
}

#[test]
fn interleaved_flows_are_grouped_each() {
    let one = stream(&Spec { host: 1, ..Spec::tcp(false) }, 3, 1_000);
    let two = stream(&Spec { host: 2, ..Spec::tcp(false) }, 3, 1_000);
    let three = stream(&Spec { host: 1, ..Spec::udp(false) }, 3, 1_000);
    let mut packets = vec![];
    for index in 0..3 {
        packets.extend([one[index].clone(), two[index].clone(), three[index].clone()]);
    }
    assert_eq!(numbers(&packets), [[0, 3, 6], [1, 4, 7], [2, 5, 8]]);
}

/// One line each: a change to the second of three packets that keeps it, or it and the third, out
/// of the group.
#[test]
fn what_closes_a_group() {
    type Change = fn(&mut Spec);
    let alone = vec![vec![0], vec![1], vec![2]];
    let joined_after = vec![vec![0], vec![1, 2]];
    let closes = vec![vec![0, 1], vec![2]];
    let table: &[(Spec, Change, &Vec<Vec<usize>>)] = &[
        /*  1 */ (Spec::tcp(false), |s| s.flags |= PSH, &closes),
        /*  2 */ (Spec::tcp(false), |s| s.flags |= FIN, &alone),
        /*  3 */ (Spec::tcp(false), |s| s.flags |= SYN, &alone),
        /*  4 */ (Spec::tcp(false), |s| s.flags |= RST, &alone),
        /*  5 */ (Spec::tcp(false), |s| s.flags |= URG, &alone),
        /*  6 */ (Spec::tcp(false), |s| s.flags |= ECE, &alone),
        /*  7 */ (Spec::tcp(false), |s| s.flags |= CWR, &alone),
        /*  8 */ (Spec::tcp(false), |s| s.flags = 0, &alone),
        /*  9 */ (Spec::tcp(false), |s| s.seq += 1, &alone),
        /* 10 */ (Spec::tcp(false), |s| s.seq -= 1, &alone),
        /* 11 */ (Spec::tcp(false), |s| s.ack += 1, &alone),
        /* 12 */ (Spec::tcp(false), |s| s.window += 1, &alone),
        /* 13 */ (Spec::tcp(false), |s| s.tos = 1, &alone),
        /* 14 */ (Spec::tcp(false), |s| s.ttl -= 1, &alone),
        /* 15 */ (Spec::tcp(false), |s| s.df = false, &alone),
        /* 16 */ (Spec::tcp(false), |s| s.options[7] = 3, &alone),
        /* 17 */ (Spec::tcp(false), |s| s.options.truncate(8), &alone),
        /* 18 */ (Spec::tcp(true), |s| s.tos = 1, &alone),
        /* 19 */ (Spec::tcp(true), |s| s.ttl -= 1, &alone),
        /* 20 */ (Spec::tcp(true), |s| s.flow_label += 1, &alone),
        /* 21 */ (Spec::udp(true), |s| s.flow_label += 1, &alone),
        /* 22 */ (Spec::udp(false), |s| s.tos = 1, &alone),
        /* 23 */ (Spec { df: false, ..Spec::tcp(false) }, |s| s.id += 1, &alone),
        /* 24 */ (Spec { df: false, ..Spec::udp(false) }, |s| s.id += 1, &alone),
        /* 25 */
        (Spec { flags: ACK | PSH, ..Spec::tcp(false) }, |s| s.flags = ACK, &joined_after),
        /* 26 */ (Spec::tcp(false), |s| s.id += 1, &joined_after),
        /* 27 */ (Spec::udp(false), |s| s.id += 1, &joined_after),
        /* 28 */ (Spec::udp(false), |s| s.id -= 1, &closes),
    ];
    for (number, (spec, change, expected)) in table.iter().enumerate() {
        let packets: Vec<_> = (0..3u16)
            .map(|index| {
                let mut one = spec.clone();
                one.id += index;
                one.seq += if spec.udp { 0 } else { u32::from(index) * 100 };
                if index == 1 {
                    change(&mut one);
                }
                one.packet(&payload(100))
            })
            .collect();
        assert_eq!(numbers(&packets), **expected, "case {}", number + 1);
    }
}

/// The identifications of UDP datagrams, and the groups they form.
#[test]
fn ids_count_up_or_stay_the_same_with_df() {
    let groups = |df, ids: &[u16]| {
        let packet = |&id: &u16| Spec { id, df, ..Spec::udp(false) }.packet(&payload(100));
        numbers(&ids.iter().map(packet).collect::<Vec<_>>())
    };
    assert_eq!(groups(true, &[0, 0, 0]), [[0, 1, 2]], "as a Linux socket without a peer sends");
    assert_eq!(groups(false, &[0, 0, 0]), [[0], [1], [2]], "they mean something");
    assert_eq!(groups(true, &[u16::MAX, 0, 1]), [[0, 1, 2]]);
    assert_eq!(groups(true, &[7, 8, 10, 11]), [[0, 1], [2, 3]], "one between was lost");
    assert_eq!(groups(true, &[7, 8, 8, 9]), [[0, 1], [2, 3]]);
    assert_eq!(groups(true, &[7, 7, 8, 9]), [vec![0, 1], vec![2, 3]]);
    assert_eq!(groups(true, &[9, 8, 7]), [[0], [1], [2]]);
}

#[test]
fn a_shorter_packet_ends_a_group_and_a_longer_one_begins_one() {
    let spec = Spec::udp(true);
    let lengths = [100, 100, 40, 40, 100, 100];
    let packets: Vec<_> = lengths.iter().map(|len| spec.packet(&payload(*len))).collect();
    assert_eq!(numbers(&packets), [vec![0, 1, 2], vec![3], vec![4, 5]]);
}

#[test]
fn pure_acks_stay_in_place() {
    let data = stream(&Spec::tcp(false), 4, 100);
    let ack = Spec { seq: 1_200, ..Spec::tcp(false) }.packet(&[]);
    let packets = [data[0].clone(), data[1].clone(), ack, data[2].clone(), data[3].clone()];
    assert_eq!(numbers(&packets), [vec![0, 1], vec![2], vec![3, 4]]);
}

#[test]
fn broken_checksums_go_alone_and_unchanged() {
    for v6 in [false, true] {
        for spec in [Spec::tcp(v6), Spec::udp(v6)] {
            let mut packets = stream(&spec, 5, 100);
            let last = packets[2].len() - 1;
            packets[2][last] ^= 0x10;
            let groups = coalesce(&packets, ALL);
            assert_eq!(numbers(&packets), [vec![0, 1], vec![2], vec![3, 4]]);
            assert_eq!(groups[1].1[16..], packets[2]);
            assert_eq!(header(&groups[1].1), VirtioHeader::default());
        }
    }
    let mut packets = stream(&Spec::tcp(false), 3, 100);
    packets[1][10] ^= 1;
    assert_eq!(numbers(&packets), [[0], [1], [2]], "the IPv4 header's");
    let mut packets = stream(&Spec::udp(false), 3, 100);
    packets[1][26..28].fill(0);
    assert_eq!(numbers(&packets), [[0], [1], [2]], "none at all");
}

#[test]
fn nothing_passes_a_fragment_or_an_extension_header() {
    let mut packets = stream(&Spec::udp(false), 4, 100);
    packets[2][6] |= 0x20;
    assert_eq!(numbers(&packets), [vec![0, 1], vec![2], vec![3]]);
    let mut packets = stream(&Spec::udp(true), 4, 100);
    packets[2][6] = 44;
    assert_eq!(numbers(&packets), [vec![0, 1], vec![2], vec![3]]);
    // Another pair of hosts is not held up.
    let other = stream(&Spec { host: 2, ..Spec::udp(false) }, 1, 100).remove(0);
    let mut packets = stream(&Spec::udp(false), 4, 100);
    packets.insert(2, other);
    packets[2][6] |= 0x20;
    assert_eq!(numbers(&packets), [vec![0, 1, 3, 4], vec![2]]);
}

#[test]
fn padding_is_not_written() {
    let packets = stream(&Spec::tcp(true), 3, 101);
    let mut padded = packets.clone();
    for packet in &mut padded {
        packet.extend([0; 7]);
    }
    assert_eq!(coalesce(&padded, ALL), coalesce(&packets, ALL));
    let alone = coalesce(&padded[..1], ALL);
    assert_eq!(alone[0].1[16..], packets[0]);
}

#[test]
fn a_full_coalescer_says_so_and_serves_many_turns() {
    let packets = stream(&Spec::tcp(false), 6, 100);
    let mut coalescer = Coalescer::new(6, ALL, 9);
    for _turn in 0..100 {
        assert_eq!(coalesce_with(&mut coalescer, &packets).len(), 1);
        assert_eq!(coalescer.push(6, &packets[0]), Err(Full));
        coalescer.clear();
        assert!(coalescer.is_empty());
        assert_eq!(coalescer.groups().len(), 0);
    }
}

#[test]
fn a_thousand_flows_at_once() {
    let mut packets = vec![];
    for index in 0..4u32 {
        for flow in 0..1_000u16 {
            let spec = Spec { port: flow, seq: index * 50, ..Spec::tcp(flow % 2 == 0) };
            packets.push(spec.packet(&payload(50)));
        }
    }
    let groups = numbers(&packets);
    let whole = groups.iter().filter(|members| members.len() == 4).count();
    assert!(whole > 950, "{whole}: few flows find no place in the table");
    let members: usize = groups.iter().map(Vec::len).sum();
    assert_eq!(members, 4_000);
}

/// One packet of a random stream.
#[derive(Clone, Debug)]
struct Step {
    flow: u8,
    len: usize,
    flags: u8,
    oddity: u8,
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let len = prop_oneof![6 => Just(500usize), 1 => Just(499usize), 1 => 0..1_000usize];
    let flags = prop_oneof![8 => Just(0u8), 1 => Just(PSH), 1 => any::<u8>()];
    let step = (0..6u8, len, flags, any::<u8>());
    prop::collection::vec(
        step.prop_map(|(flow, len, flags, oddity)| Step { flow, len, flags, oddity }),
        1..200,
    )
}

/// The packets of all steps: sequence numbers and identifications go on within each flow, and some
/// packets are lost, damaged, padded or changed.
fn build(steps: &[Step]) -> Vec<Vec<u8>> {
    let base = |flow: u8| {
        let v6 = flow & 1 != 0;
        let spec = if flow & 2 != 0 { Spec::udp(v6) } else { Spec::tcp(v6) };
        Spec { port: u16::from(flow), host: 1 + flow / 4, df: flow < 3, ..spec }
    };
    let mut flows: Vec<Spec> = (0..6).map(base).collect();
    let mut packets = vec![];
    for step in steps {
        let spec = &mut flows[usize::from(step.flow)];
        if !spec.udp {
            spec.flags = ACK ^ step.flags;
        }
        let mut packet = spec.packet(&payload(step.len));
        spec.seq = spec.seq.wrapping_add(step.len as u32);
        spec.id = spec.id.wrapping_add(1);
        match step.oddity {
            0..5 => continue,
            5..10 => packet.extend([0; 9]),
            10..15 => spec.tos = spec.tos.wrapping_add(1),
            15..20 => spec.id = spec.id.wrapping_add(5),
            20..25 => *packet.last_mut().unwrap() ^= 1,
            25..30 if !spec.v6 => packet[6] |= 0x20,
            _ => {}
        }
        packets.push(packet);
    }
    packets
}

/// Addresses, protocol and ports where the flow has them: what must not be reordered.
fn flow_key(packet: &[u8]) -> Vec<u8> {
    if packet[0] >> 4 == 4 {
        [&packet[9..10], &packet[12..24]].concat()
    } else {
        [&packet[6..7], &packet[8..44]].concat()
    }
}

fn trimmed(packet: &[u8]) -> &[u8] {
    let words = |at: usize| usize::from(u16::from_be_bytes([packet[at], packet[at + 1]]));
    &packet[..if packet[0] >> 4 == 4 { words(2) } else { 40 + words(4) }]
}

proptest! {
    #[test]
    fn cutting_what_was_coalesced_gives_what_arrived(steps in steps()) {
        let packets = build(&steps);
        let mut seen = vec![false; packets.len()];
        let mut last_of_flow = std::collections::HashMap::new();
        for (members, frame) in coalesce(&packets, ALL) {
            let cut = Cut::new(&frame).unwrap();
            prop_assert_eq!(cut.segments(), members.len());
            prop_assert!(members.len() == 1 || header(&frame).gso_type != GSO_NONE);
            for (index, number) in members.iter().enumerate() {
                let mut out = vec![0; cut.max_segment_len()];
                let len = cut.write_segment(index, &mut out);
                let arrived = trimmed(&packets[*number]);
                prop_assert!(out[..len] == *arrived, "packet {} differs", number);
                prop_assert!(!std::mem::replace(&mut seen[*number], true), "written twice");
                let before = last_of_flow.insert(flow_key(arrived), *number);
                prop_assert!(before < Some(*number), "reordered within a flow");
            }
        }
        prop_assert!(seen.iter().all(|seen| *seen), "a packet is missing");
    }
}
