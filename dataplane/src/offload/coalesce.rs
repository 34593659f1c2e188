//! Coalescing, from the network to the TUN: packets of one flow that arrived in one turn become one
//! super-packet, written with one gathering write: virtio header, first packet, then payloads.
//!
//! 1. [`Coalescer::push`] checks each packet of the turn in order of arrival: may it be coalesced
//!    at all (`candidate.rs`), and does it continue the open group of its flow?
//! 2. [`Coalescer::groups`] yields the groups to write, in order.
//! 3. [`Group::finish`] edits the first packet's headers and returns the virtio header.
//! 4. [`Coalescer::clear`] ends the turn.
//!
//! Packets stay in their buffers; the caller's handles identify them. Order within a flow is
//! strict: a packet that cannot be appended closes the flow's open group, so that no packet of the
//! flow overtakes it.

use super::candidate::{self, Candidate, CoalescerOptions, Headers, Outcome};
use super::virtio::{
    GSO_NONE, GSO_TCPV4, GSO_TCPV6, GSO_UDP_L4, NEEDS_CSUM, PSH, TCP_CHECKSUM_AT, TCP_FLAGS_AT,
    UDP_CHECKSUM_AT, VirtioHeader,
};
use crate::checksum;
use crate::ip::{self, put_u16};
use crate::limits::{COALESCE_SEGMENTS_MAX, COALESCE_UDP_SEGMENTS_MAX, PACKET_MAX};

/// Slots of the table that a flow may occupy. A flow that finds all of them occupied is not
/// coalesced in this turn, so that colliding flows cost a bounded search and nothing else.
const PROBES: usize = 8;
/// Barriers of address pairs; pairs that share one lose some coalescing and nothing else.
const BARRIERS: usize = 64;
const NONE: u32 = u32::MAX;

/// The coalescer is at its capacity: write its groups and clear it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Full;

/// The groups of one turn. `H` is the caller's handle of a packet, such as a buffer and a range.
pub struct Coalescer<H> {
    options: CoalescerOptions,
    seed: u64,
    /// Packets of one turn; the vectors below have room for them and never grow.
    capacity: usize,
    members: Vec<Link<H>>,
    groups: Vec<Chain>,
    flows: Vec<Flow>,
    /// Open-addressed by the flow's hash; a slot is occupied if it has the stamp of this turn.
    table: Vec<Slot>,
    stamp: u32,
    /// Groups with a lower number are closed for the address pairs of that barrier.
    barriers: [u32; BARRIERS],
}

/// One packet of a group.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Member<H> {
    /// The caller's handle of the packet.
    pub handle: H,
    /// Offset of the payload (bytes from the start of the packet). All members of a group but the
    /// first are written from here. Meaningless for a group of one packet.
    pub payload_offset: usize,
    /// Length of the packet by its IP header (bytes).
    pub len: usize,
}

struct Link<H> {
    member: Member<H>,
    next: u32,
}

/// One group: a list of members.
#[derive(Clone, Copy)]
struct Chain {
    first: u32,
    last: u32,
    count: u16,
    /// Bytes of the super-packet.
    len: u32,
    /// Payload bytes of every member but the last.
    size: u16,
    pushed: bool,
}

/// One flow of the turn and its newest group.
struct Flow {
    headers: Headers,
    /// Sequence number that continues the group (TCP).
    sequence: u32,
    /// Identification of the group's newest packet (IPv4).
    identification: u16,
    /// All packets of the group have the same identification (IPv4 with DF, and IPv6).
    has_fixed_id: bool,
    group: u32,
    is_open: bool,
}

#[derive(Clone, Copy, Default)]
struct Slot {
    stamp: u32,
    flow: u32,
    hash: u64,
}

enum Found {
    Flow(usize),
    Free(usize),
    Crowded,
}

impl<H: Copy> Coalescer<H> {
    /// A coalescer for `capacity` packets a turn; allocates all its memory here. `seed` is random,
    /// so that an attacker cannot choose flows whose hashes collide.
    #[must_use]
    pub fn new(capacity: usize, options: CoalescerOptions, seed: u64) -> Self {
        Coalescer {
            options,
            seed,
            capacity,
            members: Vec::with_capacity(capacity),
            groups: Vec::with_capacity(capacity),
            flows: Vec::with_capacity(capacity),
            table: vec![Slot::default(); (capacity * 2).next_power_of_two()],
            stamp: 1,
            barriers: [0; BARRIERS],
        }
    }

    /// Changes the kinds of packets to coalesce. Call it while it is empty.
    pub fn set_options(&mut self, options: CoalescerOptions) {
        self.options = options;
    }

    /// Packets pushed since the last [`Coalescer::clear`].
    #[must_use]
    pub fn len(&self) -> usize {
        self.members.len()
    }

    /// Whether nothing was pushed since the last [`Coalescer::clear`].
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.members.is_empty()
    }

    /// Removes all groups; keeps the memory.
    pub fn clear(&mut self) {
        self.members.clear();
        self.groups.clear();
        self.flows.clear();
        self.barriers = [0; BARRIERS];
        self.stamp = self.stamp.wrapping_add(1);
        if self.stamp == 0 {
            self.table.fill(Slot::default());
            self.stamp = 1;
        }
    }

    /// Adds the next packet of the turn: an IP packet, perhaps with padding after its IP length.
    /// A packet that cannot be coalesced, or is malformed, becomes a group of its own, unchanged.
    ///
    /// # Errors
    /// [`Full`]: nothing was added.
    pub fn push(&mut self, handle: H, packet: &[u8]) -> Result<(), Full> {
        if self.members.len() == self.capacity {
            return Err(Full);
        }
        match candidate::examine(packet, self.options) {
            Outcome::Coalesce(candidate) => self.push_candidate(handle, &candidate),
            Outcome::CloseFlow(headers, len) => {
                let hash = headers.flow_hash(headers.pair_hash(self.seed), self.seed);
                if let Found::Flow(flow) = self.find(hash, &headers) {
                    self.flows[flow].is_open = false;
                }
                self.start_group(Member { handle, payload_offset: len, len }, None);
            }
            Outcome::ClosePair(addresses, len) => {
                let barrier = barrier_of(candidate::pair_hash(self.seed, addresses));
                self.barriers[barrier] = self.groups.len() as u32;
                self.start_group(Member { handle, payload_offset: len, len }, None);
            }
            Outcome::Alone(len) => {
                self.start_group(Member { handle, payload_offset: len, len }, None);
            }
        }
        Ok(())
    }

    /// The groups to write, in the order of each group's first packet.
    pub fn groups(&self) -> impl ExactSizeIterator<Item = Group<'_, H>> {
        self.groups.iter().map(|chain| Group { chain, members: &self.members })
    }

    fn push_candidate(&mut self, handle: H, candidate: &Candidate) {
        let headers = &candidate.headers;
        let member = Member { handle, payload_offset: headers.len(), len: candidate.len };
        let pair = headers.pair_hash(self.seed);
        let hash = headers.flow_hash(pair, self.seed);
        match self.find(hash, headers) {
            Found::Flow(index) => {
                let flow = &mut self.flows[index];
                let chain = &mut self.groups[flow.group as usize];
                let is_barred = flow.group < self.barriers[barrier_of(pair)];
                if !is_barred && flow.may_append(chain, candidate) {
                    flow.advance(chain, candidate);
                    self.append(member, index);
                } else {
                    let group = self.start_group(member, Some(candidate));
                    self.flows[index] = Flow::open(candidate, group);
                }
            }
            Found::Free(slot) => {
                let group = self.start_group(member, Some(candidate));
                let flow = self.flows.len() as u32;
                self.flows.push(Flow::open(candidate, group));
                self.table[slot] = Slot { stamp: self.stamp, flow, hash };
            }
            Found::Crowded => {
                self.start_group(member, Some(candidate));
            }
        }
    }

    fn find(&self, hash: u64, headers: &Headers) -> Found {
        let last = self.table.len() - 1;
        for probe in 0..PROBES {
            let index = (hash as usize).wrapping_add(probe) & last;
            let slot = &self.table[index];
            if slot.stamp != self.stamp {
                return Found::Free(index);
            }
            if slot.hash == hash && self.flows[slot.flow as usize].headers.is_same_flow(headers) {
                return Found::Flow(slot.flow as usize);
            }
        }
        Found::Crowded
    }

    fn start_group(&mut self, member: Member<H>, candidate: Option<&Candidate>) -> u32 {
        let index = self.members.len() as u32;
        self.members.push(Link { member, next: NONE });
        self.groups.push(Chain {
            first: index,
            last: index,
            count: 1,
            len: member.len as u32,
            size: candidate.map_or(0, |candidate| candidate.payload_len() as u16),
            pushed: candidate.is_some_and(|candidate| candidate.pushed),
        });
        self.groups.len() as u32 - 1
    }

    fn append(&mut self, member: Member<H>, flow: usize) {
        let index = self.members.len() as u32;
        self.members.push(Link { member, next: NONE });
        let chain = &mut self.groups[self.flows[flow].group as usize];
        self.members[chain.last as usize].next = index;
        chain.last = index;
    }
}

impl Flow {
    fn open(candidate: &Candidate, group: u32) -> Flow {
        Flow {
            headers: candidate.headers.clone(),
            sequence: candidate.sequence.wrapping_add(candidate.payload_len() as u32),
            identification: candidate.identification,
            has_fixed_id: false,
            group,
            is_open: !candidate.pushed,
        }
    }

    fn may_append(&self, chain: &Chain, candidate: &Candidate) -> bool {
        let count_max =
            if self.headers.is_udp() { COALESCE_UDP_SEGMENTS_MAX } else { COALESCE_SEGMENTS_MAX };
        self.is_open
            && self.headers == candidate.headers
            && (self.headers.is_udp() || self.sequence == candidate.sequence)
            && self.continues_ids(chain, candidate)
            && candidate.payload_len() <= usize::from(chain.size)
            && usize::from(chain.count) < count_max
            && chain.len as usize + candidate.payload_len() <= PACKET_MAX
    }

    /// Whether identifications go on by one, or stay the same where they mean nothing; the second
    /// packet decides (`inet_gro_flush`, include/net/gro.h).
    fn continues_ids(&self, chain: &Chain, candidate: &Candidate) -> bool {
        let step = candidate.identification.wrapping_sub(self.identification);
        match chain.count {
            1 => step == 1 || (step == 0 && candidate.is_atomic),
            _ => step == u16::from(!self.has_fixed_id),
        }
    }

    fn advance(&mut self, chain: &mut Chain, candidate: &Candidate) {
        let payload = candidate.payload_len();
        self.has_fixed_id = candidate.identification == self.identification;
        self.identification = candidate.identification;
        chain.count += 1;
        chain.len += payload as u32;
        chain.pushed |= candidate.pushed;
        self.sequence = self.sequence.wrapping_add(payload as u32);
        self.is_open = payload == usize::from(chain.size) && !candidate.pushed;
    }
}

fn barrier_of(pair_hash: u64) -> usize {
    pair_hash as usize % BARRIERS
}

/// One write to the TUN: a single packet, or several of one flow as a super-packet.
#[derive(Clone, Copy)]
pub struct Group<'a, H> {
    chain: &'a Chain,
    members: &'a [Link<H>],
}

impl<'a, H: Copy> Group<'a, H> {
    /// Packets in it; at least one.
    #[must_use]
    pub fn count(&self) -> usize {
        usize::from(self.chain.count)
    }

    /// Bytes of the packet to write, without virtio header.
    #[must_use]
    pub fn packet_len(&self) -> usize {
        self.chain.len as usize
    }

    /// The packets in order.
    pub fn members(&self) -> impl Iterator<Item = Member<H>> + use<'a, H> {
        let (members, mut next) = (self.members, self.chain.first);
        std::iter::from_fn(move || {
            let link = members.get(next as usize)?;
            next = link.next;
            Some(link.member)
        })
    }

    /// The first packet, which is written whole.
    #[must_use]
    pub fn first(&self) -> Member<H> {
        self.members[self.chain.first as usize].member
    }

    /// Turns the headers of the first packet into those of the whole group, and returns the virtio
    /// header to write in front. Leaves a single packet as it is. Call it once.
    ///
    /// # Panics
    /// If `first` is not the packet that was pushed first: a bug of the caller.
    pub fn finish(&self, first: &mut [u8]) -> VirtioHeader {
        if self.chain.count < 2 {
            return VirtioHeader { gso_type: GSO_NONE, ..VirtioHeader::default() };
        }
        let packet = ip::parse(first).expect("it was parsed when it was pushed");
        let (start, len) = (packet.header_len, self.packet_len());
        ip::set_len(first, start, len);
        let protocol = packet.protocol;
        let pseudo = checksum::pseudo_header(ip::addresses(first), protocol, len - start);
        let pseudo = checksum::fold(pseudo);
        let (gso_type, csum_offset) = if protocol == ip::UDP {
            put_u16(first, start + 4, (len - start) as u16);
            (GSO_UDP_L4, UDP_CHECKSUM_AT)
        } else {
            first[start + TCP_FLAGS_AT] |= if self.chain.pushed { PSH } else { 0 };
            (if ip::is_v4(first) { GSO_TCPV4 } else { GSO_TCPV6 }, TCP_CHECKSUM_AT)
        };
        put_u16(first, start + csum_offset, pseudo);
        VirtioHeader {
            flags: NEEDS_CSUM,
            gso_type,
            hdr_len: self.first().payload_offset as u16,
            gso_size: self.chain.size,
            csum_start: start as u16,
            csum_offset: csum_offset as u16,
        }
    }
}
