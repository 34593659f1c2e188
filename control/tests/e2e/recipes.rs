//! `--relay auto` under the rules of real hubs: the scripts of [`RECIPES`], as operators and their
//! programs write them. Whole conversations of alice with bob run as without rules; those that
//! a script does not name are relayed directly.
//!
//! A script says in its comments what it expects: `expect: direct`, `expect: kernel` or `expect:
//! direct, but SERVICE by the kernel`, with "SYN" for TCP segments with SYN; and `says:` what the
//! log has.

use std::fs;
use std::net::SocketAddr;
use std::ops::RangeInclusive;
use std::path::Path;
use std::time::Duration;

use crate::harness::{
    ALICE, BOB, Backend, Family, HUB, Relay, Threads, by_tcp, by_udp, eventually, ping, seconds,
    serve, within,
};
use crate::relay_auto::{BOTH, connected, direct, received, said};

const RECIPES: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/e2e/recipes");

/// Longest time until a change takes effect, a pause after a change of rules included.
const LATE: Duration = Duration::from_secs(6);

/// Services of bob that alice asks for.
const SERVICES: [&str; 5] = ["ping", "tcp 7", "tcp 80", "udp 7", "udp 53"];

/// Programs of a script that has no rules of iptables.
const OF_ITS_OWN: &str = "nft";

/// One script.
struct Recipe {
    name: String,
    script: String,
    expected: String,
    says: String,
}

impl Recipe {
    /// All scripts whose rules are of iptables, or all others.
    fn all(is_of_iptables: bool) -> Vec<Recipe> {
        let mut paths: Vec<_> = fs::read_dir(RECIPES)
            .expect("the folder is there")
            .map(|entry| entry.expect("a file").path())
            .collect();
        paths.sort();
        let recipes = paths.iter().map(|path| Recipe::read(path));
        recipes.filter(|one| one.script.contains("$IPTABLES") == is_of_iptables).collect()
    }

    fn read(path: &Path) -> Recipe {
        let script = fs::read_to_string(path).expect("a text");
        let comment = |name: &str| {
            let line = script.lines().find_map(|line| line.strip_prefix(name));
            line.unwrap_or_default().to_owned()
        };
        Recipe {
            name: path.file_stem().expect("a name").to_string_lossy().into_owned(),
            expected: comment("# expect: "),
            says: comment("# says: "),
            script,
        }
    }

    /// Packets of a service that reach the kernel.
    fn by_kernel(&self, service: &str) -> RangeInclusive<u64> {
        match self.expected.strip_prefix("direct, but ") {
            None if self.expected == "kernel" => 2..=u64::MAX,
            Some("SYN by the kernel") if service.starts_with("tcp") => 2..=2,
            Some(rest) if rest.strip_suffix(" by the kernel") == Some(service) => 2..=u64::MAX,
            _ => 0..=0,
        }
    }
}

/// The script's variables, for a program of iptables.
fn variables(relay: &Relay, program: &str) -> String {
    let values = match family_of(program) {
        Family::V4 => {
            "NET=10.77.0.0/24 HUB=10.77.0.1 ALICE=10.77.0.2 PEER=10.77.0.3 \
             PEER_AS_HOST=10.77.0.3 OUTSIDE=192.0.2.1 PODS=172.17.0.0/16 POD=172.17.0.2 \
             SERVICE=10.96.0.1 VERSION=inet ICMP=icmp ICMP_MATCH='icmp --icmp-type'"
        }
        Family::V6 => {
            "NET=fd77::/64 HUB=fd77::1 ALICE=fd77::2 PEER=fd77::3 PEER_AS_HOST=[fd77::3] \
             OUTSIDE=2001:db8::1 PODS=fd17::/64 POD=fd17::2 SERVICE=fd96::1 VERSION=inet6 \
             ICMP=icmpv6 ICMP_MATCH='icmp6 --icmpv6-type'"
        }
    };
    // ufw keeps its rules in files: a copy, in the mount namespace of this script.
    let ufw = "if [ -d /etc/ufw ]; then mount -t tmpfs none /mnt; cp -r /etc/ufw /mnt; \
               mount --bind /mnt/ufw /etc/ufw; fi";
    format!("IF={} IPTABLES={program} RECIPES={RECIPES}\n{values}\n{ufw}\n", relay.hub.interface)
}

fn family_of(program: &str) -> Family {
    if program.starts_with("ip6") { Family::V6 } else { Family::V4 }
}

/// Packets that reach the hub's kernel while alice asks bob for a service, and gets it.
fn asked(relay: &Relay, family: Family, service: &str) -> Option<u64> {
    const PATIENCE: Duration = Duration::from_secs(2);
    let (alice, bob) = (&relay.alice.namespace, BOB.inner(family));
    let before = received(relay, &relay.hub.namespace);
    let answer = match service.split_once(' ') {
        None => {
            let (sent, back) = ping(alice, bob, "-c 1 -W 2");
            if sent == back { ALICE.inner(family).to_owned() } else { String::new() }
        }
        Some((protocol, port)) => {
            let to = SocketAddr::new(bob.parse().expect("an address"), port.parse().expect("one"));
            let ask = if protocol == "tcp" { by_tcp } else { by_udp };
            alice.enter(|| ask(to, PATIENCE))
        }
    };
    let entered = received(relay, &relay.hub.namespace) - before;
    // Alice may be hidden behind the hub.
    [ALICE, HUB].iter().any(|host| answer == host.inner(family)).then_some(entered)
}

/// Checks each service with both IP versions.
fn check(relay: &Relay, recipe: &Recipe, program: &str) {
    for family in Family::BOTH {
        let is_concerned = program == OF_ITS_OWN || family_of(program) == family;
        for service in SERVICES {
            let by_kernel = if is_concerned { recipe.by_kernel(service) } else { 0..=0 };
            let mut last = None;
            let is_so = || {
                last = asked(relay, family, service);
                last.is_some_and(|entered| by_kernel.contains(&entered))
            };
            let is_so = within(seconds(1), is_so);
            let Recipe { name, .. } = recipe;
            assert!(is_so, "{program}: {name}: {family:?} {service}: {last:?}; {}", said(relay));
        }
    }
}

/// Adds a rule that the log names, and removes it: all that was done before has been noticed.
fn be_noticed(relay: &Relay, program: &str) {
    let hub = &relay.hub.namespace;
    if program == OF_ITS_OWN {
        hub.run_with(
            "nft -f -",
            "table inet marker {\nchain f { type filter hook forward priority 0; counter; }\n}\n",
        );
    } else {
        hub.run(&format!("{program} -t mangle -A FORWARD"));
    }
    eventually(LATE, "the rule is noticed", || said(relay).contains("counts packets"));
    hub.run("conntrack -F");
    match program {
        OF_ITS_OWN => hub.run("nft delete table inet marker"),
        _ => hub.run(&format!("{program} -t mangle -D FORWARD 1")),
    };
    eventually(LATE, "its removal is too", || !said(relay).contains("counts packets"));
}

fn flush(relay: &Relay, program: &str) {
    let hub = &relay.hub.namespace;
    hub.run("conntrack -F");
    hub.run("nft flush ruleset");
    if program.ends_with("legacy") {
        hub.run(&format!("{program} -P FORWARD ACCEPT"));
        for table in ["filter", "nat", "mangle", "raw"] {
            hub.run(&format!("{program} -t {table} -F"));
            hub.run(&format!("{program} -t {table} -X"));
        }
    }
    eventually(LATE, "nothing is left", || direct(&said(relay)) == BOTH);
}

fn recipes_work(program: &str) {
    let relay = connected(Backend::Uring, "auto");
    let mut threads = Threads::default();
    for family in Family::BOTH {
        serve(&mut threads, &relay.bob.namespace, BOB.inner(family));
    }
    eventually(LATE, "it begins", || direct(&said(&relay)) == BOTH);
    for recipe in Recipe::all(program != OF_ITS_OWN) {
        println!("{program}: {}", recipe.name);
        let script = variables(&relay, program) + &recipe.script;
        relay.hub.namespace.run_with("sh -eu", &script);
        if recipe.says.is_empty() {
            be_noticed(&relay, program);
        }
        eventually(LATE, &format!("{}: {}", recipe.name, recipe.says), || {
            said(&relay).contains(&recipe.says)
        });
        check(&relay, &recipe, program);
        flush(&relay, program);
    }
}

#[test]
#[ignore = "needs root: creates network namespaces"]
fn of_iptables_nft() {
    recipes_work("iptables-nft");
}

#[test]
#[ignore = "needs root: creates network namespaces"]
fn of_ip6tables_nft() {
    recipes_work("ip6tables-nft");
}

#[test]
#[ignore = "needs root: creates network namespaces"]
fn of_iptables_legacy() {
    recipes_work("iptables-legacy");
}

#[test]
#[ignore = "needs root: creates network namespaces"]
fn of_ip6tables_legacy() {
    recipes_work("ip6tables-legacy");
}

#[test]
#[ignore = "needs root: creates network namespaces"]
fn of_other_programs() {
    recipes_work(OF_ITS_OWN);
}
