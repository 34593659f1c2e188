//! The UDP sockets follow the link, as the kernel module's do (`wg_open` and `wg_stop`,
//! drivers/net/wireguard/device.c): bound while it is up, closed while it is down.
//!
//! 1. [`Runtime::set_link`]: the link went up or down. Down closes the sockets at once.
//! 2. [`Runtime::follow_sockets`], each turn: binds them once the link is up and the workers have
//!    let go of earlier ones. The device is up only then.
//! 3. [`Runtime::set_listen_port`] and [`Runtime::set_fwmark`] tell at once whether the kernel
//!    accepts the value, also while the link is down.

use wg_bounce_sys::clock::{self, Millis};
use wg_bounce_uapi::types::Errno;

use super::configure::refusal;
use super::state::{Listener, Runtime};
use crate::device::Input;
use crate::limits::BIND_RETRY_INTERVAL;

impl Runtime {
    /// Follows the link.
    pub(super) fn set_link(&mut self, up: bool) {
        self.listener.is_link_up = up;
        if !up {
            let was_bound = self.components.device.is_up();
            if was_bound {
                self.components.engine.close_sockets();
            }
            self.handle(Input::Link { up: false });
            if was_bound {
                self.listener.free_at = self.epoch;
            }
            self.listener.retry_at = None;
        }
    }

    /// Binds the sockets if the link is up; `epoch` is the one that all workers have reached.
    pub(super) fn follow_sockets(&mut self, epoch: u64) {
        let Listener { is_link_up, free_at, retry_at } = self.listener;
        let is_due = retry_at.is_none_or(|at| at <= clock::boot_time());
        if !is_link_up || self.components.device.is_up() || epoch < free_at || !is_due {
            return;
        }
        let port = self.listen_port;
        match self.components.engine.bind(port, self.fwmark) {
            Ok(bound) => {
                self.listener.retry_at = None;
                self.listen_port = bound.port;
                // First of all the workers learn that the interface is up: they drop what arrives
                // before.
                self.handle(Input::Link { up: true });
                self.components.engine.switch(bound);
                self.log_listening();
            }
            Err(error) => {
                if retry_at.is_none() {
                    let name = &self.components.link.link().name;
                    log::error!(
                        "interface {name}: cannot listen on UDP port {port}: {error}; trying again \
                         until it is free"
                    );
                }
                self.listener.retry_at = Some(clock::boot_time() + BIND_RETRY_INTERVAL);
                // Drops what waits for the sockets: it would be stale.
                self.handle(Input::Link { up: false });
            }
        }
    }

    /// Time at which [`Runtime::follow_sockets`] is due.
    pub(super) fn retry_at(&self) -> Option<Millis> {
        self.listener.retry_at
    }

    /// Binds another port; on failure the current one stays in use. Zero always makes the kernel
    /// choose a new one (`set_port` in drivers/net/wireguard/netlink.c). While the link is down
    /// the sockets are closed again: a port that is taken is refused all the same.
    pub(super) fn set_listen_port(&mut self, port: u16) -> Result<(), Errno> {
        if port == self.listen_port && port != 0 {
            return Ok(());
        }
        let bound = self
            .components
            .engine
            .bind(port, self.fwmark)
            .map_err(|error| refusal(&format!("listen on port {port}"), &error))?;
        self.listen_port = bound.port;
        if self.components.device.is_up() {
            self.components.engine.switch(bound);
            self.log_listening();
        }
        self.listener.retry_at = None;
        Ok(())
    }

    pub(super) fn set_fwmark(&mut self, mark: u32) -> Result<(), Errno> {
        if mark != self.fwmark {
            let engine = &self.components.engine;
            let result = if self.components.device.is_up() {
                engine.set_fwmark(mark)
            } else {
                engine.bind(0, mark).map(drop)
            };
            result.map_err(|error| refusal(&format!("set the fwmark to {mark:#x}"), &error))?;
            self.fwmark = mark;
        }
        Ok(())
    }

    fn log_listening(&self) {
        let name = &self.components.link.link().name;
        log::info!("interface {name}: listening on UDP port {}", self.listen_port);
    }
}
