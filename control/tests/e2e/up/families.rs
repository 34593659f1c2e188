//! Hubs with one IP version only, inside and outside.

use super::{Tunnel, wait_until_up};
use crate::harness::{Backend, KeyPair, Lab, Namespace, ping, ping_until_answered, seconds};

/// The addresses of one IP version.
struct Addresses {
    /// Inside, without the host's number.
    inside: &'static str,
    inside_len: u8,
    /// Outside, with `N` for the number of the link.
    outside: &'static str,
    outside_len: u8,
    /// A setting of each namespace.
    setting: &'static str,
}

const V4: Addresses = Addresses {
    inside: "10.77.0.",
    inside_len: 24,
    outside: "192.168.N.",
    outside_len: 24,
    setting: "net.ipv6.conf.all.disable_ipv6=1",
};

const V6: Addresses = Addresses {
    inside: "fd77::",
    inside_len: 64,
    outside: "2001:db8:N::",
    outside_len: 64,
    setting: "net.ipv6.conf.all.forwarding=1",
};

/// Two clients reach each other and the hub.
fn with_only(addresses: &Addresses, backend: Backend) {
    let Addresses { inside, inside_len, outside, outside_len, setting } = addresses;
    let lab = Lab::new();
    let hub = lab.namespace("hub");
    let set = |namespace: &Namespace| {
        namespace.sysctl(setting);
        namespace.sysctl("net.ipv4.ip_forward=1");
    };
    set(&hub);
    let keys = [(); 3].map(|()| KeyPair::new());
    let tunnel = Tunnel::new(&lab, &hub, "hub", backend);
    let mut text = format!(
        "[Interface]\nPrivateKey = {}\nListenPort = 51820\nAddress = {inside}1/{inside_len}\n",
        keys[0].private()
    );
    for (number, key) in [(2, &keys[1]), (3, &keys[2])] {
        text += &format!("[Peer]\nPublicKey = {}\nAllowedIPs = {inside}{number}\n", key.public());
    }
    tunnel.write(&text);
    let clients = [(2, "alice"), (3, "bob")].map(|(number, name)| {
        let namespace = lab.namespace(name);
        lab.link((&hub, name), (&namespace, "out0"), 1500);
        set(&namespace);
        let outside = outside.replace('N', &number.to_string());
        let nodad = if outside.contains(':') { "nodad" } else { "" };
        for (namespace, device, host) in [(&hub, name, 1), (&namespace, "out0", 2)] {
            namespace
                .run(&format!("ip address add {outside}{host}/{outside_len} dev {device} {nodad}"));
        }
        let endpoint = match outside.contains(':') {
            true => format!("[{outside}1]:51820"),
            false => format!("{outside}1:51820"),
        };
        let client = Tunnel::new(&lab, &namespace, name, backend);
        client.write(&format!(
            "[Interface]\nPrivateKey = {}\nAddress = {inside}{number}/{inside_len}\n[Peer]\n\
             PublicKey = {}\nAllowedIPs = {inside}0/{inside_len}\nEndpoint = {endpoint}\n\
             PersistentKeepalive = 25\n",
            keys[number - 1].private(),
            keys[0].public(),
        ));
        client
    });
    let mut process = tunnel.start("");
    wait_until_up(&mut process, seconds(10));
    let [alice, bob] = &clients;
    let _processes = [alice.up(), bob.up()];
    for target in [1, 3] {
        let target = format!("{inside}{target}");
        ping_until_answered(&alice.namespace, &target);
        assert_eq!(ping(&alice.namespace, &target, "-c 20 -i 0.02 -s 1000"), (20, 20), "{target}");
    }
    let log = process.output();
    assert!(!log.contains("WARNING") && !log.contains("ERROR"), "{log}");
    tunnel.run("down");
    assert_eq!(process.exit_code(), Some(0));
}

fn a_hub_without_ipv4(backend: Backend) {
    with_only(&V6, backend);
}

fn a_hub_without_ipv6(backend: Backend) {
    with_only(&V4, backend);
}

#[test]
#[ignore = "needs root: creates network namespaces"]
fn an_ipv6_address_where_ipv6_is_off() {
    let lab = Lab::new();
    let hub = lab.namespace("hub");
    hub.sysctl(V4.setting);
    hub.sysctl("net.ipv6.conf.default.disable_ipv6=1");
    let tunnel = Tunnel::new(&lab, &hub, "hub", Backend::Mmsg);
    let key = KeyPair::new().private();
    tunnel.write(&format!("[Interface]\nPrivateKey = {key}\nAddress = fd77::1/64\n"));
    let outcome = tunnel.attempt("up");
    let expected = "Address fd77::1/64: IPv6 is off: see sysctl net.ipv6.conf.all.disable_ipv6";
    assert!(outcome.stderr.contains(expected), "{outcome:?}");
    assert!(!tunnel.has_interface());
}

on_both_backends!(a_hub_without_ipv4, a_hub_without_ipv6);
