//! From the TUN to the network: one frame of the TUN becomes one or many finished IP packets.
//!
//! 1. [`Cut::new`] checks what the virtio header claims against the packet itself; headers are
//!    measured, never believed.
//! 2. [`Cut::write_segment`] writes one packet with right lengths, identification, sequence
//!    number, flags and full checksums (`tcp_gso_segment`, `__udp_gso_segment` and
//!    `inet_gso_segment` of Linux).

use super::{
    CWR, FIN, GSO_ECN, GSO_NONE, GSO_TCPV4, GSO_TCPV6, GSO_UDP_L4, NEEDS_CSUM, PSH,
    TCP_CHECKSUM_AT, TCP_FLAGS_AT, TCP_HEADER_LEN, UDP_CHECKSUM_AT, UDP_HEADER_LEN,
    VNET_HEADER_LEN, VirtioHeader, udp_checksum,
};
use crate::checksum;
use crate::ip::{self, Packet, put_u16, put_u32, u16_at, u32_at};
use crate::limits::RECEIVE_SEGMENTS_MAX;

/// Why a frame of the TUN cannot be taken. Each is the kernel's or a local sender's fault; the
/// frame is dropped and counted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CutError {
    /// Shorter than its virtio header.
    Truncated,
    /// No IP packet, or one whose lengths contradict its bytes.
    Ip,
    /// The segmentation type is unknown, or not one that we asked for.
    GsoType,
    /// The segmentation type does not fit the packet's version, protocol or fragmentation.
    Mismatch,
    /// The TCP or UDP header is cut short or its length is impossible.
    Transport,
    /// The segment size is zero, or makes more datagrams than the kernel may.
    GsoSize,
    /// The checksum is claimed to lie where it cannot.
    ChecksumPlace,
}

/// A checked frame of the TUN, ready to be written as finished packets.
#[derive(Clone, Copy, Debug)]
pub struct Cut<'a> {
    packet: &'a [u8],
    ip: Packet,
    work: Work,
}

#[derive(Clone, Copy, Debug)]
enum Work {
    /// A finished packet.
    Copy,
    /// The checksum at `at` is to be completed over everything from `start`.
    Finish {
        start: usize,
        at: usize,
    },
    Tcp(Plan),
    Udp(Plan),
}

#[derive(Clone, Copy, Debug)]
struct Plan {
    /// Where the TCP or UDP header begins.
    start: usize,
    /// Where the payload begins; bytes of the headers that every segment gets.
    headers: usize,
    /// Payload bytes of every segment but the last; not zero.
    size: usize,
}

impl<'a> Cut<'a> {
    /// Checks a frame as it was read from the TUN: virtio header and IP packet. Bytes after the
    /// IP length are ignored.
    pub fn new(frame: &'a [u8]) -> Result<Cut<'a>, CutError> {
        let (header, packet) =
            frame.split_first_chunk::<VNET_HEADER_LEN>().ok_or(CutError::Truncated)?;
        let header = VirtioHeader::read(header);
        let ip = ip::parse(packet).ok_or(CutError::Ip)?;
        let packet = &packet[..ip.len];
        let work = match header.gso_type & !GSO_ECN {
            GSO_NONE => finish_of(&header, &ip)?,
            GSO_TCPV4 if ip.source.is_ipv4() => Work::Tcp(tcp_plan(&header, packet, &ip)?),
            GSO_TCPV6 if ip.source.is_ipv6() => Work::Tcp(tcp_plan(&header, packet, &ip)?),
            GSO_UDP_L4 => Work::Udp(udp_plan(&header, packet, &ip)?),
            GSO_TCPV4 | GSO_TCPV6 => return Err(CutError::Mismatch),
            _ => return Err(CutError::GsoType),
        };
        Ok(Cut { packet, ip, work })
    }

    /// The IP header, which is that of every segment but for lengths and identification.
    #[must_use]
    pub fn ip(&self) -> &Packet {
        &self.ip
    }

    /// The IP packet as the kernel gave it: not cut, its checksum perhaps not complete.
    #[must_use]
    pub fn packet(&self) -> &'a [u8] {
        self.packet
    }

    /// How many packets the frame becomes; at least one.
    #[must_use]
    pub fn segments(&self) -> usize {
        match self.work {
            Work::Copy | Work::Finish { .. } => 1,
            Work::Tcp(plan) | Work::Udp(plan) => {
                (self.packet.len() - plan.headers).div_ceil(plan.size).max(1)
            }
        }
    }

    /// Length of the longest packet (bytes): of all but the last, if there are several.
    #[must_use]
    pub fn max_segment_len(&self) -> usize {
        self.segment_len(0)
    }

    /// Length of the packet `index` (bytes); zero for one that there is not.
    #[must_use]
    pub fn segment_len(&self, index: usize) -> usize {
        match self.work {
            Work::Copy | Work::Finish { .. } if index == 0 => self.packet.len(),
            Work::Tcp(plan) | Work::Udp(plan) if index < self.segments() => {
                let payload = self.packet.len() - plan.headers;
                plan.headers + (payload - index * plan.size).min(plan.size)
            }
            _ => 0,
        }
    }

    /// Writes the packet `index` to the start of `out` and returns its length (bytes), which is
    /// [`Cut::segment_len`].
    ///
    /// # Panics
    /// If `index` is not below [`Cut::segments`], or `out` is too short: the caller's bug.
    pub fn write_segment(&self, index: usize, out: &mut [u8]) -> usize {
        assert!(index < self.segments(), "no segment {index}");
        let out = &mut out[..self.segment_len(index)];
        match self.work {
            Work::Copy => out.copy_from_slice(self.packet),
            Work::Finish { start, at } => {
                out.copy_from_slice(self.packet);
                let checksum = checksum::finish(checksum::sum(&out[start..]));
                // Right for UDP, and the same to all others (`skb_checksum_help`).
                put_u16(out, at, udp_checksum(checksum));
            }
            Work::Tcp(plan) => {
                self.write_ip(&plan, index, out);
                self.write_tcp(&plan, index, out);
            }
            Work::Udp(plan) => {
                self.write_ip(&plan, index, out);
                write_udp(&plan, out);
            }
        }
        out.len()
    }

    /// Headers and payload of segment `index`, with the IP header made right.
    fn write_ip(&self, plan: &Plan, index: usize, out: &mut [u8]) {
        let from = plan.headers + index * plan.size;
        let (headers, payload) = out.split_at_mut(plan.headers);
        headers.copy_from_slice(&self.packet[..plan.headers]);
        payload.copy_from_slice(&self.packet[from..from + payload.len()]);
        if ip::is_v4(out) {
            let identification = u16_at(out, 4).wrapping_add(index as u16);
            put_u16(out, 4, identification);
        }
        let len = out.len();
        ip::set_len(out, self.ip.header_len, len);
    }

    fn write_tcp(&self, plan: &Plan, index: usize, out: &mut [u8]) {
        let pseudo = checksum::pseudo_header(ip::addresses(out), ip::TCP, out.len() - plan.start);
        let tcp = &mut out[plan.start..];
        let sequence = u32_at(tcp, 4).wrapping_add((index * plan.size) as u32);
        put_u32(tcp, 4, sequence);
        if index > 0 {
            tcp[TCP_FLAGS_AT] &= !CWR;
        }
        if index + 1 < self.segments() {
            tcp[TCP_FLAGS_AT] &= !(FIN | PSH);
        }
        put_u16(tcp, TCP_CHECKSUM_AT, 0);
        let checksum = checksum::finish(pseudo + checksum::sum(tcp));
        put_u16(tcp, TCP_CHECKSUM_AT, checksum);
    }
}

fn write_udp(plan: &Plan, out: &mut [u8]) {
    let len = out.len() - plan.start;
    let pseudo = checksum::pseudo_header(ip::addresses(out), ip::UDP, len);
    let udp = &mut out[plan.start..];
    put_u16(udp, 4, len as u16);
    put_u16(udp, UDP_CHECKSUM_AT, 0);
    let checksum = udp_checksum(checksum::finish(pseudo + checksum::sum(udp)));
    put_u16(udp, UDP_CHECKSUM_AT, checksum);
}

fn finish_of(header: &VirtioHeader, ip: &Packet) -> Result<Work, CutError> {
    if header.flags & NEEDS_CSUM == 0 {
        return Ok(Work::Copy);
    }
    let start = usize::from(header.csum_start);
    let at = start + usize::from(header.csum_offset);
    if start < ip.header_len || at + 2 > ip.len {
        return Err(CutError::ChecksumPlace);
    }
    Ok(Work::Finish { start, at })
}

fn tcp_plan(header: &VirtioHeader, packet: &[u8], ip: &Packet) -> Result<Plan, CutError> {
    let start = transport_start(header, packet, ip, ip::TCP, TCP_CHECKSUM_AT)?;
    let tcp = &packet[start..];
    if tcp.len() < TCP_HEADER_LEN {
        return Err(CutError::Transport);
    }
    let length = usize::from(tcp[12] >> 4) * 4;
    if length < TCP_HEADER_LEN || length > tcp.len() {
        return Err(CutError::Transport);
    }
    plan(header, start, start + length)
}

fn udp_plan(header: &VirtioHeader, packet: &[u8], ip: &Packet) -> Result<Plan, CutError> {
    let start = transport_start(header, packet, ip, ip::UDP, UDP_CHECKSUM_AT)?;
    if packet.len() < start + UDP_HEADER_LEN {
        return Err(CutError::Transport);
    }
    let plan = plan(header, start, start + UDP_HEADER_LEN)?;
    if packet.len() - plan.headers > plan.size * RECEIVE_SEGMENTS_MAX {
        return Err(CutError::GsoSize);
    }
    Ok(plan)
}

fn plan(header: &VirtioHeader, start: usize, headers: usize) -> Result<Plan, CutError> {
    if header.gso_size == 0 {
        return Err(CutError::GsoSize);
    }
    Ok(Plan { start, headers, size: usize::from(header.gso_size) })
}

/// Where the header of `protocol` begins, if the packet has it and the virtio header agrees.
fn transport_start(
    header: &VirtioHeader,
    packet: &[u8],
    ip: &Packet,
    protocol: u8,
    checksum_at: usize,
) -> Result<usize, CutError> {
    let upper = ip::upper_layer(packet, ip).ok_or(CutError::Transport)?;
    if upper.protocol != protocol || upper.is_fragment || upper.is_source_routed {
        return Err(CutError::Mismatch);
    }
    let claimed = (usize::from(header.csum_start), usize::from(header.csum_offset));
    if header.flags & NEEDS_CSUM != 0 && claimed != (upper.start, checksum_at) {
        return Err(CutError::ChecksumPlace);
    }
    Ok(upper.start)
}
