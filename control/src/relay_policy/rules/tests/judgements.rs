//! Judgements about base chains: which pairs of addresses are left to the kernel.

use wg_bounce_dataplane::pairs::{Packets, between};

use wg_bounce_sys::clock::thread_micros;

use super::*;
use crate::relay_policy::rules::judge::Cause;

/// Judges IPv4 packets of wg0 between peers, at FORWARD: the obstacles, and whether the kernel gets
/// all packets between two peers.
fn judged(list: &[&[&[Step]]], accepts: bool) -> (Vec<String>, impl Fn(u8, u8) -> bool + use<>) {
    let (interface, addresses) = (interface("wg0"), peers());
    let host_first = PerFamily { v4: true, v6: true };
    let untracked = PerFamily::default();
    let facts = Facts { interface: &interface, addresses: Some(&addresses), host_first, untracked };
    let chains = chains(list);
    let base = Base { chains: &chains, number: 0, hook: FORWARD, translates: true, accepts };
    let judgement = judge(&base, &facts, Family::V4, &mut Needs::default());
    let label = |cause: &Cause| match cause {
        Cause::Rule(obstacle) => format!("{}.{}", obstacle.chain, obstacle.rule),
        Cause::Policy => "policy".to_owned(),
    };
    let pairs = judgement.pairs;
    let is_by_kernel = move |one: u8, other: u8| {
        let [one, other] = [one, other].map(|host| [10, 7, 0, host].into());
        between(&pairs, &Packets::from_to(one, other)).least.all
    };
    (judgement.causes.iter().map(label).collect(), is_by_kernel)
}

fn host(at: usize, host: u8) -> Step {
    Step::If(header(at, &[10, 7, 0, host], 32))
}

#[test]
fn a_drop_between_two_peers_is_about_these_two() {
    let rules = [&[host(12, 2), host(16, 3), DROP][..]];
    let (causes, is_by_kernel) = judged(&[&rules], true);
    assert_eq!(causes, ["0.1"]);
    for (one, other, expected) in
        [(2, 3, true), (3, 2, true), (2, 4, false), (4, 3, false), (5, 6, false)]
    {
        assert_eq!(is_by_kernel(one, other), expected, "{one} and {other}");
    }
}

#[test]
fn a_policy_of_drop_is_about_the_pairs_that_no_rule_accepts() {
    let established = &[unknown(), ACCEPT][..];
    let one = &[host(12, 2), host(16, 3), ACCEPT][..];
    let other = &[host(12, 3), host(16, 2), ACCEPT][..];
    let (causes, is_by_kernel) = judged(&[&[established, one, other]], false);
    assert_eq!(causes, ["policy"]);
    assert!(!is_by_kernel(2, 3) && is_by_kernel(2, 4) && is_by_kernel(4, 5));
    // In one direction only the replies are accepted: the kernel must see both.
    let (_, is_by_kernel) = judged(&[&[established, one]], false);
    assert!(is_by_kernel(2, 3));
}

#[test]
fn a_chain_for_each_peer_and_lists_are_told_apart() {
    let jump = |to: usize, at: u8| vec![host(12, at), end(Verdict::Jump(to))];
    let (first, second) = (jump(1, 2), jump(2, 3));
    let (of_second, to_drop) = ([host(16, 4), DROP], [DROP]);
    let list: &[&[&[Step]]] = &[&[&first, &second], &[&of_second], &[&to_drop]];
    let (causes, is_by_kernel) = judged(list, true);
    assert_eq!(causes, ["1.1", "2.1"]);
    assert!(is_by_kernel(2, 4) && is_by_kernel(3, 9) && is_by_kernel(9, 3));
    assert!(!is_by_kernel(2, 9) && !is_by_kernel(4, 9));
    let elements = (20..120).map(|at| vec![header(16, &[10, 7, 0, at], 32)]).collect();
    let blocked = Condition::AnyOf { elements, is_in: true, may_expire: true };
    let (causes, is_by_kernel) = judged(&[&[&[Step::If(blocked), DROP]]], true);
    assert_eq!(causes, ["0.1"], "one split by the whole list");
    assert!(is_by_kernel(1, 20) && is_by_kernel(119, 1) && is_by_kernel(20, 21));
    assert!(!is_by_kernel(1, 19) && !is_by_kernel(1, 120));
}

#[test]
fn what_is_not_about_addresses_is_about_all_pairs() {
    let (causes, is_by_kernel) = judged(&[&[&[host(12, 2), unknown(), DROP], &[DROP]]], true);
    assert_eq!(causes, ["0.1", "0.2"]);
    assert!(is_by_kernel(2, 3) && is_by_kernel(4, 5));
}

/// A rule for each of 300 pairs: those that no split tells apart are left to the kernel together.
#[test]
fn too_many_rules_about_pairs_are_about_all_others() {
    let rule = |at: u8, to: u8| vec![host(12, at), host(16, to), DROP];
    let rules: Vec<Vec<Step>> =
        (0..100).flat_map(|at| (1..4).map(move |more| rule(at, at + more))).collect();
    let rules: Vec<&[Step]> = rules.iter().map(Vec::as_slice).collect();
    let (_, is_by_kernel) = judged(&[&rules], true);
    for at in 0..100 {
        assert!(is_by_kernel(at, at + 1) && is_by_kernel(at + 3, at), "{at}");
    }
    assert!(!is_by_kernel(10, 25), "the first rules are told apart");
    assert!(is_by_kernel(99, 120), "and the last are not");
}

/// Splits of too many addresses are not followed, and what they would have told apart is left to
/// the kernel, with the cause.
#[test]
fn too_many_addresses_are_not_told_apart() {
    let (interface, host_first) = (interface("wg0"), PerFamily::default());
    let all = (0..250_000u128).map(|at| (0x0a00_0000 + 2 * at, 0x0a00_0000 + 2 * at));
    let mut addresses = Addresses::default();
    addresses.ranges.v4 = Ranges::new(all.collect());
    let untracked = PerFamily::default();
    let facts = Facts { interface: &interface, addresses: Some(&addresses), host_first, untracked };
    let rule = [header(12, &[10, 0, 0, 2], 32), header(16, &[10, 0, 0, 4], 32)].map(Step::If);
    let chains = chains(&[&[&[rule[0].clone(), rule[1].clone(), DROP]]]);
    let base = Base { chains: &chains, number: 0, hook: FORWARD, translates: false, accepts: true };
    let judgement = judge(&base, &facts, Family::V4, &mut Needs::default());
    assert_eq!(judgement.causes.len(), 1);
    let packets = Packets::of_pair((0x0a00_0002, 0x0a00_0004));
    assert!(between(&judgement.pairs, &packets).least.all);
}

/// A blocklist written as rules.
#[test]
fn a_hundred_thousand_rules_are_judged_in_time() {
    let rule = |number: u32| {
        let [_, a, b, c] = number.to_be_bytes();
        vec![Step::If(header(12, &[11, a, b, c], 32)), DROP]
    };
    let rules: Vec<Vec<Step>> = (0..100_000).map(rule).collect();
    let rules: Vec<&[Step]> = rules.iter().map(Vec::as_slice).collect();
    let (interface, addresses) = (interface("wg0"), peers());
    let host_first = PerFamily { v4: true, v6: true };
    let untracked = PerFamily::default();
    let facts = Facts { interface: &interface, addresses: Some(&addresses), host_first, untracked };
    let chains = chains(&[&rules]);
    let base = Base { chains: &chains, number: 0, hook: FORWARD, translates: false, accepts: true };
    let start = thread_micros();
    let judgement = judge(&base, &facts, Family::V4, &mut Needs::default());
    let elapsed = thread_micros() - start;
    assert_eq!(judgement.pairs, []);
    assert!(elapsed < 100_000, "{elapsed} microseconds");
}

#[test]
fn a_judgement_without_peers_holds_for_no_others() {
    let interface = interface("wg0");
    let (host_first, addresses) = (PerFamily::default(), Addresses::default());
    let untracked = PerFamily::default();
    let facts = Facts { interface: &interface, addresses: Some(&addresses), host_first, untracked };
    for (rule, expected) in [
        (&[DROP][..], true),
        (&[host(12, 2), DROP], true),
        (&[Step::If(Condition::Transport), ACCEPT], true),
        (&[name(Side::In, "eth0", true), DROP], false),
        (&[ACCEPT], false),
    ] {
        let chains = chains(&[&[rule]]);
        let base =
            Base { chains: &chains, number: 0, hook: FORWARD, translates: false, accepts: true };
        let mut needs = Needs::default();
        assert_eq!(judge(&base, &facts, Family::V4, &mut needs).causes, []);
        assert_eq!(needs.addresses, expected, "{rule:?}");
    }
}

#[test]
fn answers_from_a_translated_peer_are_by_the_kernel() {
    let (interface, addresses) = (interface("wg0"), peers());
    let host_first = PerFamily { v4: true, v6: true };
    let untracked = PerFamily::default();
    let facts = Facts { interface: &interface, addresses: Some(&addresses), host_first, untracked };
    let to = NewAddress::Within(Family::V4, 0x0a07_0003, 0x0a07_0004);
    let of_others = Step::If(Condition::ToHost { is_equal: true });
    let chains = chains(&[&[&[of_others, Step::Translate("DNAT".into(), to, NewPort::Same)]]]);
    let base =
        Base { chains: &chains, number: 0, hook: PREROUTING, translates: true, accepts: true };
    let judgement = judge(&base, &facts, Family::V4, &mut Needs::default());
    let to = |host: u128| {
        between(&judgement.pairs, &Packets::of_pair((0x0a07_0009, 0x0a07_0000 + host))).least.all
    };
    assert!(to(3) && to(4) && !to(5));
}

/// Whether packets between peers may be of any state after rules at prerouting, and what a rule
/// about the state says then.
#[test]
fn untracked_packets_have_a_known_state() {
    let (interface, addresses) = (interface("wg0"), peers());
    let untracked = |rules: &[&[Step]]| {
        let (host_first, untracked) = (PerFamily::default(), PerFamily::default());
        let facts =
            Facts { interface: &interface, addresses: Some(&addresses), host_first, untracked };
        let (chains, hook) = (chains(&[rules]), PREROUTING);
        let base = Base { chains: &chains, number: 0, hook, translates: false, accepts: true };
        let place = Place::between_peers(&facts, hook, Family::V4);
        walk::untracks(&base, &place, &mut Notes::default())
    };
    let network = || [header(12, &[10, 7, 0, 0], 24), header(16, &[10, 7, 0, 0], 24)].map(Step::If);
    let [from, to] = network();
    let ours = || name(Side::In, "wg0", true);
    assert!(untracked(&[&[Step::Untrack]]));
    assert!(untracked(&[&[ours(), from, to, Step::Count, Step::Untrack], &[DROP]]));
    assert!(untracked(&[&[unknown(), Step::Count], &[Step::Untrack]]));
    assert!(untracked(&[&[name(Side::In, "eth0", true), ACCEPT], &[Step::Untrack]]));
    assert!(!untracked(&[&[unknown(), Step::Untrack]]));
    assert!(!untracked(&[&[host(12, 2), Step::Untrack]]), "of one peer");
    assert!(!untracked(&[&[unknown(), ACCEPT], &[Step::Untrack]]));
    assert!(!untracked(&[&[Step::If(Condition::Transport), Step::Untrack]]), "not of fragments");
    assert!(!untracked(&[]));

    let drops = |of_untracked, is_untracked: bool| {
        let untracked = PerFamily { v4: is_untracked, v6: false };
        let host_first = PerFamily::default();
        let facts =
            Facts { interface: &interface, addresses: Some(&addresses), host_first, untracked };
        let rule = [Step::If(Condition::State { of_untracked }), DROP];
        let (chains, hook) = (chains(&[&[&rule]]), FORWARD);
        let base = Base { chains: &chains, number: 0, hook, translates: false, accepts: true };
        let causes = |family| judge(&base, &facts, family, &mut Needs::default()).causes.len();
        [Family::V4, Family::V6].map(causes)
    };
    assert_eq!(drops(false, false), [1, 1]);
    assert_eq!(drops(false, true), [0, 1]);
    assert_eq!(drops(true, true), [1, 1]);
}
