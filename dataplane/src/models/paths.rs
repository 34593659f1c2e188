//! Endpoint and uplinks: [`Peer::forget_source`], and the epoch of
//! [`crate::source_check::Uplinks`].

use std::sync::Arc;

use loom::thread;
use wg_bounce_sys::Endpoint;

use super::{explore, peer};
use crate::source_check::Uplinks;

/// One worker finds that the source address of the old endpoint has vanished, while another learns
/// the next endpoint: that one stays, with its source.
#[test]
fn forgetting_a_source_never_undoes_roaming() {
    explore(|| {
        let source = Some("192.0.2.1".parse().expect("an address"));
        let [old, new] = ["192.0.2.2:7", "192.0.2.3:7"]
            .map(|text| Endpoint { remote: text.parse().expect("an address"), source });
        let peer = peer();
        peer.set_endpoint(old);
        let worker = {
            let peer = Arc::clone(&peer);
            thread::spawn(move || peer.forget_source(old))
        };
        assert!(peer.set_endpoint(new));
        assert_eq!(peer.endpoint(), Some(new));
        worker.join().expect("no panic");
        assert_eq!(peer.endpoint(), Some(new));
    });
}

/// An answer of the kernel is kept under the epoch at which it was asked for: it never comes from a
/// question with an older port or mark.
#[test]
fn the_epoch_shows_port_and_mark() {
    explore(|| {
        let uplinks = Arc::new(Uplinks::default());
        let before = uplinks.epoch();
        let worker = {
            let uplinks = Arc::clone(&uplinks);
            thread::spawn(move || {
                let epoch = uplinks.epoch();
                let flow = uplinks.flow();
                (epoch, flow.port, flow.mark)
            })
        };
        uplinks.set_sockets(51_820, 7);
        let (epoch, port, mark) = worker.join().expect("no panic");
        assert!(epoch == before || (port, mark) == (51_820, 7));
    });
}
