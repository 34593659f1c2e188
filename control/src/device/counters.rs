//! Counters of handshakes and sessions.

/// Handshake events so far.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counters {
    /// Initiations sent.
    pub initiations_sent: u64,
    /// Responses sent.
    pub responses_sent: u64,
    /// Cookie replies, a few of which may find no room to leave.
    pub cookie_replies_sent: u64,
    /// Initiations and responses that cost a DH.
    pub messages_tried: u64,
    /// Sessions that we initiated and that got a response.
    pub sessions_initiated: u64,
    /// Sessions that a peer initiated and confirmed.
    pub sessions_confirmed: u64,
    /// Cookies received.
    pub cookies_received: u64,
    /// Handshakes given up.
    pub given_up: u64,
    /// Messages dropped while the link is down or without a private key.
    pub drop_inactive: u64,
    /// Messages dropped: malformed, or mac1 is wrong.
    pub drop_bad_mac1: u64,
    /// Messages dropped: no handshake with this index awaits one.
    pub drop_unknown_index: u64,
    /// Messages dropped: over the rate limit of their source under load.
    pub drop_rate_limited: u64,
    /// Messages dropped: not authentic, or from an unknown peer.
    pub drop_not_authentic: u64,
    /// Initiations dropped: their timestamp is not new.
    pub drop_replayed: u64,
    /// Initiations dropped: too soon after the peer's last one.
    pub drop_too_soon: u64,
}

impl Counters {
    /// Every counter with its name.
    pub fn list(&self) -> impl Iterator<Item = (&'static str, u64)> {
        [
            ("initiations_sent", self.initiations_sent),
            ("responses_sent", self.responses_sent),
            ("cookie_replies_sent", self.cookie_replies_sent),
            ("messages_tried", self.messages_tried),
            ("sessions_initiated", self.sessions_initiated),
            ("sessions_confirmed", self.sessions_confirmed),
            ("cookies_received", self.cookies_received),
            ("given_up", self.given_up),
            ("drop_inactive", self.drop_inactive),
            ("drop_bad_mac1", self.drop_bad_mac1),
            ("drop_unknown_index", self.drop_unknown_index),
            ("drop_rate_limited", self.drop_rate_limited),
            ("drop_not_authentic", self.drop_not_authentic),
            ("drop_replayed", self.drop_replayed),
            ("drop_too_soon", self.drop_too_soon),
        ]
        .into_iter()
    }
}
