//! From a connection's bytes to requests.
//!
//! 1. `RequestReader` cuts lines out of whatever chunks arrive, within `limits`.
//! 2. The first line names the operation; an unknown one ends the connection.
//! 3. `set::SetParser` turns each further line into a change at once, so that a request of
//!    millions of lines never lies in memory as text.
//! 4. An empty line ends the request and yields it. Nothing is applied before that: a client
//!    that stalls half-way holds up nobody.

mod set;
mod value;

use zeroize::{Zeroize, Zeroizing};

use crate::limits::{LINE_LEN_MAX, REQUEST_LEN_MAX};
use crate::types::{Errno, Rejection, Request};
pub use set::{SetParser, parse_set};

/// From an interface's name to its index, for the zone of an IPv6 endpoint. Asked only for
/// zones that are not numbers; None makes the line an error.
pub type ZoneResolver<'a> = &'a dyn Fn(&str) -> Option<u32>;

/// What a connection asked for.
pub enum Incoming {
    /// A whole request.
    Request(Request),
    /// A whole operation that cannot be carried out in any part: answer its errno, carry on.
    Refused(Rejection),
    /// The first line names no operation: close the connection. The reader yields nothing more.
    Unknown,
}

/// Reads the requests of one connection. Input comes in chunks of any size; requests come out
/// one at a time in their order, so pipelined ones wait in the caller's buffer.
pub struct RequestReader {
    /// The line that has begun but not ended. Never grows past `LINE_LEN_MAX`, which is reserved
    /// at the start, so no reallocation leaves a key behind.
    line: Zeroizing<Vec<u8>>,
    /// The present line was longer than the bound; its rest is skipped.
    line_overflow: bool,
    /// Bytes of the present request so far.
    request_len: usize,
    state: State,
}

enum State {
    /// Between requests: the next line is an operation.
    Operation,
    /// After `get=1`; what stands between it and the empty line is an error.
    Get { rejected: Option<Rejection> },
    /// After `set=1`.
    Set(SetParser),
    /// After an unknown operation.
    Closed,
}

impl Default for RequestReader {
    fn default() -> Self {
        RequestReader::new()
    }
}

impl RequestReader {
    /// A reader for a new connection.
    pub fn new() -> Self {
        RequestReader {
            line: Zeroizing::new(Vec::with_capacity(LINE_LEN_MAX)),
            line_overflow: false,
            request_len: 0,
            state: State::Operation,
        }
    }

    /// True between requests: no byte of a next one has come. A connection that ends elsewhere
    /// has left a request unfinished, which is then void.
    pub fn is_idle(&self) -> bool {
        self.request_len == 0
    }

    /// Takes bytes off the front of `input` up to the end of the first request in it; None when
    /// all are taken and the request is not complete. To be called until it gives None. The
    /// caller's buffer may hold keys: it should be a zeroizing one.
    pub fn read(&mut self, input: &mut &[u8], zones: ZoneResolver<'_>) -> Option<Incoming> {
        while !input.is_empty() {
            if matches!(self.state, State::Closed) {
                *input = &[];
                return None;
            }
            let newline = input.iter().position(|&byte| byte == b'\n');
            let (piece, rest) = input.split_at(newline.map_or(input.len(), |at| at + 1));
            *input = rest;
            self.request_len = self.request_len.saturating_add(piece.len());
            let text = &piece[..newline.unwrap_or(piece.len())];
            if newline.is_none() {
                self.keep(text);
                continue;
            }
            let incoming = if self.line.is_empty() && !self.line_overflow {
                // The whole line lies in the input: no copy.
                self.end_line(text, zones)
            } else {
                self.keep(text);
                let mut line = std::mem::take(&mut self.line);
                let incoming = self.end_line(&line, zones);
                line.zeroize(); // empties it, too, and keeps its capacity
                self.line = line;
                incoming
            };
            if incoming.is_some() {
                return incoming;
            }
        }
        None
    }

    /// Adds a part of a line to what is kept of it.
    fn keep(&mut self, text: &[u8]) {
        if text.len() > LINE_LEN_MAX - self.line.len() {
            self.line_overflow = true;
        } else if !self.line_overflow {
            self.line.extend_from_slice(text);
        }
    }

    /// Takes one whole line, without its newline.
    fn end_line(&mut self, line: &[u8], zones: ZoneResolver<'_>) -> Option<Incoming> {
        let overflow = std::mem::take(&mut self.line_overflow) || line.len() > LINE_LEN_MAX;
        // wireguard-go's line scanner does so as well.
        let line = line.strip_suffix(b"\r").unwrap_or(line);
        if line.is_empty() && !overflow {
            return Some(self.end_request());
        }
        let too_large = self.request_len > REQUEST_LEN_MAX;
        match &mut self.state {
            State::Operation => {
                self.state = match line {
                    b"get=1" if !overflow => State::Get { rejected: None },
                    b"set=1" if !overflow => State::Set(SetParser::default()),
                    _ => return Some(self.close()),
                };
            }
            State::Get { rejected } => {
                let reason = "get=1 is followed by more than an empty line".to_owned();
                rejected.get_or_insert(Rejection { errno: Errno::INVALID, reason });
            }
            State::Set(parser) if overflow || too_large => parser.reject(too_long(overflow)),
            State::Set(parser) => parser.line(line, zones),
            State::Closed => {}
        }
        None
    }

    /// Takes the empty line at a request's end.
    fn end_request(&mut self) -> Incoming {
        self.request_len = 0;
        match std::mem::replace(&mut self.state, State::Operation) {
            State::Get { rejected: None } => Incoming::Request(Request::Get),
            State::Get { rejected: Some(rejection) } => Incoming::Refused(rejection),
            State::Set(parser) => Incoming::Request(Request::Set(parser.finish())),
            State::Operation | State::Closed => self.close(),
        }
    }

    fn close(&mut self) -> Incoming {
        self.state = State::Closed;
        Incoming::Unknown
    }
}

fn too_long(line: bool) -> Rejection {
    let reason = if line {
        format!("a line of more than {LINE_LEN_MAX} bytes")
    } else {
        format!("a request of more than {REQUEST_LEN_MAX} bytes")
    };
    Rejection { errno: Errno::IO, reason }
}
