//! Reasons to leave forwarding to the kernel. Each names the object that may filter, change or
//! observe packets between peers.

use std::fmt;

use wg_bounce_sys::{Family, PerFamily};

use super::rules::Obstacle;
use crate::limits::RELAY_SETTLING_TIME;

/// The IP versions that a finding applies to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Families(PerFamily<bool>);

impl Families {
    /// Both IP versions.
    pub const BOTH: Families = Families(PerFamily { v4: true, v6: true });

    /// None.
    pub const NONE: Families = Families(PerFamily { v4: false, v6: false });

    /// Only this one.
    pub fn only(family: Family) -> Families {
        let mut families = PerFamily::default();
        *families.of_mut(family) = true;
        Families(families)
    }

    /// Includes this one too.
    pub fn add(&mut self, family: Family) {
        *self.0.of_mut(family) = true;
    }

    /// Whether this one is included.
    pub fn contain(self, family: Family) -> bool {
        *self.0.of(family)
    }
}

/// A reason, with the IP versions that it applies to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Finding {
    /// The IP versions concerned.
    pub families: Families,
    /// The reason.
    pub reason: Reason,
}

impl Finding {
    /// A reason that applies to both IP versions.
    pub fn of_both(reason: Reason) -> Finding {
        Finding { families: Families::BOTH, reason }
    }

    /// A reason that applies to one IP version.
    pub fn of(family: Family, reason: Reason) -> Finding {
        Finding { families: Families::only(family), reason }
    }
}

/// The name of a base chain.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ChainName {
    /// The program that lists it: `nftables`, `iptables-legacy` or `ip6tables-legacy`.
    pub program: &'static str,
    /// Its table, for example "table inet filter".
    pub table: String,
    /// The chain.
    pub chain: String,
    /// Its hook, as in nft(8); none if the chain is called after it.
    pub hook: Option<String>,
}

impl ChainName {
    /// The reason for a rule that packets may reach from it.
    pub fn reason_of_rule(&self, obstacle: Obstacle) -> Reason {
        Reason::Rule { table: self.table.clone(), program: self.program, obstacle }
    }
}

/// For example "nftables: chain forward of table inet filter, hook forward".
impl fmt::Display for ChainName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let ChainName { program, table, chain, hook } = self;
        write!(f, "{program}: chain {chain} of {table}")?;
        hook.as_ref().map_or(Ok(()), |hook| write!(f, ", hook {hook}"))
    }
}

/// The effect of a netfilter chain on packets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ChainEffect {
    /// It has rules, which were not followed: they are too many, or its hook is not known.
    Rules,
    /// Its default policy is not ACCEPT.
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

/// A reason to leave forwarding to the kernel.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Reason {
    /// Forwarding is off: the kernel would not forward at all.
    ForwardingOff {
        /// The sysctl(8) setting.
        setting: String,
    },
    /// A base chain.
    Chain {
        /// Its name.
        name: ChainName,
        /// Its effect.
        effect: ChainEffect,
    },
    /// A rule that packets between peers may reach.
    Rule {
        /// See [`ChainName::table`].
        table: String,
        /// See [`ChainName::program`].
        program: &'static str,
        /// The rule and its effect.
        obstacle: Obstacle,
    },
    /// Rules of nftables that are being read, and are many.
    Unread,
    /// Rules were a reason until just now.
    Settling,
    /// Connections between peers whose addresses the kernel translates.
    Translated,
    /// Helpers of connection tracking, where rules translate to addresses of peers.
    Helpers,
    /// A flowtable of nftables that contains the interface.
    Flowtable {
        /// The table.
        table: String,
        /// Its name.
        name: String,
    },
    /// IPVS forwards for virtual services.
    VirtualServices,
    /// A BPF program linked to netfilter.
    NetfilterProgram {
        /// The ID of the link.
        link: u32,
        /// The hook.
        hook: &'static str,
    },
    /// A queueing discipline that shapes or drops, or that is unknown.
    Qdisc {
        /// Its kind, as in tc(8).
        kind: String,
    },
    /// A tc filter.
    TrafficFilter {
        /// Its kind, as in tc(8).
        kind: String,
        /// Its hook or parent.
        hook: String,
    },
    /// A BPF program attached to a TCX hook.
    TcxProgram {
        /// `ingress` or `egress`.
        hook: &'static str,
    },
    /// An XDP program on the interface.
    Xdp,
    /// The interface belongs to a VRF, a bridge or a bond.
    Master {
        /// The index of the master.
        index: u32,
    },
    /// The interface is promiscuous, as during a packet capture.
    Promiscuous,
    /// A packet socket that receives packets of the interface.
    Capture {
        /// The socket's inode.
        inode: String,
    },
    /// IPsec policies.
    IpsecPolicies {
        /// Number of policies for output and forwarding.
        count: u32,
    },
    /// The default IPsec policy is to block.
    IpsecDefault,
    /// A routing rule that matches on more than addresses and traffic class.
    RoutingRule {
        /// Its priority.
        priority: u32,
        /// Its selector, as in ip-rule(8).
        selector: String,
    },
    /// Multipath routes hash more than addresses.
    MultipathHash {
        /// The sysctl(8) setting.
        setting: &'static str,
    },
    /// A source of reasons cannot be read.
    Unreadable {
        /// The source.
        what: &'static str,
        /// The error.
        error: String,
        /// The missing capability.
        capability: Option<&'static str>,
        /// Whether forwarding may be off.
        hides_forwarding: bool,
    },
}

impl Reason {
    /// Whether the reason also applies to `--relay direct`.
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
            Reason::Chain { name, effect } => write!(f, "{name}: {effect}"),
            Reason::Rule { table, program, obstacle: Obstacle { chain, rule, text, effect } } => {
                write!(f, "{program}: chain {chain} of {table}, rule {rule}: {effect}")?;
                if text.is_empty() { Ok(()) } else { write!(f, " [{text}]") }
            }
            Reason::Unread => f.write_str("nftables: many rules have changed and are being read"),
            Reason::Settling => write!(
                f,
                "rules for packets between peers were removed less than {} s ago, and connections \
                 are tracked",
                RELAY_SETTLING_TIME.0 / 1000
            ),
            Reason::Helpers => f.write_str(
                "helpers of connection tracking (CT --helper, ct helper) may translate more \
                 connections to peers than rules do",
            ),
            Reason::Translated => f.write_str(
                "connections between peers were translated (NAT) and have not ended (conntrack -L)",
            ),
            Reason::Flowtable { table, name } => {
                write!(f, "nftables: flowtable {name} of table {table} contains the interface")
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
