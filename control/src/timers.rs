//! The next deadline of one peer, computed from the marks that the packet path leaves and from the
//! timers that control has started (§6; timers.c). Pure arithmetic, no queue.

use wg_bounce_dataplane::limits::{KEEPALIVE_TIMEOUT, REKEY_TIMEOUT};
use wg_bounce_dataplane::peer::Marks;
use wg_bounce_dataplane::session::Lifetime;
use wg_bounce_sys::clock::Millis;

use crate::limits::{
    INITIATION_SPACING, KEYS_ZEROED_AFTER, LOOK_INTERVAL, REKEY_ATTEMPT_TIME,
    REKEY_TIMEOUT_JITTER_MAX,
};

/// All intervals of the protocol. Tests shorten them; everything else uses the default.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Timings {
    /// The ages of a session.
    pub lifetime: Lifetime,
    /// Time between two attempts of one handshake, before jitter.
    pub rekey_timeout: Millis,
    /// Jitter is drawn below this.
    pub jitter_max: Millis,
    /// Time after which a handshake is given up.
    pub attempt_time: Millis,
    /// Time after which a keepalive answers received data if nothing else was sent.
    pub keepalive_timeout: Millis,
    /// Age at which keys are zeroed.
    pub keys_zeroed_after: Millis,
    /// Minimum time between two processed initiations of one peer.
    pub initiation_spacing: Millis,
    /// Interval at which the marks of a watched peer are examined; at most `keepalive_timeout`.
    pub look_interval: Millis,
}

impl Default for Timings {
    fn default() -> Self {
        Timings {
            lifetime: Lifetime::default(),
            rekey_timeout: REKEY_TIMEOUT,
            jitter_max: REKEY_TIMEOUT_JITTER_MAX,
            attempt_time: REKEY_ATTEMPT_TIME,
            keepalive_timeout: KEEPALIVE_TIMEOUT,
            keys_zeroed_after: KEYS_ZEROED_AFTER,
            initiation_spacing: INITIATION_SPACING,
            look_interval: LOOK_INTERVAL,
        }
    }
}

impl Timings {
    /// Every interval divided by `divisor`, to at least one millisecond: for tests only. Timestamps
    /// stay as coarse as they are, and still grow for each peer.
    pub fn shortened(divisor: u64) -> Timings {
        let shorter = |span: Millis| Millis((span.0 / divisor).max(1));
        let whole = Timings::default();
        Timings {
            lifetime: Lifetime {
                rekey_after: shorter(whole.lifetime.rekey_after),
                last_minute_after: shorter(whole.lifetime.last_minute_after),
                reject_after: shorter(whole.lifetime.reject_after),
            },
            rekey_timeout: shorter(whole.rekey_timeout),
            jitter_max: shorter(whole.jitter_max),
            attempt_time: shorter(whole.attempt_time),
            keepalive_timeout: shorter(whole.keepalive_timeout),
            keys_zeroed_after: shorter(whole.keys_zeroed_after),
            initiation_spacing: shorter(whole.initiation_spacing),
            look_interval: shorter(whole.look_interval),
        }
    }
}

/// Due actions; when several are due, they are carried out in this order.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Due {
    /// Zero old keys.
    ZeroKeys,
    /// The link, the key or the configuration changed: start what waited for it.
    Kick,
    /// Retransmit an initiation: no response arrived.
    Retransmit,
    /// Start a handshake: data was sent, and nothing was received since.
    Unanswered,
    /// Send a keepalive: data was received, and nothing was sent since.
    OwedKeepalive,
    /// Send a persistent keepalive: nothing was sent or received for the configured interval.
    PersistentKeepalive,
}

/// Timers that control has started for one peer. All times are of the boot clock.
#[derive(Clone, Copy, Debug, Default)]
pub struct Timers {
    /// Time of the next attempt of the handshake.
    pub retransmit_at: Option<Millis>,
    /// Time at which the current handshake was started, or last requested.
    pub attempts_since: Millis,
    /// Time at which the keys are zeroed.
    pub zero_keys_at: Option<Millis>,
    /// Time at which to start what waited.
    pub kick_at: Option<Millis>,
    /// Whether a kick sends a keepalive.
    pub kick_keepalive: bool,
    /// Jitter of the next handshake started because nothing was received.
    pub unanswered_jitter: Millis,
    /// Start of the persistent keepalive interval, unless a later message was exchanged.
    pub keepalive_base: Millis,
    /// Time at which to examine the marks of a watched peer; none if it is not watched.
    pub look_at: Option<Millis>,
}

impl Timers {
    /// The next due action and its time. `persistent` is the keepalive interval, zero for none.
    pub fn earliest(
        &self,
        marks: &Marks,
        timings: &Timings,
        persistent: Millis,
    ) -> Option<(Millis, Due)> {
        let set = |mark: Millis| (mark != Millis::ZERO).then_some(mark);
        let silence = timings.keepalive_timeout + timings.rekey_timeout + self.unanswered_jitter;
        let last_traversal = marks.last_sent.max(marks.last_received).max(self.keepalive_base);
        [
            (self.zero_keys_at, Due::ZeroKeys),
            (self.kick_at, Due::Kick),
            (self.retransmit_at, Due::Retransmit),
            (set(marks.unanswered_since).map(|since| since + silence), Due::Unanswered),
            (
                set(marks.owed_since).map(|since| since + timings.keepalive_timeout),
                Due::OwedKeepalive,
            ),
            (set(persistent).map(|interval| last_traversal + interval), Due::PersistentKeepalive),
        ]
        .into_iter()
        .filter_map(|(at, due)| Some((at?, due)))
        .min()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn earliest(timers: &Timers, marks: &Marks, persistent: u64) -> Option<(Millis, Due)> {
        timers.earliest(marks, &Timings::default(), Millis::from_secs(persistent))
    }

    #[test]
    fn an_idle_peer_has_no_deadline() {
        let marks = Marks { last_sent: Millis(5), last_received: Millis(6), ..Marks::default() };
        assert_eq!(earliest(&Timers::default(), &marks, 0), None);
    }

    #[test]
    fn marks_start_their_timers() {
        let mut marks = Marks { owed_since: Millis(1000), ..Marks::default() };
        let timers = Timers { unanswered_jitter: Millis(100), ..Timers::default() };
        assert_eq!(earliest(&timers, &marks, 0), Some((Millis(11_000), Due::OwedKeepalive)));
        marks = Marks { unanswered_since: Millis(1000), ..Marks::default() };
        assert_eq!(earliest(&timers, &marks, 0), Some((Millis(16_100), Due::Unanswered)));
    }

    #[test]
    fn persistent_keepalives_count_from_the_last_message() {
        let marks =
            Marks { last_sent: Millis(9000), last_received: Millis(7000), ..Marks::default() };
        let timers = Timers { keepalive_base: Millis(8000), ..Timers::default() };
        let expected = Some((Millis(34_000), Due::PersistentKeepalive));
        assert_eq!(earliest(&timers, &marks, 25), expected);
    }

    #[test]
    fn shortened_spans_keep_their_order() {
        let short = Timings::shortened(100);
        assert_eq!(short.rekey_timeout, Millis(50));
        assert!(short.look_interval <= short.keepalive_timeout);
        assert!(short.lifetime.rekey_after < short.lifetime.last_minute_after);
        assert!(short.lifetime.last_minute_after < short.lifetime.reject_after);
    }
}
