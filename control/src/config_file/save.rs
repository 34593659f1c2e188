//! Writes a running configuration into its file. Only the settings that differ change: names,
//! comments and the order stay, and host names are not replaced with addresses.

use std::collections::BTreeSet;

use base64ct::{Base64, Encoding as _};
use ipnet::IpNet;
use zeroize::Zeroizing;

use super::edit;
use super::lines::{Content, lines};
use super::model::Config;
use super::state::{PeerState, State, Wanted, peers};

/// A running configuration.
pub struct Running {
    /// The interface and its peers.
    pub state: State,
    /// The addresses of the interface.
    pub addresses: BTreeSet<IpNet>,
    /// The public key of the interface: a peer that has it is ignored.
    pub own_key: Option<[u8; 32]>,
}

/// The text of a file, whose configuration is `config`, with what is running.
pub fn with_running(text: &str, config: &Config, running: &Running) -> Zeroizing<String> {
    let mut text = Zeroizing::new(text.to_owned());
    let wanted = peers(config);
    let state = &running.state;
    // From the end, so that the places before a change stay true.
    let mut seen = BTreeSet::new();
    for peer in config.peers.iter().rev() {
        let key = &peer.public_key;
        let is_last = seen.insert(*key);
        match (state.peers.get(key), wanted.get(key)) {
            // It overrides the earlier sections of its key.
            (Some(running), Some(wanted)) if is_last => {
                text = with_peer(&text, peer.place.line, wanted, running);
            }
            (None, _) if running.own_key.as_ref() != Some(key) => {
                text = Zeroizing::new(edit::without_section(&text, peer.place));
            }
            _ => {}
        }
    }
    text = with_interface(&text, config, running);
    for (key, peer) in state.peers.iter().filter(|(key, _)| !seen.contains(*key)) {
        let mut section = Zeroizing::new(format!("[Peer]\nPublicKey = {}\n", *base64(key)));
        for (name, value) in settings(peer) {
            if let Some(value) = value {
                section.push_str(&format!("{name} = {}\n", *value));
            }
        }
        text = Zeroizing::new(edit::with_section(&text, &section));
    }
    text
}

/// The value of each setting of a running peer.
fn settings(peer: &PeerState) -> [(&'static str, Option<Zeroizing<String>>); 4] {
    let secret = (*peer.preshared_key != [0; 32]).then(|| base64(&peer.preshared_key));
    let keepalive = (peer.persistent_keepalive != 0).then(|| peer.persistent_keepalive.to_string());
    let allowed = (!peer.allowed_ips.is_empty()).then(|| list(&peer.allowed_ips));
    let endpoint = peer.endpoint.map(|endpoint| endpoint.to_string());
    [
        ("PresharedKey", secret),
        ("AllowedIPs", allowed.map(Zeroizing::new)),
        ("Endpoint", endpoint.map(Zeroizing::new)),
        ("PersistentKeepalive", keepalive.map(Zeroizing::new)),
    ]
}

fn with_peer(
    text: &str,
    heading: usize,
    wanted: &Wanted<'_>,
    running: &PeerState,
) -> Zeroizing<String> {
    let mut text = Zeroizing::new(text.to_owned());
    let is_host_name = wanted.endpoint.is_some_and(|endpoint| endpoint.address().is_none());
    for ((name, new), (_, old)) in settings(running).into_iter().zip(settings(&wanted.state)) {
        if new != old && !(name == "Endpoint" && is_host_name) {
            text = with_setting(&text, heading, name, new.as_ref().map(|new| new.as_str()));
        }
    }
    text
}

fn with_interface(text: &str, config: &Config, running: &Running) -> Zeroizing<String> {
    let mut text = Zeroizing::new(text.to_owned());
    let (interface, state) = (&config.interface, &running.state);
    let is_heading = |content: Content<'_>| match content {
        Content::Heading(name) => name.text.eq_ignore_ascii_case("Interface"),
        _ => false,
    };
    let Some(at) = lines(&text).position(|line| is_heading(line.content)) else { return text };
    let heading = at + 1;
    let mut set = |name: &str, value: Option<&str>| {
        text = with_setting(&text, heading, name, value);
    };
    if let Some(key) = &state.private_key
        && interface.private_key.as_ref() != Some(key)
    {
        set("PrivateKey", Some(&base64(key)));
    }
    let port = interface.listen_port.map_or(0, |port| port.value);
    if state.listen_port != port && state.listen_port != 0 {
        set("ListenPort", Some(&state.listen_port.to_string()));
    }
    if state.fwmark != interface.fwmark.unwrap_or(0) {
        let mark = format!("{:#x}", state.fwmark);
        set("FwMark", Some(&mark).filter(|_| state.fwmark != 0).map(String::as_str));
    }
    let addresses: BTreeSet<IpNet> = interface.addresses.iter().map(|one| one.value).collect();
    if running.addresses != addresses {
        let value = (!running.addresses.is_empty()).then(|| list(&running.addresses));
        set("Address", value.as_deref());
    }
    text
}

/// The text in which the section with this heading has the setting once, or not at all. What stands
/// before and behind the value stays.
fn with_setting(text: &str, heading: usize, name: &str, value: Option<&str>) -> Zeroizing<String> {
    let is_named = |content: &Content<'_>| match content {
        Content::Setting(known, _) => known.text.eq_ignore_ascii_case(name),
        _ => false,
    };
    let mut result = Zeroizing::new(String::with_capacity(text.len() + 128));
    let contents: Vec<_> = lines(text).map(|line| line.content).collect();
    let section = &contents[heading..];
    let is_heading = |content: &Content<'_>| matches!(content, Content::Heading(_));
    let end = section.iter().position(is_heading).unwrap_or(section.len());
    let section = &section[..end];
    let first = section.iter().position(is_named);
    let last = section.iter().rposition(|content| matches!(content, Content::Setting(..)));
    // Without such a line, it comes behind the other settings.
    let behind = first.is_none().then(|| heading + last.map_or(0, |at| at + 1));
    let ending = if text.contains("\r\n") { "\r\n" } else { "\n" };
    for (at, line) in text.split_inclusive('\n').enumerate() {
        if behind == Some(at)
            && let Some(value) = value
        {
            result.push_str(&format!("{name} = {value}{ending}"));
        }
        match contents.get(at) {
            Some(Content::Setting(_, old))
                if (heading..heading + end).contains(&at) && is_named(&contents[at]) =>
            {
                let is_first = first.is_some_and(|first| heading + first == at);
                if let Some(value) = value.filter(|_| is_first) {
                    let start = old.text.as_ptr() as usize - line.as_ptr() as usize;
                    let (before, rest) = line.split_at(start);
                    result.push_str(&format!("{before}{value}{}", &rest[old.text.len()..]));
                }
            }
            _ => result.push_str(line),
        }
    }
    if behind == Some(contents.len())
        && let Some(value) = value
    {
        if !text.ends_with('\n') {
            result.push_str(ending);
        }
        result.push_str(&format!("{name} = {value}{ending}"));
    }
    result
}

fn base64(key: &[u8; 32]) -> Zeroizing<String> {
    Zeroizing::new(Base64::encode_string(key))
}

fn list(prefixes: &BTreeSet<IpNet>) -> String {
    prefixes.iter().map(IpNet::to_string).collect::<Vec<_>>().join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config_file::read::read;

    const KEY: [&str; 3] = [
        "AQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQE=",
        "AgICAgICAgICAgICAgICAgICAgICAgICAgICAgICAgI=",
        "AwMDAwMDAwMDAwMDAwMDAwMDAwMDAwMDAwMDAwMDAwM=",
    ];

    fn text() -> String {
        format!(
            "# The hub.\n[Interface]\nListenPort = 51820 # as the firewall has it\n\
             Address = 10.0.0.1/24\n\n[Peer] # alice\nPublicKey = {}\nAllowedIPs = 10.0.0.2/32\n\
             allowedips = 10.0.0.9/32\nEndpoint = alice.example.org:51820\n\n# Below is bob.\n\
             [Peer]\n# Name = bob\nPublicKey = {}\n",
            KEY[0], KEY[1]
        )
    }

    fn running(text: &str) -> Running {
        let (config, problems) = read(text);
        assert!(problems.is_empty(), "{problems:?}");
        let state = State {
            private_key: config.interface.private_key.clone(),
            listen_port: config.interface.listen_port.map_or(0, |one| one.value),
            fwmark: config.interface.fwmark.unwrap_or(0),
            peers: peers(&config).into_iter().map(|(key, peer)| (key, peer.state)).collect(),
        };
        let addresses = config.interface.addresses.iter().map(|one| one.value).collect();
        Running { state, addresses, own_key: None }
    }

    fn save(text: &str, running: &Running) -> String {
        with_running(text, &read(text).0, running).to_string()
    }

    #[test]
    fn an_unchanged_state_leaves_the_file_alone() {
        for text in [text(), text().replace('\n', "\r\n"), text().trim_end().to_owned()] {
            assert_eq!(save(&text, &running(&text)), text);
        }
    }

    #[test]
    fn only_what_differs_changes() {
        let mut now = running(&text());
        now.state.listen_port = 51821;
        let alice = now.state.peers.get_mut(&[1; 32]).expect("there");
        alice.allowed_ips.insert("10.1.0.0/16".parse().expect("valid"));
        alice.endpoint = Some("192.0.2.7:9".parse().expect("valid"));
        alice.persistent_keepalive = 25;
        let new = PeerState { endpoint: alice.endpoint, ..PeerState::default() };
        now.state.peers.remove(&[2; 32]);
        now.state.peers.insert([3; 32], new);
        let expected = text()
            .replace("51820 # as", "51821 # as")
            .replace(
                "AllowedIPs = 10.0.0.2/32\nallowedips = 10.0.0.9/32\n",
                "AllowedIPs = 10.0.0.2/32, 10.0.0.9/32, 10.1.0.0/16\n",
            )
            .replace("org:51820\n", "org:51820\nPersistentKeepalive = 25\n")
            .replace(&format!("[Peer]\n# Name = bob\nPublicKey = {}\n", KEY[1]), "");
        let new = format!("\n[Peer]\nPublicKey = {}\nEndpoint = 192.0.2.7:9\n", KEY[2]);
        assert_eq!(save(&text(), &now), expected + &new);
    }

    #[test]
    fn what_is_saved_is_what_runs() {
        let mut now = running(&text());
        now.state.private_key = Some(Zeroizing::new([64; 32]));
        now.state.fwmark = 7;
        now.addresses = BTreeSet::from(["fd00::1/64".parse().expect("valid")]);
        for peer in now.state.peers.values_mut() {
            peer.preshared_key = Zeroizing::new([9; 32]);
            peer.allowed_ips = BTreeSet::new();
        }
        for text in [text(), text().trim_end().to_owned(), text() + "[Peer]\nPublicKey = "] {
            let text = if text.ends_with("= ") { text + KEY[0] } else { text };
            let saved = running(&save(&text, &now));
            assert_eq!(saved.state.private_key, now.state.private_key);
            assert_eq!((saved.state.fwmark, &saved.addresses), (7, &now.addresses));
            for (key, peer) in &now.state.peers {
                let of_file = &saved.state.peers[key];
                assert_eq!(of_file.preshared_key, peer.preshared_key);
                assert_eq!(of_file.allowed_ips, peer.allowed_ips);
            }
        }
    }
}
