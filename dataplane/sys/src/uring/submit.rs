//! Sends and writes: submitted together, complete when the call returns.

use std::io::{self, IoSlice};
use std::os::fd::AsRawFd;

use io_uring::{opcode, squeue, types};

use super::request::{SUBMIT_MAX, Tag};
use super::ring::Uring;
use crate::io::{Errno, NOT_TRIED, Outgoing, TunWrite};

impl Uring {
    /// See [`crate::Backend::send`]. MSG_DONTWAIT keeps wire order: without it, the kernel retries
    /// requests that met a full buffer in any order. Sends of one group are linked: the kernel
    /// starts each when the previous one has succeeded, and cancels it otherwise.
    pub fn send(
        &mut self,
        outgoing: &[Outgoing],
        pieces: &[IoSlice<'_>],
        outcomes: &mut Vec<Errno>,
    ) -> io::Result<()> {
        for chunk in outgoing.chunks(SUBMIT_MAX) {
            let base = outcomes.len();
            // The group that was refused at the end of the previous chunk.
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
                let Some(fd) = self.sockets.of(out.to.family()).as_ref().map(AsRawFd::as_raw_fd)
                else {
                    outcomes.push(libc::EAFNOSUPPORT);
                    continue;
                };
                outcomes.push(0);
                let header = &mut self.send_headers[index];
                let Outgoing { to, header: outer, segment_size, .. } = out;
                let payload = &pieces[out.pieces.clone()];
                self.send_blocks[index].fill(header, to, *outer, *segment_size, payload);
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
        frames: &[TunWrite],
        pieces: &[IoSlice<'_>],
        outcomes: &mut Vec<Errno>,
    ) -> io::Result<()> {
        if !self.tun.has_header {
            let write =
                |frame: &TunWrite| self.tun.write_frame(frame.queue, &pieces[frame.pieces.clone()]);
            outcomes.extend(frames.iter().map(write));
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
