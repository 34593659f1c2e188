//! State attached to the interface: XDP, a master device, queueing disciplines, filters, BPF.

use std::io;

use netlink_packet_core::DefaultNla;
use netlink_packet_route::RouteNetlinkMessage;
use netlink_packet_route::link::{LinkMessage, LinkMessageBuffer};
use netlink_packet_route::tc::{TcAttribute, TcMessage, TcMessageBuffer};

use super::kernel::{Direction, Interface, Kernel};
use super::reason::{Finding, Reason};
use crate::netlink::attribute::{Attribute, attributes, find, need};
use crate::netlink::message::{Message, Protocol, Request};
use crate::netlink::numbers::{
    IFF_PROMISC, IFLA_MASTER, IFLA_PROMISCUITY, IFLA_XDP, IFLA_XDP_ATTACHED, RTM_NEWLINK,
    RTM_NEWQDISC, RTM_NEWTFILTER, TCA_DUMP_INVISIBLE, TCA_EGRESS_BLOCK, TCA_FQ_FLOW_MAX_RATE,
    TCA_INGRESS_BLOCK, TCA_KIND, TCA_OPTIONS,
};
use crate::netlink::parse::malformed;

/// TC_H_CLSACT with TC_H_MIN_INGRESS and TC_H_MIN_EGRESS.
const AT_INGRESS: u32 = 0xffff_fff2;
const AT_EGRESS: u32 = 0xffff_fff3;

/// Queueing disciplines that only queue, even if configured explicitly. mq is not among them: if it
/// is configured, its children shape, or it drops everything.
const PLAIN: [&str; 3] = ["noqueue", "pfifo_fast", "fq_codel"];

/// XDP programs, a master device, promiscuous mode.
pub fn link(kernel: &mut impl Kernel, at: &Interface) -> io::Result<Vec<Finding>> {
    let mut link = LinkMessage::default();
    link.header.index = at.index;
    let request = Request::get_route(&RouteNetlinkMessage::GetLink(link));
    let reply = kernel.query(Protocol::Route, &request)?;
    let message = reply.iter().find(|message| message.kind == RTM_NEWLINK);
    let payload = message.ok_or_else(malformed)?.payload.as_slice();
    let header = LinkMessageBuffer::new_checked(payload).map_err(|_| malformed())?;
    let attributes = attributes(header.payload())?;
    let mut findings = Vec::new();
    let xdp = need(&attributes, IFLA_XDP)?.nested()?;
    if need(&xdp, IFLA_XDP_ATTACHED)?.value != [0] {
        findings.push(Finding::of_both(Reason::Xdp));
    }
    if let Some(master) = find(&attributes, IFLA_MASTER) {
        findings.push(Finding::of_both(Reason::Master { index: master.u32()? }));
    }
    let promiscuity = need(&attributes, IFLA_PROMISCUITY)?.u32()?;
    if header.flags() & IFF_PROMISC != 0 || promiscuity != 0 {
        findings.push(Finding::of_both(Reason::Promiscuous));
    }
    Ok(findings)
}

/// Queueing disciplines that do more than queue, and tc filters.
pub fn traffic_control(kernel: &mut impl Kernel, at: &Interface) -> io::Result<Vec<Finding>> {
    let mut all = TcMessage::default();
    all.attributes.push(TcAttribute::Other(DefaultNla::new(TCA_DUMP_INVISIBLE, Vec::new())));
    let request = Request::dump_route(&RouteNetlinkMessage::GetQueueDiscipline(all));
    let mut findings = Vec::new();
    for message in kernel.query(Protocol::Route, &request)? {
        if message.kind != RTM_NEWQDISC {
            return Err(malformed());
        }
        let (header, attributes) = traffic_message(&message)?;
        if header.index().cast_unsigned() != at.index {
            continue;
        }
        let handle = header.handle();
        let kind = need(&attributes, TCA_KIND)?.text();
        if kind == "ingress" || kind == "clsact" {
            findings.extend(shared_block(&attributes));
            findings.extend(filters(kernel, at, AT_INGRESS)?);
            findings.extend(filters(kernel, at, AT_EGRESS)?);
        } else if !is_plain(&kind, handle, &attributes)? {
            findings.push(Finding::of_both(Reason::Qdisc { kind }));
        } else if handle != 0 {
            findings.extend(filters(kernel, at, handle)?);
        }
    }
    Ok(findings)
}

/// Whether a queueing discipline only queues. A default one (`net.core.default_qdisc`) has no
/// handle, and none of the options that make it shape.
fn is_plain(kind: &str, handle: u32, attributes: &[Attribute<'_>]) -> io::Result<bool> {
    if kind == "fq" {
        let options = need(attributes, TCA_OPTIONS)?.nested()?;
        return Ok(need(&options, TCA_FQ_FLOW_MAX_RATE)?.u32()? == u32::MAX);
    }
    Ok(handle == 0 || PLAIN.contains(&kind))
}

/// Filters in a block shared by several interfaces, which are not listed with any of them.
fn shared_block(attributes: &[Attribute<'_>]) -> Option<Finding> {
    let is_shared =
        [TCA_INGRESS_BLOCK, TCA_EGRESS_BLOCK].iter().any(|&kind| find(attributes, kind).is_some());
    let (kind, hook) = ("shared".to_owned(), "a block".to_owned());
    is_shared.then(|| Finding::of_both(Reason::TrafficFilter { kind, hook }))
}

fn filters(kernel: &mut impl Kernel, at: &Interface, parent: u32) -> io::Result<Option<Finding>> {
    let mut filters = TcMessage::with_index(at.index.cast_signed());
    filters.header.parent = parent.into();
    let request = Request::dump_route(&RouteNetlinkMessage::GetTrafficFilter(filters));
    let reply = kernel.query(Protocol::Route, &request)?;
    let Some(first) = reply.first() else { return Ok(None) };
    let hook = match parent {
        AT_INGRESS => "ingress".to_owned(),
        AT_EGRESS => "egress".to_owned(),
        handle => format!("qdisc {:x}:", handle >> 16),
    };
    let kind = filter_kind(first)?;
    Ok(Some(Finding::of_both(Reason::TrafficFilter { kind, hook })))
}

fn filter_kind(message: &Message) -> io::Result<String> {
    if message.kind != RTM_NEWTFILTER {
        return Err(malformed());
    }
    let (_, attributes) = traffic_message(message)?;
    Ok(need(&attributes, TCA_KIND)?.text())
}

fn traffic_message(message: &Message) -> io::Result<(TcMessageBuffer<&[u8]>, Vec<Attribute<'_>>)> {
    let payload = message.payload.as_slice();
    let header = TcMessageBuffer::new_checked(payload).map_err(|_| malformed())?;
    let attributes = attributes(header.payload())?;
    Ok((header, attributes))
}

/// BPF programs attached to the interface's TCX hooks.
pub fn tcx(kernel: &mut impl Kernel, at: &Interface) -> io::Result<Vec<Finding>> {
    let mut findings = Vec::new();
    for (direction, hook) in [(Direction::Ingress, "ingress"), (Direction::Egress, "egress")] {
        if kernel.tcx_programs(at.index, direction)? != 0 {
            findings.push(Finding::of_both(Reason::TcxProgram { hook }));
        }
    }
    Ok(findings)
}
