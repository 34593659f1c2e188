//! `wg-bounce add-peer` and `remove-peer`: edit a configuration file and the running interface.

use std::collections::{HashMap, HashSet};
use std::fs::{self, File};
use std::io::{self, Write as _};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use base64ct::{Base64, Encoding as _};
use ipnet::IpNet;
use nix::net::if_::if_nametoindex;
use nix::unistd::syncfs;
use qrcode::QrCode;
use qrcode::render::{svg, unicode};
use wg_bounce_uapi::render::render_set;
use wg_bounce_uapi::types::{AllowedIp, Change, Errno, PeerChange, SecretKey, SetRequest};
use zeroize::Zeroizing;

use super::answer::{Answer, Failure};
use super::file::{ConfigFile, Editor, create_secret, is_interface};
use super::{client, keys};
use crate::config_file::model::{Config, Peer, Placed};
use crate::config_file::quote::{printable, quote};
use crate::config_file::{edit, free_address, read, state, value};
use crate::socket_paths;
use crate::status::client::name_peers;
use crate::uapi_server::socket::SocketFile;

/// Arguments of `add-peer`.
#[derive(clap::Args)]
pub(crate) struct AddArguments {
    /// Names of the new peers
    #[arg(value_name = "NAME", required = true, value_parser = parse_name)]
    names: Vec<String>,

    /// Configuration file of the hub, or the name of its interface
    #[arg(long = "on", value_name = "FILE|NAME")]
    file: String,

    /// Host name or address of the hub, as clients reach it; with a port if it is not ListenPort
    #[arg(long, value_name = "HOST[:PORT]", env = "WG_BOUNCE_ENDPOINT", hide_env_values = true)]
    endpoint: String,

    /// Destinations that the client reaches through the hub; 0.0.0.0/0,::/0 for all [default: the
    /// networks of the hub's addresses]
    #[arg(long, value_name = "PREFIX,…", value_delimiter = ',', value_parser = value::network)]
    allowed: Vec<IpNet>,

    /// DNS servers and search domains of the client
    #[arg(long, value_name = "ADDRESS,…", value_delimiter = ',', value_parser = parse_dns)]
    dns: Vec<String>,

    /// Public key of the client, which keeps its private key to itself [default: new keys]
    #[arg(long, value_name = "KEY", value_parser = parse_key)]
    public_key: Option<[u8; 32]>,

    /// Interval of the client's keepalives in seconds, 0 for none
    #[arg(long, value_name = "SECONDS", default_value_t = 25)]
    keepalive: u16,

    /// Write the client's configuration to a new file that only its owner can read
    #[arg(long, value_name = "FILE")]
    out: Option<PathBuf>,

    /// Write the configuration of each client to a new file NAME.conf in this directory; for
    /// several names
    #[arg(long, value_name = "DIRECTORY", conflicts_with_all = ["out", "qr", "svg", "public_key"])]
    out_dir: Option<PathBuf>,

    /// Print the client's configuration as a QR code
    #[arg(long)]
    qr: bool,

    /// Write the QR code to a new file, as SVG
    #[arg(long, value_name = "FILE")]
    svg: Option<PathBuf>,
}

/// Arguments of `remove-peer`.
#[derive(clap::Args)]
pub(crate) struct RemoveArguments {
    /// Name or public key of the peer
    #[arg(value_name = "NAME|KEY")]
    peer: String,

    /// Configuration file of the hub, or the name of its interface
    #[arg(long = "on", value_name = "FILE|NAME")]
    file: String,
}

/// The name of a peer as it can stand in a comment.
fn parse_name(name: &str) -> Result<String, String> {
    let is_plain = !name.contains(char::is_control) && name.trim() == name && !name.is_empty();
    match is_plain && value::key(name).is_err() {
        true => Ok(name.to_owned()),
        false => Err("a name is a word or several, on one line, and not a key".to_owned()),
    }
}

fn parse_key(text: &str) -> Result<[u8; 32], String> {
    value::key(text).map(|key| *key)
}

fn parse_dns(text: &str) -> Result<String, String> {
    match value::is_address(text) || value::is_name(text) {
        true => Ok(text.to_owned()),
        false => Err("neither an address nor a domain".to_owned()),
    }
}

/// A peer that is being added.
struct NewPeer<'a> {
    name: &'a str,
    own: OwnKey,
    public_key: [u8; 32],
    preshared_key: SecretKey,
    addresses: Vec<IpNet>,
}

/// Adds peers; returns the configuration of a single client, unless that goes to a file.
pub(super) fn add(arguments: &AddArguments) -> Result<Answer, Failure> {
    let AddArguments { names, out, out_dir, svg, qr, .. } = arguments;
    if names.len() > 1 && out_dir.is_none() {
        let reason = "several names need --out-dir, for the configuration of each".to_owned();
        return Err(Failure { code: 2, reason });
    }
    let editor = Editor::open(&arguments.file)?;
    let config = editor.file.config()?;
    let hub = hub_key(&config)?;
    let peers = new_peers(arguments, &config, &hub)?;
    let mut files = Vec::new();
    if let Some(directory) = out_dir {
        for peer in &peers {
            let path = directory.join(format!("{}.conf", peer.name));
            if !is_interface(peer.name) {
                let reason =
                    format!("{}: wg-quick takes no such file", quote(&path.to_string_lossy()));
                return Err(reason.into());
            }
            files.push(NewFile::write(path, &client_file(arguments, &config, &hub, peer)?)?);
        }
        sync(directory)?;
    }
    let client = client_file(arguments, &config, &hub, &peers[0])?;
    let code = || QrCode::new(&client).map_err(|error| format!("cannot make a QR code: {error}"));
    if let Some(path) = out {
        files.push(NewFile::write(path.clone(), &client)?);
        sync(path)?;
    }
    if let Some(path) = svg {
        let drawing = code()?.render::<svg::Color<'_>>().build();
        files.push(NewFile::write(path.clone(), &drawing)?);
        sync(path)?;
    }
    let text = match (qr, files.is_empty()) {
        (true, _) => code()?.render::<unicode::Dense1x2>().build() + "\n",
        (false, false) => String::new(),
        (false, true) => client.to_string(),
    };
    if !text.is_empty() {
        keys::warn_of_output();
    }
    let sections = peers.iter().map(|peer| section(peer).to_string()).collect::<Vec<_>>();
    let sections = Zeroizing::new(sections.join("\n"));
    let longer = Zeroizing::new(edit::with_section(&editor.file.text, &sections));
    editor.replace(&longer)?;
    files.into_iter().for_each(NewFile::keep);
    // The client's key is nowhere else.
    let code = match apply(&editor.file, &longer, peers.into_iter().map(change).collect()) {
        Ok(()) => 0,
        Err(Failure { code, reason }) => {
            eprintln!("wg-bounce add-peer: {}", printable(&reason));
            code
        }
    };
    Ok(Answer { text, code })
}

/// The peers to be added, with keys and addresses.
fn new_peers<'a>(
    arguments: &'a AddArguments,
    config: &Config,
    hub: &[u8; 32],
) -> Result<Vec<NewPeer<'a>>, Failure> {
    let known = config.peers.iter().filter_map(|peer| Some((peer.name.as_deref()?, peer)));
    let known: HashMap<&str, &Peer> = known.collect();
    let mut names = HashSet::new();
    let networks = networks_for_peers(config)?;
    let mut free: Vec<_> =
        networks.iter().map(|one| (one, free_address::free(config, *one))).collect();
    let mut peers = Vec::new();
    for name in &arguments.names {
        if let Some(peer) = known.get(name.as_str()) {
            let line = peer.place.line;
            return Err(format!("line {line} has a peer {name} already: remove it first").into());
        }
        if !names.insert(name) {
            return Err(format!("two new peers are called {name}").into());
        }
        let next = free.iter_mut().map(|(network, free)| {
            free.next().ok_or_else(|| Failure::from(format!("no address of {network} is free")))
        });
        let addresses = next.collect::<Result<_, _>>()?;
        let own = match &arguments.public_key {
            Some(key) => OwnKey::Public(*key),
            None => OwnKey::Private(keys::new_private()?),
        };
        let public_key = own.public();
        let is_same = |peer: &&Peer| peer.public_key == public_key;
        // A new key is not known yet.
        if arguments.public_key.is_some()
            && let Some(peer) = config.peers.iter().find(is_same)
        {
            return Err(format!("this public key is of {} already", peer.title()).into());
        }
        if public_key == *hub {
            return Err("this public key is that of the hub itself".to_owned().into());
        }
        let preshared_key = keys::random()?;
        peers.push(NewPeer { name, own, public_key, preshared_key, addresses });
    }
    Ok(peers)
}

/// The section of a peer in the hub's file.
fn section(peer: &NewPeer<'_>) -> Zeroizing<String> {
    Zeroizing::new(format!(
        "[Peer]\n# Name = {}\nPublicKey = {}\nPresharedKey = {}\nAllowedIPs = {}\n",
        peer.name,
        Base64::encode_string(&peer.public_key),
        Base64::encode_string(peer.preshared_key.as_slice()),
        join(&peer.addresses),
    ))
}

fn change(peer: NewPeer<'_>) -> Change {
    let mut change = PeerChange::new(peer.public_key);
    change.preshared_key = Some(peer.preshared_key);
    change.replace_allowed_ips = true;
    let allowed = peer.addresses.iter().map(|prefix| AllowedIp { prefix: *prefix, remove: false });
    change.allowed_ips = allowed.collect();
    Change::Peer(change)
}

fn join(list: &[IpNet]) -> String {
    list.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ")
}

/// Removes a peer.
pub(super) fn remove(arguments: &RemoveArguments) -> Result<String, Failure> {
    let editor = Editor::open(&arguments.file)?;
    let config = editor.file.config()?;
    let key = value::key(&arguments.peer).ok();
    let is_meant = |peer: &&Peer| match &key {
        Some(key) => peer.public_key == **key,
        None => peer.name.as_ref() == Some(&arguments.peer),
    };
    let found: Vec<&Peer> = config.peers.iter().filter(is_meant).collect();
    let path = editor.file.path.display();
    let Some(peer) = found.first() else {
        return Err(format!("{path}: no such peer: {}", quote(&arguments.peer)).into());
    };
    // Several sections of one key are one peer.
    if found.iter().any(|other| other.public_key != peer.public_key) {
        let (count, name) = (found.len(), quote(&arguments.peer));
        return Err(format!("{path}: {count} peers are called {name}: give a public key").into());
    }
    let mut text = editor.file.text.clone();
    let sections = config.peers.iter().filter(|other| other.public_key == peer.public_key);
    for section in sections.rev() {
        text = Zeroizing::new(edit::without_section(&text, section.place));
    }
    editor.replace(&text)?;
    let mut change = PeerChange::new(peer.public_key);
    change.remove = true;
    apply(&editor.file, &text, vec![Change::Peer(change)])?;
    Ok(String::new())
}

/// The networks that peers have addresses of.
fn networks_for_peers(config: &Config) -> Result<Vec<IpNet>, Failure> {
    let mut networks = networks(config);
    networks.retain(|one| one.prefix_len() < one.max_prefix_len());
    if networks.is_empty() {
        let text = "[Interface] has no network in Address to take addresses from: as 10.7.0.1/24";
        return Err(text.to_owned().into());
    }
    Ok(networks)
}

/// The networks of the hub's addresses, in their order, without those within others.
fn networks(config: &Config) -> Vec<IpNet> {
    let all: Vec<IpNet> = config.interface.addresses.iter().map(|one| one.value.trunc()).collect();
    let is_first = |(at, one): &(usize, &IpNet)| {
        let is_around = |(other, outer): (usize, &IpNet)| {
            outer.contains(*one) && (outer != *one || other < *at)
        };
        !all.iter().enumerate().any(is_around)
    };
    all.iter().enumerate().filter(is_first).map(|(_, one)| *one).collect()
}

/// The key pair of a client, as far as it is known.
enum OwnKey {
    Private(SecretKey),
    Public([u8; 32]),
}

impl OwnKey {
    fn public(&self) -> [u8; 32] {
        match self {
            OwnKey::Private(key) => keys::public_of(key),
            OwnKey::Public(key) => *key,
        }
    }
}

/// The public key of the hub.
fn hub_key(config: &Config) -> Result<[u8; 32], Failure> {
    match &config.interface.private_key {
        Some(key) => Ok(keys::public_of(key)),
        None => {
            let text = "[Interface] has no PrivateKey, so clients cannot know its public key";
            Err(text.to_owned().into())
        }
    }
}

/// The configuration file of a client.
fn client_file(
    arguments: &AddArguments,
    config: &Config,
    hub: &[u8; 32],
    peer: &NewPeer<'_>,
) -> Result<Zeroizing<String>, Failure> {
    let endpoint = match config.interface.listen_port {
        Some(Placed { value: port @ 1.., .. }) => with_port(&arguments.endpoint, port),
        _ => arguments.endpoint.clone(),
    };
    value::endpoint(&endpoint).map_err(|error| format!("--endpoint: {error}"))?;
    let networks: Vec<IpNet> = match arguments.allowed.is_empty() {
        true => networks(config),
        false => arguments.allowed.iter().map(IpNet::trunc).collect(),
    };
    let private = match &peer.own {
        OwnKey::Private(key) => format!("PrivateKey = {}\n", Base64::encode_string(key.as_slice())),
        OwnKey::Public(_) => "# PrivateKey = the one that the public key was made of\n".to_owned(),
    };
    let dns = match arguments.dns.is_empty() {
        true => String::new(),
        false => format!("DNS = {}\n", arguments.dns.join(", ")),
    };
    let keepalive = match arguments.keepalive {
        0 => String::new(),
        seconds => format!("PersistentKeepalive = {seconds}\n"),
    };
    let hub = Base64::encode_string(hub);
    let preshared_key = Base64::encode_string(peer.preshared_key.as_slice());
    Ok(Zeroizing::new(format!(
        "[Interface]\n# Name = {}\n{private}Address = {}\n{dns}\n[Peer]\nPublicKey = {hub}\n\
         PresharedKey = {preshared_key}\nAllowedIPs = {}\nEndpoint = {endpoint}\n{keepalive}",
        peer.name,
        join(&peer.addresses),
        join(&networks),
    )))
}

/// An endpoint with this port, unless it has one.
fn with_port(endpoint: &str, port: u16) -> String {
    match endpoint.parse() {
        Ok(address) => SocketAddr::new(address, port).to_string(),
        Err(_) if endpoint.ends_with(']') => format!("{endpoint}:{port}"),
        Err(_) if endpoint.contains(':') => endpoint.to_owned(),
        Err(_) => format!("{endpoint}:{port}"),
    }
}

/// A file that was created; removed on drop unless it is kept.
struct NewFile(Option<PathBuf>);

impl NewFile {
    fn write(path: PathBuf, text: &str) -> Result<NewFile, Failure> {
        let failed = |error| format!("{}: {error}", path.display());
        let mut file = create_secret(&path).map_err(failed)?;
        let created = NewFile(Some(path.clone()));
        file.write_all(text.as_bytes()).map_err(failed)?;
        Ok(created)
    }

    fn keep(mut self) {
        self.0 = None;
    }
}

impl Drop for NewFile {
    fn drop(&mut self) {
        if let Some(path) = &self.0 {
            // It may be gone already.
            let _ = fs::remove_file(path);
        }
    }
}

/// Waits until everything on the file system of a file is on disk.
fn sync(path: &Path) -> Result<(), Failure> {
    let failed = |error: io::Error| format!("{}: {error}", path.display());
    let file = File::open(path).map_err(failed)?;
    syncfs(&file).map_err(|errno| failed(errno.into()))?;
    Ok(())
}

/// Changes the running interface; does nothing if it does not run.
fn apply(file: &ConfigFile, text: &str, changes: Vec<Change>) -> Result<(), Failure> {
    let interface = &file.interface;
    let socket = SocketFile::path(&socket_paths::uapi(), interface);
    let request = SetRequest { changes, rejected: None };
    let is_absent = |error: &io::Error| {
        [io::ErrorKind::NotFound, io::ErrorKind::ConnectionRefused].contains(&error.kind())
    };
    let is_denied = |error: &io::Error| error.kind() == io::ErrorKind::PermissionDenied;
    let has_interface = if_nametoindex(interface.as_str()).is_ok();
    let reason = match client::ask(&socket, &render_set(&request)) {
        Ok(reply) if reply.errno == Errno::OK => {
            let (config, _) = read::read(text);
            // Daemons of others have no names.
            let _ = name_peers(interface, &state::peers(&config));
            return Ok(());
        }
        Ok(reply) => format!("errno {}", reply.errno.0),
        Err(error) if (is_absent(&error) || is_denied(&error)) && !has_interface => return Ok(()),
        Err(error) if is_absent(&error) => "wg-bounce does not run it".to_owned(),
        Err(error) => error.to_string(),
    };
    let path = file.path.display();
    Err(format!(
        "the file is changed, but the running interface {interface} is not: {reason}; try \
         wg-bounce strip {path} | wg syncconf {interface} /dev/stdin"
    )
    .into())
}
