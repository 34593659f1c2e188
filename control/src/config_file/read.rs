//! From a text to a configuration.

use std::collections::BTreeMap;
use std::net::IpAddr;

use super::lines::{Content, Line, Place, Word, lines};
use super::model::{Config, DaemonOption, Hook, HookTime, Peer, Placed};
use super::problem::Problem;
use super::quote::quote;
use super::value;

/// Settings of the `[Interface]` section.
const OF_INTERFACE: [&str; 12] = [
    "PrivateKey",
    "ListenPort",
    "FwMark",
    "Address",
    "DNS",
    "MTU",
    "Table",
    "PreUp",
    "PostUp",
    "PreDown",
    "PostDown",
    "SaveConfig",
];
/// Settings of `[Peer]` sections.
const OF_PEER: [&str; 5] =
    ["PublicKey", "PresharedKey", "AllowedIPs", "Endpoint", "PersistentKeepalive"];
/// Settings that may be there several times; of others the last one counts.
const LISTS: [&str; 7] = ["Address", "DNS", "AllowedIPs", "PreUp", "PostUp", "PreDown", "PostDown"];

/// Similarity from which on a setting is taken for a misspelt one (0 to 1).
const SIMILAR: f64 = 0.75;

/// Reads a file. The configuration is complete unless there is an error among the problems. These
/// are in the order of the file.
pub fn read(text: &str) -> (Config, Vec<Problem>) {
    let mut reader = Reader::default();
    let without_mark = text.strip_prefix('\u{feff}');
    if without_mark.is_some() {
        let text = "the file begins with a byte order mark: save it as UTF-8 without one";
        reader.error(Place { line: 1, column: 1 }, text);
    }
    for line in lines(without_mark.unwrap_or(text)) {
        reader.line(&line);
    }
    reader.end_section();
    let Reader { config, mut problems, .. } = reader;
    problems.sort_by_key(|problem| problem.place);
    (config, problems)
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Section {
    /// Before the first one.
    None,
    Interface,
    Peer,
    /// One of another name: its settings are not looked at.
    Unknown,
}

struct Reader {
    config: Config,
    problems: Vec<Problem>,
    section: Section,
    /// The settings of this section that count once, with their lines.
    seen: BTreeMap<&'static str, usize>,
    /// Whether this section has settings so far.
    has_settings: bool,
    /// Whether this section has a name.
    has_name: bool,
    /// The line of the first `[Interface]`.
    interface: Option<usize>,
}

impl Default for Reader {
    fn default() -> Reader {
        Reader {
            config: Config::default(),
            problems: Vec::new(),
            section: Section::None,
            seen: BTreeMap::new(),
            has_settings: false,
            has_name: false,
            interface: None,
        }
    }
}

impl Reader {
    fn error(&mut self, place: Place, text: impl Into<String>) {
        self.problems.push(Problem::error(place, text));
    }

    fn warn(&mut self, place: Place, text: impl Into<String>) {
        self.problems.push(Problem::warning(place, text));
    }

    fn line(&mut self, line: &Line<'_>) {
        match line.content {
            Content::Empty => {}
            Content::Heading(name) => self.heading(name),
            Content::Setting(name, value) => self.setting(name, value, line.comment),
            Content::Other(word) => self.error(
                word.place,
                "this is neither a [section] nor \"Setting = value\"; comments begin with #",
            ),
        }
        if let Some(comment) = line.comment {
            self.comment(line.content, comment);
        }
    }

    fn heading(&mut self, name: Word<'_>) {
        self.end_section();
        self.seen.clear();
        (self.has_settings, self.has_name) = (false, false);
        self.section = if name.text.eq_ignore_ascii_case("Interface") {
            match self.interface {
                Some(line) => self.warn(
                    name.place,
                    format!("the settings are added to the [Interface] section in line {line}"),
                ),
                None => self.interface = Some(name.place.line),
            }
            Section::Interface
        } else if name.text.eq_ignore_ascii_case("Peer") {
            self.config.peers.push(Peer { place: name.place, ..Peer::default() });
            Section::Peer
        } else {
            let quoted = quote(name.text);
            let text = format!("unknown section {quoted}: write [Interface] or [Peer]");
            self.error(name.place, text);
            Section::Unknown
        };
    }

    fn end_section(&mut self) {
        let Some(peer) = self.config.peers.last() else { return };
        if self.section == Section::Peer && !self.seen.contains_key("PublicKey") {
            let place = peer.place;
            self.error(place, "this peer has no PublicKey");
        }
    }

    fn setting(&mut self, name: Word<'_>, value: Word<'_>, comment: Option<Word<'_>>) {
        self.has_settings = true;
        let find = |list: &[&'static str]| {
            list.iter().copied().find(|known| known.eq_ignore_ascii_case(name.text))
        };
        let (own, other) = (find(&OF_INTERFACE), find(&OF_PEER));
        let known = match self.section {
            Section::Unknown => return,
            Section::None => {
                return self
                    .error(name.place, "this is before any section: write [Interface] first");
            }
            Section::Interface => own,
            Section::Peer => other,
        };
        let Some(known) = known else {
            let text = match (self.section, own.or(other)) {
                (Section::Peer, Some("Address")) => {
                    "Address belongs to [Interface]; the addresses of a peer are its AllowedIPs"
                        .into()
                }
                (Section::Peer, Some(known)) => format!("{known} belongs to [Interface]"),
                (_, Some(known)) => format!("{known} belongs to [Peer]"),
                (section, None) => unknown(name.text, section),
            };
            return self.error(name.place, text);
        };
        if !LISTS.contains(&known)
            && let Some(line) = self.seen.insert(known, name.place.line)
        {
            self.warn(name.place, format!("{known} is in line {line} too: this one counts"));
        }
        let is_hook = ["PreUp", "PostUp", "PreDown", "PostDown"].contains(&known);
        if is_hook && let Some(comment) = comment {
            let text = "the command ends here: # begins a comment, as in wg-quick, even in quotes";
            self.warn(comment.place, text);
        }
        let is_for_wg = ["PrivateKey", "ListenPort", "FwMark", "SaveConfig"].contains(&known)
            || self.section == Section::Peer;
        if value.text.is_empty() && !is_for_wg {
            return self.warn(name.place, format!("{known} has no value: it is ignored"));
        }
        if value.text.is_empty() {
            return self.error(name.place, format!("{known} has no value"));
        }
        let read = match self.section {
            Section::Interface => self.of_interface(known, value),
            _ => self.of_peer(known, value),
        };
        if let Err(text) = read {
            self.error(value.place, format!("{known}: {text}"));
        }
    }

    fn of_interface(&mut self, name: &str, word: Word<'_>) -> Result<(), String> {
        let interface = &mut self.config.interface;
        let hook = |at| Hook { at, command: word.text.to_owned(), place: word.place };
        match name {
            "PrivateKey" => {
                interface.private_key = Some(
                    value::key(word.text)
                        .map_err(|error| format!("{error}; wg-bounce genkey makes one"))?,
                )
            }
            "ListenPort" => {
                let value = value::number(word.text, "from 0 to 65535")?;
                interface.listen_port = Some(Placed { value, place: word.place });
            }
            "FwMark" => interface.fwmark = Some(value::fwmark(word.text)?),
            "Address" => {
                let networks = self.networks(name, word);
                self.config.interface.addresses.extend(networks);
            }
            "DNS" => {
                for word in word.split(&[',', ' ', '\t']) {
                    match word.text.parse::<IpAddr>() {
                        Ok(address) => interface.dns.push(address),
                        Err(_) => interface.search_domains.push(word.text.to_owned()),
                    }
                }
            }
            "MTU" => interface.mtu = Some(value::mtu(word.text)?),
            "Table" => interface.table = value::table(word.text)?,
            "PreUp" => interface.hooks.push(hook(HookTime::PreUp)),
            "PostUp" => interface.hooks.push(hook(HookTime::PostUp)),
            "PreDown" => interface.hooks.push(hook(HookTime::PreDown)),
            "PostDown" => interface.hooks.push(hook(HookTime::PostDown)),
            _ => interface.save = value::boolean(word.text)?,
        }
        Ok(())
    }

    fn of_peer(&mut self, name: &str, word: Word<'_>) -> Result<(), String> {
        let networks = match name {
            "AllowedIPs" => self.networks(name, word),
            _ => Vec::new(),
        };
        let Some(peer) = self.config.peers.last_mut() else { return Ok(()) };
        match name {
            "PublicKey" => peer.public_key = *value::key(word.text)?,
            "PresharedKey" => {
                peer.preshared_key = Some(
                    value::key(word.text)
                        .map_err(|error| format!("{error}; wg-bounce genpsk makes one"))?,
                )
            }
            "AllowedIPs" => peer
                .allowed_ips
                .extend(networks.into_iter().map(|one| Placed { value: one.value.trunc(), ..one })),
            "Endpoint" => peer.endpoint = Some(value::endpoint(word.text)?),
            _ => peer.persistent_keepalive = Some(value::keepalive(word.text)?),
        }
        Ok(())
    }

    /// The networks in a list. An error does not hide others in it.
    fn networks(&mut self, name: &str, list: Word<'_>) -> Vec<Placed<ipnet::IpNet>> {
        let mut networks = Vec::new();
        // wg-quick takes spaces for commas, and wg(8) leaves them out.
        let separators: &[char] = match name {
            "AllowedIPs" => &[','],
            _ => &[',', ' ', '\t'],
        };
        if name == "AllowedIPs" && list.text.split(',').any(|part| part.trim().is_empty()) {
            self.error(list.place, "AllowedIPs: an address is missing before or after a comma");
        }
        for word in list.split(separators) {
            match value::network(word.text) {
                Ok(value) if name == "AllowedIPs" && value != value.trunc() => {
                    let text = format!("AllowedIPs: {value} means {}", value.trunc());
                    self.warn(word.place, text);
                    networks.push(Placed { value, place: word.place });
                }
                Ok(value) => networks.push(Placed { value, place: word.place }),
                Err(text) => self.error(word.place, format!("{name}: {text}")),
            }
        }
        networks
    }

    fn comment(&mut self, content: Content<'_>, comment: Word<'_>) {
        if let Some((word, option)) = comment.split_once(':')
            && word.text.eq_ignore_ascii_case("wg-bounce")
        {
            return self.option(option);
        }
        let name = match (content, comment.split_once('=')) {
            (Content::Heading(_), _) => Some(comment.text),
            (Content::Empty, Some((name, value)))
                if ["Name", "friendly_name"]
                    .iter()
                    .any(|known| known.eq_ignore_ascii_case(name.text)) =>
            {
                Some(value.text)
            }
            _ => None,
        };
        let Some(name) = name.filter(|name| !name.is_empty()).map(str::to_owned) else { return };
        // It may be meant for the section below.
        if self.has_settings || matches!(self.section, Section::None | Section::Unknown) {
            let text = "this names nothing: a name stands below its heading, before any setting";
            return self.warn(comment.place, text);
        }
        if std::mem::replace(&mut self.has_name, true) {
            return;
        }
        match self.section {
            Section::Interface => self.config.interface.name = Some(name),
            Section::Peer => {
                let Some(peer) = self.config.peers.last_mut() else { return };
                peer.name = Some(name);
            }
            Section::None | Section::Unknown => {}
        }
    }

    /// `OPTION = VALUE`, after `wg-bounce:`.
    fn option(&mut self, option: Word<'_>) {
        match option.split_once('=') {
            Some((name, value)) if !name.text.is_empty() && !value.text.is_empty() => {
                self.config.options.push(DaemonOption {
                    name: name.text.to_owned(),
                    value: value.text.to_owned(),
                    place: name.place,
                });
            }
            _ => self.error(
                option.place,
                "an option is written as \"# wg-bounce: relay = direct\"; see wg-bounce --help",
            ),
        }
    }
}

/// The error about a setting that does not exist.
fn unknown(name: &str, section: Section) -> String {
    let (heading, list) = match section {
        Section::Peer => ("[Peer]", OF_PEER.as_slice()),
        _ => ("[Interface]", OF_INTERFACE.as_slice()),
    };
    let all = || OF_INTERFACE.iter().chain(&OF_PEER).copied();
    let likeness =
        |known: &str| strsim::jaro_winkler(&known.to_ascii_lowercase(), &name.to_ascii_lowercase());
    let best = all().max_by(|one, other| likeness(one).total_cmp(&likeness(other)));
    let quoted = quote(name);
    match best.filter(|known| likeness(known) > SIMILAR) {
        Some(known) => format!("unknown setting {quoted}: did you mean {known}?"),
        None => format!("unknown setting {quoted}: {heading} has {}", list.join(", ")),
    }
}
