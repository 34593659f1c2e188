//! Super-packets with segments of 1,408 bytes. Cutting a super-packet read from the TUN copies
//! every byte and computes checksums. Coalescing packets for the TUN verifies checksums and copies
//! nothing. Shows the time per super-packet or turn, and packets per second, without the system
//! calls.
//!
//! TCP super-packets come from TSO, UDP ones from USO. With many flows in a turn, each packet needs
//! a lookup in the flow table; "alone" is the cost of coalescing if no packets can be joined.

use std::hint::black_box;

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use wg_bounce_dataplane::offload::{
    Coalescer, CoalescerOptions, Cut, GSO_TCPV4, GSO_UDP_L4, NEEDS_CSUM, VNET_HEADER_LEN,
    VirtioHeader,
};

const IP_LEN: usize = 20;
/// Bytes of an inner packet, as in the relay's other figures.
const PACKET_LEN: usize = 1_408;
const TRAIN: usize = 44;

#[derive(Clone, Copy)]
enum Transport {
    Tcp,
    Udp,
}

impl Transport {
    fn headers_len(self) -> usize {
        match self {
            Transport::Tcp => IP_LEN + 32,
            Transport::Udp => IP_LEN + 8,
        }
    }

    /// A TUN frame with a super-packet of the flow `flow`, to be cut into `count` packets of
    /// [`PACKET_LEN`] bytes.
    fn super_packet(self, count: usize, flow: usize) -> Vec<u8> {
        let headers_len = self.headers_len();
        let len = headers_len + count * (PACKET_LEN - headers_len);
        let (gso_type, csum_offset, protocol) = match self {
            Transport::Tcp => (GSO_TCPV4, 16, 6),
            Transport::Udp => (GSO_UDP_L4, 6, 17),
        };
        let header = VirtioHeader {
            flags: NEEDS_CSUM,
            gso_type,
            hdr_len: headers_len as u16,
            gso_size: (PACKET_LEN - headers_len) as u16,
            csum_start: IP_LEN as u16,
            csum_offset,
        };
        let mut frame = header.to_bytes().to_vec();
        frame.extend((0..len).map(|at| at as u8));
        let packet = &mut frame[VNET_HEADER_LEN..];
        packet[..IP_LEN].copy_from_slice(&[
            0x45, 0, 0, 0, 0, 1, 0x40, 0, 64, protocol, 0, 0, 10, 0, 0, 1, 10, 0, 0, 2,
        ]);
        packet[2..4].copy_from_slice(&(len as u16).to_be_bytes());
        packet[IP_LEN..IP_LEN + 2].copy_from_slice(&(flow as u16).to_be_bytes());
        match self {
            Transport::Tcp => packet[IP_LEN + 12..IP_LEN + 14].copy_from_slice(&[0x80, 0x10]),
            Transport::Udp => {
                let length = ((len - IP_LEN) as u16).to_be_bytes();
                packet[IP_LEN + 4..IP_LEN + 6].copy_from_slice(&length);
            }
        }
        frame
    }

    /// The packets cut from such a frame, in order.
    fn packets(self, count: usize, flow: usize) -> Vec<Vec<u8>> {
        let frame = self.super_packet(count, flow);
        let cut = Cut::new(&frame).expect("a good frame");
        let write = |index| {
            let mut out = vec![0; cut.segment_len(index)];
            cut.write_segment(index, &mut out);
            out
        };
        (0..cut.segments()).map(write).collect()
    }
}

fn cutting(criterion: &mut Criterion) {
    let mut out = vec![0; 2_048];
    let mut group = criterion.benchmark_group("offload/cut");
    group.throughput(Throughput::Elements(TRAIN as u64));
    for (name, transport) in [("TCP", Transport::Tcp), ("UDP", Transport::Udp)] {
        let frame = transport.super_packet(TRAIN, 1);
        group.bench_function(format!("44 {name} packets of 1,408 bytes"), |bencher| {
            bencher.iter(|| {
                let cut = Cut::new(black_box(&frame)).expect("a good frame");
                assert_eq!(cut.segments(), TRAIN);
                for index in 0..cut.segments() {
                    black_box(cut.write_segment(index, &mut out));
                }
            });
        });
    }
    group.finish();
}

/// Coalesces the packets of `turn`, in order of arrival, into the given number of groups.
fn coalesce(criterion: &mut Criterion, name: &str, turn: &mut [Vec<u8>], groups: usize) {
    // `finish` edits the headers of the first packet of each group: they are restored.
    let pristine: Vec<[u8; IP_LEN + 32]> =
        turn.iter().map(|packet| *packet.first_chunk().expect("longer")).collect();
    let options = CoalescerOptions { tcp: true, udp: true };
    let mut coalescer = Coalescer::new(4_096, options, 1);
    let mut group = criterion.benchmark_group("offload/coalesce");
    group.throughput(Throughput::Elements(turn.len() as u64));
    group.bench_function(name, |bencher| {
        bencher.iter(|| {
            for (number, packet) in turn.iter().enumerate() {
                coalescer.push(number, packet).expect("room");
            }
            assert_eq!(coalescer.groups().len(), groups);
            for group in coalescer.groups() {
                let first = group.first().handle;
                black_box(group.finish(&mut turn[first]));
                group.members().for_each(|member| {
                    black_box(member);
                });
                turn[first][..IP_LEN + 32].copy_from_slice(&pristine[first]);
            }
            coalescer.clear();
        });
    });
    group.finish();
}

fn coalescing(criterion: &mut Criterion) {
    for (name, transport) in [("TCP", Transport::Tcp), ("UDP", Transport::Udp)] {
        let mut turn = transport.packets(TRAIN, 1);
        coalesce(criterion, &format!("44 {name} packets of one flow"), &mut turn, 1);
    }
    // Four packets of each of 16 flows, interleaved.
    let flows: Vec<_> = (0..16).map(|flow| Transport::Tcp.packets(4, flow)).collect();
    let mut turn: Vec<_> =
        (0..4).flat_map(|step| flows.iter().map(move |flow| flow[step].clone())).collect();
    coalesce(criterion, "64 TCP packets of 16 interleaved flows", &mut turn, 16);
    let mut turn: Vec<_> = (0..64).flat_map(|flow| Transport::Tcp.packets(1, flow)).collect();
    coalesce(criterion, "64 TCP packets of 64 flows, alone", &mut turn, 64);
}

criterion_group! {
    name = benches;
    config = wg_bounce_benches::criterion();
    targets = cutting, coalescing
}
criterion_main!(benches);
