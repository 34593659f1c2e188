//! What a worker has received, and the slice of it that a turn looks at.

use std::collections::VecDeque;

use crossbeam_channel::Receiver;
use wg_bounce_sys::memory::Buffer;
use wg_bounce_sys::message::PAYLOAD_AT;
use wg_bounce_sys::{Frame, Ready, Train};

use crate::channels::{HAND_OFFS_MAX, HandOff};
use crate::drr::DeficitRoundRobin;
use crate::limits::{PACKET_COST, SLICE_COST};
use crate::receive::ReceivePath;
use crate::segments::datagrams;

/// The receiving end of one worker.
#[derive(Default)]
pub(crate) struct RxQueue {
    /// The trains of this turn.
    pub trains: Vec<Train>,
    /// The frames of this turn.
    pub frames: Vec<Frame>,
    backlog: DeficitRoundRobin<Train>,
    /// Trains in the backlog that other workers handed over.
    handed_over: usize,
    waiting_frames: VecDeque<Frame>,
}

impl RxQueue {
    /// Whether nothing is left to do; `must_pause`: frames are not looked at.
    pub fn is_empty(&self, must_pause: bool) -> bool {
        self.backlog.is_empty() && (must_pause || self.waiting_frames.is_empty())
    }

    /// Queues what has arrived, and takes this turn's slice of everything.
    pub fn collect(
        &mut self,
        ready: &mut Ready,
        hand_offs: &Receiver<HandOff>,
        inbound: &ReceivePath,
        must_pause: bool,
    ) {
        for train in ready.trains.drain(..) {
            self.queue(train, inbound);
        }
        // What there is no room for stays in its lane, and is seen there before the next wait.
        let room = HAND_OFFS_MAX.saturating_sub(self.handed_over);
        for hand_off in hand_offs.try_iter().take(room) {
            self.handed_over += 1;
            self.queue(train_of(hand_off), inbound);
        }
        let mut spent = 0;
        while spent < SLICE_COST
            && let Some((train, cost)) = self.backlog.pop()
        {
            spent += cost;
            self.handed_over -= usize::from(matches!(train.buffer, Buffer::Heap(_)));
            self.trains.push(train);
        }
        // Frames that are not looked at keep their buffers, and so the kernel keeps the rest.
        self.waiting_frames.extend(ready.frames.drain(..));
        let mut spent = 0;
        while spent < SLICE_COST
            && !must_pause
            && let Some(frame) = self.waiting_frames.pop_front()
        {
            spent += frame.length as u32 + PACKET_COST;
            self.frames.push(frame);
        }
    }

    fn queue(&mut self, train: Train, inbound: &ReceivePath) {
        let datagrams = datagrams(train.length, train.segment).len().max(1);
        let cost = train.length as u32 + datagrams as u32 * PACKET_COST;
        self.backlog.push(inbound.queue_of(&train), train, cost);
    }
}

fn train_of(datagram: HandOff) -> Train {
    Train {
        length: datagram.buffer.len() - PAYLOAD_AT,
        buffer: Buffer::Heap(datagram.buffer),
        segment: 0,
        from: datagram.from,
        traffic_class: datagram.traffic_class,
    }
}
