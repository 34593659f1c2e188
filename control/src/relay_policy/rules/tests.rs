//! Ways of packets through rules.

use super::*;

const IN_FORWARD: Place<'static> = Place { name: "wg0", index: 7, hook: FORWARD, version: Some(2) };

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
        rules
            .map(|(at, steps)| Rule { label: (at + 1).to_string(), steps: steps.to_vec() })
            .collect()
    };
    let chains = chains.iter().enumerate();
    chains.map(|(at, one)| Chain { name: at.to_string(), rules: rules(one) }).collect()
}

fn walk(list: &[&[&[Step]]]) -> Result<bool, (String, Effect)> {
    let result = find_obstacle(&chains(list), 0, &IN_FORWARD);
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
    // Elements of a set may count as well.
    assert_eq!(walk(&[&[&[unknown(), Step::LookUp]]]), counted);
    assert_eq!(walk(&[&[&[unknown(), Step::LookUp, ACCEPT]]]), Ok(true));
    assert_eq!(walk(&[&[&[Step::LookUp, ACCEPT], &[DROP]]]), drops("0.2"), "it may not hold");
    assert_eq!(walk(&[&[&[Step::LookUp, name(Side::Out, "eth0", true), ACCEPT]]]), counted);
    assert_eq!(walk(&[&[&[Step::LookUp, unknown(), ACCEPT]]]), counted);
    assert_eq!(walk(&[&[&[name(Side::Out, "eth0", true), Step::LookUp, DROP]]]), Ok(true));
}

#[test]
fn hooks_know_different_interfaces() {
    let of_eth0 = |side| chains(&[&[&[name(side, "eth0", false), DROP]]]);
    // Before routing there is no way out: its name is empty.
    let early = Place { hook: PREROUTING, ..IN_FORWARD };
    assert!(find_obstacle(&of_eth0(Side::Out), 0, &early).is_err());
    let to_nothing = chains(&[&[&[name(Side::Out, "wg0", true), DROP]]]);
    assert_eq!(find_obstacle(&to_nothing, 0, &early), Ok(true));
    let late = Place { hook: EGRESS, ..IN_FORWARD };
    let not_from_eth0 = chains(&[&[&[name(Side::In, "eth0", false), DROP]]]);
    assert!(find_obstacle(&not_from_eth0, 0, &late).is_err());
    let odd = Place { name: "wg\u{fffd}", ..IN_FORWARD };
    assert!(find_obstacle(&not_from_eth0, 0, &odd).is_err());
    let from_eth0 = chains(&[&[&[name(Side::In, "eth0", true), DROP]]]);
    assert!(find_obstacle(&from_eth0, 0, &odd).is_err(), "its name is not known");
    let index = |index, is_equal| {
        let condition = Condition::Index { side: Side::In, index, is_equal };
        chains(&[&[&[Step::If(condition), DROP]]])
    };
    assert_eq!(find_obstacle(&index(7, false), 0, &IN_FORWARD), Ok(true));
    assert!(find_obstacle(&index(7, true), 0, &IN_FORWARD).is_err());
    let version = |version| {
        let condition = Condition::Version { version, is_equal: true };
        chains(&[&[&[Step::If(condition), DROP]]])
    };
    assert_eq!(find_obstacle(&version(10), 0, &IN_FORWARD), Ok(true));
    assert!(find_obstacle(&version(2), 0, &IN_FORWARD).is_err());
}
