//! Segmentation, from the TUN to the network: a TUN frame becomes one or many finished packets.
//!
//! 1. [`Cut::new`] checks the claims of the virtio header against the packet itself, whose headers
//!    are measured.
//! 2. [`Cut::write_segment`] writes one packet with correct lengths, identification, sequence
//!    number, flags and full checksums (`tcp_gso_segment`, `__udp_gso_segment` and
//!    `inet_gso_segment` of Linux).

use super::virtio::{
    CWR, FIN, GSO_ECN, GSO_NONE, GSO_TCPV4, GSO_TCPV6, GSO_UDP_L4, NEEDS_CSUM, PSH,
    TCP_CHECKSUM_AT, TCP_FLAGS_AT, TCP_HEADER_LEN, UDP_CHECKSUM_AT, UDP_HEADER_LEN,
    VNET_HEADER_LEN, VirtioHeader, udp_checksum,
};
use crate::checksum;
use crate::ip::{self, Packet, put_u16, put_u32, u16_at, u32_at};
use crate::limits::{RECEIVE_SEGMENTS_MAX, TCP_SEGMENTS_MAX};

/// The fault of a TUN frame, caused by the kernel or a local sender; the frame is dropped and
/// counted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CutError {
    /// Shorter than its virtio header.
    Truncated,
    /// Not an IP packet, or one whose lengths contradict its bytes.
    Ip,
    /// The segmentation type is unknown, or was not requested.
    GsoType,
    /// The segmentation type does not fit the packet's version, protocol or fragmentation.
    Mismatch,
    /// The TCP or UDP header is cut short or its length is impossible.
    Transport,
    /// The segment size is zero, or gives more packets than the kernel itself would send.
    GsoSize,
    /// The offset of the checksum is impossible.
    ChecksumOffset,
}

/// A checked TUN frame, ready to be written as finished packets.
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
    /// The checksum at `offset` must be completed over everything from `start`.
    Finish {
        start: usize,
        offset: usize,
    },
    Tcp(Plan),
    Udp(Plan),
}

#[derive(Clone, Copy, Debug)]
struct Plan {
    /// Offset of the TCP or UDP header (bytes).
    start: usize,
    /// Bytes of the headers, which every segment repeats.
    headers: usize,
    /// Payload bytes of every segment but the last; not zero.
    size: usize,
}

impl<'a> Cut<'a> {
    /// Checks a frame as it was read from the TUN: virtio header and IP packet. Bytes after the IP
    /// length are ignored.
    ///
    /// # Errors
    /// See [`CutError`].
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

    /// The packets that a frame claims to become, without a check; at least one.
    #[must_use]
    pub fn claimed_segments(frame: &[u8]) -> usize {
        let Some((header, packet)) = frame.split_first_chunk::<VNET_HEADER_LEN>() else { return 1 };
        let header = VirtioHeader::read(header);
        match usize::from(header.gso_size) {
            size @ 1.. if header.gso_type != GSO_NONE => packet.len().div_ceil(size).max(1),
            _ => 1,
        }
    }

    /// The IP header; those of the segments differ from it in length and identification only.
    #[must_use]
    pub fn ip(&self) -> &Packet {
        &self.ip
    }

    /// The IP packet as the kernel sent it: not segmented, its checksum perhaps incomplete.
    #[must_use]
    pub fn packet(&self) -> &'a [u8] {
        self.packet
    }

    /// The number of packets that the frame becomes; at least one.
    #[must_use]
    pub fn segments(&self) -> usize {
        match self.work {
            Work::Copy | Work::Finish { .. } => 1,
            Work::Tcp(plan) | Work::Udp(plan) => {
                (self.packet.len() - plan.headers).div_ceil(plan.size).max(1)
            }
        }
    }

    /// Length of the longest packet (bytes): that of all but the last, if there are several.
    #[must_use]
    pub fn max_segment_len(&self) -> usize {
        self.segment_len(0)
    }

    /// Length of packet `index` (bytes); zero beyond the last.
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

    /// Writes packet `index` to the start of `out` and returns its length (bytes), which is
    /// [`Cut::segment_len`].
    ///
    /// # Panics
    /// If `index` is not below [`Cut::segments`], or `out` is too short: a bug of the caller.
    pub fn write_segment(&self, index: usize, out: &mut [u8]) -> usize {
        assert!(index < self.segments(), "no segment {index}");
        let out = &mut out[..self.segment_len(index)];
        match self.work {
            Work::Copy => out.copy_from_slice(self.packet),
            Work::Finish { start, offset } => {
                out.copy_from_slice(self.packet);
                let checksum = checksum::finish(checksum::sum(&out[start..]));
                // Correct for UDP, and equivalent for all other protocols (`skb_checksum_help`).
                put_u16(out, offset, udp_checksum(checksum));
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

    /// Writes headers and payload of segment `index`, and corrects the IP header.
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
    let offset = start + usize::from(header.csum_offset);
    if start < ip.header_len || offset + 2 > ip.len {
        return Err(CutError::ChecksumOffset);
    }
    Ok(Work::Finish { start, offset })
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
    plan(header, packet, start, start + length, TCP_SEGMENTS_MAX)
}

fn udp_plan(header: &VirtioHeader, packet: &[u8], ip: &Packet) -> Result<Plan, CutError> {
    let start = transport_start(header, packet, ip, ip::UDP, UDP_CHECKSUM_AT)?;
    if packet.len() < start + UDP_HEADER_LEN {
        return Err(CutError::Transport);
    }
    plan(header, packet, start, start + UDP_HEADER_LEN, RECEIVE_SEGMENTS_MAX)
}

fn plan(
    header: &VirtioHeader,
    packet: &[u8],
    start: usize,
    headers: usize,
    segments_max: usize,
) -> Result<Plan, CutError> {
    let size = usize::from(header.gso_size);
    if size == 0 || packet.len() - headers > size * segments_max {
        return Err(CutError::GsoSize);
    }
    Ok(Plan { start, headers, size })
}

/// Offset of the header of `protocol`, if the packet has one and the virtio header agrees (bytes).
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
        return Err(CutError::ChecksumOffset);
    }
    Ok(upper.start)
}
