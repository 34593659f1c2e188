//! `wg-bounce check`: the problems of a configuration file, and of this host with it.

use std::fs;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket};

use clap::CommandFactory as _;
use nix::net::if_::if_nametoindex;
use wg_bounce_sys::Family;

use super::answer::{Answer, Failure};
use super::file::ConfigFile;
use super::keys;
use crate::config_file::model::{Config, Placed};
use crate::config_file::problem::{Problem, Severity};
use crate::config_file::quote::quote;
use crate::config_file::{overlaps, read};
use crate::options::Options;
use crate::socket_paths;
use crate::uapi_server::socket::SocketFile;

/// Arguments of the command.
#[derive(clap::Args)]
pub(crate) struct Arguments {
    /// Configuration file, or the name of an interface: /etc/wireguard/NAME.conf
    #[arg(value_name = "FILE|NAME")]
    file: String,
}

/// A line for each problem, in the form of compilers, and a summary.
pub(super) fn run(arguments: &Arguments) -> Result<Answer, Failure> {
    let file = ConfigFile::read(&arguments.file)?;
    let (config, mut problems) = read::read(&file.text);
    overlaps::check(&config, &mut problems);
    check_options(&config, &mut problems);
    check_keys(&config, &mut problems);
    check_saving(&config, &mut problems);
    check_permissions(&file, &config, &mut problems);
    check_host(&file.interface, &config, &mut problems);
    problems.sort_by_key(|problem| problem.place);
    let path = file.path.display();
    let mut text: String = problems.iter().map(|problem| format!("{path}:{problem}\n")).collect();
    let count = |severity| problems.iter().filter(|one| one.severity == severity).count();
    let (errors, warnings) = (count(Severity::Error), count(Severity::Warning));
    let peers = config.peers.len();
    let counted =
        |count: usize, what: &str| format!("{count} {what}{}", if count == 1 { "" } else { "s" });
    let counts = [(peers, "peer"), (errors, "error"), (warnings, "warning")];
    let counts = counts.map(|(count, what)| counted(count, what)).join(", ");
    text += &format!("{path}: {counts}\n");
    Ok(Answer { text, code: u8::from(errors > 0) })
}

/// Adds what is wrong with options of wg-bounce.
pub(super) fn check_options(config: &Config, problems: &mut Vec<Problem>) {
    for option in &config.options {
        if let Err(text) = check_option(&option.name, &option.value) {
            problems.push(Problem::error(option.place, text));
        }
    }
}

/// Options of the daemon that `wg-bounce up` takes from settings of the file.
pub(super) const OF_FILE: [(&str, &str); 2] = [("address", "Address"), ("mtu", "MTU")];

/// Checks an option of wg-bounce in a configuration file. Fails if it is unknown or has a wrong
/// value.
fn check_option(name: &str, value: &str) -> Result<(), String> {
    if name == "socket-dir" {
        return Err("socket-dir is not for a file: other commands need it before they have one; \
                    set WG_BOUNCE_SOCKET_DIR"
            .to_owned());
    }
    if let Some((_, setting)) = OF_FILE.iter().find(|(option, _)| *option == name) {
        return Err(format!("{name} is {setting} = … in [Interface]"));
    }
    let command = Options::command();
    let is_named = |one: &&clap::Arg| one.get_long() == Some(name) && one.get_env().is_some();
    let Some(argument) = command.get_arguments().find(is_named) else {
        return Err(format!("unknown option {}: see wg-bounce --help", quote(name)));
    };
    if !argument.get_action().takes_values() {
        let is_boolean = ["true", "false"].contains(&value);
        return if is_boolean { Ok(()) } else { Err(format!("{name} is true or false")) };
    }
    let parsed = command.try_get_matches_from(["wg-bounce", "wg0", &format!("--{name}={value}")]);
    parsed.map(drop).map_err(|error| {
        let text = error.to_string();
        let lines = text.lines().map(str::trim).take_while(|line| !line.is_empty());
        let text = lines.collect::<Vec<_>>().join(" ");
        text.trim_start_matches("error: ").to_owned()
    })
}

fn check_keys(config: &Config, problems: &mut Vec<Problem>) {
    let Some(key) = &config.interface.private_key else {
        let text = "[Interface] has no PrivateKey: without one, no peer can connect; wg-bounce \
                    genkey makes one";
        return problems.push(Problem::of_file(Severity::Warning, text));
    };
    let own = keys::public_of(key);
    for peer in config.peers.iter().filter(|peer| peer.public_key == own) {
        let text = "the PublicKey of this peer is that of this host itself: the peer is ignored";
        problems.push(Problem::warning(peer.place, text));
    }
}

/// Adds what the tools that read the file do with it.
fn check_saving(config: &Config, problems: &mut Vec<Problem>) {
    if config.interface.save && config.peers.iter().any(|peer| peer.name.is_some()) {
        let text = "SaveConfig is true: wg-quick rewrites this file when the interface goes down, \
                    without the peers' names; wg-bounce up keeps them";
        problems.push(Problem::of_file(Severity::Warning, text));
    }
}

fn check_permissions(file: &ConfigFile, config: &Config, problems: &mut Vec<Problem>) {
    let path = file.path.display();
    if file.mode() & 0o077 != 0 {
        let text = format!("others may read the keys in this file: chmod 600 {path}");
        problems.push(Problem::of_file(Severity::Warning, text));
    }
    if let Some(hook) = config.interface.hooks.first().filter(|_| file.can_others_write()) {
        let text = format!(
            "others can write to this file or its directory, and so run commands as root: chown \
             root {path}; chmod 600 {path}"
        );
        problems.push(Problem::warning(hook.place, text));
    }
}

fn check_host(interface: &str, config: &Config, problems: &mut Vec<Problem>) {
    // Somebody may be using the port already: this very interface.
    if let Some(Placed { value: port @ 1.., place }) = config.interface.listen_port
        && if_nametoindex(interface).is_err()
        && !SocketFile::path(&socket_paths::uapi(), interface).exists()
        && is_port_in_use(port)
    {
        let text = format!("UDP port {port} is in use on this host: see ss -lunp sport = {port}");
        problems.push(Problem::warning(place, text));
    }
    let hooks = &config.interface.hooks;
    let has_tun = !config.options.iter().any(|one| one.name == "tun" && one.value == "off");
    if !has_tun
        || config.peers.len() < 2
        || hooks.iter().any(|hook| hook.command.contains("forward"))
    {
        return;
    }
    for (family, name) in
        [(Family::V4, "net.ipv4.ip_forward"), (Family::V6, "net.ipv6.conf.all.forwarding")]
    {
        let prefixes = config.peers.iter().flat_map(|peer| &peer.allowed_ips);
        let mut families = prefixes.map(|prefix| Family::of(prefix.value.addr()));
        let setting = fs::read_to_string(format!("/proc/sys/{}", name.replace('.', "/")));
        if families.any(|one| one == family) && setting.is_ok_and(|value| value.trim() == "0") {
            let text = format!(
                "nothing is forwarded between the peers while {name} is 0: sysctl -w {name}=1, \
                 and a line in /etc/sysctl.d"
            );
            problems.push(Problem::of_file(Severity::Warning, text));
        }
    }
}

/// Whether another socket has this UDP port.
fn is_port_in_use(port: u16) -> bool {
    let any = [IpAddr::from(Ipv4Addr::UNSPECIFIED), IpAddr::from(Ipv6Addr::UNSPECIFIED)];
    any.into_iter().any(|address| {
        let bound = UdpSocket::bind(SocketAddr::new(address, port));
        bound.is_err_and(|error| error.kind() == io::ErrorKind::AddrInUse)
    })
}
