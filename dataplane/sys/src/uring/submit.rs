//! Sends and writes: submitted together, completed when the call returns.

use std::io::{self, IoSlice};
use std::os::fd::AsRawFd;

use io_uring::{opcode, squeue, types};

use super::prepare::empty_header;
use super::{SUBMIT_MAX, Tag, Uring};
use crate::message::{ADDRESS_LEN, SEND_CONTROL_LEN, fill_header};
use crate::mmsg::write_frame;
use crate::{Delivery, Errno, NOT_TRIED, Outgoing};

/// Headers of the sends of one submission; sized once, never moved.
pub(super) struct SendBlocks {
    headers: Box<[libc::msghdr]>,
    names: Box<[[u8; ADDRESS_LEN]]>,
    controls: Box<[[u8; SEND_CONTROL_LEN]]>,
}

impl Uring {
    /// See [`crate::Backend::send`]. MSG_DONTWAIT keeps wire order: a request that met a full
    /// buffer would be retried in scrambled order otherwise. Sends of one group are linked: the
    /// kernel begins the next when the one before has succeeded, and cancels it otherwise.
    pub fn send(
        &mut self,
        outgoing: &[Outgoing],
        pieces: &[IoSlice<'_>],
        outcomes: &mut Vec<Errno>,
    ) -> io::Result<()> {
        for chunk in outgoing.chunks(SUBMIT_MAX) {
            let base = outcomes.len();
            // A group that began in the chunk before, and was refused there.
            let refused = match base {
                0 => None,
                _ => Some(outgoing[base - 1].group).filter(|_| outcomes[base - 1] != 0),
            };
            let mut submitted = 0;
            for (index, out) in chunk.iter().enumerate() {
                if refused == Some(out.group) {
                    outcomes.push(NOT_TRIED);
                    continue;
                }
                let Some(fd) = self.sockets.of(&out.to).map(AsRawFd::as_raw_fd) else {
                    outcomes.push(libc::EAFNOSUPPORT);
                    continue;
                };
                outcomes.push(0);
                let header = self.send.fill(index, out, &pieces[out.pieces.clone()]);
                let is_followed = chunk.get(index + 1).is_some_and(|next| next.group == out.group);
                let link =
                    if is_followed { squeue::Flags::IO_LINK } else { squeue::Flags::empty() };
                let entry = opcode::SendMsg::new(types::Fd(fd), header)
                    .flags((libc::MSG_DONTWAIT | libc::MSG_NOSIGNAL) as u32)
                    .build()
                    .flags(link)
                    .user_data(Tag::Send.data(index as u32));
                self.push(entry);
                submitted += 1;
            }
            self.finish(Tag::Send, submitted, &mut outcomes[base..])?;
        }
        Ok(())
    }

    /// See [`crate::Backend::write`].
    pub fn write(
        &mut self,
        frames: &[Delivery],
        pieces: &[IoSlice<'_>],
        outcomes: &mut Vec<Errno>,
    ) -> io::Result<()> {
        if !self.tun.has_header {
            outcomes.extend(
                frames.iter().map(|frame| {
                    write_frame(&self.tun, frame.queue, &pieces[frame.pieces.clone()])
                }),
            );
            return Ok(());
        }
        for chunk in frames.chunks(SUBMIT_MAX) {
            let base = outcomes.len();
            for (index, frame) in chunk.iter().enumerate() {
                outcomes.push(0);
                let fd = types::Fd(self.tun.writers[frame.queue].as_raw_fd());
                let payload = &pieces[frame.pieces.clone()];
                let entry = opcode::Writev::new(fd, payload.as_ptr().cast(), payload.len() as u32)
                    .offset(u64::MAX) // no position: the TUN is a stream of frames
                    .build()
                    .user_data(Tag::Write.data(index as u32));
                self.push(entry);
            }
            self.finish(Tag::Write, chunk.len(), &mut outcomes[base..])?;
        }
        Ok(())
    }
}

impl SendBlocks {
    pub(super) fn new() -> SendBlocks {
        SendBlocks {
            headers: vec![empty_header(); SUBMIT_MAX].into(),
            names: vec![[0; ADDRESS_LEN]; SUBMIT_MAX].into(),
            controls: vec![[0; SEND_CONTROL_LEN]; SUBMIT_MAX].into(),
        }
    }

    fn fill(
        &mut self,
        index: usize,
        out: &Outgoing,
        payload: &[IoSlice<'_>],
    ) -> *const libc::msghdr {
        let header = &mut self.headers[index];
        let name = &mut self.names[index];
        let control = &mut self.controls[index];
        let Outgoing { to, traffic_class, segment, .. } = out;
        fill_header(header, name, control, to, *traffic_class, *segment, payload);
        header
    }
}
