//! Packets built field by field, with checksums added up word by word: nothing of the code under
//! test is used here.

use proptest::prelude::*;

pub const FIN: u8 = 0x01;
pub const SYN: u8 = 0x02;
pub const RST: u8 = 0x04;
pub const PSH: u8 = 0x08;
pub const ACK: u8 = 0x10;
pub const URG: u8 = 0x20;
pub const ECE: u8 = 0x40;
pub const CWR: u8 = 0x80;

pub const NEEDS_CSUM: u8 = 1;

/// All that the headers of one packet say, but for lengths and checksums.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Spec {
    pub v6: bool,
    pub udp: bool,
    /// Last octet of the source address.
    pub host: u8,
    pub port: u16,
    pub tos: u8,
    pub ttl: u8,
    pub flow_label: u16,
    pub id: u16,
    pub df: bool,
    pub seq: u32,
    pub ack: u32,
    pub flags: u8,
    pub window: u16,
    /// TCP options; a multiple of four bytes.
    pub options: Vec<u8>,
}

impl Spec {
    pub fn tcp(v6: bool) -> Spec {
        Spec {
            v6,
            udp: false,
            host: 1,
            port: 40_000,
            tos: 0,
            ttl: 64,
            flow_label: 0x1234,
            id: 7,
            df: true,
            seq: 1_000,
            ack: 5,
            flags: ACK,
            window: 501,
            options: vec![1, 1, 8, 10, 0, 0, 0, 1, 0, 0, 0, 2],
        }
    }

    pub fn udp(v6: bool) -> Spec {
        Spec { udp: true, seq: 0, ack: 0, flags: 0, window: 0, options: vec![], ..Spec::tcp(v6) }
    }

    pub fn ip_len(&self) -> usize {
        if self.v6 { 40 } else { 20 }
    }

    pub fn headers_len(&self) -> usize {
        self.ip_len() + if self.udp { 8 } else { 20 + self.options.len() }
    }

    fn protocol(&self) -> u8 {
        if self.udp { 17 } else { 6 }
    }

    fn addresses(&self) -> Vec<u8> {
        if self.v6 {
            let mut both = vec![0xfd, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, self.host];
            both.extend([0xfd, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 99]);
            both
        } else {
            vec![10, 0, 0, self.host, 10, 0, 0, 99]
        }
    }

    fn ip_header(&self, len: usize) -> Vec<u8> {
        if self.v6 {
            let mut header = vec![0x60 | self.tos >> 4, self.tos << 4];
            header.extend(self.flow_label.to_be_bytes());
            header.extend(((len - 40) as u16).to_be_bytes());
            header.extend([self.protocol(), self.ttl]);
            header.extend(self.addresses());
            return header;
        }
        let mut header = vec![0x45, self.tos];
        header.extend((len as u16).to_be_bytes());
        header.extend(self.id.to_be_bytes());
        header.extend([if self.df { 0x40 } else { 0 }, 0, self.ttl, self.protocol(), 0, 0]);
        header.extend(self.addresses());
        let checksum = complement(&header);
        header[10..12].copy_from_slice(&checksum.to_be_bytes());
        header
    }

    /// Transport header with a zero checksum, and payload.
    fn transport(&self, payload: &[u8]) -> Vec<u8> {
        let mut bytes = self.port.to_be_bytes().to_vec();
        bytes.extend(5201u16.to_be_bytes());
        if self.udp {
            bytes.extend(((8 + payload.len()) as u16).to_be_bytes());
            bytes.extend([0, 0]);
        } else {
            bytes.extend(self.seq.to_be_bytes());
            bytes.extend(self.ack.to_be_bytes());
            bytes.extend([(5 + self.options.len() as u8 / 4) << 4, self.flags]);
            bytes.extend(self.window.to_be_bytes());
            bytes.extend([0, 0, 0, 0]);
            bytes.extend(&self.options);
        }
        bytes.extend(payload);
        bytes
    }

    fn pseudo(&self, transport_len: usize) -> Vec<u8> {
        let mut pseudo = self.addresses();
        pseudo.extend([0, self.protocol()]);
        pseudo.extend((transport_len as u32).to_be_bytes());
        pseudo
    }

    pub fn checksum_at(&self) -> usize {
        if self.udp { 6 } else { 16 }
    }

    /// The finished packet.
    pub fn packet(&self, payload: &[u8]) -> Vec<u8> {
        let mut transport = self.transport(payload);
        let mut covered = self.pseudo(transport.len());
        covered.extend(&transport);
        let mut checksum = complement(&covered);
        if self.udp && checksum == 0 {
            checksum = 0xffff;
        }
        let at = self.checksum_at();
        transport[at..at + 2].copy_from_slice(&checksum.to_be_bytes());
        let mut packet = self.ip_header(self.ip_len() + transport.len());
        packet.extend(transport);
        packet
    }

    /// The TUN frame of a packet whose checksum and segmentation are left to us; `gso_size` zero
    /// for one that is not to be cut.
    pub fn frame(&self, payload: &[u8], gso_size: u16) -> Vec<u8> {
        let mut transport = self.transport(payload);
        let partial = !complement(&self.pseudo(transport.len()));
        let at = self.checksum_at();
        transport[at..at + 2].copy_from_slice(&partial.to_be_bytes());
        let gso_type = match (gso_size, self.udp, self.v6) {
            (0, _, _) => 0,
            (_, true, _) => 5,
            (_, false, false) => 1,
            (_, false, true) => 4,
        };
        let mut frame = vec![NEEDS_CSUM, gso_type];
        frame.extend(0xbeef_u16.to_ne_bytes()); // hdr_len as the kernel may give it: wrong
        frame.extend(gso_size.to_ne_bytes());
        frame.extend((self.ip_len() as u16).to_ne_bytes());
        frame.extend((at as u16).to_ne_bytes());
        frame.extend([0; 6]);
        frame.extend(self.ip_header(self.ip_len() + transport.len()));
        frame.extend(transport);
        frame
    }

    /// The packets that [`Spec::frame`] is to become.
    pub fn segments(&self, payload: &[u8], gso_size: usize) -> Vec<Vec<u8>> {
        let chunks: Vec<&[u8]> =
            if payload.is_empty() { vec![&[]] } else { payload.chunks(gso_size).collect() };
        let build = |(index, chunk): (usize, &&[u8])| {
            let mut spec = self.clone();
            spec.id = self.id.wrapping_add(index as u16);
            if !self.udp {
                spec.seq = self.seq.wrapping_add((index * gso_size) as u32);
            }
            if index > 0 {
                spec.flags &= !CWR;
            }
            if index + 1 < chunks.len() {
                spec.flags &= !(FIN | PSH);
            }
            spec.packet(chunk)
        };
        chunks.iter().enumerate().map(build).collect()
    }
}

/// The internet checksum, word by word.
fn complement(bytes: &[u8]) -> u16 {
    let mut sum = 0u32;
    for pair in bytes.chunks(2) {
        sum += u32::from(pair[0]) << 8 | u32::from(*pair.get(1).unwrap_or(&0));
        sum = (sum & 0xffff) + (sum >> 16);
    }
    !(sum as u16)
}

/// Any TCP or UDP flow with any header fields.
pub fn any_spec() -> impl Strategy<Value = Spec> {
    let ip = (any::<bool>(), 1..250u8, any::<u8>(), 1..=255u8, any::<u16>(), any::<u16>());
    let tcp = (any::<u32>(), any::<u32>(), any::<u8>(), any::<u16>(), 0..=10usize);
    (ip, any::<bool>(), any::<bool>(), any::<u16>(), tcp).prop_map(
        |(
            (v6, host, tos, ttl, flow_label, id),
            df,
            udp,
            port,
            (seq, ack, flags, window, options),
        )| {
            let base = if udp { Spec::udp(v6) } else { Spec::tcp(v6) };
            let spec = Spec { host, tos, ttl, flow_label, id, df, port, ..base };
            if udp {
                return spec;
            }
            Spec { seq, ack, flags, window, options: vec![1; options * 4], ..spec }
        },
    )
}

/// Payload bytes that differ from place to place.
pub fn payload(len: usize) -> Vec<u8> {
    (0..len).map(|at| (at as u32).wrapping_mul(2_654_435_761).to_be_bytes()[0]).collect()
}
