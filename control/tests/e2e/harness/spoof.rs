//! Floods from forged source addresses at a given rate.

use std::io::IoSlice;
use std::net::{Ipv4Addr, SocketAddr};
use std::os::fd::AsRawFd;
use std::time::{Duration, Instant};

use nix::sys::socket::{
    AddressFamily, MsgFlags, MultiHeaders, SockFlag, SockProtocol, SockType, SockaddrIn, sendmmsg,
    setsockopt, socket, sockopt,
};

use super::flood::{Flood, noise};
use super::lab::Namespace;

/// The forged sources.
pub const SPOOFED_NETWORK: &str = "10.0.0.0/9";
const FIRST: u32 = Ipv4Addr::new(10, 0, 0, 0).to_bits();
/// All of its addresses but two.
pub const SOURCES: u64 = (1 << 23) - 2;
/// Messages that are made before the flood begins, and sent again and again.
const POOL: usize = 4096;
/// Messages of one call.
const CALL: usize = 64;
const IP_LEN: usize = 20;
const UDP_LEN: usize = 8;

/// Sends `rate` messages per second to `target`, each from one of so many `sources` of
/// [`SPOOFED_NETWORK`] by chance, and one of [`POOL`] ports. `make` writes the payloads.
#[expect(clippy::disallowed_methods, reason = "a test's own clock, not protocol time")]
pub fn spoofed(
    namespace: &Namespace,
    target: SocketAddr,
    rate: u64,
    sources: u64,
    mut make: impl FnMut(&mut Vec<u8>),
) -> Flood {
    let SocketAddr::V4(target) = target else { panic!("IPv4 only") };
    let raw = namespace.enter(|| {
        let protocol = SockProtocol::Raw;
        socket(AddressFamily::Inet, SockType::Raw, SockFlag::empty(), protocol).expect("root may")
    });
    setsockopt(&raw, sockopt::SndBufForce, &(4 << 20)).expect("root may");
    let mut noise = noise();
    let mut payload = Vec::new();
    let mut pool: Vec<Vec<u8>> = (0..POOL)
        .map(|_| {
            make(&mut payload);
            let length = (UDP_LEN + payload.len()) as u16;
            // The kernel fills in the length, the identification and the checksum.
            let mut packet = vec![0x45, 0, 0, 0, 0, 0, 0, 0, 64, 17, 0, 0];
            packet.extend([0; 4]);
            packet.extend(target.ip().octets());
            packet.extend((1024 + (noise() % 60_000) as u16).to_be_bytes());
            packet.extend(target.port().to_be_bytes());
            packet.extend(length.to_be_bytes());
            packet.extend([0, 0]); // no checksum
            assert_eq!(packet.len(), IP_LEN + UDP_LEN);
            packet.extend(&payload);
            packet
        })
        .collect();
    let address = Some(SockaddrIn::from(target));
    let addresses = vec![address; CALL];
    let (mut next, mut count) = (0, 0);
    let start = Instant::now();
    Flood::repeat(move || {
        std::thread::sleep(Duration::from_micros(500));
        let due = start.elapsed().as_micros() as u64 * rate / 1_000_000 - count;
        // A sender that is late skips the rest: `sent` tells the rate that was reached.
        count += due;
        let mut sent = 0;
        let mut left = due.min(rate / 20) as usize;
        while left > 0 {
            let part = left.min(CALL).min(POOL - next);
            for packet in &mut pool[next..next + part] {
                let source = FIRST + 1 + (noise() % sources) as u32;
                packet[12..16].copy_from_slice(&source.to_be_bytes());
            }
            let slices: Vec<_> =
                pool[next..next + part].iter().map(|packet| [IoSlice::new(packet)]).collect();
            let mut headers = MultiHeaders::preallocate(part, None);
            let result = sendmmsg(
                raw.as_raw_fd(),
                &mut headers,
                &slices,
                &addresses[..part],
                [],
                MsgFlags::empty(),
            );
            sent += result.map_or(0, |results| results.count() as u64);
            next = (next + part) % POOL;
            left -= part;
        }
        sent
    })
}
