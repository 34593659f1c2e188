//! The table of nftables that belongs to a default route through the tunnel, as wg-quick(8) adds
//! one: no stranger on another link reaches the addresses of the interface, and replies to our own
//! datagrams carry their mark, so that the reverse-path filter looks in the right routing table.
//!
//! Unlike wg-quick's rules, these apply to no packet from the interface or to it. So they change
//! nothing between peers, and do not keep the relay from the direct way.

use std::io;
use std::net::IpAddr;

use netlink_packet_core::{DefaultNla, Emitable, NLM_F_APPEND, NLM_F_CREATE};

use crate::netlink::message::{Protocol, Request};
use crate::netlink::numbers::*;
use crate::netlink::socket::{self, NetlinkSocket};

/// Adds the table, or replaces it. `addresses` are those that only the tunnel leads to.
///
/// # Errors
/// The kernel refuses, or has no nftables.
pub(super) fn set(interface: &str, addresses: &[IpAddr], mark: u32) -> io::Result<()> {
    let table = Table::of(interface);
    // To delete it, it must exist.
    let mut requests = vec![table.add(), table.delete(), table.add()];
    for (chain, hook, priority) in [
        ("preraw", libc::NF_INET_PRE_ROUTING, -300),
        ("premangle", libc::NF_INET_PRE_ROUTING, -150),
        ("postmangle", libc::NF_INET_POST_ROUTING, -150),
    ] {
        requests.push(table.chain(chain, hook, priority));
    }
    let from_elsewhere = || is_not(libc::NFT_META_IIFNAME, interface);
    for address in addresses {
        let (protocol, offset, bytes) = match address {
            IpAddr::V4(address) => (libc::NFPROTO_IPV4, 16, address.octets().to_vec()),
            IpAddr::V6(address) => (libc::NFPROTO_IPV6, 24, address.octets().to_vec()),
        };
        let destination = [
            attribute_u32(NFTA_PAYLOAD_DREG, REGISTER),
            attribute_u32(NFTA_PAYLOAD_BASE, libc::NFT_PAYLOAD_NETWORK_HEADER as u32),
            attribute_u32(NFTA_PAYLOAD_OFFSET, offset),
            attribute_u32(NFTA_PAYLOAD_LEN, bytes.len() as u32),
        ];
        let type_of_source = [
            attribute_u32(NFTA_FIB_DREG, REGISTER),
            attribute_u32(NFTA_FIB_RESULT, NFT_FIB_RESULT_ADDRTYPE),
            attribute_u32(NFTA_FIB_FLAGS, NFTA_FIB_F_SADDR),
        ];
        let expressions = [
            from_elsewhere(),
            is(libc::NFT_META_NFPROTO, &[protocol as u8]),
            vec![expression("payload", &destination), compare(libc::NFT_CMP_EQ, &bytes)],
            vec![
                expression("fib", &type_of_source),
                compare(libc::NFT_CMP_NEQ, &u32::from(libc::RTN_LOCAL).to_ne_bytes()),
                drop_packet(),
            ],
        ];
        requests.push(table.rule("preraw", &expressions.concat()));
    }
    let is_udp = || is(libc::NFT_META_L4PROTO, &[libc::IPPROTO_UDP as u8]);
    let ct_mark = |register| {
        let key = attribute_u32(NFTA_CT_KEY, NFT_CT_MARK);
        expression("ct", &[attribute_u32(register, REGISTER), key])
    };
    let mark_of_packet = |register| {
        let key = attribute_u32(NFTA_META_KEY, libc::NFT_META_MARK as u32);
        expression("meta", &[attribute_u32(register, REGISTER), key])
    };
    let restore = vec![ct_mark(NFTA_CT_DREG), mark_of_packet(NFTA_META_SREG)];
    requests.push(table.rule("premangle", &[from_elsewhere(), is_udp(), restore].concat()));
    let save = vec![mark_of_packet(NFTA_META_DREG), ct_mark(NFTA_CT_SREG)];
    let expressions = [
        is_not(libc::NFT_META_OIFNAME, interface),
        is_udp(),
        is(libc::NFT_META_MARK, &mark.to_ne_bytes()),
        save,
    ];
    requests.push(table.rule("postmangle", &expressions.concat()));
    NetlinkSocket::open(Protocol::Netfilter, &[])?.transact(&requests)
}

/// Whether the table has all its rules, for so many addresses. Setting it once more would make the
/// relay policy read all rules again.
///
/// # Errors
/// The kernel's reply cannot be read.
pub(super) fn is_whole(interface: &str, addresses: usize) -> io::Result<bool> {
    let family = [libc::NFPROTO_INET as u8, 0, 0, 0];
    let table = text(NFTA_RULE_TABLE, &Table::of(interface).0);
    let request = Request::dump_some(NFT_MSG_GETRULE, &family, &[table]);
    Ok(socket::request(Protocol::Netfilter, &request)?.len() == addresses + 2)
}

/// Removes the table, which may be gone already.
///
/// # Errors
/// The kernel refuses.
pub(super) fn unset(interface: &str) -> io::Result<()> {
    let delete = [Table::of(interface).delete()];
    match NetlinkSocket::open(Protocol::Netfilter, &[])?.transact(&delete) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        result => result,
    }
}

/// The first register of 16 bytes (NFT_REG_1).
const REGISTER: u32 = libc::NFT_REG_1 as u32;
/// The register of verdicts.
const VERDICT: u32 = libc::NFT_REG_VERDICT as u32;

/// The requests for one table.
struct Table(String);

impl Table {
    fn of(interface: &str) -> Table {
        Table(format!("wg-bounce-{interface}"))
    }

    fn request(&self, kind: u16, attributes: &[DefaultNla]) -> Request {
        let family = [libc::NFPROTO_INET as u8, 0, 0, 0];
        Request::change(kind, &family, attributes)
    }

    fn add(&self) -> Request {
        self.request(NFT_MSG_NEWTABLE, &[text(NFTA_TABLE_NAME, &self.0)]).with(NLM_F_CREATE)
    }

    fn delete(&self) -> Request {
        self.request(NFT_MSG_DELTABLE, &[text(NFTA_TABLE_NAME, &self.0)])
    }

    fn chain(&self, name: &str, hook: i32, priority: i32) -> Request {
        let hook = [
            attribute_u32(NFTA_HOOK_HOOKNUM, hook.cast_unsigned()),
            attribute_u32(NFTA_HOOK_PRIORITY, priority.cast_unsigned()),
        ];
        let attributes = [
            text(NFTA_CHAIN_TABLE, &self.0),
            text(NFTA_CHAIN_NAME, name),
            nested(NFTA_CHAIN_HOOK, &hook),
            text(NFTA_CHAIN_TYPE, "filter"),
        ];
        self.request(NFT_MSG_NEWCHAIN, &attributes).with(NLM_F_CREATE)
    }

    fn rule(&self, chain: &str, expressions: &[DefaultNla]) -> Request {
        let attributes = [
            text(NFTA_RULE_TABLE, &self.0),
            text(NFTA_RULE_CHAIN, chain),
            nested(NFTA_RULE_EXPRESSIONS, expressions),
        ];
        self.request(NFT_MSG_NEWRULE, &attributes).with(NLM_F_CREATE | NLM_F_APPEND)
    }
}

/// Loads what `key` means, and goes on if it is this.
fn is(key: i32, value: &[u8]) -> Vec<DefaultNla> {
    vec![load(key), compare(libc::NFT_CMP_EQ, value)]
}

/// Loads the name of an interface, and goes on if it is another.
fn is_not(key: i32, interface: &str) -> Vec<DefaultNla> {
    let mut name = [0; libc::IFNAMSIZ];
    name[..interface.len()].copy_from_slice(interface.as_bytes());
    vec![load(key), compare(libc::NFT_CMP_NEQ, &name)]
}

fn load(key: i32) -> DefaultNla {
    let key = attribute_u32(NFTA_META_KEY, key.cast_unsigned());
    expression("meta", &[attribute_u32(NFTA_META_DREG, REGISTER), key])
}

fn compare(operation: i32, value: &[u8]) -> DefaultNla {
    let attributes = [
        attribute_u32(NFTA_CMP_SREG, REGISTER),
        attribute_u32(NFTA_CMP_OP, operation.cast_unsigned()),
        nested(NFTA_CMP_DATA, &[DefaultNla::new(NFTA_DATA_VALUE, value.to_vec())]),
    ];
    expression("cmp", &attributes)
}

fn drop_packet() -> DefaultNla {
    let code = attribute_u32(NFTA_VERDICT_CODE, libc::NF_DROP.cast_unsigned());
    let attributes = [
        attribute_u32(NFTA_IMMEDIATE_DREG, VERDICT),
        nested(NFTA_IMMEDIATE_DATA, &[nested(NFTA_DATA_VERDICT, &[code])]),
    ];
    expression("immediate", &attributes)
}

/// An expression as an element of a rule's list.
fn expression(name: &str, attributes: &[DefaultNla]) -> DefaultNla {
    let attributes = [text(NFTA_EXPR_NAME, name), nested(NFTA_EXPR_DATA, attributes)];
    nested(NFTA_LIST_ELEM, &attributes)
}

fn nested(kind: u16, attributes: &[DefaultNla]) -> DefaultNla {
    let mut bytes = vec![0; attributes.buffer_len()];
    attributes.emit(&mut bytes);
    DefaultNla::new(kind | libc::NLA_F_NESTED as u16, bytes)
}

fn text(kind: u16, text: &str) -> DefaultNla {
    DefaultNla::new(kind, [text.as_bytes(), &[0]].concat())
}

/// A number in network byte order, as nftables writes them.
fn attribute_u32(kind: u16, number: u32) -> DefaultNla {
    DefaultNla::new(kind, number.to_be_bytes().to_vec())
}
