//! The lines after `explain=1`, an operation of ours: `source` and `destination`, perhaps
//! `protocol` and `port`.

use std::net::IpAddr;
use std::str::FromStr;

use crate::types::{Errno, Explain, Protocol, Rejection, Service};

/// Collects the lines.
#[derive(Default)]
pub(super) struct ExplainParser {
    source: Option<IpAddr>,
    destination: Option<IpAddr>,
    protocol: Option<Protocol>,
    port: Option<u16>,
    rejected: Option<Rejection>,
}

impl ExplainParser {
    /// Takes one line, without its newline.
    pub(super) fn line(&mut self, line: &[u8]) {
        let text = String::from_utf8_lossy(line);
        let taken = match text.split_once('=') {
            Some(("source", value)) => take(&mut self.source, value, "not an IP address"),
            Some(("destination", value)) => take(&mut self.destination, value, "not an IP address"),
            Some(("protocol", value)) => take(&mut self.protocol, value, "not tcp or udp"),
            Some(("port", value)) => take(&mut self.port, value, "not a port"),
            _ => Err(invalid("unexpected line after explain=1")),
        };
        if let Err(rejection) = taken {
            self.reject(rejection);
        }
    }

    /// Rejects the request, unless it was rejected already.
    pub(super) fn reject(&mut self, rejection: Rejection) {
        self.rejected.get_or_insert(rejection);
    }

    /// The question.
    pub(super) fn finish(self) -> Result<Explain, Rejection> {
        if let Some(rejection) = self.rejected {
            return Err(rejection);
        }
        let service = match (self.protocol, self.port) {
            (Some(protocol), Some(port)) => Some(Service { protocol, port }),
            (None, None) => None,
            _ => return Err(invalid("explain needs both a protocol and a port, or none")),
        };
        match (self.source, self.destination) {
            (Some(source), Some(destination)) if source.is_ipv4() == destination.is_ipv4() => {
                Ok(Explain { source, destination, service })
            }
            _ => Err(invalid("explain needs a source and a destination of one IP version")),
        }
    }
}

fn take<T: FromStr>(place: &mut Option<T>, value: &str, otherwise: &str) -> Result<(), Rejection> {
    *place = Some(value.parse().map_err(|_| invalid(otherwise))?);
    Ok(())
}

fn invalid(reason: &str) -> Rejection {
    Rejection { errno: Errno::INVALID, reason: reason.to_owned() }
}
