//! Counters: one set per worker, which only that worker writes, and one per peer, which any worker
//! may write. Any thread may read both.

use std::sync::OnceLock;
use std::sync::atomic::{AtomicU64, Ordering};

/// Defines [`DropReason`] from one list: documentation, variant, counter name.
macro_rules! drop_reasons {
    ($($(#[$doc:meta])+ $variant:ident = $name:literal,)+) => {
        /// The reason why a packet was dropped.
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        #[repr(usize)]
        pub enum DropReason {
            $($(#[$doc])+ $variant,)+
        }

        impl DropReason {
            /// All reasons, in order.
            pub const ALL: [DropReason; [$($name),+].len()] = [$(DropReason::$variant),+];

            /// The name of its counter: lower case, words joined by `_`.
            pub const fn name(self) -> &'static str {
                match self {
                    $(DropReason::$variant => $name,)+
                }
            }
        }
    };
}

drop_reasons! {
    /// A datagram that is not a WireGuard message by type and length, or was truncated.
    Malformed = "drop_malformed",
    /// A handshake message with a wrong mac1: its sender does not know our public key.
    BadMac1 = "drop_bad_mac1",
    /// A handshake message before a private key was set.
    NoPrivateKey = "drop_no_private_key",
    /// A handshake message that found the lane to control full.
    HandshakeQueueFull = "drop_handshake_queue_full",
    /// Data, a response or a cookie reply for an index that is not in use.
    UnknownIndex = "drop_unknown_index",
    /// Data for a session past its age.
    ExpiredSession = "drop_expired_session",
    /// A message with a wrong tag.
    NotAuthentic = "drop_not_authentic",
    /// A message that arrived before, or is too old for the replay window.
    Replayed = "drop_replayed",
    /// A plaintext that is not an IP packet.
    NotIp = "drop_not_ip",
    /// A source address that is not among the sender's allowed IPs.
    SourceNotAllowed = "drop_source_not_allowed",
    /// The interface is down, or the socket of a train was replaced before it was handled.
    InterfaceDown = "drop_interface_down",
    /// A datagram that found the lane to the worker of its session full.
    HandOffFull = "drop_hand_off_full",
    /// A write that the TUN refused.
    TunRefused = "drop_tun_refused",
    /// A TUN frame that contradicts itself, or that the kernel could not hand over.
    BadFrame = "drop_bad_frame",
    /// A destination that is in no peer's allowed IPs.
    NoPeer = "drop_no_peer",
    /// A peer without a known endpoint.
    NoEndpoint = "drop_no_endpoint",
    /// A redirect or router solicitation of our own kernel: meaningless in the tunnel.
    LinkLocalChatter = "drop_link_local_chatter",
    /// A WireGuard message that would be encapsulated forever: it is routed to the peer that it is
    /// for, or has passed too many tunnels.
    RoutingLoop = "drop_routing_loop",
    /// A packet beyond the limits of staging.
    StagingFull = "drop_staging_full",
    /// A staged packet whose handshake was given up, or whose peer was removed.
    HandshakeFailed = "drop_handshake_failed",
    /// A full socket buffer, in a send that cannot wait.
    SocketFull = "drop_socket_full",
    /// A packet that waited too long for a slow uplink, or one too many in its queue.
    Congestion = "drop_congestion",
    /// A send that the network refused: no route, the firewall, no such family.
    SendRefused = "drop_send_refused",
    /// A packet that only the kernel may forward between peers (options, fragmentation), but the
    /// kernel's route for it leads out of another interface or is unknown.
    NotPunted = "drop_not_punted",
    /// A packet that a worker answered with an ICMP error, within the rate limit: its TTL expired,
    /// it exceeds the MTU, or with `--tun off` it cannot be delivered.
    IcmpAnswered = "drop_icmp_answered",
    /// A packet between peers with `--relay direct` while forwarding is off, or while the daemon
    /// cannot see whether it is on; with `--tun off` one that only a kernel may forward (options),
    /// or that is for the hub itself and gets no answer.
    NotForwarded = "drop_not_forwarded",
}

/// A counter with one writer.
#[derive(Default)]
pub struct Counter(AtomicU64);

impl Counter {
    /// Adds; only the worker calls this.
    pub fn add(&self, count: u64) {
        // A plain load and store suffice: there is one writer.
        self.0.store(self.0.load(Ordering::Relaxed) + count, Ordering::Relaxed);
    }

    /// Replaces the value of a gauge; only the worker calls this.
    pub fn set(&self, value: u64) {
        self.0.store(value, Ordering::Relaxed);
    }

    /// The present value.
    pub fn read(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

/// The counters of one worker. Between two turns its books are balanced, see [`imbalance`].
#[derive(Default)]
pub struct Counters {
    /// UDP receives: trains and single datagrams, also those that other workers handed over.
    pub received_trains: Counter,
    /// Datagrams in them.
    pub received_datagrams: Counter,
    /// Handshake messages in them that were passed to control.
    pub handshake_messages: Counter,
    /// Authentic keepalives in them.
    pub received_keepalives: Counter,
    /// UDP sends: trains and single datagrams.
    pub sent_trains: Counter,
    /// Datagrams in them.
    pub sent_datagrams: Counter,
    /// Reads of the TUN: packets and super-packets.
    pub tun_frames_read: Counter,
    /// IP packets in them.
    pub tun_packets_read: Counter,
    /// Writes to the TUN: packets and super-packets.
    pub tun_frames_written: Counter,
    /// IP packets in them.
    pub tun_packets_written: Counter,
    /// Packets that the worker makes itself: keepalives, and ICMP errors.
    pub generated_packets: Counter,
    /// Packets relayed between peers by the worker, not through the TUN; some may be dropped later,
    /// while they wait for a session.
    pub relayed: Counter,
    /// Bytes of those packets, padding included.
    pub relayed_bytes: Counter,
    /// Trains that found their socket full and were held. What follows them waits as packets.
    pub held_trains: Counter,
    /// Packets that waited in the fair queue, and left.
    pub queued_packets: Counter,
    /// The time that they waited, added up (milliseconds).
    pub queued_milliseconds: Counter,
    /// Datagrams handed over to the worker that owns their session.
    pub handed_off: Counter,
    /// Times that a destination was demoted to sends without segmentation offload.
    pub gso_demotions: Counter,
    /// A gauge: packets that wait for a session, or for room in a socket.
    pub waiting_packets: Counter,
    drops: [Counter; DropReason::ALL.len()],
}

impl Counters {
    /// Counts `count` packets dropped for `reason`.
    pub fn dropped(&self, reason: DropReason, count: u64) {
        self.drops[reason as usize].add(count);
    }

    /// Every counter with its name.
    pub fn list(&self) -> impl Iterator<Item = (&'static str, u64)> + '_ {
        let plain = [
            ("received_trains", &self.received_trains),
            ("received_datagrams", &self.received_datagrams),
            ("handshake_messages", &self.handshake_messages),
            ("received_keepalives", &self.received_keepalives),
            ("sent_trains", &self.sent_trains),
            ("sent_datagrams", &self.sent_datagrams),
            ("tun_frames_read", &self.tun_frames_read),
            ("tun_packets_read", &self.tun_packets_read),
            ("tun_frames_written", &self.tun_frames_written),
            ("tun_packets_written", &self.tun_packets_written),
            ("generated_packets", &self.generated_packets),
            ("relayed", &self.relayed),
            ("relayed_bytes", &self.relayed_bytes),
            ("held_trains", &self.held_trains),
            ("queued_packets", &self.queued_packets),
            ("queued_milliseconds", &self.queued_milliseconds),
            ("handed_off", &self.handed_off),
            ("gso_demotions", &self.gso_demotions),
            ("waiting_packets", &self.waiting_packets),
        ];
        let drops = DropReason::ALL
            .iter()
            .map(|&reason| (reason.name(), self.drops[reason as usize].read()));
        plain.into_iter().map(|(name, counter)| (name, counter.read())).chain(drops)
    }

    /// Average number of datagrams per train: received, and sent.
    pub fn train_lengths(&self) -> (f64, f64) {
        let received = ratio(self.received_datagrams.read(), self.received_trains.read());
        (received, ratio(self.sent_datagrams.read(), self.sent_trains.read()))
    }
}

/// The packets that a worker with these counters has taken in, less those that it has passed on,
/// dropped for a reason, or holds: zero between two turns. Counters with other names do not matter.
pub fn imbalance<'a>(counters: impl IntoIterator<Item = (&'a str, u64)>) -> i64 {
    let sign = |name: &str| match name {
        "received_datagrams" | "tun_packets_read" | "generated_packets" => 1,
        "handed_off" | "handshake_messages" | "received_keepalives" => -1,
        "sent_datagrams" | "tun_packets_written" | "waiting_packets" => -1,
        other if other.starts_with("drop_") => -1,
        _ => 0,
    };
    counters.into_iter().map(|(name, value)| sign(name) * value.cast_signed()).sum()
}

/// `count` divided by `groups`; zero if there are none.
fn ratio(count: u64, groups: u64) -> f64 {
    if groups == 0 { 0.0 } else { count as f64 / groups as f64 }
}

/// A counter with several writers.
#[derive(Default)]
pub struct SharedCounter(AtomicU64);

impl SharedCounter {
    /// Adds.
    pub fn add(&self, count: u64) {
        self.0.fetch_add(count, Ordering::Relaxed);
    }

    /// The present value.
    pub fn read(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

/// The counters of one peer. Bytes are UDP payload, as the kernel module counts them.
#[derive(Default)]
pub struct PeerCounters {
    /// Bytes of authentic messages received, including handshakes.
    pub received_bytes: SharedCounter,
    /// Authentic data messages and keepalives received.
    pub received_datagrams: SharedCounter,
    /// Trains, or parts of trains, in which they arrived.
    pub received_trains: SharedCounter,
    /// Bytes sent, including handshakes.
    pub sent_bytes: SharedCounter,
    /// Data messages and keepalives sent.
    pub sent_datagrams: SharedCounter,
    /// Trains in which they were sent.
    pub sent_trains: SharedCounter,
    /// Packets relayed to the peer by the worker, not through the TUN.
    pub relayed: SharedCounter,
    /// Messages that arrived at another worker than the session's.
    pub handed_off: SharedCounter,
    /// Times that the peer was demoted to sends without segmentation offload.
    pub gso_demotions: SharedCounter,
    /// Allocated at the first drop: most peers of a large hub have none.
    drops: OnceLock<Box<[SharedCounter; DropReason::ALL.len()]>>,
}

impl PeerCounters {
    /// Counts `count` packets from or to the peer dropped for `reason`.
    pub fn dropped(&self, reason: DropReason, count: u64) {
        if count > 0 {
            self.drops.get_or_init(Box::default)[reason as usize].add(count);
        }
    }

    /// Every counter with its name.
    pub fn list(&self) -> impl Iterator<Item = (&'static str, u64)> + '_ {
        let plain = [
            ("received_bytes", &self.received_bytes),
            ("received_datagrams", &self.received_datagrams),
            ("received_trains", &self.received_trains),
            ("sent_bytes", &self.sent_bytes),
            ("sent_datagrams", &self.sent_datagrams),
            ("sent_trains", &self.sent_trains),
            ("relayed", &self.relayed),
            ("handed_off", &self.handed_off),
            ("gso_demotions", &self.gso_demotions),
        ];
        let drops = self.drops.get().into_iter().flat_map(|drops| {
            DropReason::ALL.iter().map(|&reason| (reason.name(), drops[reason as usize].read()))
        });
        plain.into_iter().map(|(name, counter)| (name, counter.read())).chain(drops)
    }

    /// Average number of datagrams per train: received, and sent.
    pub fn train_lengths(&self) -> (f64, f64) {
        let received = ratio(self.received_datagrams.read(), self.received_trains.read());
        (received, ratio(self.sent_datagrams.read(), self.sent_trains.read()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_reason_has_its_own_index_and_name() {
        let names: std::collections::HashSet<&str> =
            DropReason::ALL.iter().map(|reason| reason.name()).collect();
        assert_eq!(names.len(), DropReason::ALL.len());
        for (index, &reason) in DropReason::ALL.iter().enumerate() {
            assert_eq!(index, reason as usize);
        }
    }

    #[test]
    fn a_peers_drops_are_counted_by_reason() {
        let counters = PeerCounters::default();
        assert!(counters.list().all(|(_, value)| value == 0));
        counters.dropped(DropReason::Replayed, 0);
        assert!(counters.drops.get().is_none(), "nothing was dropped yet");
        counters.dropped(DropReason::Replayed, 2);
        counters.dropped(DropReason::NotPunted, 1);
        let nonzero: Vec<_> = counters.list().filter(|(_, value)| *value > 0).collect();
        assert_eq!(nonzero, [("drop_replayed", 2), ("drop_not_punted", 1)]);
    }

    #[test]
    fn books_are_balanced_when_all_is_accounted_for() {
        let counters = Counters::default();
        counters.received_datagrams.add(7);
        counters.tun_packets_read.add(2);
        counters.generated_packets.add(1);
        counters.relayed.add(3);
        assert_eq!(imbalance(counters.list()), 10);
        for out in [&counters.handed_off, &counters.handshake_messages, &counters.sent_datagrams] {
            out.add(1);
        }
        counters.received_keepalives.add(1);
        counters.tun_packets_written.add(1);
        counters.dropped(DropReason::NoPeer, 3);
        assert_eq!(imbalance(counters.list()), 2);
        counters.waiting_packets.set(2);
        assert_eq!(imbalance(counters.list()), 0);
        counters.dropped(DropReason::Replayed, 1);
        assert_eq!(imbalance(counters.list()), -1);
    }

    #[test]
    fn train_lengths_are_averages() {
        let counters = PeerCounters::default();
        assert_eq!(counters.train_lengths(), (0.0, 0.0));
        counters.sent_trains.add(2);
        counters.sent_datagrams.add(88);
        assert_eq!(counters.train_lengths(), (0.0, 44.0));
    }
}
