//! One UAPI connection: reads whole requests, writes the replies in order.
//!
//! The answer to `get` comes from the control thread in parts, each asked for when the client has
//! read the one before: however many peers there are, they hold up nothing else, and a client that
//! reads slowly takes little memory. A peer is as it was when its part was asked for.

use std::io::{self, Read as _, Write as _};
use std::os::unix::net::UnixStream;
use std::time::Duration;

use nix::net::if_::if_nametoindex;
use wg_bounce_dataplane::peer::PeerId;
use wg_bounce_sys::clock::Millis;
use wg_bounce_uapi::parse::{Incoming, RequestReader};
use wg_bounce_uapi::render::{render_errno, render_explanation, render_get_part};
use wg_bounce_uapi::types::Request;
use zeroize::Zeroizing;

use super::clients::{Activity, Client};
use super::requests::{Answer, Limits};
use crate::limits::UAPI_CHUNK_LEN;

/// Serves `client` until it closes the connection, sends an unknown operation, is too slow, or
/// makes room for another. Between requests it may stay silent for any time.
///
/// # Errors
/// Those of the socket; `TimedOut` if the client took too long.
pub(super) fn serve(
    client: &Client,
    ask: impl Fn(Request, Option<PeerId>) -> Option<Answer>,
    limits: Limits,
) -> io::Result<()> {
    let mut stream = &client.stream;
    let note = |activity| client.note(activity, (limits.clock)());
    let mut reader = RequestReader::new();
    let mut buffer = Zeroizing::new(vec![0; UAPI_CHUNK_LEN]);
    let mut deadline = None;
    loop {
        stream.set_read_timeout(remaining(deadline, limits)?)?;
        let length = match stream.read(&mut buffer) {
            Ok(0) => return Ok(()),
            Ok(length) => length,
            Err(error) if is_retried(&error) => continue,
            Err(error) => return Err(error),
        };
        let mut input = &buffer[..length];
        while let Some(incoming) = reader.read(&mut input, &zone) {
            let (mut text, mut more) = match incoming {
                Incoming::Request(request) => {
                    note(Activity::Waiting);
                    let Some(answer) = ask(request, None) else { return Ok(()) };
                    render(answer)
                }
                Incoming::Refused(rejection) => {
                    log::debug!("UAPI request rejected: {}", rejection.reason);
                    (Zeroizing::new(render_errno(rejection.errno)), None)
                }
                Incoming::Unknown => return Ok(()),
            };
            let reply_deadline = (limits.clock)() + limits.request_time_max;
            loop {
                note(Activity::Transfer);
                send(stream, text.as_bytes(), reply_deadline, limits)?;
                if more.is_none() {
                    break;
                }
                note(Activity::Waiting);
                let Some(answer) = ask(Request::Get, more) else { return Ok(()) };
                (text, more) = render(answer);
            }
            note(Activity::Idle);
            deadline = None;
        }
        // The time runs from the first byte of an incomplete request.
        if reader.is_idle() {
            deadline = None;
        } else if deadline.is_none() {
            note(Activity::Transfer);
            deadline = Some((limits.clock)() + limits.request_time_max);
        }
    }
}

/// The text of an answer, and its last peer if more of it follows.
fn render(answer: Answer) -> (Zeroizing<String>, Option<PeerId>) {
    match answer {
        Answer::State(state, more) => (render_get_part(&state, more.is_none()), more),
        Answer::Done(errno) => (Zeroizing::new(render_errno(errno)), None),
        Answer::Text(text) => (Zeroizing::new(render_explanation(&text)), None),
    }
}

/// Writes all of `bytes` before `deadline`.
fn send(
    mut stream: &UnixStream,
    mut bytes: &[u8],
    deadline: Millis,
    limits: Limits,
) -> io::Result<()> {
    while !bytes.is_empty() {
        stream.set_write_timeout(remaining(Some(deadline), limits)?)?;
        match stream.write(bytes) {
            Ok(written) => bytes = &bytes[written..],
            Err(error) if is_retried(&error) => {}
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

/// Interrupted, or timed out; [`remaining`] tells them apart.
fn is_retried(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::Interrupted | io::ErrorKind::WouldBlock)
}

/// The time left until `deadline`, as a socket timeout; none means no timeout.
fn remaining(deadline: Option<Millis>, limits: Limits) -> io::Result<Option<Duration>> {
    let Some(deadline) = deadline else { return Ok(None) };
    match deadline.since((limits.clock)()) {
        Millis(0) => Err(io::ErrorKind::TimedOut.into()),
        left => Ok(Some(Duration::from_millis(left.0))),
    }
}

/// The index of the interface named by the zone of an IPv6 endpoint.
fn zone(name: &str) -> Option<u32> {
    if_nametoindex(name).ok()
}
