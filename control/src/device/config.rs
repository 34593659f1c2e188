//! The changes of a UAPI `set` (netlink.c: `wg_set_device`, `set_peer`).
//!
//! Workers see the changed tables when the snapshot is published at the end of the `set`.
//! Handshakes and keepalives that a change calls for start then too, so the order of lines does
//! not matter.

use std::collections::VecDeque;
use std::sync::Arc;

use ipnet::IpNet;
use wg_bounce_dataplane::peer::{Peer, PeerId};
use wg_bounce_sys::Endpoint;
use wg_bounce_sys::clock::Millis;
use wg_bounce_uapi::types::{AllowedIp, Change, PeerChange, SecretKey};
use zeroize::Zeroizing;

use super::io::{LogEvent, Now, Output};
use super::peer_entry::{PeerEntry, StaticStatic};
use super::spread::Spread;
use super::staged::discard_staged;
use super::state::{Before, Core, Device, Own, Transaction};
use super::timing::forget_source;
use crate::cookie::Checker;
use crate::limits::{MOVES_LOGGED_MAX, REMOVED_PEER_LINGER, REMOVED_TIMESTAMPS_MAX};
use crate::noise::Identity;
use crate::tai64n::Timestamp;

impl Device {
    /// Starts a `set`.
    pub fn begin_set(&mut self) {
        self.transaction = Transaction::default();
    }

    /// Applies one change of the current `set`. Ignores the listen port and the fwmark, which
    /// are not part of the device.
    pub fn apply(&mut self, change: Change, now: Now, out: &mut Vec<Output>) {
        match change {
            Change::PrivateKey(key) => self.set_private_key(key, out),
            Change::ReplacePeers => self.transaction.doomed = self.peers.keys().copied().collect(),
            Change::Peer(change) => self.change_peer(change, now, out),
            Change::ListenPort(_) | Change::Fwmark(_) => {}
        }
    }

    /// Ends the `set`: removes the peers that it left out, publishes the tables, starts due timers.
    pub fn end_set(&mut self, now: Now, out: &mut Vec<Output>) {
        for id in std::mem::take(&mut self.transaction.doomed) {
            self.remove_peer(id, out);
        }
        let transaction = std::mem::take(&mut self.transaction);
        self.log_moved(&transaction, out);
        self.core.forget_old_timestamps(now);
        if transaction.publish || !transaction.removed.is_empty() {
            out.push(Output::Publish);
        }
        let until = now.monotonic + REMOVED_PEER_LINGER;
        for peer in transaction.removed {
            discard_staged(&peer, out);
            self.lingering.push_back((until, peer));
        }
        let is_active = self.core.is_active();
        let mut spread = Spread::new(now.monotonic);
        if transaction.has_new_key && is_active {
            for entry in self.peers.values_mut() {
                self.remembered.recall(entry, now.monotonic);
                entry.kick(true, &mut spread);
                self.core.schedule(entry);
            }
        }
        self.remembered.sweep(now.monotonic);
        for (id, before) in transaction.touched {
            let Some(entry) = self.peers.get_mut(&id) else { continue };
            if is_active {
                self.remembered.recall(entry, now.monotonic);
                let is_new = !before.had_keepalive
                    || (!before.had_endpoint && entry.shared.endpoint().is_some());
                entry.kick(is_new, &mut spread);
            }
            self.core.schedule(entry);
        }
    }

    /// Forgets the source addresses of all peers, as after a change of port or fwmark (`set_port`
    /// in drivers/net/wireguard/netlink.c).
    pub fn forget_sources(&self) {
        self.peers.values().for_each(|entry| forget_source(entry));
    }

    /// A new key is a new identity: all sessions end, and a peer with our own key is removed.
    fn set_private_key(&mut self, key: Option<SecretKey>, out: &mut Vec<Output>) {
        let key = key.filter(|key| **key != [0; 32]);
        match (&self.core.own, &key) {
            (None, None) => return,
            (Some(own), Some(key)) if own.identity.is(key) => return,
            _ => {}
        }
        let dh = self.core.settings.dh;
        let identity = key.map(|key| Identity::with(dh, &key));
        if let Some(identity) = &identity
            && let Some(&id) = self.by_key.get(identity.public())
        {
            self.remove_peer(id, out);
        }
        for entry in self.peers.values_mut() {
            entry.static_static = StaticStatic::Unknown;
            self.core.reset_peer(entry, out);
            self.core.queue.set(entry.shared.id, &mut entry.queued, None);
        }
        self.unprepared = match &identity {
            Some(_) => self.peers.keys().copied().collect(),
            None => VecDeque::new(),
        };
        self.transaction.has_new_key = identity.is_some();
        self.core.own = identity.map(|identity| {
            let checker = Checker::new(identity.public());
            Own { identity: Arc::new(identity), checker }
        });
        self.transaction.publish = true;
    }

    fn change_peer(&mut self, change: PeerChange, now: Now, out: &mut Vec<Output>) {
        let own = self.core.own.as_ref();
        if own.is_some_and(|own| own.identity.public() == &change.public_key) {
            return;
        }
        let known = self.by_key.get(&change.public_key).copied();
        let present = known.filter(|id| !self.transaction.doomed.contains(id));
        if change.remove {
            if let Some(id) = present {
                self.remove_peer(id, out);
            }
            return;
        }
        if present.is_none() && change.update_only {
            return;
        }
        let id = match known {
            Some(id) => id,
            None => self.add_peer(change.public_key, now.monotonic),
        };
        let entry = self.peers.get_mut(&id).expect("found or added above");
        self.transaction.touched.entry(id).or_insert(Before {
            had_keepalive: entry.persistent_keepalive != 0,
            had_endpoint: entry.shared.endpoint().is_some(),
        });
        if self.transaction.doomed.remove(&id) {
            // The peer keeps its session and its last endpoint; its settings are reset.
            entry.psk = Zeroizing::new([0; 32]);
            entry.persistent_keepalive = 0;
            self.clear_allowed_ips(id);
        }
        self.change_settings(id, change);
    }

    fn change_settings(&mut self, id: PeerId, change: PeerChange) {
        let entry = self.peers.get_mut(&id).expect("the caller found it");
        if let Some(psk) = change.preshared_key {
            entry.psk = psk;
        }
        if let Some(remote) = change.endpoint
            && entry.shared.endpoint().is_none_or(|endpoint| endpoint.remote != remote)
        {
            entry.shared.set_endpoint(Endpoint { remote, source: None });
        }
        if let Some(seconds) = change.persistent_keepalive {
            entry.persistent_keepalive = seconds;
        }
        if change.replace_allowed_ips {
            self.replace_allowed_ips(id, &change.allowed_ips);
        }
        for AllowedIp { prefix, remove } in change.allowed_ips {
            if remove {
                self.remove_allowed_ip(id, prefix.trunc());
            } else {
                self.insert_allowed_ip(id, prefix.trunc());
            }
        }
    }

    fn add_peer(&mut self, public_key: [u8; 32], now: Millis) -> PeerId {
        let id = PeerId(self.next_id);
        self.next_id = self.next_id.checked_add(1).expect("four billion peers were never added");
        let mut entry = Box::new(PeerEntry::new(Arc::new(Peer::new(id, public_key))));
        entry.timers.keepalive_base = now;
        if let Some(timestamp) = self.core.removed_timestamps.remove(&public_key) {
            entry.last_timestamp_sent = timestamp;
        }
        self.peers.insert(id, entry);
        if self.core.own.is_some() {
            self.unprepared.push_back(id);
        }
        self.by_key.insert(public_key, id);
        id
    }

    fn remove_peer(&mut self, id: PeerId, out: &mut Vec<Output>) {
        self.clear_allowed_ips(id);
        let Some(mut entry) = self.peers.remove(&id) else { return };
        self.by_key.remove(&entry.shared.public_key);
        self.remembered.forget(&entry.shared.public_key);
        self.core.clear_sessions(&mut entry, out);
        self.core.queue.set(id, &mut entry.queued, None);
        if entry.last_timestamp_sent != Timestamp::default() {
            let (key, sent) = (entry.shared.public_key, entry.last_timestamp_sent);
            self.core.removed_timestamps.insert(key, sent);
        }
        self.transaction.doomed.remove(&id);
        self.transaction.touched.remove(&id);
        self.transaction.removed.push(entry.shared);
    }

    /// Removes the prefixes that the new list lacks; the others stay in the table untouched.
    fn replace_allowed_ips(&mut self, id: PeerId, list: &[AllowedIp]) {
        let entry = &self.peers[&id];
        if list.is_empty() {
            return self.clear_allowed_ips(id);
        }
        let stays: std::collections::HashSet<IpNet> =
            list.iter().filter(|ip| !ip.remove).map(|ip| ip.prefix.trunc()).collect();
        let goes: Vec<IpNet> =
            entry.allowed_ips.prefixes().filter(|prefix| !stays.contains(prefix)).collect();
        for prefix in goes {
            self.remove_allowed_ip(id, prefix);
        }
    }

    fn clear_allowed_ips(&mut self, id: PeerId) {
        let Some(entry) = self.peers.get_mut(&id) else { return };
        for prefix in std::mem::take(&mut entry.allowed_ips).prefixes() {
            self.routes.remove(prefix);
            self.allowed_ips_version += 1;
            self.transaction.publish = true;
        }
    }

    /// Assigns a prefix to a peer. A prefix has one owner, so its previous owner loses it.
    fn insert_allowed_ip(&mut self, id: PeerId, prefix: IpNet) {
        let entry = self.peers.get_mut(&id).expect("the caller found it");
        if !entry.allowed_ips.insert(prefix, self.allowed_ips_inserted) {
            return;
        }
        self.allowed_ips_inserted += 1;
        self.transaction.publish = true;
        let Some(previous) = self.routes.insert(prefix, Arc::clone(&entry.shared)) else {
            self.allowed_ips_version += 1;
            return;
        };
        if let Some(loser) = self.peers.get_mut(&previous.id) {
            loser.allowed_ips.remove(&prefix);
            let Transaction { doomed, moved, moved_count, .. } = &mut self.transaction;
            if doomed.contains(&previous.id) {
                return;
            }
            *moved_count += 1;
            if moved.len() < MOVES_LOGGED_MAX {
                moved.push((prefix, previous.id, id));
            }
        }
    }

    /// Logs the prefixes that a `set` took from one peer for another. A file that lists the same
    /// prefix for two peers is a common mistake, and the kernel module is silent about it.
    fn log_moved(&self, transaction: &Transaction, out: &mut Vec<Output>) {
        for (prefix, from, to) in &transaction.moved {
            // A peer that the same `set` has removed misses nothing.
            if let (Some(from), Some(to)) = (self.peers.get(from), self.peers.get(to)) {
                let (from, to) = (Arc::clone(&from.shared), Arc::clone(&to.shared));
                out.push(Output::Log(LogEvent::PrefixMoved { prefix: *prefix, from, to }));
            }
        }
        let more = transaction.moved_count - transaction.moved.len();
        if more != 0 {
            out.push(Output::Log(LogEvent::MorePrefixesMoved(more)));
        }
    }

    fn remove_allowed_ip(&mut self, id: PeerId, prefix: IpNet) {
        let entry = self.peers.get_mut(&id).expect("the caller found it");
        if entry.allowed_ips.remove(&prefix) {
            self.routes.remove(prefix);
            self.allowed_ips_version += 1;
            self.transaction.publish = true;
        }
    }
}

impl Core {
    /// Bounds the memory of removed peers: drops the timestamps that the clock has passed, and all
    /// if that is not enough.
    fn forget_old_timestamps(&mut self, now: Now) {
        if self.removed_timestamps.len() <= REMOVED_TIMESTAMPS_MAX {
            return;
        }
        let wall = Timestamp::whitened(now.wall);
        self.removed_timestamps.retain(|_, sent| *sent >= wall);
        if self.removed_timestamps.len() > REMOVED_TIMESTAMPS_MAX {
            self.removed_timestamps.clear();
        }
    }
}
