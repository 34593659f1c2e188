//! Many initiators, each with an address of its own, that share one socket.

use std::io::ErrorKind::{Interrupted, WouldBlock};
use std::io::IoSlice;
use std::net::{Ipv4Addr, UdpSocket};
use std::os::fd::AsRawFd;
use std::time::Duration;

use nix::libc::{in_addr, in_pktinfo};
use nix::sys::socket::{ControlMessage, MsgFlags, SockaddrIn, sendmsg};

use crate::clock;
use crate::failure::{Failure, while_doing};
use crate::generator::{Answer, INITIATION_LEN, Initiator, Keys, Network, RESPONSE_LEN, addressee};

/// Address of the first peer.
const FIRST: Ipv4Addr = Ipv4Addr::new(100, 64, 0, 1);

/// An initiator, and what has arrived for it.
pub struct Member<'a> {
    /// Its side of the handshakes.
    pub initiator: Initiator<'a>,
    address: Ipv4Addr,
    /// Time of its first initiation.
    pub sent_at: Option<Duration>,
    /// The first response, and its arrival.
    pub response: Option<([u8; RESPONSE_LEN], Duration)>,
    /// Cookie replies.
    pub cookies: u64,
}

impl Member<'_> {
    /// Starts another handshake: answers to the last one are late from now on.
    pub fn begin(&mut self) {
        self.initiator.give_up();
        (self.sent_at, self.response, self.cookies) = (None, None, 0);
    }

    /// Takes an answer that arrived at `now`: the first response, or a cookie. None if it does not
    /// answer a pending initiation.
    fn take(&mut self, message: &[u8], now: Duration) -> Option<Answer> {
        let answer = self.initiator.read(message)?;
        match answer {
            Answer::Response(_) if self.response.is_some() => return None,
            Answer::Response(response) => self.response = Some((response, now)),
            Answer::Cookie => self.cookies += 1,
        }
        Some(answer)
    }
}

/// All initiators.
pub struct Initiators<'a> {
    /// By number.
    pub members: Vec<Member<'a>>,
    /// Answers to initiations that had been given up or answered.
    pub late: u64,
    socket: UdpSocket,
}

impl<'a> Initiators<'a> {
    /// A member for each of the `keys`, without a cookie.
    pub fn new(
        keys: impl Iterator<Item = &'a Keys>,
        relay: &'a Keys,
        socket: UdpSocket,
    ) -> Result<Initiators<'a>, Failure> {
        socket.set_nonblocking(true).map_err(while_doing("cannot make a socket non-blocking"))?;
        let member = |(number, keys): (u32, &'a Keys)| Member {
            initiator: Initiator::new(&keys.identity, relay.identity.public(), number),
            address: Ipv4Addr::from_bits(FIRST.to_bits() + number),
            sent_at: None,
            response: None,
            cookies: 0,
        };
        let members = (0..).zip(keys).map(member).collect();
        Ok(Initiators { members, late: 0, socket })
    }

    /// Resets all members: no handshake is pending, and no cookie is known. Indices are not reused,
    /// so that a late answer does not match a later initiation.
    pub fn restart(&mut self) {
        self.late = 0;
        for member in &mut self.members {
            member.begin();
            member.initiator.forget_cookie();
        }
    }

    /// Sends the prepared initiation of a member, or its last one again.
    pub fn send(&mut self, number: usize) -> Result<(), Failure> {
        let member = &mut self.members[number];
        member.sent_at.get_or_insert_with(clock::now);
        let source = in_addr { s_addr: member.address.to_bits().to_be() };
        let from = in_pktinfo { ipi_ifindex: 0, ipi_spec_dst: source, ipi_addr: source };
        let message: &[u8; INITIATION_LEN] = member.initiator.signed();
        sendmsg(
            self.socket.as_raw_fd(),
            &[IoSlice::new(message)],
            &[ControlMessage::Ipv4PacketInfo(&from)],
            MsgFlags::empty(),
            Some(&SockaddrIn::from(Network::relay_address())),
        )
        .map(drop)
        .map_err(while_doing("cannot send an initiation"))
    }

    /// Receives the next answer, if any, and its member's number. Messages that answer no pending
    /// initiation are skipped, and counted as late if they are addressed to a member.
    pub fn receive(&mut self) -> Result<Option<(usize, Answer)>, Failure> {
        let mut buffer = [0; INITIATION_LEN];
        loop {
            let length = match self.socket.recv(&mut buffer) {
                Err(error) if matches!(error.kind(), WouldBlock | Interrupted) => return Ok(None),
                received => received.map_err(while_doing("cannot receive answers"))?,
            };
            let message = &buffer[..length];
            let Some(number) = addressee(message) else { continue };
            let number = number as usize; // of 24 bits
            let Some(member) = self.members.get_mut(number) else { continue };
            match member.take(message, clock::now()) {
                Some(answer) => return Ok(Some((number, answer))),
                None => self.late += 1,
            }
        }
    }

    /// Cookie replies of all members since their last handshake began.
    pub fn cookies(&self) -> u64 {
        self.members.iter().map(|member| member.cookies).sum()
    }

    /// Derives the sessions of all members with a response. Fails if one is not authentic.
    pub fn verify(&self) -> Result<(), Failure> {
        let forged = self.members.iter().position(|member| {
            member.response.is_some_and(|(it, _)| member.initiator.finish(&it).is_none())
        });
        let failure = |number| Failure::step(format!("peer {number} got a forged response"));
        forged.map_or(Ok(()), |number| Err(failure(number)))
    }
}

#[cfg(test)]
mod tests {
    use wg_bounce_control::noise::{Secret, open_initiation};

    use super::*;

    /// The relay's response to an initiation.
    fn respond(relay: &Keys, initiation: &[u8; INITIATION_LEN]) -> [u8; RESPONSE_LEN] {
        let claimed = open_initiation(&relay.identity, initiation).expect("to the relay");
        let static_static = relay.identity.static_static(&claimed.remote_static);
        let proven = claimed.prove(&static_static.expect("a good key")).expect("authentic");
        let mut response = [0; RESPONSE_LEN];
        let ephemeral = Secret::new([9; 32]);
        proven.respond(&Secret::default(), &ephemeral, 5, &mut response).expect("good keys");
        response
    }

    #[test]
    fn a_late_answer_does_not_match_the_next_handshake() {
        let [relay, keys] = [(); 2].map(|()| Keys::new());
        let socket = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).expect("every Linux has it");
        let mut initiators =
            Initiators::new(std::iter::once(&keys), &relay, socket).expect("a socket");
        let now = Duration::ZERO;
        let initiate = |initiators: &mut Initiators<'_>| {
            let initiator = &mut initiators.members[0].initiator;
            initiator.prepare();
            respond(&relay, initiator.signed())
        };
        let late = initiate(&mut initiators);
        // Given up in one lap, answered before the next lap's initiation is sent.
        initiators.members[0].begin();
        assert_eq!(initiators.members[0].take(&late, now), None);
        let response = initiate(&mut initiators);
        assert_eq!(initiators.members[0].take(&response, now), Some(Answer::Response(response)));
        assert_eq!(initiators.members[0].take(&response, now), None, "a second time");
        initiators.verify().expect("the response is to what was sent last");
        // The second part does not accept answers to the first.
        initiators.restart();
        initiate(&mut initiators);
        for late in [late, response] {
            assert_eq!(initiators.members[0].take(&late, now), None);
        }
    }
}
