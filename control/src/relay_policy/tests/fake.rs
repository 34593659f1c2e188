//! A fake kernel with scripted replies.

use std::collections::BTreeMap;
use std::io;

use wg_bounce_sys::Family;

use super::super::announced::Announced;
use super::super::kernel::Interface;
use super::super::kernel::{Direction, Kernel, NetfilterLink};
use crate::netlink::attribute::{attributes, find};
use crate::netlink::message::build::{attribute, message};
use crate::netlink::message::{Message, Protocol, Request};
use crate::netlink::numbers::{NFT_MSG_GETRULE, NFT_MSG_GETSETELEM};

/// The interface's index.
pub const WG0: u32 = 7;

const EAFNOSUPPORT: i32 = 97;

/// The interface.
pub fn at() -> Interface {
    Interface { index: WG0, name: "wg0".to_owned() }
}

/// A table of legacy iptables, as returned by the kernel.
#[derive(Clone, Debug, Default)]
pub struct LegacyTable {
    /// `struct ipt_getinfo`.
    pub info: Vec<u8>,
    /// The entries, one after the other.
    pub entries: Vec<u8>,
}

/// See [`Kernel`].
#[derive(Default)]
pub struct FakeKernel {
    /// Replies to netlink requests; empty without an entry.
    pub answers: BTreeMap<(Protocol, u16), Result<Vec<Message>, io::ErrorKind>>,
    /// Filters by their parent.
    pub filters: BTreeMap<u32, Vec<Message>>,
    settings: BTreeMap<String, String>,
    listings: BTreeMap<String, String>,
    /// Tables of legacy iptables; their names must be listed as well.
    pub legacy: BTreeMap<(Family, String), LegacyTable>,
    /// Times that the entries of such a table were copied.
    pub legacy_copies: u32,
    /// Numbers of programs at ingress and egress.
    pub tcx: [u32; 2],
    /// Programs linked to netfilter.
    pub links: Vec<NetfilterLink>,
    /// The error of every request.
    pub failure: Option<fn() -> io::Error>,
    /// Every netlink request so far: protocol, type and body.
    pub requests: Vec<(Protocol, u16, Vec<u8>)>,
    /// Events of nftables.
    pub announced: Announced,
    /// Pauses so far.
    pub pauses: u32,
    /// What changes during the next pause.
    pub change: Option<fn(&mut FakeKernel)>,
    /// An address family that rtnetlink does not support.
    pub failing_family: Option<u8>,
}

impl FakeKernel {
    /// A kernel that gives no reason against direct relay.
    pub fn quiet() -> FakeKernel {
        let mut kernel = FakeKernel::default();
        for (path, value) in [
            ("ipv4/conf/wg0/forwarding", "1"),
            ("ipv6/conf/all/forwarding", "1"),
            ("ipv6/conf/wg0/disable_ipv6", "0"),
            ("ipv4/fib_multipath_hash_policy", "0"),
        ] {
            kernel.set(path, value);
        }
        kernel.push(Protocol::Route, 18, link(1, 0, 0, &[]));
        kernel.push(Protocol::Xfrm, 0x25, message(0x24, &[0; 4], &[attribute(1, &[0; 24])]));
        kernel.push(Protocol::Xfrm, 0x28, message(0x27, &[0, 2, 2], &[]));
        kernel
    }

    /// Adds a message to a reply.
    pub fn push(&mut self, protocol: Protocol, question: u16, message: Message) {
        let answer = self.answers.entry((protocol, question)).or_insert_with(|| Ok(Vec::new()));
        answer.as_mut().expect("not refused").push(message);
    }

    /// Refuses a request.
    pub fn refuse(&mut self, protocol: Protocol, question: u16, kind: io::ErrorKind) {
        self.answers.insert((protocol, question), Err(kind));
    }

    /// Sets a setting.
    pub fn set(&mut self, path: &str, value: &str) {
        self.settings.insert(path.to_owned(), format!("{value}\n"));
    }

    /// Removes a setting.
    pub fn unset(&mut self, path: &str) {
        self.settings.remove(path);
    }

    /// Sets the content of a file below /proc/net.
    pub fn list(&mut self, name: &str, content: &str) {
        self.listings.insert(name.to_owned(), content.to_owned());
    }

    fn fail(&self) -> io::Result<()> {
        self.failure.map_or(Ok(()), |failure| Err(failure()))
    }
}

/// The interface's link message.
pub fn link(flags: u32, xdp: u8, promiscuity: u32, more: &[Vec<u8>]) -> Message {
    let mut header = vec![0; 4];
    header.extend(WG0.to_ne_bytes());
    header.extend(flags.to_ne_bytes());
    header.extend([0; 4]);
    let mut attributes =
        vec![attribute(43, &attribute(2, &[xdp])), attribute(30, &promiscuity.to_ne_bytes())];
    attributes.extend_from_slice(more);
    message(16, &header, &attributes)
}

/// Whether an object of nftables is of the table, and the chain or set, that is asked for: whatever
/// the request names.
fn is_asked_for(message: &Message, body: &[u8]) -> bool {
    let name = |bytes: &[u8], kind| {
        let attributes = attributes(bytes.get(4..)?).ok()?;
        find(&attributes, kind).map(|one| one.text())
    };
    let is_of_family = message.payload.first() == body.first();
    is_of_family
        && [1, 2].into_iter().all(|kind| match (name(body, kind), name(&message.payload, kind)) {
            (Some(asked), Some(named)) => asked == named,
            _ => true,
        })
}

fn found<T: Clone>(value: Option<&T>) -> io::Result<T> {
    value.cloned().ok_or_else(|| io::ErrorKind::NotFound.into())
}

impl Kernel for FakeKernel {
    fn query(&mut self, protocol: Protocol, request: &Request) -> io::Result<Vec<Message>> {
        const RTM_GETRULE: u16 = 34;
        const RTM_GETTFILTER: u16 = 46;
        self.fail()?;
        let body = request.body();
        self.requests.push((protocol, request.kind, body.to_vec()));
        if (protocol, request.kind) == (Protocol::Route, RTM_GETTFILTER) {
            let parent = u32::from_ne_bytes(body[12..16].try_into().expect("a whole header"));
            assert_eq!(body[4..8], WG0.to_ne_bytes(), "filters of no other interface");
            return Ok(self.filters.get(&parent).cloned().unwrap_or_default());
        }
        if request.kind == RTM_GETRULE && self.failing_family == Some(body[0]) {
            return Err(io::Error::from_raw_os_error(EAFNOSUPPORT));
        }
        match self.answers.get(&(protocol, request.kind)) {
            Some(Ok(answer)) if [NFT_MSG_GETSETELEM, NFT_MSG_GETRULE].contains(&request.kind) => {
                Ok(answer.iter().filter(|message| is_asked_for(message, body)).cloned().collect())
            }
            Some(Ok(answer)) => Ok(answer.clone()),
            Some(Err(kind)) => Err((*kind).into()),
            None => Ok(Vec::new()),
        }
    }

    fn announced(&mut self) -> Announced {
        self.announced.clone()
    }

    fn pause(&mut self) {
        self.pauses += 1;
        if let Some(change) = self.change.take() {
            change(self);
        }
    }

    fn setting(&mut self, path: &str) -> io::Result<String> {
        self.fail()?;
        found(self.settings.get(path))
    }

    fn listing(&mut self, name: &str) -> io::Result<String> {
        self.fail()?;
        found(self.listings.get(name))
    }

    fn legacy_outline(&mut self, family: Family, table: &str) -> io::Result<Vec<u8>> {
        self.fail()?;
        found(self.legacy.get(&(family, table.to_owned()))).map(|table| table.info)
    }

    fn legacy_entries(&mut self, family: Family, table: &str, _: u32) -> io::Result<Vec<u8>> {
        self.legacy_copies += 1;
        found(self.legacy.get(&(family, table.to_owned()))).map(|table| table.entries)
    }

    fn tcx_programs(&mut self, interface: u32, direction: Direction) -> io::Result<u32> {
        self.fail()?;
        assert_eq!(interface, WG0);
        Ok(self.tcx[direction as usize])
    }

    fn netfilter_links(&mut self) -> io::Result<Vec<NetfilterLink>> {
        self.fail()?;
        Ok(self.links.clone())
    }
}
