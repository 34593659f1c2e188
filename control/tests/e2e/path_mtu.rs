//! Paths with a smaller MTU than the tunnel needs. Encrypted datagrams are fragmented: by the
//! sender, or on the way (IPv4 only), as those of the kernel module are.
//!
//! ```text
//!   hub ── 192.0.2.0/24, 2001:db8:a::/64 ── router ── 198.51.100.0/24, 2001:db8:b::/64 ── client
//!          MTU 1500                                   MTU 1300
//! ```

use crate::harness::{
    Backend, Daemon, HUB_PORT, Iperf, IperfServer, Lab, Program, endpoint, eventually, ping,
    ping_until_answered, seconds,
};

/// The largest ping that the tunnel's MTU of 1420 bytes allows.
const FULL: &str = "-s 1392 -M do";

fn full_packets_cross_a_narrow_path(backend: Backend) {
    let lab = Lab::new();
    let [hub, router, client] = ["hub", "router", "client"].map(|role| lab.namespace(role));
    for setting in ["net.ipv4.ip_forward=1", "net.ipv6.conf.all.forwarding=1"] {
        router.sysctl(setting);
    }
    lab.link((&hub, "out0"), (&router, "near"), 1500);
    lab.link((&router, "far"), (&client, "out0"), 1500);
    for (namespace, device, gateway, v4, v6) in [
        (&hub, "near", 1, "192.0.2", "2001:db8:a:"),
        (&client, "far", 1, "198.51.100", "2001:db8:b:"),
    ] {
        router.run(&format!("ip address add {v4}.{gateway}/24 dev {device}"));
        router.run(&format!("ip address add {v6}:{gateway}/64 dev {device} nodad"));
        namespace.run(&format!("ip address add {v4}.2/24 dev out0"));
        namespace.run(&format!("ip address add {v6}:2/64 dev out0 nodad"));
        namespace.run(&format!("ip route add default via {v4}.{gateway}"));
        namespace.run(&format!("ip -6 route add default via {v6}:{gateway}"));
    }
    let hub = Daemon::start(&lab, &hub, "hub", Program::Ours(backend));
    let client = Daemon::start(&lab, &client, "client", Program::Ours(backend));
    for (daemon, other, port) in [(&hub, &client, HUB_PORT), (&client, &hub, 0)] {
        let config = format!(
            "[Interface]\nPrivateKey = {}\nListenPort = {port}\n\
             [Peer]\nPublicKey = {}\nAllowedIPs = 10.77.0.0/24\n",
            daemon.key.private(),
            other.key.public(),
        );
        daemon.configure("setconf", &config);
    }
    hub.bring_up(1420, &["10.77.0.1/24"]);
    client.bring_up(1420, &["10.77.0.2/24"]);
    let _server = IperfServer::start(&lab, &hub.namespace);
    router.run("ip link set far mtu 1300");
    client.namespace.run("ip link set out0 mtu 1300");

    for address in ["192.0.2.2", "2001:db8:a::2"] {
        let to = endpoint(address, HUB_PORT);
        client.set(&format!("peer {} endpoint {to}", hub.key.public()));
        ping_until_answered(&client.namespace, "10.77.0.1");
        // In IPv6 the router refuses the first one, and the sender fragments the following.
        eventually(seconds(5), &format!("a full packet passes over {address}"), || {
            ping(&hub.namespace, "10.77.0.2", &format!("-c 1 -W 1 {FULL}")).1 == 1
        });
        for (from, to) in [(&hub, "10.77.0.2"), (&client, "10.77.0.1")] {
            let counts = ping(&from.namespace, to, &format!("-c 10 -i 0.02 {FULL}"));
            assert_eq!(counts, (10, 10), "from {} over {address}", from.interface);
        }
        // Trains of full packets, both ways.
        for direction in ["", "--reverse"] {
            let options = format!("--bytes 4M {direction}");
            let report = Iperf::run(&client.namespace, "10.77.0.1", &options);
            let rate = report.bytes_per_second();
            assert!(rate > 500_000.0, "{rate} bytes/s {direction} over {address}");
        }
    }
}

on_both_backends!(full_packets_cross_a_narrow_path);
