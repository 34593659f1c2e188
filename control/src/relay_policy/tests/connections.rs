//! Translated connections.

use std::sync::Arc;

use wg_bounce_dataplane::pairs::{self, Exceptions, Packets, Pairs};
use wg_bounce_dataplane::transport::Transport;
use wg_bounce_sys::{Family, PerFamily};

use super::fake::{self, FakeKernel};
use crate::netlink::message::build::{attribute, message};
use crate::netlink::message::{Message, Protocol};
use crate::relay_policy::connections;
use crate::relay_policy::reading::{Known, Reading};
use crate::relay_policy::reason::{Finding, Reason};
use crate::relay_policy::rules::addresses::Addresses;
use crate::relay_policy::source::Source;

const CT_MSG_NEW: u16 = 0x100;
const CT_MSG_GET: u16 = 0x101;
const SRC_NAT: u32 = 0x10;
const DST_NAT: u32 = 0x20;

/// A connection of IPv4 with the last bytes of the addresses of both directions.
fn connection(status: u32, original: [u8; 2], reply: [u8; 2]) -> Message {
    let tuple = |kind, hosts: [u8; 2]| {
        let [source, destination] = hosts.map(|host| [10, 7, 0, host]);
        let addresses = [attribute(1, &source), attribute(2, &destination)].concat();
        attribute(kind, &attribute(1, &addresses))
    };
    let attributes = [tuple(1, original), tuple(2, reply), attribute(3, &status.to_be_bytes())];
    message(CT_MSG_NEW, &[2, 0, 0, 0], &attributes)
}

fn read(connections: &[Message], peers: Option<&str>) -> Reading {
    let mut kernel = FakeKernel::quiet();
    kernel.set("netfilter/nf_conntrack_count", "9");
    for connection in connections {
        kernel.push(Protocol::Netfilter, CT_MSG_GET, connection.clone());
    }
    let addresses = peers.map(|peers| Addresses::new(1, [peers.parse().expect("a prefix")]));
    let known = Known { addresses: addresses.as_ref(), ..Known::default() };
    Source::Connections.read(&mut kernel, &fake::at(), known)
}

fn is_by_kernel(reading: &Reading, one: u8, other: u8) -> bool {
    let [one, other] = [one, other].map(|host| [10, 7, 0, host].into());
    pairs::between(&reading.pairs.v4, &Packets::from_to(one, other)).least.all
}

#[test]
fn translated_connections_keep_their_pairs_with_the_kernel() {
    let connections = [
        // To the hub, and on to peer 3.
        connection(DST_NAT, [2, 1], [3, 2]),
        connection(SRC_NAT | DST_NAT, [4, 1], [5, 1]),
        connection(0x8, [6, 7], [7, 6]),
    ];
    let mut reading = read(&connections, Some("10.7.0.0/29"));
    assert_eq!((reading.findings.len(), reading.of_pairs.len()), (0, 0));
    connections::leave_out(&mut reading, &PerFamily::default());
    assert!(is_by_kernel(&reading, 2, 3) && is_by_kernel(&reading, 3, 2));
    assert!(!is_by_kernel(&reading, 6, 7) && !is_by_kernel(&reading, 2, 5));
    assert_eq!(reading.of_pairs, [Finding::of(Family::V4, Reason::Translated)]);
    // Rules keep them there anyway.
    let v4 = vec![Arc::new(Pairs::Alike(Exceptions::ALL))];
    let rules = PerFamily { v4, v6: Vec::new() };
    connections::leave_out(&mut reading, &rules);
    assert_eq!((reading.of_pairs.len(), reading.pairs.v4.len()), (0, 0));
    assert!(reading.has_translations(), "they are looked at again");
    // The second address of a pair is of no peer yet.
    let reading = read(&connections[..1], Some("10.7.0.2/32"));
    assert!(!reading.has_translations() && reading.needs.v4.addresses);
    let reading = read(&connections[2..], Some("10.7.0.2/32"));
    assert!(!reading.has_translations() && !reading.needs.v4.addresses);
}

#[test]
fn translated_connections_are_asked_for_by_their_status() {
    let mut kernel = FakeKernel::quiet();
    kernel.set("netfilter/nf_conntrack_count", "9");
    Source::Connections.read(&mut kernel, &fake::at(), Known::default());
    let requests = kernel.requests.iter().filter(|request| request.1 == CT_MSG_GET);
    let bodies: Vec<Vec<u8>> = requests.map(|request| request.2.clone()).collect();
    let expected = |family: u8, status: u32| {
        let status = status.to_be_bytes();
        [&[family, 0, 0, 0][..], &attribute(3, &status), &attribute(26, &status)].concat()
    };
    let (v4, v6) = (libc::AF_INET as u8, libc::AF_INET6 as u8);
    let all = [(v4, SRC_NAT), (v4, DST_NAT), (v6, SRC_NAT), (v6, DST_NAT)];
    assert_eq!(bodies, all.map(|(family, status)| expected(family, status)));
}

#[test]
fn translated_connections_matter_until_the_peers_are_known() {
    let reading = read(&[connection(SRC_NAT, [2, 9], [9, 1])], None);
    let expected = Finding::of(Family::V4, Reason::Translated);
    assert!(reading.findings.contains(&expected) && reading.needs.v4.addresses);
    let reading = read(&[connection(0x8, [2, 3], [3, 2])], None);
    assert_eq!((reading.findings.len(), reading.needs.v4.addresses), (0, false));
}

#[test]
fn a_kernel_without_tracked_connections_is_not_asked() {
    for count in [None, Some("0")] {
        let mut kernel = FakeKernel::quiet();
        if let Some(count) = count {
            kernel.set("netfilter/nf_conntrack_count", count);
        }
        assert_eq!(
            Source::Connections.read(&mut kernel, &fake::at(), Known::default()),
            Reading::default()
        );
        assert!(kernel.requests.iter().all(|(_, kind, _)| *kind != CT_MSG_GET));
    }
    let mut kernel = FakeKernel::quiet();
    kernel.set("netfilter/nf_conntrack_count", "9");
    kernel.refuse(Protocol::Netfilter, CT_MSG_GET, std::io::ErrorKind::InvalidInput);
    let reading = Source::Connections.read(&mut kernel, &fake::at(), Known::default());
    assert_eq!(reading, Reading::default(), "it cannot list them");
    kernel.refuse(Protocol::Netfilter, CT_MSG_GET, std::io::ErrorKind::PermissionDenied);
    let reading = Source::Connections.read(&mut kernel, &fake::at(), Known::default());
    assert_eq!(reading.findings.len(), 1, "it may have some");
}

/// Connections of TCP that are not translated, with the message that deletes each.
#[test]
fn connections_of_tcp_are_listed_for_deletion() {
    let listed = |status: u32, protocol: u8, more: &[Vec<u8>]| {
        let ports = [attribute(2, &[0x9c, 0x40]), attribute(3, &[0, 80])];
        let transport = [vec![attribute(1, &[protocol])], ports.to_vec()].concat().concat();
        let addresses = [attribute(1, &[10, 7, 0, 2]), attribute(2, &[10, 7, 0, 3])].concat();
        let tuple = attribute(1, &[attribute(1, &addresses), attribute(2, &transport)].concat());
        let attributes = [tuple, attribute(3, &status.to_be_bytes())];
        let attributes = [attributes.to_vec(), more.to_vec()].concat();
        let mut kernel = FakeKernel::quiet();
        let message = message(CT_MSG_NEW, &[2, 0, 0, 0], &attributes);
        kernel.push(Protocol::Netfilter, CT_MSG_GET, message);
        connections::of_tcp(&mut kernel, Family::V4, 9).expect("whole")
    };
    let number = attribute(12, &7u32.to_be_bytes());
    let [one] = &listed(2, 6, std::slice::from_ref(&number))[..] else { panic!("not one") };
    let transport = Transport { protocol: 6, source_port: 40_000, destination_port: 80 };
    assert_eq!(one.packets, Packets::of_pair((0x0a07_0002, 0x0a07_0003)).with(transport));
    assert!(one.deletion.body().ends_with(&number), "{:?}", one.deletion);
    assert!(listed(SRC_NAT, 6, &[]).is_empty() && listed(DST_NAT, 6, &[]).is_empty());
    assert!(listed(2, 17, &[]).is_empty());
}
