//! A hub with two clients, each with its file.

use super::Tunnel;
use crate::harness::{Backend, KeyPair, Lab};

/// Two clients of a hub.
pub struct Hub<'a> {
    /// The hub.
    pub hub: Tunnel<'a>,
    /// Alice, 10.77.0.2, and Bob, 10.77.0.3.
    pub clients: [Tunnel<'a>; 2],
    /// The keys of all three.
    pub keys: [KeyPair; 3],
}

impl<'a> Hub<'a> {
    pub fn new(lab: &'a Lab, backend: Backend) -> Hub<'a> {
        let hub = lab.namespace("hub");
        hub.sysctl("net.ipv4.ip_forward=1");
        let hub = Tunnel::new(lab, &hub, "hub", backend);
        let keys = [(); 3].map(|()| KeyPair::new());
        let clients = [(1, "alice"), (2, "bob")].map(|(number, name)| {
            let namespace = lab.namespace(name);
            lab.link((&hub.namespace, name), (&namespace, "out0"), 1500);
            hub.namespace.run(&format!("ip address add 192.168.{number}.1/24 dev {name}"));
            namespace.run(&format!("ip address add 192.168.{number}.2/24 dev out0"));
            let client = Tunnel::new(lab, &namespace, name, backend);
            client.write(&format!(
                "[Interface]\nPrivateKey = {}\nAddress = 10.77.0.{}/24\n[Peer]\nPublicKey = {}\n\
                 AllowedIPs = 10.77.0.0/24\nEndpoint = 192.168.{number}.1:51820\n\
                 PersistentKeepalive = 25\n",
                keys[number].private(),
                number + 1,
                keys[0].public(),
            ));
            client
        });
        let hub = Hub { hub, clients, keys };
        hub.hub.write(&hub.file(""));
        hub
    }

    /// The file of the hub, with more lines for its interface.
    pub fn file(&self, more: &str) -> String {
        let [hub, alice, bob] = &self.keys;
        format!(
            "[Interface]\nPrivateKey = {}\nListenPort = 51820\nAddress = 10.77.0.1/24\n{more}\
             # The people.\n[Peer]\n# Name = alice\nPublicKey = {}\nAllowedIPs = 10.77.0.2/32\n\
             [Peer] # bob\nPublicKey = {}\nAllowedIPs = 10.77.0.3/32\n",
            hub.private(),
            alice.public(),
            bob.public()
        )
    }
}
