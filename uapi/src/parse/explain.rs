//! The lines after `explain=1`, an operation of ours: `source` and `destination`.

use std::net::IpAddr;

use crate::types::{Errno, Explain, Rejection};

/// Collects the lines.
#[derive(Default)]
pub(super) struct ExplainParser {
    source: Option<IpAddr>,
    destination: Option<IpAddr>,
    rejected: Option<Rejection>,
}

impl ExplainParser {
    /// Takes one line, without its newline.
    pub(super) fn line(&mut self, line: &[u8]) {
        let text = String::from_utf8_lossy(line);
        let (place, value) = match text.split_once('=') {
            Some(("source", value)) => (&mut self.source, value),
            Some(("destination", value)) => (&mut self.destination, value),
            _ => return self.reject(invalid("unexpected line after explain=1")),
        };
        match value.parse() {
            Ok(address) => *place = Some(address),
            Err(_) => self.reject(invalid("not an IP address")),
        }
    }

    /// Rejects the request, unless it was rejected already.
    pub(super) fn reject(&mut self, rejection: Rejection) {
        self.rejected.get_or_insert(rejection);
    }

    /// The question.
    pub(super) fn finish(self) -> Result<Explain, Rejection> {
        let question = match (self.source, self.destination) {
            (Some(source), Some(destination)) if source.is_ipv4() == destination.is_ipv4() => {
                Ok(Explain { source, destination })
            }
            _ => Err(invalid("explain needs a source and a destination of one IP version")),
        };
        self.rejected.map_or(question, Err)
    }
}

fn invalid(reason: &str) -> Rejection {
    Rejection { errno: Errno::INVALID, reason: reason.to_owned() }
}
