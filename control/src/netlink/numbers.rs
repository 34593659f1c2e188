//! Message types and attribute numbers. Those of libc come from there; the others, which no crate
//! exports, are defined here once.

pub use libc::{
    IFLA_IFNAME, IFLA_MASTER, IFLA_MTU, IFLA_PROMISCUITY, IFLA_XDP, RTM_DELLINK, RTM_DELRULE,
    RTM_DELTFILTER, RTM_NEWLINK, RTM_NEWNETCONF, RTM_NEWQDISC, RTM_NEWRULE, RTM_NEWTFILTER,
    TCA_KIND, TCA_OPTIONS,
};

// rtnetlink (linux/rtnetlink.h).

/// Forwarding settings of an interface were removed.
pub const RTM_DELNETCONF: u16 = 81;
/// A chain of tc filters was created.
pub const RTM_NEWCHAIN: u16 = 100;
/// A chain of tc filters was removed.
pub const RTM_DELCHAIN: u16 = 101;

/// The event groups that concern forwarding: links, traffic control, addresses, routes, rules,
/// forwarding settings, next hops.
pub const FORWARDING_GROUPS: [u32; 11] = [
    libc::RTNLGRP_LINK,
    libc::RTNLGRP_TC,
    libc::RTNLGRP_IPV4_IFADDR,
    libc::RTNLGRP_IPV4_ROUTE,
    libc::RTNLGRP_IPV4_RULE,
    libc::RTNLGRP_IPV6_IFADDR,
    libc::RTNLGRP_IPV6_ROUTE,
    libc::RTNLGRP_IPV6_RULE,
    libc::RTNLGRP_IPV4_NETCONF,
    libc::RTNLGRP_IPV6_NETCONF,
    libc::RTNLGRP_NEXTHOP,
];
/// The event groups that concern the way of our own datagrams: links, addresses, routes, rules,
/// next hops.
pub const UPLINK_GROUPS: [u32; 8] = [
    libc::RTNLGRP_LINK,
    libc::RTNLGRP_IPV4_IFADDR,
    libc::RTNLGRP_IPV4_ROUTE,
    libc::RTNLGRP_IPV4_RULE,
    libc::RTNLGRP_IPV6_IFADDR,
    libc::RTNLGRP_IPV6_ROUTE,
    libc::RTNLGRP_IPV6_RULE,
    libc::RTNLGRP_NEXTHOP,
];
/// Within RTA_METRICS: the MTU of a route.
pub const RTAX_MTU: u16 = 2;
/// The event group of links.
pub const LINK_GROUP: u32 = libc::RTNLGRP_LINK;
/// Within RTM_NEWNSID: the id of a network namespace (linux/net_namespace.h).
pub const NETNSA_NSID: u16 = 1;

// Links (linux/if_link.h).

/// Within IFLA_XDP: the attach mode, zero if no program is attached.
pub const IFLA_XDP_ATTACHED: u16 = 2;
/// Within IFLA_AF_SPEC for IPv4: settings by number.
pub const IFLA_INET_CONF: u16 = 1;
/// `send_redirects` of the interface (linux/ip.h).
pub const IPV4_DEVCONF_SEND_REDIRECTS: u16 = 6;
/// The link is up.
pub const IFF_UP: u32 = libc::IFF_UP as u32;
/// The link is promiscuous.
pub const IFF_PROMISC: u32 = libc::IFF_PROMISC as u32;

// Traffic control (linux/rtnetlink.h, linux/pkt_sched.h).

/// Include default queueing disciplines in a dump.
pub const TCA_DUMP_INVISIBLE: u16 = 10;
/// The shared block of filters at ingress.
pub const TCA_INGRESS_BLOCK: u16 = 13;
/// The shared block of filters at egress.
pub const TCA_EGRESS_BLOCK: u16 = 14;
/// Highest rate of a flow: fq shapes unless this is the highest number.
pub const TCA_FQ_FLOW_MAX_RATE: u16 = 7;

// Rules (linux/fib_rules.h).

/// A rule that applies where its selector does not.
pub const FIB_RULE_INVERT: u32 = 2;
/// A rule that looks into a table.
pub const FR_ACT_TO_TBL: u8 = 1;
/// Destination prefix.
pub const FRA_DST: u16 = 1;
/// Source prefix.
pub const FRA_SRC: u16 = 2;
/// Input interface.
pub const FRA_IIFNAME: u16 = 3;
/// Target of a goto rule.
pub const FRA_GOTO: u16 = 4;
/// Unused by the kernel.
pub const FRA_UNUSED2: u16 = 5;
/// Unused by the kernel.
pub const FRA_UNUSED3: u16 = 7;
/// Unused by the kernel.
pub const FRA_UNUSED4: u16 = 8;
/// Unused by the kernel.
pub const FRA_UNUSED5: u16 = 9;
/// Priority.
pub const FRA_PRIORITY: u16 = 6;
/// Firewall mark.
pub const FRA_FWMARK: u16 = 10;
/// Realms.
pub const FRA_FLOW: u16 = 11;
/// Tunnel identifier.
pub const FRA_TUN_ID: u16 = 12;
/// Suppressed interface group.
pub const FRA_SUPPRESS_IFGROUP: u16 = 13;
/// Suppressed prefix length.
pub const FRA_SUPPRESS_PREFIXLEN: u16 = 14;
/// Routing table.
pub const FRA_TABLE: u16 = 15;
/// Mask of the firewall mark.
pub const FRA_FWMASK: u16 = 16;
/// Output interface.
pub const FRA_OIFNAME: u16 = 17;
/// Padding.
pub const FRA_PAD: u16 = 18;
/// VRF.
pub const FRA_L3MDEV: u16 = 19;
/// Range of user IDs.
pub const FRA_UID_RANGE: u16 = 20;
/// Origin of the rule.
pub const FRA_PROTOCOL: u16 = 21;
/// Transport protocol.
pub const FRA_IP_PROTO: u16 = 22;
/// Range of source ports.
pub const FRA_SPORT_RANGE: u16 = 23;
/// Range of destination ports.
pub const FRA_DPORT_RANGE: u16 = 24;
/// DSCP.
pub const FRA_DSCP: u16 = 25;
/// IPv6 flow label.
pub const FRA_FLOWLABEL: u16 = 26;
/// Mask of the flow label.
pub const FRA_FLOWLABEL_MASK: u16 = 27;
/// Mask of the source port.
pub const FRA_SPORT_MASK: u16 = 28;
/// Mask of the destination port.
pub const FRA_DPORT_MASK: u16 = 29;
/// Mask of the DSCP.
pub const FRA_DSCP_MASK: u16 = 30;

// Tracked connections (linux/netfilter/nfnetlink_conntrack.h, nf_conntrack_common.h).

/// A connection.
pub const CT_MSG_NEW: u16 = (libc::NFNL_SUBSYS_CTNETLINK << 8) as u16;
/// Requests connections.
pub const CT_MSG_GET: u16 = CT_MSG_NEW | 1;
/// Deletes a connection.
pub const CT_MSG_DELETE: u16 = CT_MSG_NEW | 2;
/// The addresses and ports of the original direction.
pub const CTA_TUPLE_ORIG: u16 = 1;
/// Those of the other direction.
pub const CTA_TUPLE_REPLY: u16 = 2;
/// IPS_*; in a request, the bits that are asked for.
pub const CTA_STATUS: u16 = 3;
/// In a request, the bits that count.
pub const CTA_STATUS_MASK: u16 = 26;
/// The addresses.
pub const CTA_TUPLE_IP: u16 = 1;
/// The protocol of a tuple, and its ports.
pub const CTA_TUPLE_PROTO: u16 = 2;
/// The number of the protocol.
pub const CTA_PROTO_NUM: u16 = 1;
/// The source port.
pub const CTA_PROTO_SRC_PORT: u16 = 2;
/// The destination port.
pub const CTA_PROTO_DST_PORT: u16 = 3;
/// The number of a connection.
pub const CTA_ID: u16 = 12;
/// The zone of a connection, if it is not 0.
pub const CTA_ZONE: u16 = 18;
/// Source, IPv4.
pub const CTA_IP_V4_SRC: u16 = 1;
/// Destination, IPv4.
pub const CTA_IP_V4_DST: u16 = 2;
/// Source, IPv6.
pub const CTA_IP_V6_SRC: u16 = 3;
/// Destination, IPv6.
pub const CTA_IP_V6_DST: u16 = 4;
/// The source is translated.
pub const IPS_SRC_NAT: u32 = 1 << 4;
/// The destination is translated.
pub const IPS_DST_NAT: u32 = 1 << 5;

// nftables (linux/netfilter/nf_tables.h): the subsystem is the upper byte of a message's type.

/// Begins a transaction.
pub const NFNL_MSG_BATCH_BEGIN: u16 = libc::NFNL_MSG_BATCH_BEGIN as u16;
/// Ends a transaction.
pub const NFNL_MSG_BATCH_END: u16 = libc::NFNL_MSG_BATCH_END as u16;
/// The event group of nftables.
pub const NFTABLES_GROUP: u32 = libc::NFNLGRP_NFTABLES as u32;

const fn nftables(message: i32) -> u16 {
    (libc::NFNL_SUBSYS_NFTABLES << 8 | message) as u16
}

/// A table.
pub const NFT_MSG_NEWTABLE: u16 = nftables(libc::NFT_MSG_NEWTABLE);
/// A table is gone.
pub const NFT_MSG_DELTABLE: u16 = nftables(libc::NFT_MSG_DELTABLE);
/// A chain.
pub const NFT_MSG_NEWCHAIN: u16 = nftables(libc::NFT_MSG_NEWCHAIN);
/// A chain is gone.
pub const NFT_MSG_DELCHAIN: u16 = nftables(libc::NFT_MSG_DELCHAIN);
/// Requests chains.
pub const NFT_MSG_GETCHAIN: u16 = nftables(libc::NFT_MSG_GETCHAIN);
/// A flowtable.
pub const NFT_MSG_NEWFLOWTABLE: u16 = nftables(22);
/// A flowtable is gone.
pub const NFT_MSG_DELFLOWTABLE: u16 = nftables(24);
/// A rule.
pub const NFT_MSG_NEWRULE: u16 = nftables(libc::NFT_MSG_NEWRULE);
/// A rule is gone.
pub const NFT_MSG_DELRULE: u16 = nftables(libc::NFT_MSG_DELRULE);
/// Requests rules.
pub const NFT_MSG_GETRULE: u16 = nftables(libc::NFT_MSG_GETRULE);
/// Requests the generation, which every transaction counts up.
pub const NFT_MSG_GETGEN: u16 = nftables(libc::NFT_MSG_GETGEN);
/// The generation.
pub const NFT_MSG_NEWGEN: u16 = nftables(libc::NFT_MSG_NEWGEN);
/// A stateful object.
pub const NFT_MSG_NEWOBJ: u16 = nftables(libc::NFT_MSG_NEWOBJ);
/// A stateful object is gone.
pub const NFT_MSG_DELOBJ: u16 = nftables(libc::NFT_MSG_DELOBJ);
/// Requests flowtables.
pub const NFT_MSG_GETFLOWTABLE: u16 = nftables(23);
/// Bytes of `struct nfgenmsg`, before the attributes; the first one is the family.
pub const NFGENMSG_LEN: usize = 4;

/// A set.
pub const NFT_MSG_NEWSET: u16 = nftables(libc::NFT_MSG_NEWSET);
/// A set is gone.
pub const NFT_MSG_DELSET: u16 = nftables(libc::NFT_MSG_DELSET);
/// Requests sets.
pub const NFT_MSG_GETSET: u16 = nftables(libc::NFT_MSG_GETSET);
/// Elements of a set.
pub const NFT_MSG_NEWSETELEM: u16 = nftables(libc::NFT_MSG_NEWSETELEM);
/// Elements of a set are gone.
pub const NFT_MSG_DELSETELEM: u16 = nftables(libc::NFT_MSG_DELSETELEM);
/// Requests the elements of a set.
pub const NFT_MSG_GETSETELEM: u16 = nftables(libc::NFT_MSG_GETSETELEM);

/// A set's table.
pub const NFTA_SET_TABLE: u16 = 1;
/// A set's name.
pub const NFTA_SET_NAME: u16 = 2;
/// A set's flags.
pub const NFTA_SET_FLAGS: u16 = 3;
/// A statement of each element.
pub const NFTA_SET_EXPR: u16 = 17;
/// Several of them.
pub const NFTA_SET_EXPRESSIONS: u16 = 18;
/// Its elements have ranges.
pub const NFT_SET_INTERVAL: u32 = 4;
/// Its keys have several fields.
pub const NFT_SET_CONCAT: u32 = 0x80;
/// Its elements have timeouts.
pub const NFT_SET_TIMEOUT: u32 = 0x10;
/// Rules add elements.
pub const NFT_SET_EVAL: u32 = 0x20;
/// Its elements name objects.
pub const NFT_SET_OBJECT: u32 = 0x40;
/// The table of a list of elements.
pub const NFTA_SET_ELEM_LIST_TABLE: u16 = 1;
/// Its set.
pub const NFTA_SET_ELEM_LIST_SET: u16 = 2;
/// The elements.
pub const NFTA_SET_ELEM_LIST_ELEMENTS: u16 = 3;
/// The key of an element.
pub const NFTA_SET_ELEM_KEY: u16 = 1;
/// The data of an element.
pub const NFTA_SET_ELEM_DATA: u16 = 2;
/// The flags of an element.
pub const NFTA_SET_ELEM_FLAGS: u16 = 3;
/// A statement of an element.
pub const NFTA_SET_ELEM_EXPR: u16 = 7;
/// The last key of an element.
pub const NFTA_SET_ELEM_KEY_END: u16 = 10;
/// Several statements of an element.
pub const NFTA_SET_ELEM_EXPRESSIONS: u16 = 11;
/// The end of a range, which is not in it.
pub const NFT_SET_ELEM_INTERVAL_END: u32 = 1;
/// The element of all other keys.
pub const NFT_SET_ELEM_CATCHALL: u32 = 2;

/// A table's name.
pub const NFTA_TABLE_NAME: u16 = 1;
/// A chain's table.
pub const NFTA_CHAIN_TABLE: u16 = 1;
/// A chain's handle.
pub const NFTA_CHAIN_HANDLE: u16 = 2;
/// A chain's name.
pub const NFTA_CHAIN_NAME: u16 = 3;
/// A base chain's hook.
pub const NFTA_CHAIN_HOOK: u16 = 4;
/// A base chain's policy.
pub const NFTA_CHAIN_POLICY: u16 = 5;
/// A base chain's type.
pub const NFTA_CHAIN_TYPE: u16 = 7;
/// Number of rules of a base chain, which no rule can jump to.
pub const NFTA_CHAIN_USE: u16 = 6;
/// Number of the hook.
pub const NFTA_HOOK_HOOKNUM: u16 = 1;
/// The priority of a base chain.
pub const NFTA_HOOK_PRIORITY: u16 = 2;
/// The one device of a hook.
pub const NFTA_HOOK_DEV: u16 = 3;
/// The devices of a hook.
pub const NFTA_HOOK_DEVS: u16 = 4;
/// The name of a device.
pub const NFTA_DEVICE_NAME: u16 = 1;
/// The prefix of devices' names.
pub const NFTA_DEVICE_PREFIX: u16 = 2;
/// The generation.
pub const NFTA_GEN_ID: u16 = 1;
/// A rule's table.
pub const NFTA_RULE_TABLE: u16 = 1;
/// A rule's chain.
pub const NFTA_RULE_CHAIN: u16 = 2;
/// A rule's handle.
pub const NFTA_RULE_HANDLE: u16 = 3;
/// The handle of the rule before.
pub const NFTA_RULE_POSITION: u16 = 6;
/// A rule's expressions.
pub const NFTA_RULE_EXPRESSIONS: u16 = 4;
/// An element of a list.
pub const NFTA_LIST_ELEM: u16 = 1;
/// The name of an expression.
pub const NFTA_EXPR_NAME: u16 = 1;
/// The attributes of an expression.
pub const NFTA_EXPR_DATA: u16 = 2;
/// The register that `ct` loads into.
pub const NFTA_CT_DREG: u16 = 1;
/// The keys that `ct` loads.
pub const NFTA_CT_KEY: u16 = 2;
/// The register that `ct` writes to the connection.
pub const NFTA_CT_SREG: u16 = 4;
/// The mark of the connection.
pub const NFT_CT_MARK: u32 = libc::NFT_CT_MARK as u32;
/// The state of the connection.
pub const NFT_CT_STATE: u32 = libc::NFT_CT_STATE as u32;
/// The register that `meta` loads into.
pub const NFTA_META_DREG: u16 = 1;
/// The key of the value that `meta` loads.
pub const NFTA_META_KEY: u16 = 2;
/// The register that `meta` writes to the packet.
pub const NFTA_META_SREG: u16 = 3;
/// The register that `cmp` reads.
pub const NFTA_CMP_SREG: u16 = 1;
/// The operation of `cmp`.
pub const NFTA_CMP_OP: u16 = 2;
/// The value that `cmp` compares with.
pub const NFTA_CMP_DATA: u16 = 3;
/// The register that `payload` loads into.
pub const NFTA_PAYLOAD_DREG: u16 = 1;
/// The header that it reads from.
pub const NFTA_PAYLOAD_BASE: u16 = 2;
/// The offset in that header.
pub const NFTA_PAYLOAD_OFFSET: u16 = 3;
/// The number of bytes.
pub const NFTA_PAYLOAD_LEN: u16 = 4;
/// The register that `payload` writes to the packet.
pub const NFTA_PAYLOAD_SREG: u16 = 5;
/// The register that `fib` loads into.
pub const NFTA_FIB_DREG: u16 = 1;
/// The kind of result that `fib` loads.
pub const NFTA_FIB_RESULT: u16 = 2;
/// The address that `fib` looks up.
pub const NFTA_FIB_FLAGS: u16 = 3;
/// It loads the type of an address.
pub const NFT_FIB_RESULT_ADDRTYPE: u32 = 3;
/// It looks up the source.
pub const NFTA_FIB_F_SADDR: u32 = 1;
/// It looks up the destination.
pub const NFTA_FIB_F_DADDR: u32 = 2;
/// The kind of option that `exthdr` reads or writes.
pub const NFTA_EXTHDR_TYPE: u16 = 2;
/// Its place.
pub const NFTA_EXTHDR_OP: u16 = 6;
/// The register that it writes from.
pub const NFTA_EXTHDR_SREG: u16 = 7;
/// The options of TCP.
pub const NFT_EXTHDR_OP_TCPOPT: u32 = 1;
/// Operation of `exthdr`: an IPv6 extension header.
pub const NFT_EXTHDR_OP_IPV6: u32 = 0;
/// The register that `exthdr` writes.
pub const NFTA_EXTHDR_DREG: u16 = 1;
/// Flags of `exthdr`.
pub const NFTA_EXTHDR_FLAGS: u16 = 5;
/// The set that `dynset` changes.
pub const NFTA_DYNSET_SET_NAME: u16 = 1;
/// The register that `bitwise` reads.
pub const NFTA_BITWISE_SREG: u16 = 1;
/// The register that it writes.
pub const NFTA_BITWISE_DREG: u16 = 2;
/// The bits that it keeps.
pub const NFTA_BITWISE_MASK: u16 = 4;
/// The bits that it flips then.
pub const NFTA_BITWISE_XOR: u16 = 5;
/// Another operation.
pub const NFTA_BITWISE_OP: u16 = 6;
/// The IP version of `nat`, as NFPROTO_*.
pub const NFTA_NAT_FAMILY: u16 = 2;
/// The register with the first address that it writes.
pub const NFTA_NAT_REG_ADDR_MIN: u16 = 3;
/// The register with the last one.
pub const NFTA_NAT_REG_ADDR_MAX: u16 = 4;
/// Register of the first port.
pub const NFTA_NAT_REG_PROTO_MIN: u16 = 5;
/// Register of the last port.
pub const NFTA_NAT_REG_PROTO_MAX: u16 = 6;
/// The register that `range` reads.
pub const NFTA_RANGE_SREG: u16 = 1;
/// Whether it must be within the range, or not (NFT_RANGE_NEQ).
pub const NFTA_RANGE_OP: u16 = 2;
/// The first value.
pub const NFTA_RANGE_FROM: u16 = 3;
/// The last value.
pub const NFTA_RANGE_TO: u16 = 4;
/// The set that `lookup` looks into.
pub const NFTA_LOOKUP_SET: u16 = 1;
/// The register that `lookup` looks for.
pub const NFTA_LOOKUP_SREG: u16 = 2;
/// The flags of `lookup`.
pub const NFTA_LOOKUP_FLAGS: u16 = 5;
/// It holds for what is not in the set.
pub const NFT_LOOKUP_F_INV: u32 = 1;
/// The register that `lookup` loads into; none: it is a condition.
pub const NFTA_LOOKUP_DREG: u16 = 3;
/// The register of `immediate`; zero: a verdict.
pub const NFTA_IMMEDIATE_DREG: u16 = 1;
/// The data of `immediate`.
pub const NFTA_IMMEDIATE_DATA: u16 = 2;
/// Data: bytes.
pub const NFTA_DATA_VALUE: u16 = 1;
/// Data: a verdict.
pub const NFTA_DATA_VERDICT: u16 = 2;
/// A verdict's code.
pub const NFTA_VERDICT_CODE: u16 = 1;
/// The chain that a verdict names.
pub const NFTA_VERDICT_CHAIN: u16 = 2;
/// A flowtable's table.
pub const NFTA_FLOWTABLE_TABLE: u16 = 1;
/// A flowtable's name.
pub const NFTA_FLOWTABLE_NAME: u16 = 2;
/// A flowtable's hook.
pub const NFTA_FLOWTABLE_HOOK: u16 = 3;
/// Within the hook: a flowtable's devices.
pub const NFTA_FLOWTABLE_DEVS: u16 = 3;

// IPsec (linux/xfrm.h).

/// Counts of the policy database.
pub const XFRM_MSG_NEWSPDINFO: u16 = 0x24;
/// Requests the counts.
pub const XFRM_MSG_GETSPDINFO: u16 = 0x25;
/// Requests the default policies.
pub const XFRM_MSG_GETDEFAULT: u16 = 0x28;
/// `struct xfrmu_spdinfo`.
pub const XFRMA_SPD_INFO: u16 = 1;
/// Default policy: block.
pub const XFRM_USERPOLICY_BLOCK: u8 = 1;
