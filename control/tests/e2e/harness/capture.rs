//! Packet counters in a namespace, made with nftables.

use std::sync::atomic::{AtomicU32, Ordering};

use super::lab::Namespace;

static TABLES: AtomicU32 = AtomicU32::new(0);

/// Counts the packets that match a rule at a hook, and optionally acts on them.
pub struct Counter {
    namespace: Namespace,
    table: String,
}

impl Counter {
    /// Counts packets that match `rule` (nft syntax) at `hook`: prerouting, input, forward, output
    /// or postrouting.
    #[track_caller]
    pub fn new(namespace: &Namespace, hook: &str, rule: &str) -> Counter {
        Counter::acting(namespace, hook, rule, "")
    }

    /// As [`Counter::new`], and applies `action` (nft syntax) to every match.
    #[track_caller]
    pub fn acting(namespace: &Namespace, hook: &str, rule: &str, action: &str) -> Counter {
        let table = format!("count{}", TABLES.fetch_add(1, Ordering::Relaxed));
        namespace.run_with(
            "nft -f -",
            &format!(
                "table inet {table} {{\nchain c {{\n\
                 type filter hook {hook} priority mangle;\n{rule} counter {action}\n}}\n}}\n"
            ),
        );
        Counter { namespace: namespace.clone(), table }
    }

    /// Packets counted so far.
    #[track_caller]
    pub fn packets(&self) -> u64 {
        let text = self.namespace.run(&format!("nft list table inet {}", self.table));
        let (_, rest) = text.split_once("counter packets ").expect("the table has one counter");
        let number = rest.split_whitespace().next().expect("a number follows");
        number.parse().expect("nft prints a number")
    }
}

impl Drop for Counter {
    fn drop(&mut self) {
        self.namespace.attempt(&format!("nft delete table inet {}", self.table));
    }
}
