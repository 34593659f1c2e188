//! What has a say about packets between peers: each names the object that has it.

use std::fmt;

use wg_bounce_sys::{Family, PerFamily};

/// Which families something concerns.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Families(PerFamily<bool>);

impl Families {
    /// Both.
    pub const BOTH: Families = Families(PerFamily { v4: true, v6: true });

    /// This one only.
    pub fn only(family: Family) -> Families {
        let mut families = PerFamily::default();
        *families.of_mut(family) = true;
        Families(families)
    }

    /// Whether this one is among them.
    pub fn contain(self, family: Family) -> bool {
        *self.0.of(family)
    }
}

/// Something that has a say, and about what.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Finding {
    /// About packets of which families.
    pub families: Families,
    /// What it is.
    pub reason: Reason,
}

impl Finding {
    /// Concerns both families.
    pub fn of_both(reason: Reason) -> Finding {
        Finding { families: Families::BOTH, reason }
    }

    /// Concerns one family.
    pub fn of(family: Family, reason: Reason) -> Finding {
        Finding { families: Families::only(family), reason }
    }
}

/// What makes a chain of a filter count.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ChainEffect {
    /// It has rules.
    Rules,
    /// Its policy is not to accept.
    Policy,
}

impl fmt::Display for ChainEffect {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            ChainEffect::Rules => "has rules",
            ChainEffect::Policy => "default policy is not ACCEPT",
        })
    }
}

/// Why the kernel has to forward.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Reason {
    /// Forwarding is off: the kernel would not forward at all.
    ForwardingOff {
        /// The setting that says so, as sysctl(8) names it.
        setting: String,
    },
    /// A base chain of nftables.
    Chain {
        /// The table's family, as nft(8) names it.
        family: String,
        /// The table.
        table: String,
        /// The chain.
        chain: String,
        /// The hook, as nft(8) names it.
        hook: String,
        /// Why it counts.
        effect: ChainEffect,
    },
    /// A flowtable of nftables with the interface among its devices.
    Flowtable {
        /// The table.
        table: String,
        /// Its name.
        name: String,
    },
    /// A built-in chain of legacy iptables.
    LegacyChain {
        /// `iptables-legacy` or `ip6tables-legacy`.
        program: &'static str,
        /// The table.
        table: String,
        /// The chain.
        chain: &'static str,
        /// Why it counts.
        effect: ChainEffect,
    },
    /// IPVS forwards for virtual services.
    VirtualServices,
    /// A BPF program linked to netfilter.
    NetfilterProgram {
        /// The link's number.
        link: u32,
        /// The hook.
        hook: &'static str,
    },
    /// A queueing discipline that shapes, drops or cannot be judged.
    Qdisc {
        /// Its kind, as tc(8) names it.
        kind: String,
    },
    /// A filter of tc.
    TrafficFilter {
        /// Its kind, as tc(8) names it.
        kind: String,
        /// Where it hangs.
        hook: String,
    },
    /// A BPF program at a TCX hook.
    TcxProgram {
        /// `ingress` or `egress`.
        hook: &'static str,
    },
    /// An XDP program on the interface.
    Xdp,
    /// The interface belongs to a VRF, a bridge or a bond.
    Master {
        /// The master's number.
        index: u32,
    },
    /// The interface is promiscuous: somebody captures.
    Promiscuous,
    /// A packet socket that gets what passes the interface.
    Capture {
        /// The socket's inode.
        inode: String,
    },
    /// IPsec policies.
    IpsecPolicies {
        /// How many a forwarded packet may meet.
        count: u32,
    },
    /// IPsec refuses what no policy allows.
    IpsecDefault,
    /// A routing rule that asks for more than addresses and traffic class.
    RoutingRule {
        /// Its priority.
        priority: u32,
        /// What it asks for, as ip-rule(8) names it.
        selector: String,
    },
    /// Routes with several next hops are chosen by more than addresses.
    MultipathHash {
        /// The setting that says so, as sysctl(8) names it.
        setting: &'static str,
    },
    /// Something that may have a say cannot be seen.
    Unreadable {
        /// What.
        what: &'static str,
        /// The error.
        error: String,
        /// The capability that would help.
        capability: Option<&'static str>,
        /// It may be that the kernel does not forward at all.
        hides_forwarding: bool,
    },
}

impl Reason {
    /// Whether it holds with `--relay direct` too.
    pub fn is_of_router(&self) -> bool {
        matches!(
            self,
            Reason::ForwardingOff { .. } | Reason::Unreadable { hides_forwarding: true, .. }
        )
    }
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Reason::ForwardingOff { setting } => write!(f, "forwarding is off: {setting}"),
            Reason::Chain { family, table, chain, hook, effect } => write!(
                f,
                "nftables: chain {chain} of table {family} {table}, hook {hook}: {effect}"
            ),
            Reason::Flowtable { table, name } => {
                write!(f, "nftables: flowtable {name} of table {table} contains the interface")
            }
            Reason::LegacyChain { program, table, chain, effect } => {
                write!(f, "{program}: chain {chain} of table {table}: {effect}")
            }
            Reason::VirtualServices => f.write_str("IPVS: virtual services are configured"),
            Reason::NetfilterProgram { link, hook } => write!(
                f,
                "BPF link {link} attaches a program to netfilter hook {hook}, possibly in another \
                 namespace"
            ),
            Reason::Qdisc { kind } => write!(f, "tc: qdisc {kind} on the interface"),
            Reason::TrafficFilter { kind, hook } => {
                write!(f, "tc: {kind} filter at {hook} of the interface")
            }
            Reason::TcxProgram { hook } => {
                write!(f, "a TCX program is attached at {hook} of the interface")
            }
            Reason::Xdp => f.write_str("an XDP program is attached to the interface"),
            Reason::Master { index } => {
                write!(f, "the interface is enslaved to interface {index} (VRF, bridge or bond)")
            }
            Reason::Promiscuous => {
                f.write_str("the interface is promiscuous (packet capture active)")
            }
            Reason::Capture { inode } => write!(
                f,
                "a packet socket captures on the interface (inode {inode}; ss -0 -p shows its \
                 process)"
            ),
            Reason::IpsecPolicies { count } => {
                write!(f, "IPsec policies: {count} (ip xfrm policy)")
            }
            Reason::IpsecDefault => {
                f.write_str("the default IPsec policy is to block (ip xfrm policy getdefault)")
            }
            Reason::RoutingRule { priority, selector } => {
                write!(f, "ip rule {priority} matches on {selector}")
            }
            Reason::MultipathHash { setting } => write!(f, "{setting} is not 0"),
            Reason::Unreadable { what, error, capability, .. } => {
                write!(f, "cannot read {what}: {error}")?;
                capability.map_or(Ok(()), |name| write!(f, " (requires {name})"))
            }
        }
    }
}
