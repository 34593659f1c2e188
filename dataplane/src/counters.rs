//! What a worker counts. Each counter has one writer; anybody may read.

use std::sync::atomic::{AtomicU64, Ordering};

/// Why a packet went no further.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(usize)]
pub enum DropReason {
    /// A datagram that is no WireGuard message by type and length, or was truncated.
    Malformed,
    /// A handshake message whose mac1 is wrong: its sender does not know our public key.
    BadMac1,
    /// A handshake message before a private key was set.
    NoPrivateKey,
    /// More handshake messages than control takes.
    HandshakeQueueFull,
    /// Data, a response or a cookie reply for an index that we did not hand out.
    UnknownIndex,
    /// Data for a session past its age.
    ExpiredSession,
    /// A message whose tag is wrong.
    NotAuthentic,
    /// A message that arrived before, or is too old for the replay window.
    Replayed,
    /// A plaintext that is no IP packet.
    NotIp,
    /// A source address that is not the sender's by allowed IPs.
    SourceNotAllowed,
    /// The interface is down.
    InterfaceDown,
    /// The worker that owns the session had no room for what landed elsewhere.
    HandOffFull,
    /// The TUN refused a write.
    TunRefused,
    /// A frame from the TUN that contradicts itself.
    BadFrame,
    /// No peer has this destination among its allowed IPs.
    NoPeer,
    /// The peer's endpoint is not known.
    NoEndpoint,
    /// A redirect or router solicitation of our own kernel: meaningless in the tunnel.
    LinkLocalChatter,
    /// Our own UDP datagram, routed into the interface: an endpoint lies inside the tunnel.
    RoutingLoop,
    /// More packets wait for a handshake than may.
    StagingFull,
    /// The handshake for which a packet waited was given up, or the peer was removed.
    HandshakeFailed,
    /// The socket buffer was full.
    SocketFull,
    /// The network refused a send: no route, the firewall, no such family.
    SendRefused,
    /// Something that only the kernel may forward from peer to peer (an expired TTL, options, a
    /// packet beyond the MTU), but its route leads out of another interface.
    NotPunted,
}

impl DropReason {
    /// All reasons, in order.
    pub const ALL: [DropReason; 23] = [
        DropReason::Malformed,
        DropReason::BadMac1,
        DropReason::NoPrivateKey,
        DropReason::HandshakeQueueFull,
        DropReason::UnknownIndex,
        DropReason::ExpiredSession,
        DropReason::NotAuthentic,
        DropReason::Replayed,
        DropReason::NotIp,
        DropReason::SourceNotAllowed,
        DropReason::InterfaceDown,
        DropReason::HandOffFull,
        DropReason::TunRefused,
        DropReason::BadFrame,
        DropReason::NoPeer,
        DropReason::NoEndpoint,
        DropReason::LinkLocalChatter,
        DropReason::RoutingLoop,
        DropReason::StagingFull,
        DropReason::HandshakeFailed,
        DropReason::SocketFull,
        DropReason::SendRefused,
        DropReason::NotPunted,
    ];

    /// Its name in counters: lower case, words joined by `_`.
    pub const fn name(self) -> &'static str {
        match self {
            DropReason::Malformed => "drop_malformed",
            DropReason::BadMac1 => "drop_bad_mac1",
            DropReason::NoPrivateKey => "drop_no_private_key",
            DropReason::HandshakeQueueFull => "drop_handshake_queue_full",
            DropReason::UnknownIndex => "drop_unknown_index",
            DropReason::ExpiredSession => "drop_expired_session",
            DropReason::NotAuthentic => "drop_not_authentic",
            DropReason::Replayed => "drop_replayed",
            DropReason::NotIp => "drop_not_ip",
            DropReason::SourceNotAllowed => "drop_source_not_allowed",
            DropReason::InterfaceDown => "drop_interface_down",
            DropReason::HandOffFull => "drop_hand_off_full",
            DropReason::TunRefused => "drop_tun_refused",
            DropReason::BadFrame => "drop_bad_frame",
            DropReason::NoPeer => "drop_no_peer",
            DropReason::NoEndpoint => "drop_no_endpoint",
            DropReason::LinkLocalChatter => "drop_link_local_chatter",
            DropReason::RoutingLoop => "drop_routing_loop",
            DropReason::StagingFull => "drop_staging_full",
            DropReason::HandshakeFailed => "drop_handshake_failed",
            DropReason::SocketFull => "drop_socket_full",
            DropReason::SendRefused => "drop_send_refused",
            DropReason::NotPunted => "drop_not_punted",
        }
    }
}

/// One number that one worker writes.
#[derive(Default)]
pub struct Counter(AtomicU64);

impl Counter {
    /// Adds; the worker's.
    pub fn add(&self, count: u64) {
        // A plain load and store: there is one writer.
        self.0.store(self.0.load(Ordering::Relaxed) + count, Ordering::Relaxed);
    }

    /// The present value.
    pub fn read(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

/// The counters of one worker.
#[derive(Default)]
pub struct Counters {
    /// UDP receives: trains and single datagrams.
    pub received_trains: Counter,
    /// Datagrams in them.
    pub received_datagrams: Counter,
    /// UDP sends: trains and single datagrams.
    pub sent_trains: Counter,
    /// Datagrams in them.
    pub sent_datagrams: Counter,
    /// Reads of the TUN: packets and super-packets.
    pub tun_frames_read: Counter,
    /// Writes to the TUN: packets and super-packets.
    pub tun_frames_written: Counter,
    /// IP packets in them.
    pub tun_packets_written: Counter,
    /// Packets relayed from peer to peer past the TUN.
    pub relayed: Counter,
    /// Trains that found their socket full, and waited.
    pub held_trains: Counter,
    /// Datagrams handed to the worker that owns their session.
    pub handed_off: Counter,
    /// Destinations for which trains were given up for a while.
    pub gso_demotions: Counter,
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
            ("sent_trains", &self.sent_trains),
            ("sent_datagrams", &self.sent_datagrams),
            ("tun_frames_read", &self.tun_frames_read),
            ("tun_frames_written", &self.tun_frames_written),
            ("tun_packets_written", &self.tun_packets_written),
            ("relayed", &self.relayed),
            ("held_trains", &self.held_trains),
            ("handed_off", &self.handed_off),
            ("gso_demotions", &self.gso_demotions),
        ];
        let drops = DropReason::ALL
            .iter()
            .map(|&reason| (reason.name(), self.drops[reason as usize].read()));
        plain.into_iter().map(|(name, counter)| (name, counter.read())).chain(drops)
    }
}
