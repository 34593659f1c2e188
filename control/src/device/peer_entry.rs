//! Everything known about one peer, except for the part that is shared with the workers.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use wg_bounce_dataplane::peer::Peer;
use wg_bounce_dataplane::session::SendSession;
use wg_bounce_sys::clock::Millis;
use wg_bounce_uapi::types::{PeerState, SecretKey};
use zeroize::Zeroizing;

use super::allowed_ips::AllowedIps;
use super::io::Now;
use super::spread::Spread;
use crate::cookie::CookieSigner;
use crate::noise::{Identity, Initiated, Secret};
use crate::tai64n::Timestamp;
use crate::timers::Timers;

/// One configured peer.
pub(super) struct PeerEntry {
    pub(super) shared: Arc<Peer>,
    /// All zeros: none.
    pub(super) psk: SecretKey,
    pub(super) static_static: StaticStatic,
    pub(super) cookie_signer: CookieSigner,
    /// Seconds; zero means off.
    pub(super) persistent_keepalive: u16,
    /// The prefixes of this peer.
    pub(super) allowed_ips: AllowedIps,
    /// The worker that receives this peer's sessions. Kept across rekeys: a change would reorder
    /// flows.
    pub(super) worker: Option<usize>,
    /// Our handshake that awaits its response.
    pub(super) handshake: Option<Box<Initiated>>,
    /// Responses to it that were not authentic.
    pub(super) forged_responses: u32,
    /// Handshakes of ours in a row that an initiation of the peer has crossed.
    pub(super) crossings: u32,
    pub(super) sessions: Sessions,
    /// The greatest timestamp received (§5.1). Kept until the peer is removed.
    pub(super) greatest_received: Timestamp,
    pub(super) last_initiation_received: Option<Millis>,
    /// Time at which an initiation with an old timestamp was last logged.
    pub(super) logged_stale: Option<Millis>,
    /// The greatest timestamp sent. Survives the removal of the peer, since the peer remembers it.
    pub(super) last_timestamp_sent: Timestamp,
    /// Time at which an initiation or response was last sent. Within `rekey_timeout` after it, no
    /// initiation is sent.
    pub(super) last_handshake_sent: Option<Millis>,
    /// The last-minute handshake of the current session was started.
    pub(super) began_last_minute: bool,
    /// Time of the last complete handshake since the Unix epoch; zero if none.
    pub(super) last_handshake: Duration,
    pub(super) timers: Timers,
    /// The peer's deadline in the queue.
    pub(super) queued: Option<Millis>,
    /// The times of the last message sent and received, as of the last look at the marks.
    pub(super) seen: (Millis, Millis),
}

/// The sessions of one peer. The previous one only receives.
#[derive(Default)]
pub(super) struct Sessions {
    /// Our index of the session before the current one, for messages still in flight.
    pub(super) previous: Option<u32>,
    /// The session that we send with.
    pub(super) current: Option<Arc<SendSession>>,
    /// A session that the peer initiated but has not confirmed: it must not be used to send.
    pub(super) next: Option<Arc<SendSession>>,
}

/// The DH of both static keys: computed ahead or on first use, then cached.
#[derive(Default)]
pub(super) enum StaticStatic {
    #[default]
    Unknown,
    /// The peer's public key is of low order: no handshake is possible.
    Refused,
    Known(Secret),
}

impl StaticStatic {
    pub(super) fn get(&mut self, identity: &Identity, remote: &[u8; 32]) -> Option<&Secret> {
        self.learn(|| identity.static_static(remote));
        match self {
            StaticStatic::Known(secret) => Some(secret),
            StaticStatic::Unknown | StaticStatic::Refused => None,
        }
    }

    /// Keeps what `compute` returns, unless it is known already.
    pub(super) fn learn(&mut self, compute: impl FnOnce() -> Option<Secret>) {
        if let StaticStatic::Unknown = self {
            *self = compute().map_or(StaticStatic::Refused, StaticStatic::Known);
        }
    }
}

impl PeerEntry {
    pub(super) fn new(shared: Arc<Peer>) -> PeerEntry {
        PeerEntry {
            psk: Zeroizing::new([0; 32]),
            static_static: StaticStatic::Unknown,
            cookie_signer: CookieSigner::new(&shared.public_key),
            persistent_keepalive: 0,
            allowed_ips: AllowedIps::default(),
            worker: None,
            handshake: None,
            forged_responses: 0,
            crossings: 0,
            sessions: Sessions::default(),
            greatest_received: Timestamp::default(),
            last_initiation_received: None,
            logged_stale: None,
            last_timestamp_sent: Timestamp::default(),
            last_handshake_sent: None,
            began_last_minute: false,
            last_handshake: Duration::ZERO,
            timers: Timers::default(),
            queued: None,
            seen: (Millis::ZERO, Millis::ZERO),
            shared,
        }
    }

    /// Schedules the start of pending work at the next time of `spread`. With `keepalive`, it sends
    /// one if persistent keepalives are on.
    pub(super) fn kick(&mut self, keepalive: bool, spread: &mut Spread) {
        let timers = &mut self.timers;
        timers.kick_keepalive |= keepalive && self.persistent_keepalive != 0;
        if timers.kick_keepalive || self.shared.staged.load(Ordering::Relaxed) != 0 {
            // One that is due already keeps its place.
            let at = *timers.kick_at.get_or_insert_with(|| spread.next());
            // The next persistent keepalive follows this one.
            timers.keepalive_base = timers.keepalive_base.max(at);
        }
    }

    /// The interval of persistent keepalives; zero if they are off or the endpoint is unknown.
    pub(super) fn persistent_interval(&self) -> Millis {
        if self.persistent_keepalive == 0 || self.shared.endpoint().is_none() {
            return Millis::ZERO;
        }
        Millis::from_secs(u64::from(self.persistent_keepalive))
    }

    /// Whether there is a session to send with.
    pub(super) fn can_send(&self, now: Millis) -> bool {
        self.sessions.current.as_ref().is_some_and(|session| session.is_alive(now))
    }

    /// Whether data sent now requires a handshake (§6.2, §6.3).
    pub(super) fn needs_handshake(&self, now: Millis) -> bool {
        match &self.sessions.current {
            Some(session) => !session.is_alive(now) || session.wants_rekey(now),
            None => true,
        }
    }

    /// Whether data received now requires a handshake (§6.2: once per session).
    pub(super) fn needs_last_minute_handshake(&self, now: Millis) -> bool {
        !self.began_last_minute
            && self
                .sessions
                .current
                .as_ref()
                .is_some_and(|session| session.info.wants_last_minute_rekey(now))
    }

    /// The state of the peer as reported by `get`.
    pub(super) fn state(&self) -> PeerState {
        PeerState {
            public_key: self.shared.public_key,
            preshared_key: self.psk.clone(),
            endpoint: self.shared.endpoint().map(|endpoint| endpoint.remote),
            last_handshake: (self.last_handshake.as_secs(), self.last_handshake.subsec_nanos()),
            tx_bytes: self.shared.counters.sent_bytes.read(),
            rx_bytes: self.shared.counters.received_bytes.read(),
            persistent_keepalive: self.persistent_keepalive,
            allowed_ips: self.allowed_ips.in_order(),
        }
    }

    /// Records that both ends have the session (timers.c: `wg_timers_handshake_complete`).
    pub(super) fn complete_handshake(&mut self, now: Now) {
        self.timers.retransmit_at = None;
        self.crossings = 0;
        self.began_last_minute = false;
        self.last_handshake = now.wall;
    }
}
