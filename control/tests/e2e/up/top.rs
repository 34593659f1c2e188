//! `wg-bounce top`, in a real terminal.

use std::process::Command;

use super::hub::Hub;
use crate::harness::{Backend, Lab, Program, eventually, ping_until_answered, seconds};

/// A terminal of tmux(1) that ends with this.
struct Terminal {
    socket: String,
}

impl Terminal {
    fn new(lab: &Lab, line: &str) -> Terminal {
        let socket = lab.file("tmux").display().to_string();
        let terminal = Terminal { socket };
        terminal.tmux(&["-f", "/dev/null", "new-session", "-d", "-x", "150", "-y", "30", line]);
        terminal
    }

    fn tmux(&self, arguments: &[&str]) -> String {
        let mut command = Command::new("tmux");
        command.env("TERM", "xterm-256color").env("LC_ALL", "C.UTF-8");
        let output = command.args(["-S", &self.socket]).args(arguments).output();
        let output = output.expect("tmux: apt-get install tmux");
        String::from_utf8_lossy(&output.stdout).into_owned()
    }

    fn screen(&self) -> String {
        self.tmux(&["capture-pane", "-p"])
    }

    #[track_caller]
    fn wait_for(&self, what: &str, is_there: impl Fn(&str) -> bool) {
        eventually(seconds(10), what, || is_there(&self.screen()));
    }

    fn press(&self, keys: &[&str]) {
        self.tmux(&[&["send-keys"], keys].concat());
    }
}

impl Drop for Terminal {
    fn drop(&mut self) {
        self.tmux(&["kill-server"]);
    }
}

/// Peers with their rates; sorted, filtered, and without the daemon.
#[test]
#[ignore = "needs root: creates network namespaces"]
fn a_hub_on_the_terminal() {
    let lab = Lab::new();
    let set = Hub::new(&lab, Backend::Uring);
    let (hub, [alice, bob]) = (&set.hub, &set.clients);
    hub.write(&set.file("# wg-bounce: relay = direct\n"));
    let mut process = hub.up();
    let _clients = [alice.up(), bob.up()];
    ping_until_answered(&alice.namespace, "10.77.0.3");
    let flow = alice.namespace.spawn(&lab, "ping -q -i 0.01 -s 1000 10.77.0.3");
    let (program, interface) = (Program::under_test(), &hub.interface);
    let line = format!("{} top {interface}", program.display());
    let line = format!("ip netns exec {} {line}", hub.namespace.name());
    let terminal = Terminal::new(&lab, &line);
    let row = |screen: &str, name: &str| {
        let mut lines = screen.lines();
        lines.find(|line| line.starts_with(name)).unwrap_or_default().to_owned()
    };
    terminal.wait_for("rates", |screen| row(screen, "alice").matches("kbit/s").count() == 2);
    let screen = terminal.screen();
    for part in [interface, "UDP port 51820", "2 peers", "relay: IPv4 direct", "% direct", "/s"] {
        assert!(screen.contains(part), "{part}: {screen}");
    }
    let line = row(&screen, "alice");
    assert!(line.contains("192.168.1.2:") && line.contains('█'), "{screen}");
    terminal.press(&["s"]);
    terminal.wait_for("another order", |screen| screen.contains("sort (name)"));
    terminal.press(&["/", "b", "o", "b", "Enter"]);
    let is_filtered =
        |screen: &str| row(screen, "alice").is_empty() && screen.contains("/ filter: bob");
    terminal.wait_for("the filter", is_filtered);
    hub.run("down");
    assert_eq!(process.exit_code(), Some(0));
    terminal.wait_for("the reason", |screen| screen.contains("wg-bounce does not run"));
    terminal.press(&["q"]);
    terminal.wait_for("the end", |screen| screen.is_empty());
    drop(flow);

    let refused = hub.namespace.attempt(&format!("{} top {interface}", program.display()));
    assert!(refused.stderr.contains("top needs a terminal"), "{refused:?}");
}
