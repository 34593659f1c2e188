//! UAPI requests, handled by the loop between other events.

use std::io;

use wg_bounce_dataplane::peer::PeerId;
use wg_bounce_uapi::types::{Change, DeviceState, Errno, Explain, Request, SetRequest};

use super::state::{Runtime, now};
use crate::limits::PEERS_PER_ANSWER;
use crate::short_key::ShortKey;
use crate::uapi_server::requests::{Answer, Reply, UapiRequest};

impl Runtime {
    pub(super) fn handle_request(&mut self, request: UapiRequest) {
        let UapiRequest { request, after, reply } = request;
        match request {
            Request::Get => reply.send(self.state(after)),
            Request::Set(request) => {
                let errno = self.set(request);
                self.replies.push(self.epoch, reply, errno);
            }
            Request::Explain(question) => self.explain(question, reply),
        }
    }

    /// Says whose the addresses are; the watch of the relay policy knows the rest.
    fn explain(&self, question: Explain, reply: Reply) {
        let Explain { source, destination, .. } = question;
        let device = &self.components.device;
        let owners = [source, destination].map(|address| device.owner_of(address));
        let mut text = String::new();
        for (address, owner) in [source, destination].into_iter().zip(owners) {
            text += &match owner {
                Some(key) => format!("{address} is of peer {}\n", ShortKey(key)),
                None => format!("{address} is of no peer\n"),
            };
        }
        match owners {
            [Some(one), Some(other)] if one != other => {
                let version = device.allowed_ips_version();
                self.relay.explain(question, version, text, reply);
            }
            [Some(_), Some(_)] => {
                reply.send(Answer::Text(text + "outcome: not relayed: both are of one peer\n"));
            }
            _ => reply.send(Answer::Text(text + "outcome: not relayed: not between peers\n")),
        }
    }

    /// A part of the answer to `get`: the first, or the one after a peer.
    fn state(&self, after: Option<PeerId>) -> Answer {
        let device = &self.components.device;
        let mut entries = device.peer_states_after(after);
        let (ids, peers): (Vec<_>, Vec<_>) = entries.by_ref().take(PEERS_PER_ANSWER).unzip();
        let more = ids.last().copied().filter(|_| entries.next().is_some());
        let state = match after {
            None => DeviceState {
                private_key: device.private_key(),
                listen_port: self.listen_port,
                fwmark: self.fwmark,
                peers,
            },
            Some(_) => DeviceState { private_key: None, listen_port: 0, fwmark: 0, peers },
        };
        Answer::State(Box::new(state), more)
    }

    /// Applies the changes of a request, up to the first that fails; earlier ones stay in effect.
    fn set(&mut self, request: SetRequest) -> Errno {
        let epoch_before = self.epoch;
        let changes = request.changes.len();
        let (port_before, fwmark_before) = (self.listen_port, self.fwmark);
        self.components.device.begin_set();
        let mut result = Ok(());
        for change in request.changes {
            result = match change {
                Change::ListenPort(port) => self.set_listen_port(port),
                Change::Fwmark(mark) => self.set_fwmark(mark),
                change => {
                    self.components.device.apply(change, now(), &mut self.outputs);
                    Ok(())
                }
            };
            if result.is_err() {
                break;
            }
        }
        if (self.listen_port, self.fwmark) != (port_before, fwmark_before) {
            self.components.device.forget_sources();
        }
        self.components.device.end_set(now(), &mut self.outputs);
        let is_changed = !self.outputs.is_empty() || self.listen_port != port_before;
        self.execute();
        // Workers read their commands together with the snapshot: once they have reached its epoch,
        // the commands have been executed.
        if is_changed && self.epoch == epoch_before {
            self.publish();
        }
        let rejection = request.rejected.filter(|_| result.is_ok());
        let reason = rejection.as_ref().map(|rejection| rejection.reason.as_str());
        let errno = match (result, &rejection) {
            (Err(errno), _) => errno,
            (Ok(()), Some(rejection)) => rejection.errno,
            (Ok(()), None) => Errno::OK,
        };
        match reason {
            Some(reason) => {
                log::debug!("UAPI set: applied {changes} changes, errno={} ({reason})", errno.0);
            }
            None => log::debug!("UAPI set: applied {changes} changes, errno={}", errno.0),
        }
        errno
    }
}

/// The errno of a failed change; the reason is logged.
pub(super) fn refusal(what: &str, error: &io::Error) -> Errno {
    log::error!("UAPI set: cannot {what}: {error}");
    Errno(-error.raw_os_error().unwrap_or(libc::EIO))
}
