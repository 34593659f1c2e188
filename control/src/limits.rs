//! Every limit of handshakes and timers: its unit, where it comes from, and why it has this
//! value. Those that the packet path shares are in `wg_bounce_dataplane::limits`.
//!
//! "§" is a section of the WireGuard whitepaper (Donenfeld, NDSS 2017, revision of June 2020);
//! file names are those of the kernel module, drivers/net/wireguard.

use std::time::Duration;

use wg_bounce_dataplane::limits::{KEEPALIVE_TIMEOUT, REJECT_AFTER_TIME, REKEY_TIMEOUT};
use wg_bounce_dataplane::token_bucket::Rate;
use wg_bounce_sys::clock::Millis;

/// How long a handshake is tried since something was last queued for it (§6.4). The kernel
/// module counts 20 attempts instead, which with jitter is about 103 s.
pub const REKEY_ATTEMPT_TIME: Millis = Millis::from_secs(90);
const _: () = assert!(REKEY_ATTEMPT_TIME.0 > REKEY_TIMEOUT.0);

/// Up to this much is added to [`REKEY_TIMEOUT`] at random, so that two peers that began at the
/// same moment do not collide again (`REKEY_TIMEOUT_JITTER_MAX_JIFFIES`, messages.h).
pub const REKEY_TIMEOUT_JITTER_MAX: Millis = Millis(333);

/// Keys are forgotten when no new ones were derived for this long (§6.3).
pub const KEYS_ZEROED_AFTER: Millis = Millis(3 * REJECT_AFTER_TIME.0);

/// Least time between two initiations that one peer may have processed (INITIATIONS_PER_SECOND
/// 50, messages.h): an attacker who holds a peer's key costs this much at most.
pub const INITIATION_SPACING: Millis = Millis(1000 / 50);

/// Step of the timestamps in initiations: the greatest power of two not above
/// [`INITIATION_SPACING`] in nanoseconds (`tai64n_now`, noise.c). Finer ones would tell
/// observers with the key how our clock runs, and coarser ones would collide.
pub const TIMESTAMP_STEP: Duration = Duration::from_nanos(1 << 24);
const _: () = assert!(TIMESTAMP_STEP.as_millis() <= INITIATION_SPACING.0 as u128);

/// Age at which the secret that cookies are derived from is replaced (§5.4.7).
pub const COOKIE_SECRET_AGE_MAX: Millis = Millis::from_secs(120);
/// A received cookie is used this much shorter than its secret lives, for what was long on its
/// way (`COOKIE_SECRET_LATENCY`, messages.h).
pub const COOKIE_SECRET_LATENCY: Millis = Millis::from_secs(5);
const _: () = assert!(COOKIE_SECRET_LATENCY.0 < COOKIE_SECRET_AGE_MAX.0);

/// The rate of handshake messages of one source under load: 20 per second, in bursts of 5 (§5.3;
/// `PACKETS_PER_SECOND` and `PACKETS_BURSTABLE`, ratelimiter.c).
pub const RATE: Rate = Rate { cost: Millis(1000 / 20), burst: Millis(5 * (1000 / 20)) };
/// A source that was silent for this long is forgotten: its bucket is full again.
pub const RATE_ENTRY_AGE_MAX: Millis = Millis::from_secs(1);
const _: () = assert!(RATE_ENTRY_AGE_MAX.0 >= RATE.burst.0);
/// Sources remembered at most (entries of about 48 bytes, so 3 MiB; `max_entries`,
/// ratelimiter.c). New sources are refused while the table is full: they have proven their
/// address by a cookie, so a table full within a second is an attack by that many hosts.
pub const RATE_ENTRIES_MAX: usize = 65_536;

/// Peers whose timers run in one call of `Device::handle`. Each may cost a handshake of about a
/// tenth of a millisecond, and between calls the runtime serves messages and `get`s.
pub const TIMERS_PER_CALL_MAX: usize = 16;

/// While a peer is watched its marks are looked at this often. No timer that a mark can start is
/// shorter, so none is late.
pub const LOOK_INTERVAL: Millis = KEEPALIVE_TIMEOUT;

/// Once more after this long, packets are dropped that a worker staged for a peer just as it was
/// removed. Any turn of a worker is shorter.
pub const REMOVED_PEER_LINGER: Millis = Millis::from_secs(1);
