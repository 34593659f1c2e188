//! The netlink layer (netlink(7)): one way to write requests, to read replies and events.
//!
//! - [`message`]: requests, replies and events as messages.
//! - [`attribute`], [`parse`]: attributes and other bytes, read strictly.
//! - [`numbers`]: message types and attribute numbers.
//! - [`socket`]: the only module here that touches a descriptor.
//!
//! Headers and attributes are encoded and decoded by netlink-packet-core; messages about links,
//! addresses, routes, rules and tc are those of netlink-packet-route. Own code covers only what no
//! crate has: nftables, IPsec policies and forwarding settings.

pub mod attribute;
pub mod message;
pub mod numbers;
pub mod parse;
pub mod socket;
