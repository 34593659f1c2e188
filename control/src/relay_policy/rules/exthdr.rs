//! The statement and expression `exthdr` of nftables, about TCP options and IPv6 extension headers.

use crate::netlink::attribute::{Attribute, find};
use crate::netlink::numbers::{
    NFT_EXTHDR_OP_IPV6, NFT_EXTHDR_OP_TCPOPT, NFTA_EXTHDR_DREG, NFTA_EXTHDR_FLAGS, NFTA_EXTHDR_OP,
    NFTA_EXTHDR_SREG, NFTA_EXTHDR_TYPE,
};

/// Whether an `exthdr` writes the MSS option of TCP.
pub fn is_mss(data: &[Attribute<'_>]) -> bool {
    /// RFC 9293 §3.2.
    const MAXIMUM_SEGMENT_SIZE: &[u8] = &[2];
    let operation = find(data, NFTA_EXTHDR_OP).and_then(|one| one.u32_be().ok());
    let kind = find(data, NFTA_EXTHDR_TYPE).map(|one| one.value);
    find(data, NFTA_EXTHDR_SREG).is_some()
        && operation == Some(NFT_EXTHDR_OP_TCPOPT)
        && kind == Some(MAXIMUM_SEGMENT_SIZE)
}

/// Whether an `exthdr` loads bytes of an IPv6 extension header: without flags, a rule ends where it
/// is missing.
pub fn is_of_extension(data: &[Attribute<'_>]) -> bool {
    let value = |kind| find(data, kind).map_or(Some(0), |one| one.u32_be().ok());
    find(data, NFTA_EXTHDR_DREG).is_some()
        && value(NFTA_EXTHDR_OP) == Some(NFT_EXTHDR_OP_IPV6)
        && value(NFTA_EXTHDR_FLAGS) == Some(0)
}
