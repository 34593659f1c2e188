//! The header of one send: address, control messages, payload.

use std::io::IoSlice;

use crate::endpoint::Endpoint;
use crate::io::OuterHeader;
use crate::message::{ADDRESS_LEN, SEND_CONTROL_LEN, write_address, write_control};

/// The memory that the header of one send points to. It must neither move nor change until the
/// kernel has read the header.
#[derive(Clone)]
pub(crate) struct SendBlock {
    name: [u8; ADDRESS_LEN],
    control: [u8; SEND_CONTROL_LEN],
}

impl SendBlock {
    pub(crate) const EMPTY: SendBlock =
        SendBlock { name: [0; ADDRESS_LEN], control: [0; SEND_CONTROL_LEN] };

    /// Makes `header` that of one send, with this block as its address and control messages.
    /// `payload` must stay in place as the block must.
    pub(crate) fn fill(
        &mut self,
        header: &mut libc::msghdr,
        to: &Endpoint,
        outer: OuterHeader,
        segment_size: usize,
        payload: &[IoSlice<'_>],
    ) {
        header.msg_namelen = write_address(&mut self.name, &to.remote) as libc::socklen_t;
        header.msg_name = self.name.as_mut_ptr().cast();
        let control_len = write_control(&mut self.control, to, outer, segment_size);
        header.msg_controllen = control_len as _;
        header.msg_control = self.control.as_mut_ptr().cast();
        // `IoSlice` has the layout of `struct iovec`, and the kernel only reads it.
        header.msg_iov = payload.as_ptr().cast_mut().cast();
        header.msg_iovlen = payload.len() as _;
        header.msg_flags = 0;
    }
}

/// A header without address, control messages or payload.
pub(crate) fn empty_header() -> libc::msghdr {
    // SAFETY: `struct msghdr` is plain data; all zeros are valid.
    unsafe { std::mem::zeroed() }
}
