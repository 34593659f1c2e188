//! TUN frames that no kernel makes by itself: a local program with a packet socket, or a virtual
//! machine, chooses their virtio header.

use crate::harness::{Backend, RelayMode, Testbed, TestbedOptions};

/// Sends TCP super-packets from a packet socket: interface, segment size, payload bytes, count.
const SENDER: &str = r#"
    use strict; use Socket;
    my ($index, $size, $length, $count) = @ARGV;
    socket(my $packet, 17, SOCK_RAW, 0) or die "socket: $!";
    setsockopt($packet, 263, 15, pack("i", 1)) or die "PACKET_VNET_HDR: $!";
    bind($packet, pack("SniSCCa8", 17, 0x0800, $index, 0, 0, 0, "")) or die "bind: $!";
    my $virtio = pack("CCSSSS", 1, 1, 40, $size, 20, 16);
    my @addresses = (10, 77, 0, 1, 10, 77, 0, 3);
    my $ip = pack("CCnnnCCnC8", 0x45, 0, 40 + $length, 1, 0x4000, 64, 6, 0, @addresses);
    my $sum = 0;
    $sum += $_ for unpack("n*", $ip);
    $sum = ($sum & 0xffff) + ($sum >> 16) for 1 .. 2;
    substr($ip, 10, 2) = pack("n", ~$sum & 0xffff);
    my $tcp = pack("nnNNCCnnn", 7, 7, 1, 1, 0x50, 0x10, 1000, 0, 0);
    for (1 .. $count) {
        send($packet, $virtio . $ip . $tcp . "x" x $length, 0) or die "send: $!";
    }
"#;

/// A frame that becomes tens of thousands of packets of one byte is refused; one that becomes as
/// many as a kernel would make is not.
fn absurd_super_packets_are_refused(backend: Backend) {
    let mut testbed = Testbed::new(&TestbedOptions::new(backend, RelayMode::Kernel));
    let hub = testbed.hub.namespace.clone();
    let index = hub.run(&format!("cat /sys/class/net/{}/ifindex", testbed.hub.interface));
    let send = |size: usize, length: usize, count: usize| {
        let line = format!("perl - {} {size} {length} {count}", index.trim());
        hub.run_with(&line, SENDER);
    };
    send(1, 40_000, 3);
    let (_, at_bob) = testbed.settle();
    assert_eq!(at_bob.len(), 0, "packets at bob");
    assert_eq!(testbed.hub.counter("drop_bad_frame"), 3);
    send(1, 100, 1);
    send(1_000, 60_000, 1);
    let (_, at_bob) = testbed.settle();
    assert_eq!(at_bob.len(), 100 + 60, "packets at bob");
    assert_eq!(testbed.hub.counter("drop_bad_frame"), 3);
}

on_both_backends!(absurd_super_packets_are_refused);
