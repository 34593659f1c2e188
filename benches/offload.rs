//! Super-packets: cutting one that the TUN gave, and joining a train for the TUN.

use std::hint::black_box;

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use wg_bounce_dataplane::offload::{
    Coalescer, CoalescerOptions, Cut, GSO_TCPV4, NEEDS_CSUM, VNET_HEADER_LEN, VirtioHeader,
};

const IP_LEN: usize = 20;
const HEADERS_LEN: usize = IP_LEN + 32;
/// Bytes of an inner packet, as in the relay's other figures.
const PACKET_LEN: usize = 1_408;
const TRAIN: usize = 44;

/// A frame of the TUN with `len` bytes of IP packet that is to be cut to packets of
/// [`PACKET_LEN`] bytes.
fn super_packet(len: usize) -> Vec<u8> {
    let header = VirtioHeader {
        flags: NEEDS_CSUM,
        gso_type: GSO_TCPV4,
        hdr_len: HEADERS_LEN as u16,
        gso_size: (PACKET_LEN - HEADERS_LEN) as u16,
        csum_start: IP_LEN as u16,
        csum_offset: 16,
    };
    let mut frame = header.to_bytes().to_vec();
    frame.extend((0..len).map(|at| at as u8));
    let packet = &mut frame[VNET_HEADER_LEN..];
    packet[..IP_LEN]
        .copy_from_slice(&[0x45, 0, 0, 0, 0, 1, 0x40, 0, 64, 6, 0, 0, 10, 0, 0, 1, 10, 0, 0, 2]);
    packet[2..4].copy_from_slice(&(len as u16).to_be_bytes());
    packet[IP_LEN + 12..IP_LEN + 14].copy_from_slice(&[0x80, 0x10]);
    frame
}

fn packets(frame: &[u8]) -> Vec<Vec<u8>> {
    let cut = Cut::new(frame).expect("a good frame");
    let write = |index| {
        let mut out = vec![0; cut.segment_len(index)];
        cut.write_segment(index, &mut out);
        out
    };
    (0..cut.segments()).map(write).collect()
}

fn cutting(criterion: &mut Criterion) {
    let frame = super_packet(65_535);
    let mut out = vec![0; 2_048];
    let mut group = criterion.benchmark_group("offload");
    group.throughput(Throughput::Bytes(65_535));
    group.bench_function("cut a TSO packet of 65,535 bytes", |bencher| {
        bencher.iter(|| {
            let cut = Cut::new(black_box(&frame)).expect("a good frame");
            for index in 0..cut.segments() {
                black_box(cut.write_segment(index, &mut out));
            }
        });
    });
    group.finish();
}

fn coalescing(criterion: &mut Criterion) {
    let len = HEADERS_LEN + TRAIN * (PACKET_LEN - HEADERS_LEN);
    let mut train = packets(&super_packet(len));
    let pristine = train[0][..HEADERS_LEN].to_vec();
    let options = CoalescerOptions { tcp: true, udp: true };
    let mut coalescer = Coalescer::new(4_096, options, 1);
    let mut group = criterion.benchmark_group("offload");
    group.throughput(Throughput::Elements(TRAIN as u64));
    group.bench_function("coalesce 44 TCP packets of 1,408 bytes", |bencher| {
        bencher.iter(|| {
            train[0][..HEADERS_LEN].copy_from_slice(&pristine);
            for (number, packet) in train.iter().enumerate() {
                coalescer.push(number, packet).expect("room");
            }
            let groups = coalescer.groups();
            assert_eq!(groups.len(), 1);
            for group in groups {
                black_box(group.finish(&mut train[group.first().handle]));
                group.members().for_each(|member| {
                    black_box(member);
                });
            }
            coalescer.clear();
        });
    });
    group.finish();
}

criterion_group!(benches, cutting, coalescing);
criterion_main!(benches);
