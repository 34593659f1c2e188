//! The virtio-net header, and the constants of TCP and UDP headers that both directions need.

/// Bytes of the virtio-net header in front of every packet of the TUN: ten of `virtio_net_hdr`,
/// and zeros up to the size of WireGuard's data header, so that one can replace the other.
pub const VNET_HEADER_LEN: usize = 16;
const _: () = assert!(VNET_HEADER_LEN == crate::wire::DATA_HEADER_LEN);

/// Flag: the checksum at `csum_start + csum_offset` holds the pseudo header's sum only.
pub const NEEDS_CSUM: u8 = 1;

/// Segmentation type: a single packet.
pub const GSO_NONE: u8 = 0;
/// Segmentation type: TCP over IPv4.
pub const GSO_TCPV4: u8 = 1;
/// Segmentation type: TCP over IPv6.
pub const GSO_TCPV6: u8 = 4;
/// Segmentation type: UDP datagrams of one length (not IP fragments).
pub const GSO_UDP_L4: u8 = 5;
/// Flag on top of the type: the TCP flow uses ECN.
pub const GSO_ECN: u8 = 0x80;

/// `virtio_net_hdr` (include/uapi/linux/virtio_net.h): the checksum and segmentation work that is
/// left to do for a packet. The default is a finished packet.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct VirtioHeader {
    /// [`NEEDS_CSUM`], and flags that are not used here.
    pub flags: u8,
    /// One of the `GSO_` values, with or without [`GSO_ECN`].
    pub gso_type: u8,
    /// Bytes of all headers of a super-packet. The kernel's value is not reliable.
    pub hdr_len: u16,
    /// Payload bytes of every segment but the last.
    pub gso_size: u16,
    /// Offset of the first byte that the checksum covers (bytes from the start of the packet).
    pub csum_start: u16,
    /// Offset of the checksum (bytes from `csum_start`).
    pub csum_offset: u16,
}

impl VirtioHeader {
    /// Reads the header in front of a packet from the TUN.
    #[must_use]
    pub fn read(bytes: &[u8; VNET_HEADER_LEN]) -> Self {
        let u16_at = |at: usize| u16::from_ne_bytes([bytes[at], bytes[at + 1]]);
        VirtioHeader {
            flags: bytes[0],
            gso_type: bytes[1],
            hdr_len: u16_at(2),
            gso_size: u16_at(4),
            csum_start: u16_at(6),
            csum_offset: u16_at(8),
        }
    }

    /// The bytes to write in front of a packet to the TUN.
    #[must_use]
    pub fn to_bytes(self) -> [u8; VNET_HEADER_LEN] {
        let mut bytes = [0; VNET_HEADER_LEN];
        bytes[0] = self.flags;
        bytes[1] = self.gso_type;
        bytes[2..4].copy_from_slice(&self.hdr_len.to_ne_bytes());
        bytes[4..6].copy_from_slice(&self.gso_size.to_ne_bytes());
        bytes[6..8].copy_from_slice(&self.csum_start.to_ne_bytes());
        bytes[8..10].copy_from_slice(&self.csum_offset.to_ne_bytes());
        bytes
    }
}

/// Offset of the checksum in a TCP header (bytes).
pub(super) const TCP_CHECKSUM_AT: usize = 16;
/// Offset of the flags in a TCP header (bytes).
pub(super) const TCP_FLAGS_AT: usize = 13;
/// Bytes of a TCP header without options.
pub(super) const TCP_HEADER_LEN: usize = 20;
/// Offset of the checksum in a UDP header (bytes).
pub(super) const UDP_CHECKSUM_AT: usize = 6;
/// Bytes of a UDP header.
pub(super) const UDP_HEADER_LEN: usize = 8;

pub(super) const FIN: u8 = 0x01;
pub(super) const PSH: u8 = 0x08;
pub(super) const ACK: u8 = 0x10;
pub(super) const CWR: u8 = 0x80;

/// The checksum of a UDP datagram as sent: zero would mean "none" (RFC 768).
pub(super) fn udp_checksum(checksum: u16) -> u16 {
    if checksum == 0 { 0xffff } else { checksum }
}
