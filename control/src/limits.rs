//! Every limit of the control thread: unit, source and reason. Limits shared with the packet path
//! are in `wg_bounce_dataplane::limits`.
//!
//! "§" is a section of the WireGuard whitepaper (Donenfeld, NDSS 2017, revision of June 2020);
//! file names are those of the kernel module, drivers/net/wireguard.

use std::time::Duration;

use wg_bounce_dataplane::limits::{KEEPALIVE_TIMEOUT, REJECT_AFTER_TIME, REKEY_TIMEOUT};
use wg_bounce_dataplane::token_bucket::Rate;
use wg_bounce_sys::clock::Millis;

/// `wg-bounce up` waits this long for the addresses of host names before it goes on without them:
/// a resolver that answers does so within a second or two.
pub const RESOLVE_TIME_MAX: Duration = Duration::from_secs(3);

/// Time in which `wg-bounce up` reads a request, which is one short line of root's.
pub const UP_REQUEST_TIME_MAX: Duration = Duration::from_secs(1);
/// Time that a daemon has to end in order; then it is killed.
pub const DAEMON_END_TIME_MAX: Duration = Duration::from_secs(10);
/// Time that a change of a configuration file waits for another one.
pub const EDIT_WAIT_MAX: Duration = Duration::from_secs(5);

/// Interval at which the state file is written while peers have sessions.
pub const STATE_INTERVAL: Millis = Millis::from_secs(60);
/// Age beyond which a state file is not used: after [`REJECT_AFTER_TIME`] the peers have ended its
/// sessions as well.
pub const STATE_AGE_MAX: Millis = REJECT_AFTER_TIME;
/// Time from the first session to the first state file: the others of a start come at once.
pub const STATE_DELAY: Millis = Millis::from_secs(2);
/// Age of a state file below zero that is not an error: the clock was adjusted.
pub const STATE_CLOCK_STEP_MAX: Duration = Duration::from_secs(60);
/// Bytes of a state file at most: 100,000 peers take about 12 MB.
pub const STATE_FILE_LEN_MAX: u64 = 64 << 20;

/// Clients of the status socket at once: monitoring, and a few operators.
pub const STATUS_CLIENTS_MAX: usize = 16;
/// Longest head of an HTTP request for metrics (bytes); Prometheus sends about 200.
#[cfg(feature = "metrics")]
pub const METRICS_HEAD_LEN_MAX: usize = 8192;
/// Age of metrics that are served once more, without asking the control thread; Prometheus asks
/// every 15 seconds or more rarely.
#[cfg(feature = "metrics")]
pub const METRICS_AGE_MAX: Duration = Duration::from_secs(1);
/// The rest of a request that is read before the connection is closed (bytes).
#[cfg(feature = "metrics")]
pub const METRICS_REST_LEN_MAX: u64 = 64 << 10;
/// Clients that receive events at once; the other clients of the status socket have room.
pub const EVENT_CLIENTS_MAX: usize = 8;
/// Events that wait for one client; further ones are missing, and counted.
pub const EVENTS_WAITING_MAX: usize = 1024;
/// Interval of the checks whether a client that waits for events has left.
pub const EVENT_CLIENT_LOOK_INTERVAL: Duration = Duration::from_secs(1);
/// Least time between two lines about keys that no peer has: anybody may send those.
pub const UNKNOWN_LOG_INTERVAL: Millis = Millis::from_secs(1);
/// Reports asked for that wait for the control thread.
pub const STATUS_REQUESTS_MAX: usize = 4;
/// Longest request to the status socket (bytes): the names of 100,000 peers.
pub const STATUS_LINE_LEN_MAX: u64 = 32 << 20;

/// Pause between two attempts to bind a UDP port that another program has taken while the link was
/// down. Short compared with the time in which an operator notices.
pub const BIND_RETRY_INTERVAL: Millis = Millis::from_secs(1);

// Handshakes and timers.

/// Handshakes that one change of many peers begins in a millisecond (a start, a new key, the link
/// comes up): with their responses they cost some 150 to 250 microseconds each, so that this is at
/// most half a core.
pub const BEGUN_PER_MILLI: u64 = 2;

/// A handshake is retried for this long after the last packet was queued for it (§6.4). The
/// kernel module counts 20 attempts instead, about 103 s with jitter.
pub const REKEY_ATTEMPT_TIME: Millis = Millis::from_secs(90);
const _: () = assert!(REKEY_ATTEMPT_TIME.0 > REKEY_TIMEOUT.0);

/// Upper bound of the random delay added to [`REKEY_TIMEOUT`], so that two peers that started at
/// the same moment do not collide again (`REKEY_TIMEOUT_JITTER_MAX_JIFFIES`, messages.h).
pub const REKEY_TIMEOUT_JITTER_MAX: Millis = Millis(333);

/// Handshakes in a row that crossed one of the peer's before one side lets the other go first:
/// jitter separates the first ones, unless the path is slow.
pub const CROSSINGS_MAX: u32 = 2;

/// Keys are zeroed when no new ones were derived for this long (§6.3).
pub const KEYS_ZEROED_AFTER: Millis = Millis(3 * REJECT_AFTER_TIME.0);

/// Minimum time between two processed initiations of one peer (INITIATIONS_PER_SECOND 50,
/// messages.h): bounds the cost of an attacker who holds a peer's key.
pub const INITIATION_SPACING: Millis = Millis(1000 / 50);

/// Step of the timestamps in initiations: the greatest power of two not above
/// [`INITIATION_SPACING`] in nanoseconds (`tai64n_now`, noise.c). A finer step would reveal our
/// clock to observers who hold the key; a coarser one would let timestamps collide.
pub const TIMESTAMP_STEP: Duration = Duration::from_nanos(1 << 24);
const _: () = assert!(TIMESTAMP_STEP.as_millis() <= INITIATION_SPACING.0 as u128);

/// Age at which the secret that cookies are derived from is replaced (§5.4.7).
pub const COOKIE_SECRET_AGE_MAX: Millis = Millis::from_secs(120);
/// A received cookie expires this long before the secret does, to allow for its time in transit
/// (`COOKIE_SECRET_LATENCY`, messages.h).
pub const COOKIE_SECRET_LATENCY: Millis = Millis::from_secs(5);
const _: () = assert!(COOKIE_SECRET_LATENCY.0 < COOKIE_SECRET_AGE_MAX.0);

/// Rate of handshake messages of one source under load: 20 per second, in bursts of 5 (§5.3;
/// `PACKETS_PER_SECOND` and `PACKETS_BURSTABLE`, ratelimiter.c).
pub const RATE: Rate = Rate { cost: Millis(1000 / 20), burst: Millis(5 * (1000 / 20)) };
/// A source silent for this long is forgotten: its bucket is full again.
pub const RATE_ENTRY_AGE_MAX: Millis = Millis::from_secs(1);
const _: () = assert!(RATE_ENTRY_AGE_MAX.0 >= RATE.burst.0);
/// Sources in the rate limiter (entries of about 48 bytes, 3 MiB in all; `max_entries`,
/// ratelimiter.c). While the table is full, new sources are refused: each source has proved its
/// address with a cookie, so a table that fills within a second means that many attacking hosts.
pub const RATE_ENTRIES_MAX: usize = 65_536;

/// The daemon counts as under load for this long after too many messages last waited
/// (`wg_receive_handshake_packet`, receive.c).
pub const UNDER_LOAD_TIME: Millis = Millis::from_secs(1);
/// Work that may wait before the daemon is under load (CPU time in microseconds): a peer that waits
/// for less than [`REKEY_TIMEOUT`] does not notice, while one that gets a cookie waits for all of
/// it. 10,000 peers that start at once are less if a handshake takes less than 300 microseconds.
pub const UNDER_LOAD_WORK_MICROS: u64 = 3_000_000;
const _: () = assert!(UNDER_LOAD_WORK_MICROS < REKEY_TIMEOUT.0 * 1000 * 2 / 3);
/// Time that a message may wait before the daemon is under load: with [`UNDER_LOAD_TIME`] and what
/// else waits, an answer still comes before its sender tries again.
pub const UNDER_LOAD_WAIT: Millis = Millis(3_500);
const _: () = assert!(UNDER_LOAD_WAIT.0 + UNDER_LOAD_TIME.0 < REKEY_TIMEOUT.0);
/// Work that may wait for one source (microseconds): a source that sends more waits for itself
/// alone, and is not load.
pub const SOURCE_WORK_MICROS: u64 = UNDER_LOAD_WORK_MICROS / 3;
/// CPU time of one message, before any was measured (microseconds): four DH.
pub const HANDSHAKE_MICROS_DEFAULT: u64 = 200;
/// Bounds of the measured CPU time (microseconds): no CPU is faster than the one, and the other is
/// far above any.
pub const HANDSHAKE_MICROS_MIN: u64 = 50;
/// See [`HANDSHAKE_MICROS_MIN`].
pub const HANDSHAKE_MICROS_MAX: u64 = 5_000;

/// Work that arrives in a second and keeps the daemon under load (CPU time in microseconds): what
/// a flood brings is answered with cookies, so little of it waits, but a core could not do it. For
/// each thread that computes.
pub const UNDER_LOAD_ARRIVING_MICROS: u64 = 700_000;
/// Time over which that is counted.
pub const ARRIVAL_WINDOW: Millis = Millis(200);
const _: () = assert!(2 * ARRIVAL_WINDOW.0 < UNDER_LOAD_TIME.0);

/// Messages that wait for the control thread, of each kind (about 300 bytes with their place in
/// the queue, 10 MB for each kind): with a fast CPU, about the work of [`UNDER_LOAD_WORK_MICROS`].
pub const WAITING_MAX: usize = 32_768;
/// Time that an initiation may wait for its cookie: its sender sends the next one after 5 s.
pub const STRANGER_WAIT_MAX: Millis = Millis::from_secs(3);
/// Initiations of senders that return, at most, that wait for the control thread (2.5 MB).
pub const RETURNING_MAX: usize = 8192;
/// Sources of initiations that return during a flood, at most, that need no cookie: 0.1 s of work
/// for an idle core.
pub const RETURNING_SOURCES_MAX: usize = 1024;
/// Messages of one source that wait: a thousand peers behind one NAT that restart at once.
pub const WAITING_PER_SOURCE_MAX: usize = 2048;
const _: () = assert!(WAITING_PER_SOURCE_MAX * 4 <= WAITING_MAX);

/// Responses to one initiation that are tried like any other message, though none was authentic:
/// the true one may be damaged once, and a peer with a wrong preshared key fails once.
pub const FORGED_RESPONSES_MAX: u32 = 4;
/// Rate of the responses tried beyond that budget, over all peers: a fifth of a core.
pub const DOUBTFUL_RATE: Rate = Rate { cost: Millis(1), burst: Millis(16) };
/// Such responses that wait (messages).
pub const DOUBTFUL_MAX: usize = 1024;
/// Such responses of one source that wait: at [`DOUBTFUL_RATE`], the true one among them waits for
/// a tenth of a second.
pub const DOUBTFUL_PER_SOURCE_MAX: usize = 64;
/// Doubtful responses without a place in their queue that are answered with a cookie reply in one
/// turn (messages, some ten microseconds each).
pub const DOUBTFUL_COOKIES_PER_TURN: usize = 64;

/// Minimum time between two lines of the log about one peer's refused initiations, or about our
/// clock.
pub const LOG_INTERVAL: Millis = Millis::from_secs(3600);
/// Our wall clock is behind by this much when it is worth a line: less passes before a peer that
/// rejects us has given up.
pub const CLOCK_BEHIND_MIN: Duration = Duration::from_secs(10);
/// Removed peers whose timestamps are remembered (about 60 bytes each).
pub const REMOVED_TIMESTAMPS_MAX: usize = 65_536;
/// Lines of the log about moved prefixes that one `set` writes.
pub const MOVES_LOGGED_MAX: usize = 8;

/// Peers whose timers run in one call of `Device::handle`. Each may cost a handshake of about a
/// tenth of a millisecond; between calls the runtime handles messages and `get` requests.
pub const TIMERS_PER_CALL_MAX: usize = 16;
/// Rounds of one update of a peer: our own notes may raise a flag once, so the second round
/// normally finds none.
pub const UPDATE_ROUNDS_MAX: usize = 4;
/// Timers run in one update of a peer. Each run moves its own deadline, so this only guards against
/// mistakes; the rest runs at the next deadline, which is now.
pub const DUE_PER_UPDATE_MAX: usize = 8;

/// Interval at which the marks of a watched peer are examined. No timer started by a mark is
/// shorter, so none fires late.
pub const LOOK_INTERVAL: Millis = KEEPALIVE_TIMEOUT;

/// Packets that a worker staged for a peer just as it was removed are discarded again after this
/// time, which is longer than any turn of a worker.
pub const REMOVED_PEER_LINGER: Millis = Millis::from_secs(1);

// The control thread's loop. A handshake message costs some hundred microseconds of curve
// arithmetic, the other events a few: all lanes together take about fifteen milliseconds per turn.

/// Cookie replies handled in one turn.
pub const COOKIE_REPLIES_PER_TURN: usize = 256;
/// Notices about peers handled in one turn.
pub const PEERS_PER_TURN: usize = 1024;
/// Handshakes that these notices may begin before the turn goes on.
pub const HANDSHAKES_BEGUN_PER_TURN: u64 = 16;
/// UAPI requests handled in one turn.
pub const REQUESTS_PER_TURN: usize = 16;
/// Peers in one part of the answer to `get`: 0.2 ms of a turn; a connection takes 0.4 MB of memory.
pub const PEERS_PER_ANSWER: usize = 256;
/// Initiations and responses handled in one turn: rejected ones and cookie replies cost some ten
/// microseconds.
pub const MESSAGES_PER_TURN: usize = 256;
/// Of these, messages that cost a DH.
pub const TRIES_PER_TURN: u64 = 16;
/// Messages that wait before helpers compute instead of control: waking one costs some
/// microseconds.
pub const WAITING_ALONE_MAX: usize = 4;
/// Messages that each helper has at a time (about a millisecond of work, if they are initiations).
pub const TASKS_PER_HELPER: usize = 32;
/// Results that wait, or tasks that are left, when a helper wakes the control thread.
pub const TASKS_PER_WAKE: usize = TASKS_PER_HELPER / 2;
/// Added to the nice value of helpers: a core that a worker needs as well is shared 110 to 1,024
/// (`sched_prio_to_weight`, kernel/sched/core.c), for 800 handshakes per second.
pub const HELPER_NICE: i32 = 10;
/// The same for the thread that sends cookie replies: 15 to 1,024. A sender that returns needs no
/// cookie.
pub const COOKIES_NICE: i32 = 19;
/// Threads at most that compute handshakes, unless more are asked for: the control thread cannot
/// install the sessions of more.
pub const HANDSHAKE_THREADS_DEFAULT_MAX: usize = 4;
/// Threads at most that can be asked for.
pub const HANDSHAKE_THREADS_MAX: usize = 64;
/// Static–static DH computed ahead in one turn without other work: half a millisecond.
pub const PREPARED_PER_TURN: usize = 8;

/// Interval between checks whether workers still hold withdrawn sessions.
pub const SWEEP_INTERVAL: Millis = Millis::from_secs(1);

/// Peers listed one by one in the log of counters; a longer list is unreadable.
pub const PEERS_LOGGED_MAX: usize = 256;

/// Longest wait of a start for the name of a daemon that was killed or is ending: the kernel takes
/// some ten milliseconds to release a killed process's interface, more on a busy machine.
pub const NAME_WAIT_MAX: Millis = Millis::from_secs(1);
/// Pause between two attempts to take the name.
pub const NAME_WAIT_PAUSE: Duration = Duration::from_millis(20);

// UAPI.

/// Concurrent UAPI connections: each costs a thread, and only root can connect.
pub const UAPI_CONNECTIONS_MAX: usize = 64;
/// A connection without progress for this long may be closed to make room for another. Longer than
/// `wg` takes from its connection to its request, shorter than a user of `wg` waits.
pub const UAPI_IDLE_MIN: Millis = Millis::from_secs(1);
/// Time between two looks for room while all connections are in use.
pub const UAPI_ROOM_PAUSE: Duration = Duration::from_millis(100);
/// Requests queued for the control thread: at most one per connection.
pub const UAPI_REQUESTS_MAX: usize = UAPI_CONNECTIONS_MAX;
/// Time for a client to complete a request that it began, and to read the reply.
pub const UAPI_REQUEST_TIME_MAX: Millis = Millis::from_secs(30);
/// Bytes read from a UAPI connection at once: a whole request of a few hundred peers.
pub const UAPI_CHUNK_LEN: usize = 64 * 1024;
/// Pause before accepting again when the process has run out of descriptors or memory.
pub const UAPI_ACCEPT_PAUSE: Duration = Duration::from_millis(100);
/// Longest wait for the lock of a socket's name, which a start holds for some milliseconds.
pub const UAPI_LOCK_TIME_MAX: Millis = Millis::from_secs(3);
/// Pause between two attempts to take that lock.
pub const UAPI_LOCK_PAUSE: Duration = Duration::from_millis(10);
/// Connections that may wait to be accepted (the default of the standard library).
pub const UAPI_BACKLOG: i32 = 128;

// Netlink.

/// Bytes of a buffer for one datagram: the kernel sends at most 32 KiB (`netlink_dump`,
/// net/netlink/af_netlink.c).
pub const NETLINK_DATAGRAM_MAX: usize = 64 * 1024;
/// Attempts to dump a table in one consistent state while it keeps changing.
pub const NETLINK_ATTEMPTS_MAX: usize = 16;
/// Table of legacy iptables at most that is copied to follow its rules (bytes; about 5,000 rules):
/// the kernel announces no changes, so it is copied twice a second, in some two milliseconds.
pub const LEGACY_TABLE_MAX: u32 = 768 << 10;
/// Rules of nftables at most that are followed, and jumps in them, in tables with chains on the
/// path of forwarded packets: reading so many takes two seconds, once.
pub const NFTABLES_RULES_MAX: u32 = 100_000;
/// Rules at most that are read while packets may still be relayed by the rules of before, so that a
/// change takes effect within a second: so many take 0.3 s of the kernel's time and ours.
pub const NFTABLES_RULES_AT_ONCE: u32 = 30_000;
/// Walks through the rules of a base chain at most, to tell pairs of addresses apart. (Workers walk
/// through at most as many splits once per flow: some microseconds.)
pub const RULE_WALKS_MAX: usize = 256;
/// Conditions that these walks evaluate, and ranges of addresses that they split, before no more
/// splits are made (some milliseconds); all walks end at twice as many.
pub const RULE_WORK_MAX: usize = 200_000;
/// Connections of TCP that are looked at when rules give some of them back to the kernel.
pub const RETURNED_CONNECTIONS_MAX: usize = 1 << 16;
/// Services at peers that a base chain translates to, by address and protocol, and that are told
/// apart: a worker asks for each of them once per conversation.
pub const TRANSLATED_SERVICES_MAX: usize = 32;
/// Elements of nftables' sets that are read, over all sets; a set beyond that is not understood. A
/// public blocklist has some 15,000 to 50,000; 60,000 take some tens of milliseconds.
pub const NFTABLES_ELEMENTS_MAX: usize = 1 << 16;
/// Names of chains and sets of nftables at most that are remembered because events named them.
pub const ANNOUNCED_NAMES_MAX: usize = 4096;
/// Attempts to read rules of nftables that do not change meanwhile.
pub const NFTABLES_ATTEMPTS_MAX: u32 = 4;
/// Time between two of them: what a transaction may take to prepare.
pub const NFTABLES_ATTEMPT_PAUSE: Duration = Duration::from_millis(20);
/// Event datagrams read at once; poll(2) reports the rest again.
pub const NETLINK_EVENTS_MAX: usize = 4096;

/// Interval between looks at the interface while events do not announce its changes: without the
/// capability to receive those of its namespace, or after an error.
pub const LINK_LOOK_INTERVAL: Millis = Millis::from_secs(1);
/// Attempts to catch up with an interface that is being moved or renamed.
pub const FOLLOW_ATTEMPTS_MAX: usize = 16;

// Relay policy.

/// Interval between reads of state whose changes the kernel does not announce: a change takes
/// effect within a second.
pub const RELAY_POLL_INTERVAL: Millis = Millis(500);
const _: () = assert!(RELAY_POLL_INTERVAL.0 < 1000);
/// Time for which packets stay with the kernel after the last reason of a firewall is gone, if the
/// kernel tracks connections: longer than a firewall needs to be reloaded.
pub const RELAY_SETTLING_TIME: Millis = Millis::from_secs(3);
/// Changes of rules about pairs of addresses at most that are waited for at a time: with more, all
/// packets between peers wait.
pub const RELAY_SETTLING_MAX: usize = 8;
/// Pairs of peers with translated connections at most that are told from others (32 bytes each):
/// with more, all packets between peers wait for the end of these connections.
pub const TRANSLATED_PAIRS_MAX: usize = 65_536;
/// Pause at least between two looks at translated connections, while they keep pairs with the
/// kernel.
pub const CONNECTIONS_PAUSE_MIN: Millis = Millis::from_secs(2);
/// That pause, as a multiple of the CPU time that the last look took.
pub const CONNECTIONS_PAUSES: u64 = 99;
/// Questions about the relay policy that may wait.
pub const RELAY_QUESTIONS_MAX: usize = 16;
/// Time that a command waits for the daemon.
pub const CLIENT_TIME_MAX: Duration = Duration::from_secs(10);
/// Minimum time between two updates: loading a full routing table must not keep the workers busy.
pub const RELAY_UPDATE_INTERVAL: Millis = Millis(10);
/// Time after the rules of nftables were read until they are read again, in multiples of what the
/// reading took: rules that change all the time must not keep a CPU busy.
pub const NFTABLES_PAUSES: u64 = 9;
/// That time at most, so that a change takes effect within a second even if its event is lost,
/// which is noticed at the next look. A reading while all packets are with the kernel waits longer.
pub const NFTABLES_PAUSE_MAX: Millis = Millis(100);
const _: () = assert!(2 * NFTABLES_PAUSE_MAX.0 + RELAY_POLL_INTERVAL.0 < 900);
/// Time between two looks at changes around the UDP sockets, however fast routes change: the
/// workers check source addresses after each (milliseconds).
pub const UPLINK_LOOK_INTERVAL: Millis = Millis(10);
/// Updates queued for the control thread; beyond that, the watch waits for it.
pub const RELAY_UPDATES_MAX: usize = 4;
/// Reasons named in one log line; the others are counted.
pub const RELAY_REASONS_LOGGED_MAX: usize = 3;

// Options and configuration files.

/// Bytes of a configuration file at most: 100,000 peers take about 20 MB.
pub const CONFIG_FILE_MAX: u64 = 256 << 20;

/// Bytes of the longest interface name (`IFNAMSIZ` without its NUL, linux/if.h).
pub const INTERFACE_NAME_LEN_MAX: usize = 15;
