//! The receive queue of a worker, and the slice of it that one turn handles.

use std::collections::VecDeque;

use wg_bounce_sys::memory::Buffer;
use wg_bounce_sys::message::PAYLOAD_AT;
use wg_bounce_sys::{Frame, Ready, Train};

use crate::channels::HandOff;
use crate::drr::DeficitRoundRobin;
use crate::limits::{PACKET_COST, SLICE_COST};
use crate::offload::Cut;
use crate::receive::ReceivePath;
use crate::segments::datagrams;
use crate::sync::Receiver;
use crate::wire::{self, Kind};

/// The receive queue of one worker.
pub struct RxQueue {
    /// The trains of this turn.
    pub trains: Vec<Train>,
    /// The kind of the first datagram of each train of this turn.
    pub first_kinds: Vec<Option<Kind>>,
    /// The TUN frames of this turn.
    pub frames: Vec<Frame>,
    waiting_trains: DeficitRoundRobin<(Train, Option<Kind>)>,
    /// Waiting trains that other workers handed over.
    handed_over: usize,
    handed_over_max: usize,
    waiting_frames: VecDeque<Frame>,
}

impl RxQueue {
    /// An empty queue that takes at most `hand_offs` trains of other workers.
    pub fn new(hand_offs: usize) -> RxQueue {
        RxQueue {
            trains: Vec::new(),
            first_kinds: Vec::new(),
            frames: Vec::new(),
            waiting_trains: DeficitRoundRobin::default(),
            handed_over: 0,
            handed_over_max: hand_offs,
            waiting_frames: VecDeque::new(),
        }
    }

    /// Whether nothing is left to do; with `must_pause` frames do not count.
    pub fn is_empty(&self, must_pause: bool) -> bool {
        self.waiting_trains.is_empty() && (must_pause || self.waiting_frames.is_empty())
    }

    /// Queues what has arrived, and takes this turn's slice of everything.
    pub fn collect(
        &mut self,
        ready: &mut Ready,
        hand_offs: &Receiver<HandOff>,
        receive: &ReceivePath,
        must_pause: bool,
    ) {
        for train in ready.trains.drain(..) {
            self.queue(train, receive);
        }
        // Hand-offs beyond the bound stay in their lane; the next wait returns at once for them.
        let room = self.handed_over_max.saturating_sub(self.handed_over);
        for hand_off in hand_offs.try_iter().take(room) {
            self.handed_over += 1;
            self.queue(train_of(hand_off), receive);
        }
        let mut spent = 0;
        self.first_kinds.clear();
        while spent < SLICE_COST
            && let Some(((train, kind), cost)) = self.waiting_trains.pop()
        {
            spent += cost;
            self.handed_over -= usize::from(matches!(train.buffer, Buffer::Heap(_)));
            self.trains.push(train);
            self.first_kinds.push(kind);
        }
        // Waiting frames keep their buffers, so that the kernel keeps the rest in its own queue.
        self.waiting_frames.extend(ready.frames.drain(..));
        let mut spent = 0;
        while spent < SLICE_COST
            && !must_pause
            && let Some(frame) = self.waiting_frames.pop_front()
        {
            spent += frame_cost(&frame.slot[..frame.length]);
            self.frames.push(frame);
        }
    }

    /// Queues a train by the kind of its first datagram, which is classified here.
    fn queue(&mut self, train: Train, receive: &ReceivePath) {
        let mut datagrams = datagrams(train.length, train.segment_size);
        let count = datagrams.len().max(1);
        let cost = train.length as u32 + count as u32 * PACKET_COST;
        let first = datagrams.next().unwrap_or_default();
        let kind = wire::classify(&train.buffer[PAYLOAD_AT + first.start..PAYLOAD_AT + first.end]);
        self.waiting_trains.push(receive.queue_of(kind), (train, kind), cost);
    }
}

/// The cost of a frame by the packets that it becomes: those may be many and tiny.
fn frame_cost(frame: &[u8]) -> u32 {
    frame.len() as u32 + Cut::claimed_segments(frame) as u32 * PACKET_COST
}

fn train_of(datagram: HandOff) -> Train {
    Train {
        length: datagram.buffer.len() - PAYLOAD_AT,
        buffer: Buffer::Heap(datagram.buffer),
        segment_size: 0,
        from: datagram.from,
        traffic_class: datagram.traffic_class,
    }
}
