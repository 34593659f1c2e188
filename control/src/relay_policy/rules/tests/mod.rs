//! Ways of packets through rules.

mod judgements;
mod transport;

use wg_bounce_sys::PerFamily;

use super::addresses::Addresses;
use super::judge::judge;
use super::place::{EGRESS, FORWARD, Facts, Hook, POSTROUTING, PREROUTING, Place};
use super::walk::Base;
use super::*;
use crate::relay_policy::kernel::Interface;

fn interface(name: &str) -> Interface {
    Interface { index: 7, name: name.to_owned() }
}

fn peers() -> Addresses {
    let prefixes = ["10.7.0.0/25", "10.7.0.200/32", "fd77::/112"];
    Addresses::new(3, prefixes.map(|prefix| prefix.parse().expect("a prefix")))
}

/// Follows IPv4 packets of wg0 between peers.
fn follow(hook: Hook, chains: &[Chain]) -> Result<bool, Obstacle> {
    follow_named("wg0", hook, chains)
}

fn follow_named(name: &str, hook: Hook, chains: &[Chain]) -> Result<bool, Obstacle> {
    let (interface, addresses) = (interface(name), peers());
    let host_first = PerFamily { v4: true, v6: false };
    let untracked = PerFamily::default();
    let facts = Facts { interface: &interface, addresses: Some(&addresses), host_first, untracked };
    let base = Base { chains, number: 0, hook, translates: false, accepts: true };
    let place = Place::between_peers(&facts, hook, Family::V4);
    walk::find_obstacle(&base, &place, &mut Notes::default())
}

fn name(side: Side, name: &str, is_equal: bool) -> Step {
    let mut name = name.as_bytes().to_vec();
    name.push(0);
    let mask = vec![0xff; name.len()];
    Step::If(Condition::Name { side, name, mask, is_equal })
}

fn unknown() -> Step {
    Step::If(Condition::Unknown)
}

fn end(verdict: Verdict) -> Step {
    Step::End(verdict)
}

/// Chains "0", "1", … of rules "1", "2", …
fn chains(chains: &[&[&[Step]]]) -> Vec<Chain> {
    let rules = |rules: &[&[Step]]| {
        let rules = rules.iter().enumerate();
        let rule = |(at, steps): (usize, &&[Step])| Rule {
            label: (at + 1).to_string(),
            steps: steps.to_vec(),
        };
        std::sync::Arc::new(rules.map(rule).collect())
    };
    let chains = chains.iter().enumerate();
    chains.map(|(at, one)| Chain { name: at.to_string(), rules: rules(one) }).collect()
}

fn walk(list: &[&[&[Step]]]) -> Result<bool, (String, Effect)> {
    let result = follow(FORWARD, &chains(list));
    result.map_err(|found| (found.chain + "." + &found.rule, found.effect))
}

fn drops(rule: &str) -> Result<bool, (String, Effect)> {
    Err((rule.to_owned(), Effect::Drop))
}

const DROP: Step = Step::Do(Effect::Drop);
const ACCEPT: Step = Step::End(Verdict::Accept);

#[test]
fn rules_of_other_interfaces_do_not_matter() {
    assert_eq!(walk(&[&[&[name(Side::Out, "eth0", true), DROP]]]), Ok(true));
    assert_eq!(walk(&[&[&[name(Side::In, "wg0", false), DROP]]]), Ok(true));
    assert_eq!(walk(&[&[&[name(Side::Out, "wg0", true), DROP]]]), drops("0.1"));
    assert_eq!(walk(&[&[&[name(Side::Out, "wg", true), DROP]]]), Ok(true), "another name");
    let wildcard = |text: &str| {
        let (side, is_equal, name) = (Side::In, true, text.as_bytes().to_vec());
        let mask = vec![0xff; name.len()];
        Step::If(Condition::Name { side, name, mask, is_equal })
    };
    assert_eq!(walk(&[&[&[wildcard("wg"), DROP]]]), drops("0.1"));
    assert_eq!(walk(&[&[&[wildcard("eth"), DROP]]]), Ok(true));
}

#[test]
fn what_is_not_known_goes_both_ways() {
    assert_eq!(walk(&[&[&[unknown(), ACCEPT], &[DROP]]]), drops("0.2"));
    assert_eq!(walk(&[&[&[unknown(), DROP], &[ACCEPT]]]), drops("0.1"));
    assert_eq!(walk(&[&[&[unknown(), ACCEPT], &[ACCEPT], &[DROP]]]), Ok(false));
    assert_eq!(walk(&[&[&[unknown(), ACCEPT]]]), Ok(true), "the policy decides");
    assert_eq!(walk(&[&[&[name(Side::In, "wg0", true), ACCEPT], &[DROP]]]), Ok(false));
}

#[test]
fn jumps_come_back_and_gotos_do_not() {
    let jump = || end(Verdict::Jump(1));
    let goto = || end(Verdict::Goto(1));
    let back = || end(Verdict::Return);
    assert_eq!(walk(&[&[&[jump()], &[DROP]], &[&[unknown(), ACCEPT]]]), drops("0.2"));
    assert_eq!(walk(&[&[&[jump()], &[DROP]], &[&[ACCEPT]]]), Ok(false));
    assert_eq!(walk(&[&[&[jump()], &[DROP]], &[&[back()], &[DROP]]]), drops("0.2"));
    assert_eq!(walk(&[&[&[goto()], &[DROP]], &[&[back()], &[DROP]]]), Ok(true));
    assert_eq!(walk(&[&[&[unknown(), goto()], &[DROP]], &[&[ACCEPT]]]), drops("0.2"));
    assert_eq!(walk(&[&[&[jump()]], &[&[unknown(), DROP]]]), drops("1.1"));
    assert_eq!(walk(&[&[&[back()], &[DROP]]]), Ok(true), "to the policy");
}

#[test]
fn a_circle_or_a_jump_to_nowhere_is_not_understood() {
    let unclear = |chain: &str| Err((chain.to_owned(), Effect::Unclear("a jump".into())));
    assert_eq!(walk(&[&[&[end(Verdict::Jump(0))]]]), unclear("0."));
    assert_eq!(walk(&[&[&[end(Verdict::Jump(5))]]]), unclear("?."));
}

#[test]
fn counters_matter_in_rules_without_a_verdict() {
    let counted = Err(("0.1".to_owned(), Effect::Count));
    assert_eq!(walk(&[&[&[Step::Count]]]), counted);
    assert_eq!(walk(&[&[&[unknown(), Step::Count]]]), counted);
    assert_eq!(walk(&[&[&[Step::Count, ACCEPT]]]), Ok(false));
    assert_eq!(walk(&[&[&[name(Side::In, "eth0", true), Step::Count]]]), Ok(true));
    // Counted before the condition.
    assert_eq!(walk(&[&[&[Step::Count, name(Side::In, "eth0", true), ACCEPT]]]), counted);
    assert_eq!(walk(&[&[&[Step::Count, unknown(), ACCEPT]]]), counted);
    assert_eq!(walk(&[&[&[Step::Count, name(Side::In, "wg0", true), ACCEPT]]]), Ok(false));
}

#[test]
fn hooks_know_different_interfaces() {
    let of_eth0 = |side| chains(&[&[&[name(side, "eth0", false), DROP]]]);
    // Before routing the name of the outgoing interface is empty.
    assert!(follow(PREROUTING, &of_eth0(Side::Out)).is_err());
    let to_nothing = chains(&[&[&[name(Side::Out, "wg0", true), DROP]]]);
    assert_eq!(follow(PREROUTING, &to_nothing), Ok(true));
    let not_from_eth0 = chains(&[&[&[name(Side::In, "eth0", false), DROP]]]);
    assert!(follow(EGRESS, &not_from_eth0).is_err());
    let odd = "wg\u{fffd}";
    assert!(follow_named(odd, FORWARD, &not_from_eth0).is_err());
    let from_eth0 = chains(&[&[&[name(Side::In, "eth0", true), DROP]]]);
    assert!(follow_named(odd, FORWARD, &from_eth0).is_err(), "its name is not known");
    assert_eq!(holds(Condition::Index { side: Side::In, index: 7, is_equal: false }), Some(false));
    assert_eq!(holds(Condition::Index { side: Side::In, index: 7, is_equal: true }), Some(true));
    assert_eq!(holds(Condition::Version { version: 10, is_equal: true }), Some(false));
    assert_eq!(holds(Condition::Version { version: 2, is_equal: true }), Some(true));
}

/// Whether a condition holds for IPv4 packets between peers.
fn holds(condition: Condition) -> Option<bool> {
    let of_rule = |condition: &Condition| {
        follow(FORWARD, &chains(&[&[&[Step::If(condition.clone()), ACCEPT], &[DROP]]])).is_ok()
    };
    let never = chains(&[&[&[Step::If(condition.clone()), DROP], &[ACCEPT]]]);
    match (of_rule(&condition), follow(FORWARD, &never).is_ok()) {
        (true, false) => Some(true),
        (false, true) => Some(false),
        _ => None,
    }
}

fn header(offset: usize, value: &[u8], bits: u32) -> Condition {
    let mask = u32::MAX.checked_shl(32 - bits).unwrap_or(0).to_be_bytes();
    let mask = mask[..value.len().min(4)].iter().chain(&[0xff; 8]).take(value.len());
    Condition::Header {
        layer: Layer::Network,
        offset,
        value: value.to_vec(),
        mask: mask.copied().collect(),
        is_equal: true,
    }
}

#[test]
fn both_addresses_are_allowed_ips() {
    for at in [12, 16] {
        assert_eq!(holds(header(at, &[10, 0, 0, 0], 8)), Some(true));
        assert_eq!(holds(header(at, &[172, 17, 0, 0], 16)), Some(false));
        assert_eq!(holds(header(at, &[10, 7, 0, 0], 25)), None, "one peer is elsewhere");
        assert_eq!(holds(header(at, &[10, 7, 0, 128], 26)), Some(false));
        assert_eq!(holds(header(at, &[10, 7, 0, 7], 24)), Some(false), "never equal");
        // As iptables-nft writes a /24: three bytes.
        assert_eq!(holds(header(at, &[10, 7, 0], 32)), Some(true));
        assert_eq!(holds(header(at, &[10, 7, 1], 32)), Some(false));
    }
    // Both at once, as nft(8) joins them; and a byte before them, of which nothing is known.
    assert_eq!(holds(header(12, &[10, 7, 0, 0, 192, 168, 0, 1], 24)), Some(false));
    assert_eq!(holds(header(11, &[1, 10, 7], 32)), None);
    assert_eq!(holds(header(11, &[1, 192, 168], 32)), Some(false));
    assert_eq!(holds(header(9, &[17], 32)), None);
    let odd = Condition::Header {
        layer: Layer::Network,
        offset: 12,
        value: vec![10, 0, 0, 1],
        mask: vec![0xff, 0, 0, 0xff],
        is_equal: true,
    };
    assert_eq!(holds(odd), None, "the mask of no prefix");
}

#[test]
fn packets_between_peers_have_no_mark_and_are_not_for_the_host() {
    for is_equal in [true, false] {
        assert_eq!(holds(Condition::Mark { value: 0x4000, is_equal }), Some(!is_equal));
        assert_eq!(holds(Condition::Mark { value: 0, is_equal }), Some(is_equal));
        assert_eq!(holds(Condition::ToHost { is_equal }), Some(!is_equal));
    }
    for (length, expected) in [(20, Some(true)), (21, None), (40, None)] {
        assert_eq!(holds(Condition::Length(length)), expected);
    }
    let impure = chains(&[&[&[Step::If(Condition::Unclear("recent".into())), ACCEPT]]]);
    let found = follow(FORWARD, &impure).expect_err("it may keep state");
    assert_eq!(found.effect, Effect::Unclear("match recent".into()));
}

/// Facts that a result depends on are noted on every way, whatever the result.
#[test]
fn the_walk_says_what_it_asked_for() {
    let needs = |conditions: &[Condition]| {
        let steps: Vec<Step> = conditions.iter().cloned().map(Step::If).chain([DROP]).collect();
        let (interface, addresses) = (interface("wg0"), peers());
        let host_first = PerFamily { v4: true, v6: true };
        let untracked = PerFamily::default();
        let facts =
            Facts { interface: &interface, addresses: Some(&addresses), host_first, untracked };
        let list = chains(&[&[&steps]]);
        let base =
            Base { chains: &list, number: 0, hook: FORWARD, translates: false, accepts: true };
        let mut notes = Notes::default();
        let place = Place::between_peers(&facts, FORWARD, Family::V4);
        let _ = walk::find_obstacle(&base, &place, &mut notes);
        (notes.needs.addresses, notes.exceptions.without_header)
    };
    assert_eq!(needs(&[Condition::Unknown]), (false, false));
    assert_eq!(needs(&[header(12, &[10, 0, 0, 0], 8)]), (true, false));
    assert_eq!(needs(&[Condition::Transport]), (false, true));
    assert_eq!(needs(&[header(9, &[17], 32)]), (false, true));
    let elsewhere = header(12, &[192, 168, 0, 0], 16);
    assert_eq!(needs(&[elsewhere, Condition::Transport]), (true, false), "not reached");
}

#[test]
fn translations_to_a_peer_matter_whatever_the_destination() {
    let find = |hook: Hook, step: Step| {
        let of_others = Condition::ToHost { is_equal: true };
        let list = chains(&[&[&[Step::If(of_others), step]]]);
        let (interface, addresses) = (interface("wg0"), peers());
        let host_first = PerFamily { v4: true, v6: true };
        let untracked = PerFamily::default();
        let facts =
            Facts { interface: &interface, addresses: Some(&addresses), host_first, untracked };
        let find = |translates| {
            let base = Base { chains: &list, number: 0, hook, translates, accepts: true };
            judge(&base, &facts, Family::V4, &mut Needs::default()).causes
        };
        assert_eq!(find(false), []);
        !find(true).is_empty()
    };
    let to = |first: u32, last: u32| {
        let address = NewAddress::Within(Family::V4, first.into(), last.into());
        Step::Translate("DNAT".into(), address, NewPort::Same)
    };
    let (peer, container) = (0x0a07_0003, 0xac11_0002);
    assert!(!find(FORWARD, to(peer, peer)));
    assert!(find(PREROUTING, to(peer, peer)));
    assert!(!find(PREROUTING, to(container, container)));
    assert!(find(PREROUTING, to(0x0a00_0000, 0x0aff_ffff)), "a range with peers");
    let any = Step::Translate("NETMAP".into(), NewAddress::Any, NewPort::Same);
    assert!(find(PREROUTING, any));
    let own = || Step::Translate("REDIRECT".into(), NewAddress::OfHost, NewPort::Any);
    assert!(!find(PREROUTING, own()));
    assert!(!find(POSTROUTING, own()));
    assert!(find(POSTROUTING, to(peer, peer)));
    assert!(!find(PREROUTING, Step::Do(Effect::Apply("LOG".into()))));
    assert!(find(PREROUTING, Step::Do(Effect::Apply("FULLCONENAT".into()))));
    assert!(!find(PREROUTING, DROP));
}

/// A condition that holds (true), does not, or may.
fn known(holds: Option<bool>) -> Condition {
    match holds {
        Some(is_equal) => Condition::Mark { value: 0, is_equal },
        None => Condition::Unknown,
    }
}

#[test]
fn ranges_and_elements_are_known_as_far_as_addresses_are() {
    let range = |offset: usize, first: [u8; 4], last: [u8; 4]| Condition::Within {
        layer: Layer::Network,
        bytes: offset..offset + 4,
        ranges: Arc::new(Ranges::new(vec![
            [first, last].map(|one| addresses::number(&one)).into(),
        ])),
        is_within: true,
    };
    for at in [12, 16] {
        assert_eq!(holds(range(at, [10, 7, 0, 0], [10, 7, 0, 200])), Some(true));
        assert_eq!(holds(range(at, [10, 7, 0, 0], [10, 7, 0, 199])), None);
        assert_eq!(holds(range(at, [10, 7, 0, 128], [10, 7, 0, 199])), Some(false));
    }
    assert_eq!(holds(range(8, [0; 4], [255; 4])), None, "no address");
    let any = |list: &[&[Option<bool>]], is_in, may_expire| {
        let element = |element: &&[Option<bool>]| element.iter().copied().map(known).collect();
        let elements = list.iter().map(element).collect();
        holds(Condition::AnyOf { elements, is_in, may_expire })
    };
    let (yes, no) = (Some(true), Some(false));
    assert_eq!(any(&[], true, false), no);
    assert_eq!(any(&[], false, false), yes);
    assert_eq!(any(&[&[no], &[yes]], true, false), yes);
    assert_eq!(any(&[&[no], &[None]], true, false), None);
    assert_eq!(any(&[&[yes, no], &[no, None]], true, false), no);
    assert_eq!(any(&[&[yes, yes], &[None]], false, false), no);
    assert_eq!(any(&[&[yes]], true, true), None, "it may expire");
    assert_eq!(any(&[&[no]], true, true), no);
}

#[test]
fn the_verdict_of_a_map_is_that_of_the_key() {
    let choose = |cases: &[(Option<bool>, Step)], otherwise: Option<Step>| {
        let cases = cases.iter().map(|(holds, step)| (known(*holds), step.clone())).collect();
        let map = Step::Choose { cases, otherwise: otherwise.map(Box::new) };
        walk(&[&[&[map], &[end(Verdict::Accept)]], &[&[DROP]]])
    };
    let (yes, no) = (Some(true), Some(false));
    assert_eq!(choose(&[(no, DROP), (yes, ACCEPT)], None), Ok(false));
    assert_eq!(choose(&[(no, ACCEPT), (yes, DROP)], None), drops("0.1"));
    assert_eq!(choose(&[(None, ACCEPT), (None, DROP)], None), drops("0.1"));
    assert_eq!(choose(&[(None, DROP), (yes, ACCEPT)], None), drops("0.1"), "ranges may overlap");
    assert_eq!(choose(&[(yes, ACCEPT), (None, DROP)], None), drops("0.1"));
    assert_eq!(choose(&[(no, DROP)], None), Ok(false));
    assert_eq!(choose(&[(no, ACCEPT)], Some(DROP)), drops("0.1"));
    assert_eq!(choose(&[(yes, ACCEPT)], Some(DROP)), Ok(false));
    assert_eq!(choose(&[(None, end(Verdict::Jump(1)))], None), drops("1.1"));
    assert_eq!(choose(&[(None, end(Verdict::Return))], None), Ok(true), "to the policy");
}

#[test]
fn clamps_leave_segments_with_syn_to_the_kernel() {
    let clamp = || Step::Clamp("TCPMSS".to_owned());
    let syn = || Step::If(Condition::Syn);
    let applies = Err(("0.1".to_owned(), Effect::Apply("TCPMSS".into())));
    assert_eq!(walk(&[&[&[syn(), clamp()], &[ACCEPT]]]), Ok(false));
    assert_eq!(walk(&[&[&[syn(), Step::Count, clamp(), Step::Count]]]), Ok(true), "it counts too");
    assert_eq!(walk(&[&[&[syn(), clamp()], &[DROP]]]), drops("0.2"));
    assert_eq!(walk(&[&[&[clamp()]]]), applies);
    assert_eq!(walk(&[&[&[unknown(), clamp()]]]), applies);
    assert_eq!(walk(&[&[&[syn(), DROP]]]), drops("0.1"), "no clamp");
}
