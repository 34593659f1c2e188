//! What the interface itself has attached: XDP, a master, queueing disciplines, filters, BPF.

use std::io;

use super::kernel::{Direction, Interface, Kernel, Protocol};
use super::message::{Attribute, Message, Request, array, find, need, unreadable};
use super::reason::{Finding, Reason};

const RTM_NEWLINK: u16 = 16;
const RTM_GETLINK: u16 = 18;
/// Bytes of `struct ifinfomsg`: family, type, number, flags, change mask.
const LINK_LEN: usize = 16;
const LINK_FLAGS_AT: usize = 8;
const IFF_PROMISC: u32 = 0x100;
const IFLA_MASTER: u16 = 10;
const IFLA_PROMISCUITY: u16 = 30;
const IFLA_XDP: u16 = 43;
const IFLA_XDP_ATTACHED: u16 = 2;

const RTM_NEWQDISC: u16 = 36;
const RTM_GETQDISC: u16 = 38;
const RTM_NEWTFILTER: u16 = 44;
const RTM_GETTFILTER: u16 = 46;
/// Bytes of `struct tcmsg`: family, number of the interface, handle, parent, info.
const TRAFFIC_LEN: usize = 20;
const INDEX_AT: usize = 4;
const HANDLE_AT: usize = 8;
const TCA_KIND: u16 = 1;
const TCA_OPTIONS: u16 = 2;
const TCA_DUMP_INVISIBLE: u16 = 10;
const TCA_INGRESS_BLOCK: u16 = 13;
const TCA_EGRESS_BLOCK: u16 = 14;
/// A flow's highest rate: fq shapes if it is not the highest number.
const TCA_FQ_FLOW_MAX_RATE: u16 = 7;
/// TC_H_CLSACT with TC_H_MIN_INGRESS and TC_H_MIN_EGRESS.
const AT_INGRESS: u32 = 0xffff_fff2;
const AT_EGRESS: u32 = 0xffff_fff3;

/// Queueing disciplines that only queue, whoever chose them. mq is not among them: whoever chooses
/// that hangs something below it, or leaves a queue that drops everything.
const PLAIN: [&str; 3] = ["noqueue", "pfifo_fast", "fq_codel"];

/// XDP, master, promiscuous mode.
pub fn link(kernel: &mut impl Kernel, at: &Interface) -> io::Result<Vec<Finding>> {
    let mut header = [0; LINK_LEN];
    header[INDEX_AT..INDEX_AT + 4].copy_from_slice(&at.index.to_ne_bytes());
    let answer = kernel.ask(Protocol::Route, &Request::one(RTM_GETLINK, &header))?;
    let message = answer.iter().find(|message| message.kind == RTM_NEWLINK);
    let (header, attributes) = message.ok_or_else(unreadable)?.parts(LINK_LEN)?;
    let mut findings = Vec::new();
    let xdp = need(&attributes, IFLA_XDP)?.nested()?;
    if need(&xdp, IFLA_XDP_ATTACHED)?.value != [0] {
        findings.push(Finding::of_both(Reason::Xdp));
    }
    if let Some(master) = find(&attributes, IFLA_MASTER) {
        findings.push(Finding::of_both(Reason::Master { index: master.u32()? }));
    }
    let flags = u32::from_ne_bytes(array(&header[LINK_FLAGS_AT..])?);
    let promiscuity = need(&attributes, IFLA_PROMISCUITY)?.u32()?;
    if flags & IFF_PROMISC != 0 || promiscuity != 0 {
        findings.push(Finding::of_both(Reason::Promiscuous));
    }
    Ok(findings)
}

/// Queueing disciplines that do more than queue, and filters.
pub fn traffic_control(kernel: &mut impl Kernel, at: &Interface) -> io::Result<Vec<Finding>> {
    let request = Request::all(RTM_GETQDISC, &[0; TRAFFIC_LEN]).with(TCA_DUMP_INVISIBLE, &[]);
    let mut findings = Vec::new();
    for message in kernel.ask(Protocol::Route, &request)? {
        if message.kind != RTM_NEWQDISC {
            return Err(unreadable());
        }
        let (header, attributes) = message.parts(TRAFFIC_LEN)?;
        if u32::from_ne_bytes(array(&header[INDEX_AT..])?) != at.index {
            continue;
        }
        let handle = u32::from_ne_bytes(array(&header[HANDLE_AT..])?);
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

/// What the kernel has put there by itself (`net.core.default_qdisc`) has no handle, and none of
/// the options that make it shape.
fn is_plain(kind: &str, handle: u32, attributes: &[Attribute<'_>]) -> io::Result<bool> {
    if kind == "fq" {
        let options = need(attributes, TCA_OPTIONS)?.nested()?;
        return Ok(need(&options, TCA_FQ_FLOW_MAX_RATE)?.u32()? == u32::MAX);
    }
    Ok(handle == 0 || PLAIN.contains(&kind))
}

/// Filters that several interfaces share do not hang on any of them.
fn shared_block(attributes: &[Attribute<'_>]) -> Option<Finding> {
    let is_shared =
        [TCA_INGRESS_BLOCK, TCA_EGRESS_BLOCK].iter().any(|&kind| find(attributes, kind).is_some());
    let (kind, hook) = ("shared".to_owned(), "a block".to_owned());
    is_shared.then(|| Finding::of_both(Reason::TrafficFilter { kind, hook }))
}

fn filters(kernel: &mut impl Kernel, at: &Interface, parent: u32) -> io::Result<Option<Finding>> {
    let mut header = [0; TRAFFIC_LEN];
    header[INDEX_AT..INDEX_AT + 4].copy_from_slice(&at.index.to_ne_bytes());
    header[12..16].copy_from_slice(&parent.to_ne_bytes());
    let answer = kernel.ask(Protocol::Route, &Request::all(RTM_GETTFILTER, &header))?;
    let Some(first) = answer.first() else { return Ok(None) };
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
        return Err(unreadable());
    }
    let (_, attributes) = message.parts(TRAFFIC_LEN)?;
    Ok(need(&attributes, TCA_KIND)?.text())
}

/// BPF programs at the interface's TCX hooks.
pub fn tcx(kernel: &mut impl Kernel, at: &Interface) -> io::Result<Vec<Finding>> {
    let mut findings = Vec::new();
    for (direction, hook) in [(Direction::Ingress, "ingress"), (Direction::Egress, "egress")] {
        if kernel.tcx_programs(at.index, direction)? != 0 {
            findings.push(Finding::of_both(Reason::TcxProgram { hook }));
        }
    }
    Ok(findings)
}
