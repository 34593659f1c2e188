//! What `wg-bounce top` shows, and how keys change it. Pure.

use std::cmp::Reverse;
use std::collections::{HashMap, VecDeque};

use crate::commands::show;
use crate::status::report::{Counters, Peer, Report, drops};

/// The seconds of a peer's history.
const HISTORY_LEN: usize = 30;

/// The order of peers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Order {
    /// Most bytes per second first.
    Rate,
    /// By name, or else by key.
    Name,
    /// Newest handshake first.
    Handshake,
    /// Most drops first.
    Drops,
}

impl Order {
    fn next(self) -> Order {
        match self {
            Order::Rate => Order::Name,
            Order::Name => Order::Handshake,
            Order::Handshake => Order::Drops,
            Order::Drops => Order::Rate,
        }
    }

    /// As in the title.
    pub(super) fn name(self) -> &'static str {
        match self {
            Order::Rate => "rate",
            Order::Name => "name",
            Order::Handshake => "handshake",
            Order::Drops => "drops",
        }
    }
}

/// A key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Key {
    /// A character.
    Character(char),
    /// Return.
    Enter,
    /// Escape.
    Escape,
    /// Backspace.
    Backspace,
    /// So many lines down, or up if negative.
    Move(isize),
}

/// A line of the table.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Line {
    /// The name, or else the key.
    pub title: String,
    /// The address and port, if known.
    pub endpoint: String,
    /// The time since the last handshake.
    pub handshake: String,
    /// From the peer.
    pub received: String,
    /// To the peer.
    pub sent: String,
    /// Both, over the last seconds.
    pub history: String,
    /// Dropped packets.
    pub dropped: u64,
}

/// The state of the view.
pub(super) struct Model {
    now: Report,
    before: Option<Report>,
    /// Bytes per second of each peer, by public key; the newest last.
    history: HashMap<String, VecDeque<u64>>,
    /// The order of peers.
    pub order: Order,
    /// Peers must have this in their name, key or endpoint.
    pub filter: String,
    /// The filter is being typed.
    pub is_typing: bool,
    /// The first line that is shown.
    pub first: usize,
    /// The reason why the last request has failed.
    pub failure: Option<String>,
}

impl Model {
    /// The view of a first report.
    pub fn new(report: Report) -> Model {
        Model {
            now: report,
            before: None,
            history: HashMap::new(),
            order: Order::Rate,
            filter: String::new(),
            is_typing: false,
            first: 0,
            failure: None,
        }
    }

    /// The newest report.
    pub fn report(&self) -> &Report {
        &self.now
    }

    /// Takes a later report.
    pub fn update(&mut self, report: Report) {
        self.failure = None;
        let before = std::mem::replace(&mut self.now, report);
        let seconds = self.now.time - before.time;
        let earlier = peers_of(&before);
        let mut history = std::mem::take(&mut self.history);
        for peer in &self.now.peers {
            let rate = earlier.get(peer.public_key.as_str()).map_or(0, |earlier| {
                let bytes = total(peer).saturating_sub(total(earlier));
                if seconds > 0.0 { (bytes as f64 / seconds) as u64 } else { 0 }
            });
            let rates = history.remove(&peer.public_key).unwrap_or_default();
            let rates = self.history.entry(peer.public_key.clone()).or_insert(rates);
            rates.push_back(rate);
            if rates.len() > HISTORY_LEN {
                rates.pop_front();
            }
        }
        self.before = Some(before);
        self.clamp();
    }

    /// Handles a key; false to end.
    pub fn handle(&mut self, key: Key) -> bool {
        match key {
            Key::Move(lines) => self.first = self.first.saturating_add_signed(lines),
            Key::Enter | Key::Escape if self.is_typing => {
                self.is_typing = false;
                if key == Key::Escape {
                    self.filter.clear();
                }
            }
            Key::Backspace if self.is_typing => drop(self.filter.pop()),
            Key::Character(letter) if self.is_typing => self.filter.push(letter),
            Key::Character('q') | Key::Escape => return false,
            Key::Character('s') => self.order = self.order.next(),
            Key::Character('/') => {
                self.is_typing = true;
                self.filter.clear();
            }
            _ => {}
        }
        self.clamp();
        true
    }

    /// Keeps a peer in sight, where any is left.
    fn clamp(&mut self) {
        self.first = self.first.min(self.shown().len().saturating_sub(1));
    }

    /// The lines of the table. `wall` is the time since the Unix epoch (seconds).
    pub fn lines(&self, wall: u64) -> Vec<Line> {
        let before = self.before.as_ref().map(|report| (report.time, peers_of(report)));
        let line = |peer: &&Peer| {
            let rate = |of: fn(&Peer) -> u64| {
                let (time, peers) = before.as_ref()?;
                let earlier = peers.get(peer.public_key.as_str())?;
                let seconds = self.now.time - time;
                let bytes = of(peer).saturating_sub(of(earlier));
                (seconds > 0.0 && bytes > 0).then(|| show::bit_rate(bytes, seconds))
            };
            Line {
                title: title(peer).to_owned(),
                endpoint: peer.endpoint.map(|one| one.to_string()).unwrap_or_default(),
                handshake: match peer.latest_handshake {
                    0 => "never".to_owned(),
                    at => show::ago_text(wall.saturating_sub(at)),
                },
                received: rate(|peer| peer.received).unwrap_or_default(),
                sent: rate(|peer| peer.sent).unwrap_or_default(),
                history: self.history.get(&peer.public_key).map(sparkline).unwrap_or_default(),
                dropped: dropped(&peer.counters),
            }
        };
        self.shown().iter().map(line).collect()
    }

    /// Packets per second of each worker; none before the second report.
    pub fn loads(&self) -> Vec<u64> {
        let Some(before) = &self.before else { return Vec::new() };
        let seconds = self.now.time - before.time;
        let count = |counters: &Counters| {
            let of = |name: &str| counters.get(name).copied().unwrap_or(0);
            of("received_datagrams") + of("tun_frames_read")
        };
        let workers = self.now.workers.iter().zip(&before.workers);
        let rate = |(now, before)| {
            let packets: u64 = count(now).saturating_sub(count(before));
            if seconds > 0.0 { (packets as f64 / seconds) as u64 } else { 0 }
        };
        workers.map(rate).collect()
    }

    /// The bytes that all peers sent and received since the report before, and the seconds.
    pub fn totals(&self) -> Option<(u64, u64, f64)> {
        let before = self.before.as_ref()?;
        let sum = |report: &Report, of: fn(&Peer) -> u64| report.peers.iter().map(of).sum::<u64>();
        let bytes = |of| sum(&self.now, of).saturating_sub(sum(before, of));
        let seconds = self.now.time - before.time;
        (seconds > 0.0).then(|| (bytes(|peer| peer.received), bytes(|peer| peer.sent), seconds))
    }

    /// The peers that pass the filter, in order.
    fn shown(&self) -> Vec<&Peer> {
        let filter = self.filter.to_lowercase();
        let passes = |peer: &&Peer| {
            let endpoint = peer.endpoint.map(|one| one.to_string()).unwrap_or_default();
            let name = peer.name.as_deref().unwrap_or_default().to_lowercase();
            name.contains(&filter)
                || peer.public_key.to_lowercase().contains(&filter)
                || endpoint.contains(&filter)
        };
        let mut peers: Vec<&Peer> = self.now.peers.iter().filter(passes).collect();
        let rate = |peer: &&Peer| {
            let rates = self.history.get(&peer.public_key);
            Reverse(rates.and_then(|rates| rates.back().copied()).unwrap_or(0))
        };
        match self.order {
            Order::Rate => peers.sort_by_key(rate),
            Order::Name => peers.sort_by_key(|peer| title(peer).to_lowercase()),
            Order::Handshake => peers.sort_by_key(|peer| Reverse(peer.latest_handshake)),
            Order::Drops => peers.sort_by_key(|peer| Reverse(dropped(&peer.counters))),
        }
        peers
    }
}

fn peers_of(report: &Report) -> HashMap<&str, &Peer> {
    report.peers.iter().map(|peer| (peer.public_key.as_str(), peer)).collect()
}

fn title(peer: &Peer) -> &str {
    peer.name.as_deref().unwrap_or(&peer.public_key)
}

fn total(peer: &Peer) -> u64 {
    peer.received + peer.sent
}

/// The packets that were dropped, for whatever reason.
pub(super) fn dropped(counters: &Counters) -> u64 {
    drops(counters).map(|(_, count)| count).sum()
}

/// A bar for each value, as high as it is beside the highest.
fn sparkline(values: &VecDeque<u64>) -> String {
    const BARS: [char; 8] = ['▁', '▂', '▃', '▄', '▅', '▆', '▇', '█'];
    let highest = values.iter().max().copied().unwrap_or(0).max(1);
    let bar = |value: &u64| match value {
        0 => ' ',
        value => BARS[((value * 8).div_ceil(highest) as usize - 1).min(BARS.len() - 1)],
    };
    values.iter().map(bar).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn report(time: f64, peers: &[(&str, u64, u64)]) -> Report {
        let peer = |(name, bytes, drops): &(&str, u64, u64)| Peer {
            public_key: format!("KEY{name}="),
            name: Some((*name).to_owned()),
            has_preshared_key: false,
            endpoint: Some("192.0.2.1:7".parse().expect("an endpoint")),
            allowed_ips: Vec::new(),
            latest_handshake: 60 + drops,
            received: *bytes,
            sent: 0,
            persistent_keepalive: 0,
            counters: Counters::from([("drop_replayed".to_owned(), *drops)]),
        };
        let counters = Counters::from([("received_datagrams".to_owned(), time as u64 * 5)]);
        Report {
            time,
            peers: peers.iter().map(peer).collect(),
            workers: vec![counters],
            ..Report::default()
        }
    }

    fn titles(model: &Model) -> Vec<String> {
        model.lines(100).into_iter().map(|line| line.title).collect()
    }

    #[test]
    fn peers_are_sorted_and_filtered_by_keys() {
        let mut model =
            Model::new(report(10.0, &[("carol", 0, 0), ("Alice", 0, 9), ("bob", 0, 1)]));
        model.update(report(12.0, &[("carol", 10, 0), ("Alice", 0, 9), ("bob", 2000, 1)]));
        assert_eq!(titles(&model), ["bob", "carol", "Alice"], "by rate");
        let first = &model.lines(100)[0];
        assert_eq!((first.received.as_str(), first.sent.as_str()), ("8.0 kbit/s", ""));
        assert_eq!((first.history.as_str(), first.handshake.as_str()), ("█", "39 seconds ago"));
        assert_eq!(model.loads(), [5]);
        for (expected, why) in [
            (["Alice", "bob", "carol"], "by name"),
            (["Alice", "bob", "carol"], "by handshake"),
            (["Alice", "bob", "carol"], "by drops"),
        ] {
            assert!(model.handle(Key::Character('s')));
            assert_eq!(titles(&model), expected, "{why}");
        }
        for letter in "/AL".chars() {
            assert!(model.handle(Key::Character(letter)));
        }
        assert_eq!(titles(&model), ["Alice"]);
        for key in [Key::Backspace, Key::Backspace, Key::Character('q'), Key::Enter] {
            assert!(model.handle(key));
        }
        assert!(titles(&model).is_empty() && model.filter == "q");
        assert!(model.handle(Key::Character('/')) && model.handle(Key::Escape));
        assert_eq!(titles(&model).len(), 3);
        assert!(model.handle(Key::Move(10)));
        assert_eq!(model.first, 2);
        assert!(model.handle(Key::Move(-10)) && model.first == 0);
        assert!(!model.handle(Key::Character('q')) && !model.handle(Key::Escape));
    }

    #[test]
    fn bars_are_as_high_as_their_values() {
        assert_eq!(sparkline(&VecDeque::from([0, 1, 4, 8])), " ▁▄█");
        assert_eq!(sparkline(&VecDeque::from([0, 0])), "  ");
    }
}
