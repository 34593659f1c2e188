//! Every limit of the packet path: its unit, where it comes from, and why it has this value.
//!
//! "§" is a section of the WireGuard whitepaper (Donenfeld, NDSS 2017, revision of June 2020).

use std::time::Duration;

use wg_bounce_sys::clock::Millis;

/// Workers at most; a receiver index names its worker with its low byte, and the set of workers
/// that hold staged packets of a peer is one 64-bit word.
pub const WORKERS_MAX: usize = 64;
const _: () = assert!(WORKERS_MAX <= 256 && WORKERS_MAX <= u64::BITS as usize);

/// Age at which the initiator of a session starts the next handshake (§6.1).
pub const REKEY_AFTER_TIME: Millis = Millis::from_secs(120);
/// Age at which a session no longer sends or receives (§6.1).
pub const REJECT_AFTER_TIME: Millis = Millis::from_secs(180);
/// Time after which a silent peer that owes an answer is sent a keepalive (§6.5).
pub const KEEPALIVE_TIMEOUT: Millis = Millis::from_secs(10);
/// Time between two attempts of one handshake, before jitter (§6.1).
pub const REKEY_TIMEOUT: Millis = Millis::from_secs(5);

/// Messages of one session after which a new handshake is due (§6.1).
pub const REKEY_AFTER_MESSAGES: u64 = 1 << 60;
/// Messages of one session after which it is dead (§6.1): 2^13 short of the end of the counter,
/// so that a replay window's worth of counters never wraps.
pub const REJECT_AFTER_MESSAGES: u64 = u64::MAX - (1 << 13);

/// Counters that the replay window remembers behind the greatest one (packets; the kernel's
/// `COUNTER_WINDOW_SIZE`, drivers/net/wireguard/messages.h).
pub const REPLAY_WINDOW: u64 = 8128;
const _: () = assert!(REJECT_AFTER_MESSAGES < u64::MAX - REPLAY_WINDOW);

/// Nonces of one session that may be reserved and not yet sent, over all workers (packets).
/// boringtun's replay window is 1,024: it drops a message that later ones overtook by more.
pub const NONCES_IN_FLIGHT_MAX: u64 = 512;

/// Packets that wait for one peer's handshake (packets; `MAX_STAGED_PACKETS` of the kernel).
pub const STAGED_PACKETS_MAX: u32 = 128;

/// Cost of the datagrams that a worker handles in one turn, and of the TUN frames: about a tenth
/// of a millisecond's work with the slowest AEAD. A thin flow waits for that long at most. The
/// unit is a byte; each packet counts [`PACKET_COST`] more.
pub const SLICE_COST: u32 = 64 << 10;
/// Cost of a packet on top of its bytes: measured, a packet of 64 bytes takes a third of the time
/// of one of 1,408.
pub const PACKET_COST: u32 = 512;
/// Datagrams that a worker handles in one turn at most: a train may exceed the rest of the slice
/// that it was taken in.
pub const MESSAGES_PER_TURN_MAX: usize = (SLICE_COST / PACKET_COST) as usize + RECEIVE_SEGMENTS_MAX;

/// Time that what a socket has in flight needs to leave. Below a packet's time on a slow uplink it
/// cannot be; above, all that waits could as well wait here, where it is queued fairly.
pub const IN_FLIGHT_TIME: Duration = Duration::from_millis(4);
/// Bytes in flight in one socket before its rate is known (the unit of SIOCOUTQ): two full trains,
/// which are 50 ms of 20 Mbit/s.
pub const IN_FLIGHT_INITIAL: usize = 128 << 10;
/// Bytes in flight in one socket that are always allowed (the unit of SIOCOUTQ; `SOCK_MIN_SNDBUF`,
/// include/net/sock.h): two datagrams.
pub const IN_FLIGHT_MIN: usize = 4608;
const _: () = assert!(IN_FLIGHT_MIN < IN_FLIGHT_INITIAL && IN_FLIGHT_INITIAL > 2 * SEND_BYTES_MAX);

/// Time that a packet may wait for room in a socket while others of its flow wait behind it: a
/// longer queue delays the flow's answers to loss, and gains no throughput.
pub const QUEUE_TIME_MAX: Millis = Millis(50);
/// Packets that leave between two that are dropped because of [`QUEUE_TIME_MAX`].
pub const QUEUE_DROP_INTERVAL: u32 = 16;
/// Packets that may wait for room in one socket, in multiples of its bytes in flight: somewhat
/// more than leave in [`QUEUE_TIME_MAX`].
pub const QUEUE_PER_IN_FLIGHT: usize = 16;
const _: () =
    assert!(QUEUE_PER_IN_FLIGHT as u128 * IN_FLIGHT_TIME.as_millis() >= QUEUE_TIME_MAX.0 as u128);
/// Bytes that a waiting packet counts on top of its own: its place in the queue and in the heap.
pub const QUEUE_OVERHEAD: usize = 128;
/// Peers that are told apart in the queue of one socket; those that share a number share its turns.
pub const QUEUE_PEERS: usize = 16;
/// Flows of one such peer that are told apart: also its share against a peer with one flow.
pub const QUEUE_FLOWS: usize = 64;
/// Bytes that a flow may send in its turn: two full packets.
pub const QUEUE_QUANTUM: i64 = 3200;
/// Waiting bytes that one turn sends: packets that arrive meanwhile must not wait for longer.
pub const RESUME_BYTES_MAX: usize = 1 << 20;
/// Time after a refusal during which a destination is sent to without segmentation offload; then
/// it is tried again.
pub const GSO_REPROBE_AFTER: Millis = Millis::from_secs(60);

/// Bytes of messages from the TUN in one send batch: several super-packets.
pub const TX_BUFFER_LEN: usize = 1 << 20;
const _: () = assert!(TX_BUFFER_LEN > 2 * PACKET_MAX);
/// Messages in one send batch.
pub const BATCH_MESSAGES_MAX: usize = 4096;
/// Packets that are coalesced before they are written to the TUN.
pub const COALESCE_PACKETS_MAX: usize = 4096;

/// Routes that one turn asks the kernel for, at some microseconds each: a peer that scans
/// addresses must not delay the others for longer.
pub const ROUTE_QUERIES_PER_TURN: usize = 256;
const _: () = assert!(MESSAGES_PER_TURN_MAX <= ROUTE_QUERIES_PER_TURN);
/// Source addresses that one worker checks within [`SOURCE_CHECK_INTERVAL`] (paths). A question
/// takes 5 to 8 microseconds (Cascade Lake, 2.5 GHz), a check has one or two: at most 4 % of the
/// worker's time while routes change all the time.
pub const SOURCE_CHECKS_MAX: u32 = 24;
/// The interval of [`SOURCE_CHECKS_MAX`] (milliseconds).
pub const SOURCE_CHECK_INTERVAL: Millis = Millis(10);

/// Hops that a message takes from the hop limit of a message that it carries: a circle of tunnels
/// ends after eight rounds (a ping has become 2.6 kB by then, and was never fragmented), and the
/// fourth level still has 40 hops for its way through the internet.
pub const NESTING_HOPS: u8 = 8;
/// Hop limit at most of a message that carries another: the default of most systems.
pub const NESTED_HOP_LIMIT_MAX: u8 = 64;
const _: () = assert!(NESTING_HOPS < NESTED_HOP_LIMIT_MAX);
/// Least time between two notices to control that a peer has roamed: a peer may change its port
/// with every packet.
pub const ROAMING_NOTICE_INTERVAL: Millis = Millis::from_secs(1);
/// Time without looping messages to a peer after which the next one is logged again.
pub const LOOP_LOG_AFTER: Millis = Millis::from_secs(600);

/// ICMP errors that one worker may send in one burst (messages).
pub const ICMP_ERROR_BURST: u64 = 50;
/// ICMP errors that one worker may send per second (messages).
pub const ICMP_ERRORS_PER_SECOND: u64 = 1000;
/// ICMP errors that one worker may send in one burst about packets of one peer (messages): several
/// traceroutes that send all their probes at once.
pub const ICMP_ERROR_BURST_PER_PEER: u64 = 20;
const _: () = assert!(ICMP_ERROR_BURST_PER_PEER < ICMP_ERROR_BURST);
/// ICMP errors that one worker may send per second about packets of one peer (messages): a tenth,
/// so that one peer leaves errors to the others.
pub const ICMP_ERRORS_PER_PEER: u64 = ICMP_ERRORS_PER_SECOND / 10;
/// Peers whose errors are limited separately (16 bytes each); beyond that, peers share limits.
pub const ICMP_ERROR_BUCKETS: usize = 1024;
/// Each error costs two route queries, which the rate of errors bounds.
const _: () = assert!(2 * ICMP_ERROR_BURST as usize <= ROUTE_QUERIES_PER_TURN);

/// Queues of the receive side's deficit round robin: flows that share one share its turns.
pub const DRR_QUEUES: usize = 256;
/// Items for which an empty round robin keeps the memory.
pub const DRR_ITEMS_KEPT: usize = 1024;
/// Cost that a queue may spend before the next one's turn (the unit of [`SLICE_COST`]): a train
/// of [`RECEIVE_SEGMENTS_MAX`] small datagrams, or one full train.
pub const DRR_QUANTUM: i64 = 88 << 10;

/// Commands that may wait for one worker; control blocks beyond that.
pub const COMMANDS_MAX: usize = 1024;
/// Initiations with a valid mac1 that may wait for control.
pub const INITIATIONS_MAX: usize = 4096;
/// Responses that may wait for control (messages of about 220 bytes): what a flood that one worker
/// can check brings during the longest turn of control, some ten milliseconds.
pub const RESPONSES_MAX: usize = 4096;
/// Cookie replies that may wait for control (messages).
pub const COOKIE_REPLIES_MAX: usize = 1024;
/// Peers that may wait for control's attention; a peer is queued once, however much happens.
pub const NOTICES_MAX: usize = 1 << 17;

/// Plaintext is padded to a multiple of this (bytes, §5.4.6).
pub const PADDING_MULTIPLE: usize = 16;

/// Receive at most this many segments of one GRO train (datagrams; loopback delivers such,
/// `UDP_MAX_SEGMENTS` of Linux 6.9 and later is 128).
pub const RECEIVE_SEGMENTS_MAX: usize = 128;
/// Send at most this many segments in one train (datagrams; `UDP_MAX_SEGMENTS` up to Linux 6.8).
pub const SEND_SEGMENTS_MAX: usize = 64;
/// Send at most this many bytes in one train (UDP payload bytes): a longer IPv4 datagram is cut
/// in software and is not coalesced again by the receiver.
pub const SEND_BYTES_MAX: usize = 65_000;
const _: () = assert!(SEND_BYTES_MAX < 65_494);

/// Largest IP packet (bytes).
pub const PACKET_MAX: usize = 65_535;

/// Packets at most that one TCP frame of the TUN becomes: what the smallest segments of a local
/// sender give (`TCP_MIN_GSO_SIZE`, include/net/tcp.h: eight bytes). Other frames are forged.
pub const TCP_SEGMENTS_MAX: usize = PACKET_MAX / 8;
const _: () = assert!(TCP_SEGMENTS_MAX >= COALESCE_SEGMENTS_MAX);

/// Time after which super-packets are tried again once the TUN has refused one.
pub const TUN_GSO_REPROBE_AFTER: Millis = Millis::from_secs(60);

/// Join at most this many TCP segments to one super-packet for the TUN (packets): the pieces of
/// one gathering write, far below IOV_MAX (1,024).
pub const COALESCE_SEGMENTS_MAX: usize = 128;
/// Join at most this many UDP datagrams to one super-packet for the TUN (packets;
/// `UDP_MAX_SEGMENTS` up to Linux 6.8: a longer one is refused with EINVAL).
pub const COALESCE_UDP_SEGMENTS_MAX: usize = 64;
const _: () = assert!(COALESCE_UDP_SEGMENTS_MAX <= COALESCE_SEGMENTS_MAX);
