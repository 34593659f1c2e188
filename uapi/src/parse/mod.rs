//! Parses a connection's bytes into requests.
//!
//! 1. `RequestReader` splits the chunks it is given into lines, within `limits`.
//! 2. The first line names the operation; an unknown one ends the connection.
//! 3. `set::SetParser` turns each further line into a change at once, so that a request of
//!    millions of lines is never held in memory as text.
//! 4. An empty line ends the request and yields it. Nothing is applied before that, so a client
//!    that stalls half-way blocks no other client.

mod explain;
mod set;
mod value;

use zeroize::{Zeroize, Zeroizing};

use crate::limits::{LINE_LEN_MAX, REQUEST_LEN_MAX};
use crate::types::{Errno, Rejection, Request};
use explain::ExplainParser;
pub use set::{SetParser, parse_set};
pub use value::ZoneResolver;

/// The next event of a connection.
pub enum Incoming {
    /// A complete request.
    Request(Request),
    /// A complete but invalid request: reply with its errno and continue.
    Refused(Rejection),
    /// An unknown operation: close the connection. The reader yields nothing more.
    Unknown,
}

/// Reads the requests of one connection from chunks of any size. Yields one request at a time in
/// order; pipelined requests wait in the caller's buffer.
pub struct RequestReader {
    /// The incomplete line. Its capacity of `LINE_LEN_MAX` is reserved at the start and never
    /// exceeded, so no reallocation leaves a key behind.
    line: Zeroizing<Vec<u8>>,
    /// The current line is too long; its rest is skipped.
    line_overflow: bool,
    /// Bytes of the current request so far.
    request_len: usize,
    state: State,
}

enum State {
    /// Between requests: the next line is an operation.
    Operation,
    /// After `get=1`; any line before the empty one is an error.
    Get { rejected: Option<Rejection> },
    /// After `set=1`.
    Set(SetParser),
    /// After `explain=1`.
    Explain(ExplainParser),
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

    /// True between requests. A connection that ends at any other time leaves an incomplete
    /// request, which is discarded.
    pub fn is_idle(&self) -> bool {
        self.request_len == 0
    }

    /// Consumes `input` up to the end of its first request. Returns `None` once all of it is
    /// consumed and the request is incomplete; call it until then. `input` may hold keys, so the
    /// caller should zeroize its buffer.
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
                self.append(text);
                continue;
            }
            let incoming = if self.line.is_empty() && !self.line_overflow {
                // The whole line is in the input: no copy.
                self.end_line(text, zones)
            } else {
                self.append(text);
                let mut line = std::mem::take(&mut self.line);
                let incoming = self.end_line(&line, zones);
                line.zeroize(); // also clears it, and keeps its capacity
                self.line = line;
                incoming
            };
            if incoming.is_some() {
                return incoming;
            }
        }
        None
    }

    /// Appends a part of the current line.
    fn append(&mut self, text: &[u8]) {
        if text.len() > LINE_LEN_MAX - self.line.len() {
            self.line_overflow = true;
        } else if !self.line_overflow {
            self.line.extend_from_slice(text);
        }
    }

    /// Handles one complete line, given without its newline.
    fn end_line(&mut self, line: &[u8], zones: ZoneResolver<'_>) -> Option<Incoming> {
        let overflow = std::mem::take(&mut self.line_overflow) || line.len() > LINE_LEN_MAX;
        // As wireguard-go's line scanner does.
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
                    b"explain=1" if !overflow => State::Explain(ExplainParser::default()),
                    _ => return Some(self.close()),
                };
            }
            State::Get { rejected } => {
                let reason = "unexpected line after get=1".to_owned();
                rejected.get_or_insert(Rejection { errno: Errno::INVALID, reason });
            }
            State::Set(parser) if overflow || too_large => parser.reject(too_long(overflow)),
            State::Set(parser) => parser.line(line, zones),
            State::Explain(parser) if overflow || too_large => parser.reject(too_long(overflow)),
            State::Explain(parser) => parser.line(line),
            State::Closed => {}
        }
        None
    }

    /// Handles the empty line at the end of a request.
    fn end_request(&mut self) -> Incoming {
        self.request_len = 0;
        match std::mem::replace(&mut self.state, State::Operation) {
            State::Get { rejected: None } => Incoming::Request(Request::Get),
            State::Get { rejected: Some(rejection) } => Incoming::Refused(rejection),
            State::Set(parser) => Incoming::Request(Request::Set(parser.finish())),
            State::Explain(parser) => match parser.finish() {
                Ok(question) => Incoming::Request(Request::Explain(question)),
                Err(rejection) => Incoming::Refused(rejection),
            },
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
        format!("line exceeds {LINE_LEN_MAX} bytes")
    } else {
        format!("request exceeds {REQUEST_LEN_MAX} bytes")
    };
    Rejection { errno: Errno::IO, reason }
}
