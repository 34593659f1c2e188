//! The text of a rule, much as nft(8) writes it, also if it is one of iptables(8): for people, who
//! look for it among others.

use std::fmt::Write as _;

use wg_bounce_dataplane::ip::{ICMP, ICMPV6, TCP, UDP};
use wg_bounce_dataplane::ranges::Ranges;
use wg_bounce_sys::Family;

use super::addresses::number;
use super::{Chain, Condition, Effect, Layer, NewAddress, NewPort, Rule, Side, Step, Verdict};
use crate::address_number::address;

/// Longest text (characters).
const LENGTH_MAX: usize = 120;
/// Numbers of a set that are listed.
const NUMBERS_MAX: usize = 3;
/// Something that has no text here.
const ELLIPSIS: &str = "…";

impl Rule {
    /// Its text, for example `iifname "wg0" ip saddr 10.7.0.2 drop`. `chains`: those of its table.
    pub fn text(&self, chains: &[Chain]) -> String {
        let mut words: Vec<String> = Vec::new();
        for step in &self.steps {
            let word = match step {
                Step::If(condition) => self::condition(condition),
                Step::Count => None,
                Step::Choose { .. } => Some("vmap { … }".to_owned()),
                Step::Do(effect) => Some(self::effect(effect)),
                Step::Clamp(name) | Step::Translate(name, NewAddress::OfHost, _) => {
                    Some(name.clone())
                }
                Step::Translate(name, address, port) => Some(translation(name, *address, *port)),
                Step::Untrack => Some("notrack".to_owned()),
                Step::End(verdict) => Some(self::verdict(*verdict, chains)),
            };
            // Several parts that have no text are one.
            words.extend(word.filter(|word| word != ELLIPSIS || words.last() != Some(word)));
        }
        let text = words.join(" ");
        match text.char_indices().nth(LENGTH_MAX) {
            Some((end, _)) => text[..end].to_owned() + ELLIPSIS,
            None => text,
        }
    }
}

fn verdict(verdict: Verdict, chains: &[Chain]) -> String {
    let name = |index: usize| chains.get(index).map_or("?", |chain| chain.name.as_str());
    match verdict {
        Verdict::Accept => "accept".to_owned(),
        Verdict::Return => "return".to_owned(),
        Verdict::Jump(to) => format!("jump {}", name(to)),
        Verdict::Goto(to) => format!("goto {}", name(to)),
    }
}

fn effect(effect: &Effect) -> String {
    match effect {
        Effect::Drop => "drop".to_owned(),
        Effect::Count => "counter".to_owned(),
        Effect::Apply(name) | Effect::TranslateOther(name) | Effect::Unclear(name) => name.clone(),
    }
}

fn translation(name: &str, address: NewAddress, port: NewPort) -> String {
    let mut text = match address {
        NewAddress::Within(family, first, last) => {
            let width = if family == Family::V4 { 4 } else { 16 };
            format!("{name} to {}", range(width, true, first, last))
        }
        NewAddress::OfHost | NewAddress::Any => name.to_owned(),
    };
    // Writing to a string cannot fail.
    let _ = match port {
        NewPort::Within(first, last) if first == last => write!(text, ", port {first}"),
        NewPort::Within(first, last) => write!(text, ", port {first}-{last}"),
        NewPort::Same | NewPort::Any => Ok(()),
    };
    text
}

/// None: it says nothing about the rule.
fn condition(condition: &Condition) -> Option<String> {
    let not = |is: &bool| if *is { "" } else { "!= " };
    Some(match condition {
        Condition::Name { side, name, mask, is_equal } => {
            let end = name.iter().position(|byte| *byte == 0).unwrap_or(name.len());
            let is_whole = mask.get(end).is_some_and(|byte| *byte != 0) || end == 16;
            let (text, star) =
                (String::from_utf8_lossy(&name[..end]), if is_whole { "" } else { "*" });
            format!("{}name {}\"{text}{star}\"", device(*side), not(is_equal))
        }
        Condition::Index { side, index, is_equal } => {
            format!("{} {}{index}", device(*side), not(is_equal))
        }
        Condition::Version { version, is_equal } => {
            let version = if i32::from(*version) == libc::NFPROTO_IPV4 { "ipv4" } else { "ipv6" };
            format!("meta nfproto {}{version}", not(is_equal))
        }
        Condition::Header { layer, offset, value, mask, is_equal } => {
            let (name, is_address, width) = field(*layer, *offset, value.len());
            let bits = 8 * width as u32;
            // The bytes that are not there count for nothing.
            let shift = bits.saturating_sub(8 * value.len() as u32);
            let (value, mask) = (number(value) << shift, number(mask) << shift);
            let length = mask.count_ones();
            let text = if length == bits {
                range(width, is_address, value, value)
            } else {
                format!("{}/{length}", range(width, is_address, value, value))
            };
            format!("{name} {}{}", not(is_equal), named(&name, text))
        }
        Condition::Within { layer, bytes, ranges, is_within } => {
            let (name, is_address, width) = field(*layer, bytes.start, bytes.len());
            let list = set(width, is_address, ranges, &name);
            format!("{name} {}{list}", not(is_within))
        }
        Condition::AnyOf { elements, is_in, .. } => match elements.as_slice() {
            [one] if one.len() == 1 && *is_in => self::condition(&one[0])?,
            [one] if one.len() == 1 => format!("not in {}", self::condition(&one[0])?),
            elements => {
                format!("{}in a set of {}", if *is_in { "" } else { "not " }, elements.len())
            }
        },
        Condition::Mark { value, is_equal } => format!("meta mark {}{value:#x}", not(is_equal)),
        Condition::ToHost { is_equal } => format!("fib daddr type {}local", not(is_equal)),
        Condition::Length(_) | Condition::Transport => return None,
        Condition::Extension => "exthdr".to_owned(),
        Condition::Syn => "tcp flags syn".to_owned(),
        Condition::State { .. } => format!("ct state {ELLIPSIS}"),
        Condition::Pure(name) | Condition::Unclear(name) => format!("{name} {ELLIPSIS}"),
        Condition::Unknown => ELLIPSIS.to_owned(),
    })
}

fn device(side: Side) -> &'static str {
    match side {
        Side::In => "iif",
        Side::Out => "oif",
    }
}

/// The name of a field, whether it is an address, and its length (bytes).
fn field(layer: Layer, offset: usize, length: usize) -> (String, bool, usize) {
    let (name, is_address, length) = match (layer, offset, length) {
        (Layer::Network, 12, 1..=4) => ("ip saddr", true, 4),
        (Layer::Network, 16, 1..=4) => ("ip daddr", true, 4),
        (Layer::Network, 8, 5..=16) => ("ip6 saddr", true, 16),
        (Layer::Network, 24, 5..=16) => ("ip6 daddr", true, 16),
        (Layer::Network, 9, 1) => ("ip protocol", false, 1),
        (Layer::Network, 6, 1) => ("ip6 nexthdr", false, 1),
        (Layer::Protocol, ..) => ("meta l4proto", false, 1),
        (Layer::Transport, 0, 1) => ("icmp type", false, 1),
        (Layer::Transport, 0, 2) => ("th sport", false, 2),
        (Layer::Transport, 2, 2) => ("th dport", false, 2),
        _ => return (format!("@{layer:?},{offset}").to_lowercase(), false, length),
    };
    (name.to_owned(), is_address, length)
}

/// The names of protocols that people know.
fn named(field: &str, text: String) -> String {
    if !matches!(field, "ip protocol" | "ip6 nexthdr" | "meta l4proto") {
        return text;
    }
    let names = [(ICMP, "icmp"), (TCP, "tcp"), (UDP, "udp"), (ICMPV6, "ipv6-icmp")];
    let name = names.iter().find(|(number, _)| number.to_string() == text);
    name.map_or(text, |(_, name)| (*name).to_owned())
}

fn set(width: usize, is_address: bool, ranges: &Ranges, field: &str) -> String {
    let all = ranges.as_slice();
    let one = |(first, last): &(u128, u128)| named(field, range(width, is_address, *first, *last));
    match all {
        [only] => one(only),
        _ => {
            let list: Vec<String> = all.iter().take(NUMBERS_MAX).map(one).collect();
            let more = all.len().saturating_sub(NUMBERS_MAX);
            let more = if more > 0 { format!(", and {more} more") } else { String::new() };
            format!("{{ {}{more} }}", list.join(", "))
        }
    }
}

fn range(width: usize, is_address: bool, first: u128, last: u128) -> String {
    let one = |value: u128| match (is_address, width) {
        (true, 4) => address(value, Family::V4).to_string(),
        (true, _) => address(value, Family::V6).to_string(),
        (false, _) => value.to_string(),
    };
    if first == last { one(first) } else { format!("{}-{}", one(first), one(last)) }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;

    #[test]
    fn rules_are_shown_as_nft_writes_them() {
        let header = |layer, offset, value: &[u8], mask: &[u8], is_equal| {
            let (value, mask) = (value.to_vec(), mask.to_vec());
            Step::If(Condition::Header { layer, offset, value, mask, is_equal })
        };
        let name = |side, name: &[u8], is_equal| {
            let mask = vec![0xff; name.len()];
            Step::If(Condition::Name { side, name: name.to_vec(), mask, is_equal })
        };
        let within = |offset: usize, list: &[(u128, u128)]| {
            let ranges = Arc::new(Ranges::new(list.to_vec()));
            let (layer, bytes) = (Layer::Transport, offset..offset + 2);
            Step::If(Condition::Within { layer, bytes, ranges, is_within: true })
        };
        let transport = || Step::If(Condition::Transport);
        let pure = |name: &str| Step::If(Condition::Pure(name.into()));
        let unknown = || Step::If(Condition::Unknown);
        let v6 = [&[0xfd, 0x77][..], &[0; 14]].concat();
        let mask = [&[0xff; 8][..], &[0; 8]].concat();
        let to = NewAddress::Within(Family::V4, 0x0a07_0003, 0x0a07_0003);
        for (steps, expected) in [
            (
                vec![
                    name(Side::In, b"wg0\0", true),
                    name(Side::Out, b"eth", false),
                    header(Layer::Network, 12, &[10, 7, 0, 2], &[0xff; 4], true),
                    header(Layer::Network, 16, &[10, 7], &[0xff; 2], false),
                    transport(),
                    header(Layer::Protocol, 0, &[6], &[0xff], true),
                    within(2, &[(25, 25)]),
                    Step::Count,
                    Step::Do(Effect::Drop),
                ],
                "iifname \"wg0\" oifname != \"eth*\" ip saddr 10.7.0.2 ip daddr != 10.7.0.0/16 \
                 meta l4proto tcp th dport 25 drop",
            ),
            (
                vec![
                    header(Layer::Network, 8, &v6, &mask, true),
                    pure("ct"),
                    unknown(),
                    unknown(),
                    Step::End(Verdict::Jump(0)),
                ],
                "ip6 saddr fd77::/64 ct … … jump own",
            ),
            (
                vec![
                    within(0, &[(1, 2), (4, 4), (7, 7), (9, 9), (11, 11)]),
                    Step::Translate("DNAT".into(), to, NewPort::Within(80, 80)),
                ],
                "th sport { 1-2, 4, 7, and 2 more } DNAT to 10.7.0.3, port 80",
            ),
            (vec![pure("conntrack"), Step::End(Verdict::Accept)], "conntrack … accept"),
        ] {
            let chains = [Chain { name: "own".into(), ..Chain::default() }];
            assert_eq!(Rule { label: "1".into(), steps }.text(&chains), expected);
        }
    }
}
